package apppassword

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// Load reads the registry and the keychain items of its records. Items that
// are already held are kept. An item that cannot be read is no error: it is
// logged, and asked for again when somebody signs in. An error of the registry
// leaves what was held before.
func (v *Verifier) Load(ctx context.Context) error {
	// The file is looked at before it is read: a change in between is seen
	// by the next look.
	seen, err := os.Stat(v.Registry.Path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at the registry: %w", err)
	}
	s, err := v.Registry.Load()
	if err != nil {
		return err
	}
	v.mu.Lock()
	old := v.byID // as it is now: a sign-in may have filled in what was missing
	byID := make(map[string]*held, len(s.AppPasswords))
	missing := map[string]bool{}
	hold := func(h *held) {
		if v.only != "" && h.rec.ID != v.only {
			return
		}
		rec, gone := h.rec, !h.rec.Revoked.IsZero() || h.replaced != nil && !h.replaced.Ended.IsZero()
		if o := old[rec.ID]; o != nil && (o.rec.Revision() == rec.Revision() || gone) {
			h.secrets = o.secrets
		}
		if h.Password.IsZero() && !gone {
			missing[rec.ID] = true
		}
		byID[rec.ID] = h
	}
	for _, rec := range s.AppPasswords {
		hold(&held{rec: rec})
		if rec.Previous != nil {
			hold(&held{rec: rec.previous(), replaced: rec.Previous})
		}
	}
	signIns := make(map[string]SignIn, len(s.SignIns))
	for _, si := range s.SignIns {
		signIns[si.ID] = si
	}
	if v.Tokens != nil {
		for id, h := range old {
			if byID[id] == nil && !h.rec.Local() { // others may stand on the same sign-in or certificate
				v.Tokens.Forget(secretKey(h.rec))
			}
		}
		for id, si := range v.signIns {
			if signInKey(signIns[id]) != signInKey(si) {
				v.Tokens.Forget(signInKey(si))
			}
		}
	}
	v.seen, v.byID, v.signIns, v.missing, v.lastTry = seen, byID, signIns, missing, time.Time{}
	v.loads++
	v.index()
	v.mu.Unlock()
	v.loadMissing(ctx)
	return nil
}

// index makes byHash anew. The caller holds the lock.
func (v *Verifier) index() {
	v.byHash = make(map[[sha256.Size]byte]*held, len(v.byID))
	for _, h := range v.byID {
		if p := Normalise(h.Password); !p.IsZero() {
			v.byHash[sha256.Sum256([]byte(p.Reveal()))] = h
		}
	}
}

// loadMissing asks the keychain for the items not held yet.
func (v *Verifier) loadMissing(ctx context.Context) {
	v.tryItems.Lock()
	defer v.tryItems.Unlock()
	v.mu.Lock()
	if time.Since(v.lastTry) < retryItems {
		v.mu.Unlock()
		return
	}
	loads := v.loads
	var recs []Record
	for id := range v.missing {
		recs = append(recs, v.byID[id].rec)
	}
	v.mu.Unlock()
	down := map[string]bool{} // keychains that answer nobody
	for _, rec := range recs {
		if down[rec.Keychain] {
			continue
		}
		s, err := v.load(ctx, rec)
		if err != nil {
			v.log().Error("cannot read an app password from the keychain", "app_password", rec.Name, "id", rec.ID, "error", err)
			if errors.Is(err, secret.ErrNotFound) {
				// Asking again brings nothing back.
				v.mu.Lock()
				delete(v.missing, rec.ID)
				v.mu.Unlock()
			}
			if _, ok := errors.AsType[*secret.UnavailableError](err); ok {
				down[rec.Keychain] = true
			}
			continue
		}
		v.mu.Lock()
		if h := v.byID[rec.ID]; h != nil {
			v.byID[rec.ID] = &held{rec: h.rec, secrets: s, replaced: h.replaced}
			delete(v.missing, rec.ID)
		}
		v.mu.Unlock()
	}
	v.mu.Lock()
	v.index()
	if v.loads == loads { // else there are others to ask for
		v.lastTry = time.Now()
	}
	v.mu.Unlock()
}

func (v *Verifier) load(ctx context.Context, rec Record) (secrets, error) {
	k, err := v.Keychains(rec.Keychain)
	if err != nil {
		return secrets{}, err
	}
	return loadSecrets(ctx, k, rec.ID)
}

func (v *Verifier) log() *slog.Logger {
	if v.Log != nil {
		return v.Log
	}
	return slog.New(slog.DiscardHandler)
}

// Watch loads the registry anew whenever it changes and then calls changed,
// until ctx ends. A registry that cannot be read is logged once; what was held
// before stays in force.
func (v *Verifier) Watch(ctx context.Context, changed func()) {
	t := time.NewTicker(watchInterval)
	defer t.Stop()
	var failed string
	told := 0 // changes between Load and Watch count too
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if v.stale() {
			if err := v.Load(ctx); err != nil {
				if failed != err.Error() {
					failed = err.Error()
					v.log().Error("the registry has changed but cannot be read; the app passwords read before stay in force", "error", err)
				}
				continue
			}
			failed = ""
		}
		// A sign-in may have loaded it first.
		if now := v.loaded(); now != told {
			told = now
			changed()
		}
	}
}

func (v *Verifier) loaded() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.loads
}

func (v *Verifier) stale() bool {
	now, err := os.Stat(v.Registry.Path())
	v.mu.RLock()
	defer v.mu.RUnlock()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return v.seen != nil
	case err != nil:
		return false
	}
	return differs(now, v.seen)
}

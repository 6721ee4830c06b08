package apppassword

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

// Importer puts app passwords of another machine onto this one. It needs no
// profile: a record names tenant, application and cloud itself.
type Importer struct {
	Registry  Registry
	Keychains func(kind string) (secret.Keychain, error)
	Keychain  string // the kind that keeps what comes: system or file
	// Cloud tells whether this machine's configuration has the cloud of that
	// name, by its error.
	Cloud func(name string) (config.Cloud, error)
	// Entra is asked about what an app password stands on beside its own secret,
	// and that is new here: a parcel may come from anybody, and says of a sign-in
	// or certificate what its maker likes.
	Entra func(cloud config.Cloud, tenant string) (*entra.Client, error)
	// CertificateFile is the PEM file that a profile here names for the
	// application; empty: none does.
	CertificateFile func(clientID string) string
	Now             func() time.Time     // nil is time.Now
	Warn            func(string, ...any) // may be nil

	proven map[string]bool // the sign-ins of the parcel that Entra has taken, by id
}

// Arrival is what became of one app password of a parcel.
type Arrival struct {
	Record Record // as it is here, or would have been
	Here   bool   // it was here already, and is the same
	Err    error  // why it was not taken: a [*MoveError], or the failure
}

// Import takes the app passwords of the parcel one by one, each in the way of
// create:
//
//	note → keychain → registry
//
// A kill leaves nothing that the registry does not know, and the same import can
// be run again. One that fails does not keep the others from being tried; it is
// undone. The error is of what concerns all of them: [ErrNoState], the registry,
// and a keychain that does not work.
func (im *Importer) Import(ctx context.Context, p Parcel) ([]Arrival, error) {
	if im.Registry.Dir == "" {
		return nil, ErrNoState
	}
	k, err := im.Keychains(im.Keychain)
	if err == nil {
		err = ProbeKeychain(ctx, k, "import")
	}
	if err != nil {
		return nil, fmt.Errorf("nothing was taken, since it could not be kept: %w", err)
	}
	if err := im.clearAway(ctx); err != nil {
		im.warn("%v", err)
	}
	im.proven = map[string]bool{}
	var all []Arrival
	for _, rec := range p.Records {
		a := Arrival{Record: rec}
		if a.Err = ctx.Err(); a.Err == nil {
			a = im.take(ctx, k, p, rec)
		}
		all = append(all, a)
	}
	return all, nil
}

func (im *Importer) warn(format string, args ...any) {
	if im.Warn != nil {
		im.Warn(format, args...)
	}
}

// manager is that of the record's profile, as far as the keychain and the registry
// go.
func (im *Importer) manager(profile, tenant, clientID string) *Manager {
	return &Manager{Profile: config.Profile{Name: profile, Tenant: tenant, ClientID: clientID}, Registry: im.Registry, Keychains: im.Keychains, Now: im.Now, Warn: im.Warn}
}

// clearAway deletes what imports that were killed have left, also under profiles
// that no command is run with here.
func (im *Importer) clearAway(ctx context.Context) error {
	s, err := im.Registry.Load()
	if err != nil {
		return err
	}
	var errs []error
	for _, note := range s.Pending {
		if !note.Moved {
			continue
		}
		m := im.manager(note.Profile, note.Tenant, note.ClientID)
		unlock, free, err := durable.TryLock(m.createLock())
		if err != nil || !free {
			continue // another import is at it
		}
		err = m.clearLocal(ctx, note)
		unlock()
		if err != nil {
			errs = append(errs, fmt.Errorf("clear away what is left of %q: %w", note.Name, err))
		}
	}
	return errors.Join(errs...)
}

// take takes one app password, while no create of its profile is running.
func (im *Importer) take(ctx context.Context, k secret.Keychain, p Parcel, rec Record) (a Arrival) {
	a = Arrival{Record: rec}
	m := im.manager(rec.Profile, rec.Tenant, rec.ClientID)
	cloud, err := im.Cloud(rec.Cloud)
	if err != nil {
		a.Err = &MoveError{Record: rec, Why: UnknownCloud, Table: p.Clouds[rec.Cloud]}
		return a
	}
	unlock, err := durable.Lock(ctx, m.createLock())
	if err != nil {
		a.Err = err
		return a
	}
	defer unlock()
	s, err := im.Registry.Load()
	if err != nil {
		a.Err = err
		return a
	}
	now := s.record(rec.ID)
	switch {
	case now != nil:
		a.Record = *now
		a.Here, a.Err = im.again(ctx, m, cloud, p, *now, rec)
		return a
	case s.holder(rec.ID) != nil:
		a.Err = &MoveError{Record: rec, Why: RotatedHere}
		return a
	}
	if a.Err = nameTaken(&s, rec); a.Err != nil {
		return a
	}
	t := taking{Importer: im, m: m, k: k, cloud: cloud, p: p, rec: rec}
	a.Err = t.run(ctx)
	a.Record = t.rec
	return a
}

func nameTaken(s *State, rec Record) error {
	if rec.Previous != nil && s.holder(rec.Previous.ID) != nil {
		return &MoveError{Record: rec, Why: RotatedThere}
	}
	for _, r := range s.AppPasswords {
		if r.ID != rec.ID && (sameApplication(r, rec) && sameName(r.Name, rec.Name) || slices.ContainsFunc(rec.ids(), r.is)) {
			return &MoveError{Record: rec, Why: NameIsTaken, Taken: r}
		}
	}
	return nil
}

// again looks at an app password that is here already. Where the keychain has lost
// it, it is put back; a sign-in that is newer than the one here takes its place.
func (im *Importer) again(ctx context.Context, m *Manager, cloud config.Cloud, p Parcel, here, rec Record) (same bool, err error) {
	if !here.Revoked.IsZero() {
		return false, &MoveError{Record: rec, Why: RevokedHere}
	}
	a, b := here, rec
	for _, r := range []*Record{&a, &b} { // what each machine has its own of
		r.Keychain, r.Certificate, r.Profile, r.Verified, r.Arrived = "", "", "", false, time.Time{}
	}
	if a.Revision() != b.Revision() {
		return false, &MoveError{Record: rec, Why: DiffersHere}
	}
	k, err := im.Keychains(here.Keychain)
	if err != nil {
		return false, err
	}
	var lost []string
	for _, id := range here.ids() {
		if _, packed := p.secrets[id]; !packed {
			continue // its rotation is over there, and not here
		}
		held, err := loadSecrets(ctx, k, id)
		switch {
		case errors.Is(err, secret.ErrNotFound):
			lost = append(lost, id)
		case err != nil:
			return false, err
		case !held.Password.Equal(p.secrets[id].Password) || !held.Backing.Equal(p.secrets[id].Backing):
			return false, &MoveError{Record: rec, Why: DiffersHere}
		}
	}
	newer := false
	if rec.Backing == BackingUser {
		if newer, err = im.keepSignIn(ctx, m, cloud, p.signIns[rec.SignIn], len(lost) > 0); err != nil {
			return false, err
		}
	}
	for _, id := range lost {
		if err := storeSecrets(ctx, k, id, p.secrets[id]); err != nil {
			return false, fmt.Errorf("put the app password into the keychain: %w", err)
		}
	}
	return len(lost) == 0 && !newer, nil
}

// taking is one app password on its way into keychain and registry.
type taking struct {
	*Importer
	m     *Manager
	k     secret.Keychain
	cloud config.Cloud
	p     Parcel
	rec   Record
}

func (t *taking) run(ctx context.Context) (err error) {
	t.rec.Keychain, t.rec.Arrived = t.Keychain, t.m.now().UTC().Truncate(time.Second)
	cert, err := t.certificate(ctx)
	if err != nil {
		return err
	}
	notes := movedNotes(t.rec, t.m.now())
	err = t.Registry.Update(ctx, func(s *State) error {
		s.forgetMoved(t.rec.ids()) // of one that has left this machine before
		for _, n := range notes {
			s.note(n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer cancel()
		for _, n := range notes {
			err = errors.Join(err, t.m.clearLocal(ctx, n))
		}
		t.m.sweepSignIns(ctx)
	}()
	if !cert.IsZero() {
		if err := StoreCertificate(ctx, t.k, t.rec.ClientID, cert); err != nil {
			return err
		}
	}
	if t.rec.Backing == BackingUser {
		if _, err := t.keepSignIn(ctx, t.m, t.cloud, t.p.signIns[t.rec.SignIn], true); err != nil {
			return err
		}
	}
	for _, id := range t.rec.ids() {
		if err := storeSecrets(ctx, t.k, id, t.p.secrets[id]); err != nil {
			return fmt.Errorf("put the app password into the keychain: %w", err)
		}
	}
	return t.Registry.Update(ctx, func(s *State) error {
		if t.rec.SignIn != "" && s.signIn(t.rec.SignIn) == nil {
			return &SignInError{Profile: t.rec.Profile} // forgotten meanwhile
		}
		if err := nameTaken(s, t.rec); err != nil {
			return err
		}
		s.put(t.rec)
		s.forgetMoved(t.rec.ids())
		return nil
	})
}

// certificate finds what the record is to stand on here, and gives what has to be
// put into the keychain for that; zero: nothing.
func (t *taking) certificate(ctx context.Context) (entra.Certificate, error) {
	if t.rec.Backing != BackingCertificate {
		return entra.Certificate{}, nil
	}
	moved := t.p.certificates[certificatePlace(t.rec)]
	var file string
	if moved.pem.IsZero() {
		file = t.CertificateFile(t.rec.ClientID)
	}
	t.rec.Certificate = file
	here, err := LoadCertificate(ctx, t.k, t.rec.ClientID, file)
	missing := false
	if ce, ok := errors.AsType[*CertificateError](err); ok {
		missing = ce.Missing()
	}
	switch {
	case err == nil && moved.pem.IsZero() && digest(here) != moved.digest, missing && moved.pem.IsZero():
		return entra.Certificate{}, &MoveError{Record: t.rec, Why: NoCertificate}
	case err == nil && moved.pem.IsZero():
		return entra.Certificate{}, nil
	case err != nil && !missing:
		return entra.Certificate{}, err
	}
	cert, perr := entra.ParseCertificate(moved.pem)
	switch {
	case perr != nil:
		return entra.Certificate{}, &ParcelError{Problem: fmt.Sprintf("has a certificate that cannot be used: %v", perr)}
	case missing:
		return cert, t.prove(ctx, cert)
	case digest(here) != digest(cert):
		return entra.Certificate{}, &MoveError{Record: t.rec, Why: OtherCertificate}
	}
	return entra.Certificate{}, nil
}

// prove has Entra say that a certificate is the application's: once it is in the
// keychain, setup would add it.
func (t *taking) prove(ctx context.Context, cert entra.Certificate) error {
	if err := checkTime(cert, t.rec.ClientID, "", t.m.now()); err != nil {
		return err
	}
	c, err := t.Entra(t.cloud, t.rec.Tenant)
	if err != nil {
		return err
	}
	_, err = c.ClientAssertion(ctx, t.rec.ClientID, cert.Assertion(t.rec.CertificateAlg, t.m.now), exchangeScope(t.cloud))
	if ee, ok := errors.AsType[*entra.Error](err); ok && ee.Kind() == entra.Refused {
		return &MoveError{Record: t.rec, Why: CertificateRefused, Err: err}
	}
	return err
}

// keepSignIn keeps a sign-in that has come, unless the one of its id here is as
// new. Entra says whose it is, since a person who signs in here takes up what is
// theirs; and, where a password that has come is to stand on the one that is here,
// that the parcel has one of the same person: whoever has packed it knows no more
// of it than its id otherwise. Then registry → keychain → registry, as
// [Manager.KeepSignIn] does. Both machines may use it: a refresh token stays good
// when the other one gets the next.
func (im *Importer) keepSignIn(ctx context.Context, m *Manager, cloud config.Cloud, moved movedSignIn, stands bool) (newer bool, err error) {
	s, err := im.Registry.Load()
	if err != nil {
		return false, err
	}
	now := s.signIn(moved.ID)
	asNew := now != nil && !now.Since.Before(moved.Since)
	if asNew && (!stands || im.proven[moved.ID]) {
		return false, nil
	}
	differs := &MoveError{Record: Record{Name: cmp.Or(moved.Username, moved.ID)}, Why: DiffersHere}
	if now != nil && !strings.EqualFold(now.ClientID, moved.ClientID) {
		return false, differs
	}
	c, err := im.Entra(cloud, moved.Tenant)
	if err != nil {
		return false, err
	}
	tok, err := c.RefreshToken(ctx, moved.ClientID, moved.refresh, moved.scope(cloud))
	if needsSignIn(err) {
		err = &MoveError{Record: Record{Name: cmp.Or(moved.Username, moved.ID)}, Why: SignInEnded, Err: err}
	}
	if err != nil {
		return false, err
	}
	if asNew && (now.ObjectID == "" || !strings.EqualFold(now.ObjectID, tok.Identity.ObjectID)) {
		return false, differs
	}
	im.proven[moved.ID] = true
	if asNew {
		return false, nil
	}
	si := moved.SignIn
	si.Profiles, si.Former, si.Keychain, si.Since, si.Ended, si.Why = nil, "", im.Keychain, time.Time{}, time.Time{}, ""
	si.Username, si.ObjectID = tok.Identity.Username, tok.Identity.ObjectID
	err = im.Registry.Update(ctx, func(s *State) error {
		now := s.signIn(si.ID)
		switch {
		case now == nil:
			s.putSignIn(si)
		case now.ObjectID != "" && !strings.EqualFold(now.ObjectID, si.ObjectID):
			return differs
		default:
			si.Keychain, si.Former = now.Keychain, now.Former
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	store, err := newSignInStore(im.Registry, im.Keychains, si)
	if err != nil {
		return false, err
	}
	unlock, err := store.Lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	refresh := tok.Refresh
	if refresh.IsZero() {
		refresh = moved.refresh
	}
	if err := store.Save(ctx, refresh); err != nil {
		return false, fmt.Errorf("keep the sign-in: %w", err)
	}
	return true, im.Registry.Update(ctx, func(s *State) error {
		now := s.signIn(si.ID)
		if now == nil {
			return &SignInError{Profile: m.Profile.Name} // forgotten meanwhile
		}
		now.Since, now.Scopes, now.Tenant, now.Ended, now.Why = moved.Since, moved.Scopes, moved.Tenant, time.Time{}, ""
		return nil
	})
}

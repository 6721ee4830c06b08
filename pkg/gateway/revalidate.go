package gateway

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// revalidations is how many backing credentials are checked at once.
const revalidations = 8

// revalidate checks the credentials of the open sessions every so often, until
// ctx ends.
func (s *Server) revalidate(ctx context.Context) {
	tick := time.NewTicker(s.revalidateEvery())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.revalidateAll(ctx)
		}
	}
}

// revalidateAll asks once for each backing credential that open sessions
// stand on, several at a time, and closes the sessions of those refused.
func (s *Server) revalidateAll(ctx context.Context) {
	credentials := map[string]Grant{}
	for _, sess := range s.signedIn() {
		if sess.grant.expired() {
			sess.endExpired()
			continue
		}
		credentials[credentialOf(sess.grant)] = sess.grant
	}
	slots := make(chan struct{}, revalidations)
	var wg sync.WaitGroup
	defer wg.Wait()
	for key, grant := range credentials {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			s.revalidateOne(ctx, key, grant)
		})
	}
}

// credentialOf is what grants share that are revalidated together.
func credentialOf(g Grant) string {
	if g.Credential == "" {
		return g.Profile + "\x00" + g.ID
	}
	return g.Profile + "\x00" + g.Credential
}

func (s *Server) revalidateOne(ctx context.Context, key string, grant Grant) {
	asking, cancel := context.WithTimeout(ctx, s.upstreamTimeout())
	defer cancel()
	err := s.askBackend(asking, grant)
	r, refused := ends(err)
	if err == nil || ctx.Err() != nil {
		return
	}
	log := s.log().With("app_password", grant.Name, "id", grant.ID, "profile", grant.Profile, "cause", err)
	if !refused {
		log.Warn("cannot revalidate a backing credential for now; its sessions go on")
		return
	}
	log.Warn("a backing credential is no longer accepted; its sessions are closed")
	// Listed anew: some have signed in meanwhile.
	for _, sess := range s.signedIn() {
		if credentialOf(sess.grant) == key {
			sess.end(&ending{public: r.public(), cause: r})
		}
	}
}

// askBackend is Revalidate, with a panic made an error: it happens outside of
// any session, and must not end them all.
func (s *Server) askBackend(ctx context.Context, grant Grant) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log().Error("panic in a revalidation", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return s.Backend.Revalidate(ctx, grant)
}

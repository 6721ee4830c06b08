package gateway

import (
	"context"
	"sync"
	"time"
)

// revalidations is how many backing credentials are checked at once.
const revalidations = 16

// revalidate checks every so often each backing credential that open sessions
// stand on, once, until ctx ends. One whose check takes long keeps no other
// waiting.
func (s *Server) revalidate(ctx context.Context) {
	tick := time.NewTicker(s.revalidateEvery())
	defer tick.Stop()
	slots := make(chan struct{}, revalidations)
	var busy sync.Map
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for key, grant := range s.credentialsInUse() {
			if _, already := busy.LoadOrStore(key, true); already {
				continue
			}
			wg.Go(func() {
				defer busy.Delete(key)
				select {
				case slots <- struct{}{}:
					s.revalidateOne(ctx, key, grant)
					<-slots
				case <-ctx.Done():
				}
			})
		}
	}
}

// credentialsInUse gives one grant for each backing credential of the open
// sessions. It ends those that have expired meanwhile.
func (s *Server) credentialsInUse() map[string]Grant {
	grants := map[string]Grant{}
	for _, sess := range s.signedIn() {
		if sess.grant.expired() {
			sess.endExpired()
			continue
		}
		grants[credentialOf(sess.grant)] = sess.grant
	}
	return grants
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
	// A panic here is outside of any session, and must not end them all.
	err := guarded(s.log(), "a revalidation", func() error { return s.Backend.Revalidate(asking, grant) })
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
			sess.end(&ending{public: r.public(), reason: r.Reason, cause: r})
		}
	}
}

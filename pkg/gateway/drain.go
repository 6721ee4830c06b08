package gateway

import (
	"fmt"
	"sync"
	"time"
)

// drain lets what is under way finish, then ends all sessions, and waits for
// them. What is left after DrainTimeout is closed.
func (s *Server) drain(serving *sync.WaitGroup, endAll func()) error {
	finished := make(chan struct{})
	go func() {
		serving.Wait()
		close(finished)
	}()
	if s.finish(finished) {
		return nil
	}
	endAll()
	for range 2 {
		select {
		case <-finished:
			return nil
		case <-time.After(s.drainTimeout()):
		}
		s.mu.Lock()
		for sess := range s.sessions {
			_ = sess.client.raw.Close()
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("gateway: %d sessions did not end within %s", len(s.sessions), 2*s.drainTimeout())
}

// finishStep is how often finish looks whether a message has arrived.
const finishStep = 20 * time.Millisecond

// finish ends each session as soon as nothing is under way in it, and says
// whether all have ended within FinishTimeout.
func (s *Server) finish(finished <-chan struct{}) bool {
	limit := time.After(s.finishTimeout())
	step := time.NewTicker(finishStep)
	defer step.Stop()
	for {
		var busy bool
		for _, sess := range s.everybody() {
			if sess.relay != nil && sess.relay.busy() {
				busy = true
				continue
			}
			sess.end(nil) // as a shutdown
		}
		if !busy {
			return false // the farewells are left
		}
		select {
		case <-finished:
			return true
		case <-limit:
			return false
		case <-step.C:
		}
	}
}

// connected is a session, with its relay once it has signed in.
type connected struct {
	*session
	relay relay
}

// everybody lists all sessions. They are asked without mu, since a relay has a
// lock of its own, in which others may want mu.
func (s *Server) everybody() []connected {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []connected
	for sess, phase := range s.sessions {
		c := connected{session: sess}
		if phase == open {
			c.relay = sess.relay
		}
		list = append(list, c)
	}
	return list
}

package cli_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// manySessions are how many sessions run while the registry is replaced.
const manySessions = 500

// plainSession is a mail program on this machine, which needs no TLS.
type plainSession struct {
	conn net.Conn
	in   *bufio.Reader
}

// openPlain signs in. It may be called from any goroutine.
func openPlain(addr, password string) (*plainSession, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &plainSession{conn, bufio.NewReader(conn)}
	return s, s.do("a LOGIN alice@contoso.com " + password)
}

// do sends a command with the tag a, and wants an OK.
func (s *plainSession) do(command string) error {
	if err := s.conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.conn, "%s\r\n", command); err != nil {
		return err
	}
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("after %q: %w", line, err)
		}
		if strings.HasPrefix(line, "a OK") {
			return nil
		}
		if strings.HasPrefix(line, "a ") || strings.HasPrefix(line, "* BYE") {
			return fmt.Errorf("answered %q", line)
		}
	}
}

// TestRegistryIsReplacedUnderManySessions: other commands replace the registry
// again and again, and somebody breaks and mends it, while 500 sessions run.
// Only those end whose app password is revoked.
func TestRegistryIsReplacedUnderManySessions(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	stays, goes := strings.TrimSpace(m.run("create", "stays")), strings.TrimSpace(m.run("create", "goes"))
	_, l, addr := m.serve("")
	sessions := make([]*plainSession, manySessions)
	each := func(f func(i int) error) {
		t.Helper()
		var wg sync.WaitGroup
		slots := make(chan struct{}, 50)
		for i := range sessions {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				if err := f(i); err != nil {
					t.Errorf("session %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
	each(func(i int) (err error) {
		sessions[i], err = openPlain(addr, []string{stays, goes}[i%2])
		return err
	})
	t.Cleanup(func() {
		for _, s := range sessions {
			_ = s.conn.Close()
		}
	})
	for i := range 5 {
		m.run("create", fmt.Sprint("other", i), "--no-wait")
	}
	// Somebody breaks it, and mends it.
	path := filepath.Join(m.dir, "state", "registry.json")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	l.await(t, `the registry has changed but cannot be read`)
	each(func(i int) error { return sessions[i].do("a NOOP") })
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	m.run("revoke", "goes", "--yes")
	each(func(i int) error {
		err := sessions[i].do("a NOOP")
		if i%2 == 0 {
			return err
		}
		for end := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(end); err = sessions[i].do("a NOOP") {
			time.Sleep(50 * time.Millisecond)
		}
		if err == nil || !strings.Contains(err.Error(), "BYE o365pw: this app password was revoked") {
			return fmt.Errorf("a session of what was revoked: %v", err)
		}
		return nil
	})
}

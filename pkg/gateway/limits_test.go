package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// try signs in on a new connection over IMAP, and gives the answer and how
// long it took, but for the greeting.
func (r *rig) try(remote, user, password string) (answer string, took time.Duration) {
	r.t.Helper()
	conn := r.connect(remote)
	defer conn.Close()
	in := bufio.NewReader(conn)
	began := time.Now()
	_, _ = io.WriteString(conn, "a LOGIN "+user+" "+password+"\r\n")
	expectLine(r.t, in, "* OK")
	answer, err := in.ReadString('\n')
	if err != nil {
		r.t.Fatalf("%q: %v", answer, err)
	}
	return answer, time.Since(began)
}

// refusing is a backend that knows one password and takes no time.
func refusing(r *rig) {
	r.backend.token = nil
	r.server.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return nil, errors.New("no upstream in this test")
	}
}

func TestWrongPasswordsAreSlowedDown(t *testing.T) {
	bubble(t, refusing, func(t *testing.T, r *rig) {
		var total time.Duration
		var before time.Duration
		for i := range 12 {
			answer, took := r.try("127.0.0.1:1", goodUser, "wrong")
			if !strings.HasPrefix(answer, "a NO [AUTHENTICATIONFAILED]") {
				t.Fatalf("try %d: %s", i+1, answer)
			}
			switch {
			case i < freeFailures && took != 0:
				t.Errorf("try %d took %s", i+1, took)
			case i >= freeFailures && took < min(before, maxDelay):
				t.Errorf("try %d took %s, the one before %s", i+1, took, before)
			}
			before = took
			total += took
		}
		if total < time.Minute {
			t.Errorf("12 tries took only %s", total)
		}
		// The right one is not delayed, whoever else mistypes here.
		if answer, took := r.try("127.0.0.1:1", goodUser, goodPassword); took != 0 || !strings.Contains(answer, "UNAVAILABLE") {
			t.Errorf("the right password: %s, after %s", answer, took)
		}
		// By user name too, from wherever it comes.
		if _, took := r.try("198.51.100.7:1", strings.ToUpper(goodUser), "wrong"); took != 0 {
			t.Error("a clear-text try from another machine was delayed")
		}
		if wait := r.server.limits.failed(netip.MustParseAddr("198.51.100.8"), strings.ToUpper(goodUser)); wait < maxDelay {
			t.Errorf("another address, the same user name: %s", wait)
		}
		if wait := r.server.limits.failed(netip.MustParseAddr("198.51.100.9"), "somebody else"); wait != 0 {
			t.Errorf("another address, another user name: %s", wait)
		}
		// After a while it begins anew.
		time.Sleep(forgetAfter + maxDelay)
		if _, took := r.try("127.0.0.1:1", goodUser, "wrong"); took != 0 {
			t.Errorf("after %s: %s", forgetAfter, took)
		}
	})
}

// TestRightPasswordsAreNotDelayed: a program that tries an old password again
// and again, on many connections, keeps nobody else out.
func TestRightPasswordsAreNotDelayed(t *testing.T) {
	bubble(t, refusing, func(t *testing.T, r *rig) {
		const n = 200
		answers := make(chan time.Duration, n)
		for range n {
			go func() {
				_, took := r.try("127.0.0.1:2", goodUser, "old")
				answers <- took
			}()
		}
		time.Sleep(3 * time.Second) // greeting, and the first seconds of their delays
		if got := len(answers); got < freeFailures || got > freeFailures+2 {
			t.Errorf("%d of %d were answered at once", got, n)
		}
		if answer, took := r.try("127.0.0.1:3", goodUser, goodPassword); took > 100*time.Millisecond+r.server.silence() || !strings.Contains(answer, "UNAVAILABLE") {
			t.Errorf("the right password, at the same address: %s, after %s", answer, took)
		}
		for range n {
			if took := <-answers; took > maxDelay+10*time.Second {
				t.Errorf("a wrong one took %s", took)
			}
		}
	})
}

// TestLeavingDoesNotEndTheDelay: who hangs up and comes again is limited by
// the number of connections, which are held for as long as the delay.
func TestLeavingDoesNotEndTheDelay(t *testing.T) {
	bubble(t, func(r *rig) {
		refusing(r)
		r.server.MaxPendingPerAddress = 3
	}, func(t *testing.T, r *rig) {
		judged := 0
		for range 60 {
			raw := r.connect("198.51.100.7:1")
			conn := tls.Client(raw, r.trust)
			if conn.Handshake() == nil {
				_, _ = io.WriteString(conn, "a LOGIN "+goodUser+" wrong\r\n")
				synctest.Wait()
				judged++
			}
			_ = raw.Close()
			time.Sleep(time.Second)
		}
		if judged > 20 {
			t.Errorf("%d of 60 tries within a minute were judged", judged)
		}
		time.Sleep(maxDelay)
	})
}

func TestSourceOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::1": "::1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		if got := sourceOf(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s: %s", in, got)
		}
	}
	if got := sourceOf(netip.Addr{}); got.IsValid() {
		t.Errorf("no address: %s", got)
	}
}

// TestLimitsAreBounded: a flood of addresses and names is forgotten, not kept.
func TestLimitsAreBounded(t *testing.T) {
	var l limits
	for i := range 3 * maxSources {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		l.failed(addr, fmt.Sprint("user", i))
	}
	if len(l.sources) > maxSources+2 {
		t.Errorf("%d sources are kept", len(l.sources))
	}
}

// TestMaxPendingPerAddress: one address cannot take all places; this machine's
// own has no such limit.
func TestMaxPendingPerAddress(t *testing.T) {
	bubble(t, func(r *rig) { r.server.MaxPendingPerAddress = 2 }, func(t *testing.T, r *rig) {
		var open []net.Conn
		for range 2 {
			open = append(open, r.connect("198.51.100.7:1"))
		}
		expectEnd(t, r.connect("198.51.100.7:1"))
		for range 5 {
			open = append(open, r.connect("127.0.0.1:1"))
		}
		open = append(open, r.connect("198.51.100.8:1"))
		_ = open[0].Close()
		synctest.Wait()
		open = append(open[1:], r.connect("198.51.100.7:1"))
		time.Sleep(time.Second)
		for _, c := range open {
			expectLine(t, bufio.NewReader(c), "* OK")
			_ = c.Close()
		}
	})
}

func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q quota
		g := Grant{ID: "one", MaxPerHour: 2}
		reserve := func(want bool) time.Duration {
			t.Helper()
			wait, ok := q.reserve(g)
			if ok != want {
				t.Fatalf("reserve: %t, %s", ok, wait)
			}
			return wait
		}
		reserve(true)
		reserve(true)
		reserve(false) // others are under way
		q.release(g)
		q.count(g)
		time.Sleep(10 * time.Minute)
		reserve(true)
		q.count(g)
		if wait := reserve(false); wait != 50*time.Minute {
			t.Errorf("wait %s", wait)
		}
		if _, ok := q.reserve(Grant{ID: "two", MaxPerHour: 1}); !ok {
			t.Error("another app password has to wait as well")
		}
		time.Sleep(50 * time.Minute)
		reserve(true)
		if wait := reserve(false); wait != 10*time.Minute {
			t.Errorf("wait %s", wait)
		}
	})
}

// TestGreetingInAStorm: where many come at once, a TLS client that is slow to
// begin is not greeted in clear.
func TestGreetingInAStorm(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		var crowd []net.Conn
		for i := range 499 {
			crowd = append(crowd, r.connect(fmt.Sprintf("127.0.0.1:%d", i+1)))
		}
		raw := r.connect("127.0.0.1:1000")
		time.Sleep(time.Second)
		conn := tls.Client(raw, r.trust)
		expectLine(t, bufio.NewReader(conn), "* OK")
		for _, c := range append(crowd, raw) {
			_ = c.Close()
		}
		synctest.Wait()
		alone := r.connect("127.0.0.1:2000")
		began := time.Now()
		expectLine(t, bufio.NewReader(alone), "* OK")
		if took := time.Since(began); took != r.server.greetAfter() {
			t.Errorf("alone, it took %s", took)
		}
		_ = alone.Close()
	})
}

package gateway

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
)

// TestByeSignInRequired: in each protocol the last line says what to do, and by
// no code that the password is wrong.
func TestByeSignInRequired(t *testing.T) {
	r := &Refusal{Reason: SignInRequired, Err: errors.New("AADSTS700082")}
	e := &ending{public: r.public(), reason: r.Reason, cause: r}
	for name, want := range map[Protocol]string{
		IMAP: "* BYE o365pw: the sign-in behind this app password has ended; run: o365pw login\r\n",
		POP3: "-ERR [SYS/PERM] o365pw: the sign-in behind this app password has ended; run: o365pw login\r\n",
		SMTP: "421 4.3.2 o365pw: the sign-in behind this app password has ended; run: o365pw login\r\n",
	} {
		if got := protocols[name].bye(e); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestByeOnlyBetweenResponses: what a client is in the middle of is not
// broken by a last line.
func TestByeOnlyBetweenResponses(t *testing.T) {
	for name, test := range map[string]struct {
		sent string
		bye  bool
	}{
		"between":                      {"* 1 EXISTS\r\n", true},
		"half a line":                  {"* 1 EXI", false},
		"before LF":                    {"* 1 EXISTS\r", false},
		"in a literal":                 {"* 1 FETCH (BODY[] {100}\r\nSubject: x\r\n", false},
		"before a literal":             {"* 1 FETCH (BODY[] {0}\r\n", false},
		"after a literal, in its line": {"* 1 FETCH (BODY[] {4}\r\nab\r\n", false},
		"after a literal's line":       {"* 1 FETCH (BODY[] {4}\r\nab\r\n)\r\n", true},
		"after two literals":           {"* 1 FETCH (A {1}\r\nx B ~{2}\r\n\r\n)\r\n", true},
		"what is no literal":           {"* OK {5\r\n", true},
		"after a long line":            {"* OK " + strings.Repeat("x", 10000) + "\r\n", true},
		"in a literal after much else": {"* OK " + strings.Repeat("x", 10000) + " {3}\r\n", false},
	} {
		for _, step := range []int{1, 7, 1 << 20} {
			t.Run(fmt.Sprintf("%s by %d", name, step), func(t *testing.T) {
				var end atomic.Bool
				bubble(t, func(r *rig) {
					r.backend.allowed = func(Grant) error {
						if end.Load() {
							return &Refusal{Reason: Revoked}
						}
						return nil
					}
				}, func(t *testing.T, r *rig) {
					c := r.signIn()
					for rest := test.sent; rest != ""; {
						n := min(step, len(rest))
						c.upstream.say(rest[:n])
						got := make([]byte, n)
						if _, err := io.ReadFull(c.in, got); err != nil || string(got) != rest[:n] {
							t.Fatalf("got %q (%v), want %q", got, err, rest[:n])
						}
						rest = rest[n:]
					}
					end.Store(true)
					r.server.Recheck()
					if test.bye {
						c.ended(t, "* BYE o365pw: ")
					} else {
						c.ended(t, "")
					}
				})
			})
		}
	}
}

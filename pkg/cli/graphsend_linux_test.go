package cli_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/sandbox"
)

// sender is a mail program that sends through a gateway whose SMTP is closed, and
// tries again until it has an answer.
type sender struct {
	t        *testing.T
	m        *machine
	password string
	p        *process
	log      *log
	ended    chan error
	addr     string
}

func newGraphMachine(t *testing.T, roles ...string) *machine {
	t.Helper()
	m := newMachine(t, &sandbox.Server{AutoSignIn: true, AdminRoles: []string{"Application.ReadWrite.OwnedBy", "Policy.Read.All"}, MailRoles: roles})
	if _, err := m.sandbox.PowerShell("Set-TransportConfig -SmtpClientAuthenticationDisabled $true"); err != nil {
		t.Fatal(err)
	}
	m.configure("\n[gateway]\nimap = \"\"\npop3 = \"\"\nsmtp = \"127.0.0.1:0\"\n")
	return m
}

func newSender(t *testing.T, roles ...string) *sender {
	t.Helper()
	m := newGraphMachine(t, roles...)
	s := &sender{t: t, m: m, password: strings.TrimSpace(m.run("create", "x", "--allow", "smtp"))}
	s.start()
	t.Cleanup(func() {
		s.p.signal(os.Interrupt)
		if err := <-s.ended; err != nil {
			t.Errorf("the gateway: %v\n%s", err, s.log)
		}
	})
	return s
}

func (s *sender) start() {
	s.t.Helper()
	p, l, ended := s.m.start("serve"), &log{}, make(chan error, 1)
	p.cmd.Stdout, p.cmd.Stderr = l, l
	go func() { ended <- p.run() }()
	s.p, s.log, s.ended = p, l, ended
	s.addr = l.await(s.t, `smtp on (127\.0\.0\.1:\d+)`)[1]
}

// errLost is a connection that ended without an answer.
var errLost = errors.New("no answer")

// send tries once. The code is that of the end of DATA, or of what was refused
// before it.
func (s *sender) send(message string, cutShort func(), to ...string) (int, string, error) {
	conn, err := textproto.Dial("tcp", s.addr)
	if err != nil {
		return 0, "", errLost
	}
	defer conn.Close()
	say := func(want int, line string) error {
		if line != "" {
			if err := conn.PrintfLine("%s", line); err != nil {
				return errLost
			}
		}
		_, _, err := conn.ReadResponse(want)
		return err
	}
	steps := []struct {
		want int
		line string
	}{{220, ""}, {250, "EHLO test"}, {235, "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00alice@contoso.com\x00"+s.password))},
		{250, "MAIL FROM:<alice@contoso.com>"}}
	for _, a := range to {
		steps = append(steps, struct {
			want int
			line string
		}{250, "RCPT TO:<" + a + ">"})
	}
	steps = append(steps, struct {
		want int
		line string
	}{354, "DATA"})
	for _, st := range steps {
		if err := say(st.want, st.line); err != nil {
			if te := (*textproto.Error)(nil); errors.As(err, &te) {
				return te.Code, te.Msg, nil
			}
			return 0, "", errLost
		}
	}
	w := conn.DotWriter()
	_, _ = io.WriteString(w, strings.ReplaceAll(message, "\r\n", "\n"))
	if err := w.Close(); err != nil {
		return 0, "", errLost
	}
	if cutShort != nil {
		cutShort()
		return 0, "", errLost
	}
	code, text, err := conn.ReadResponse(0)
	if te := (*textproto.Error)(nil); err != nil && !errors.As(err, &te) {
		return 0, "", errLost
	}
	if code == 250 {
		_ = say(221, "QUIT")
	}
	return code, text, nil
}

// pass lets time pass for the notes about messages.
func (s *sender) pass(d time.Duration) {
	s.t.Helper()
	files, _ := filepath.Glob(filepath.Join(s.m.dir, "state", "sending", "*.json"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		note := map[string]any{}
		if err := json.Unmarshal(b, &note); err != nil {
			s.t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339Nano, note["time"].(string))
		if err != nil {
			s.t.Fatal(err)
		}
		note["time"] = at.Add(-d)
		if b, err = json.Marshal(note); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(f, b, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
}

func isSendMail(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/sendMail") }

// Whatever goes wrong between DATA and 250, and however often the client tries
// again, also after a kill of the gateway: the message is sent, and once.
func TestGraphSendsOnce(t *testing.T) {
	t.Parallel()
	fault := func(change func(*sandbox.Faults)) func(*sender) func() {
		return func(s *sender) func() { s.m.sandbox.SetFaults(change); return nil }
	}
	// kill kills the gateway at the first sendMail, before or after it was
	// carried out.
	kill := func(before bool) func(*sender) func() {
		return func(s *sender) func() {
			var once atomic.Bool
			hook := func(_ int, r *http.Request) {
				if isSendMail(r) && once.CompareAndSwap(false, true) {
					s.p.signal(os.Kill)
					<-s.ended
					s.ended <- nil
				}
			}
			if before {
				s.m.watch(hook, nil)
			} else {
				s.m.watch(nil, hook)
			}
			return nil
		}
	}
	// They wait most of the time, for copies that do not come: not as many at once as
	// there are processors, but four.
	turn := make(chan struct{}, 4)
	var all sync.WaitGroup
	defer all.Wait()
	for i, tc := range []struct {
		name  string
		apply func(*sender) func()
	}{
		{"nothing", func(*sender) func() { return nil }},
		{"429", fault(func(f *sandbox.Faults) { f.SendErrorNext, f.SendErrorStatus = 2, 429; f.RetryAfter = 1 })},
		{"503, not carried out", fault(func(f *sandbox.Faults) { f.SendErrorNext, f.SendErrorStatus = 1, 503 })},
		{"500, carried out", fault(func(f *sandbox.Faults) { f.SendErrorNext, f.SendErrorStatus, f.SendErrorDone = 1, 500, true })},
		{"answer lost", fault(func(f *sandbox.Faults) { f.SendLoseNext = 1 })},
		{"answer lost, the copy comes late", fault(func(f *sandbox.Faults) { f.SendLoseNext, f.SentItemsDelay = 1, time.Hour })},
		{"dropped before", fault(func(f *sandbox.Faults) { f.SendDropNext = 1 })},
		{"answer lost, Sent Items down", fault(func(f *sandbox.Faults) { f.SendLoseNext, f.SentItemsDown = 1, true })},
		{"killed before", kill(true)},
		{"killed after", kill(false)},
		{"the client leaves", func(s *sender) func() {
			seen := make(chan struct{}, 10)
			s.m.watch(nil, func(_ int, r *http.Request) {
				if isSendMail(r) {
					seen <- struct{}{}
				}
			})
			return func() { <-seen }
		}},
	} {
		for _, withID := range []bool{true, false} {
			all.Go(func() {
				turn <- struct{}{}
				defer func() { <-turn }()
				t.Run(fmt.Sprintf("%s, with id %v", tc.name, withID), func(t *testing.T) {
					s := newSender(t, "Mail.Send", "Mail.ReadBasic")
					s.sendsOnce(t, i, tc.name, withID, tc.apply)
				})
			})
		}
	}
}

func (s *sender) sendsOnce(t *testing.T, i int, what string, withID bool, apply func(*sender) func()) {
	t.Helper()
	name := fmt.Sprintf("%s, with id %v", what, withID)
	subject := fmt.Sprintf("Subject: case %d %v", i, withID)
	message := "From: alice@contoso.com\r\nTo: bob@contoso.com\r\n" + subject + "\r\n"
	if withID {
		message += fmt.Sprintf("Message-ID: <case%d@test>\r\n", i)
	}
	message += "\r\nhi\r\n"
	cut := apply(s)
	var answers []string
	var code int
	for try := range 12 {
		var text string
		var err error
		code, text, err = s.send(message, cut, "bob@contoso.com", "carol@contoso.com")
		answers = append(answers, fmt.Sprint(code, " ", text, err))
		cut = nil
		if code >= 500 || code == 250 {
			break
		}
		if err != nil {
			select {
			case <-s.ended: // killed
				s.m.watch(nil, nil)
				s.start()
			default:
			}
		}
		if try == 0 {
			continue // at once, as impatient ones do
		}
		if strings.Contains(what, "late") || strings.Contains(what, "down") {
			s.m.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} }) // the copy comes in the end
		}
		s.pass(6 * time.Minute)
		if strings.HasPrefix(text, "4.3.2") {
			time.Sleep(time.Second) // as it was asked to
		}
	}
	s.m.watch(nil, nil)
	s.m.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} })
	got := 0
	for _, sent := range s.m.sandbox.Sent() {
		if strings.Contains(string(sent.Data), subject+"\r\n") {
			got++
		}
	}
	if code != 250 || got != 1 {
		t.Errorf("%s: sent %d times; %q\n%s", name, got, answers, s.log)
	}
	if notes, _ := filepath.Glob(filepath.Join(s.m.dir, "state", "sending", "*.json")); len(notes) > 0 {
		t.Errorf("notes are left: %v", notes)
	}
}

package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// filterServer is a library's IMAP server with one mailbox in memory.
type filterServer struct {
	user   *imapmemserver.User
	server *imapserver.Server
	ln     *pipeListener

	mu      sync.Mutex
	changes []string // calls that change a mailbox
	log     strings.Builder
}

// The mailbox's folders, the first with the messages and without a subscription.
var filterFolders = []string{"INBOX", "Archive", "x"}

func newFilterServer(t testing.TB) *filterServer {
	s := &filterServer{user: imapmemserver.NewUser(goodUser, ""), ln: newPipeListener()}
	for i, folder := range filterFolders {
		if err := s.user.Create(folder, nil); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if err := s.user.Subscribe(folder); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, flags := range [][]imap.Flag{{}, {imap.FlagDeleted}, {imap.FlagSeen}} {
		message := []byte(fmt.Sprintf("From: bob@contoso.com\r\nSubject: x %d\r\n\r\nhello\r\n", i))
		literal := filterLiteral{bytes.NewReader(message), int64(len(message))}
		if _, err := s.user.Append("INBOX", literal, &imap.AppendOptions{Flags: flags, Time: time.Unix(1700000000, 0).UTC()}); err != nil {
			t.Fatal(err)
		}
	}
	s.server = imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &filterSession{SessionIMAP4rev2: imapmemserver.NewUserSession(s.user), on: s}, &imapserver.GreetingData{PreAuth: true}, nil
		},
		Caps: imap.CapSet{
			imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}, imap.CapLiteralPlus: {}, imap.CapNamespace: {}, imap.CapMove: {},
			imap.CapUIDPlus: {}, imap.CapSearchRes: {}, imap.CapESearch: {}, imap.CapListExtended: {}, imap.CapListStatus: {},
		},
		Logger: s,
	})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.server.Serve(s.ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if err := s.server.Close(); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	return s
}

type filterLiteral struct {
	io.Reader
	size int64
}

func (l filterLiteral) Size() int64 { return l.size }

// Printf is the library's log.
func (s *filterServer) Printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&s.log, format+"\n", args...)
}

func (s *filterServer) record(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes = append(s.changes, call)
}

// play sends bytes on a new connection and returns all that the server says.
func (s *filterServer) play(t testing.TB, in []byte) string {
	t.Helper()
	conn, err := s.ln.dial(t.Context(), netip.MustParseAddrPort("127.0.0.1:40000"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(in); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*memConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// content is the whole mailbox: folders, subscriptions, messages and flags.
func (s *filterServer) content(t testing.TB) string {
	t.Helper()
	in := "1 LIST \"\" *\r\n2 LIST (SUBSCRIBED) \"\" *\r\n"
	for _, folder := range filterFolders {
		in += "3 EXAMINE " + folder + "\r\n4 FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])\r\n"
	}
	return s.play(t, []byte(in))
}

// filterSession records every call that changes a mailbox. After EXAMINE it
// does what the library's does not: FETCH sets no flag, CLOSE removes nothing.
type filterSession struct {
	imapserver.SessionIMAP4rev2
	on       *filterServer
	readOnly bool
}

func (s *filterSession) Select(name string, options *imap.SelectOptions) (*imap.SelectData, error) {
	if !options.ReadOnly {
		s.on.record("SELECT")
	}
	data, err := s.SessionIMAP4rev2.Select(name, options)
	s.readOnly = err == nil && options.ReadOnly
	return data, err
}

func (s *filterSession) Fetch(w *imapserver.FetchWriter, nums imap.NumSet, options *imap.FetchOptions) error {
	for _, section := range options.BodySection {
		section.Peek = section.Peek || s.readOnly
	}
	return s.SessionIMAP4rev2.Fetch(w, nums, options)
}

func (s *filterSession) Expunge(w *imapserver.ExpungeWriter, uids *imap.UIDSet) error {
	if s.readOnly && uids == nil {
		return nil // CLOSE; if it is EXPUNGE, the response tells
	}
	s.on.record("EXPUNGE")
	return s.SessionIMAP4rev2.Expunge(w, uids)
}

func (s *filterSession) Create(name string, options *imap.CreateOptions) error {
	s.on.record("CREATE")
	return s.SessionIMAP4rev2.Create(name, options)
}

func (s *filterSession) Delete(name string) error {
	s.on.record("DELETE")
	return s.SessionIMAP4rev2.Delete(name)
}

func (s *filterSession) Rename(from, to string, options *imap.RenameOptions) error {
	s.on.record("RENAME")
	return s.SessionIMAP4rev2.Rename(from, to, options)
}

func (s *filterSession) Subscribe(name string) error {
	s.on.record("SUBSCRIBE")
	return s.SessionIMAP4rev2.Subscribe(name)
}

func (s *filterSession) Unsubscribe(name string) error {
	s.on.record("UNSUBSCRIBE")
	return s.SessionIMAP4rev2.Unsubscribe(name)
}

func (s *filterSession) Append(name string, r imap.LiteralReader, options *imap.AppendOptions) (*imap.AppendData, error) {
	s.on.record("APPEND")
	return s.SessionIMAP4rev2.Append(name, r, options)
}

func (s *filterSession) Store(w *imapserver.FetchWriter, nums imap.NumSet, flags *imap.StoreFlags, options *imap.StoreOptions) error {
	s.on.record("STORE")
	return s.SessionIMAP4rev2.Store(w, nums, flags, options)
}

func (s *filterSession) Copy(nums imap.NumSet, dest string) (*imap.CopyData, error) {
	s.on.record("COPY")
	return s.SessionIMAP4rev2.Copy(nums, dest)
}

func (s *filterSession) Move(w *imapserver.MoveWriter, nums imap.NumSet, dest string) error {
	s.on.record("MOVE")
	return s.SessionIMAP4rev2.Move(w, nums, dest)
}

// passedCommand is one command of a stream that goes upstream.
type passedCommand struct {
	tag, verb string
	lost      bool // the library's server may not find its end
}

var (
	passedLiteral = regexp.MustCompile(`[ (]\{([0-9]+)\+\}$`)
	anyLiteral    = regexp.MustCompile(`\{[0-9]+\+?\}$`)
	neverPassed   = regexp.MustCompile(`[\x00-\x08\x0a-\x1f\x7f]`)
)

// readPassed reads the stream that goes upstream a second time, by simpler
// rules than the filter's own.
func readPassed(stream string) (cmds []passedCommand, idle bool, err error) {
	next := func() (string, error) {
		line, rest, ok := strings.Cut(stream, "\r\n")
		if stream = rest; !ok || neverPassed.MatchString(line) {
			return "", fmt.Errorf("not a line: %q", line)
		}
		return line, nil
	}
	for stream != "" {
		line, err := next()
		if err != nil {
			return nil, false, err
		}
		if idle {
			if idle = false; line != "DONE" {
				return nil, false, fmt.Errorf("%q within IDLE", line)
			}
			continue
		}
		words := strings.Split(line, " ")
		if len(words) < 2 {
			return nil, false, fmt.Errorf("not a command: %q", line)
		}
		cmd := passedCommand{tag: words[0], verb: strings.ToUpper(words[1]), lost: strings.Contains(words[0], "]")}
		if cmd.verb == "UID" && len(words) > 2 {
			cmd.verb += " " + strings.ToUpper(words[2])
		}
		idle = cmd.verb == "IDLE"
		for {
			announced := passedLiteral.FindStringSubmatch(line)
			if announced == nil {
				break
			}
			size, err := strconv.Atoi(announced[1])
			if err != nil || size > len(stream) || strings.ContainsAny(stream[:size], " \r\n") {
				return nil, false, fmt.Errorf("literal after %q: %.100q", line, stream)
			}
			cmd.lost, stream = true, stream[size:]
			if line, err = next(); err != nil {
				return nil, false, err
			}
			if strings.ContainsAny(line, " (") {
				return nil, false, fmt.Errorf("%q after a literal", line)
			}
		}
		if anyLiteral.MatchString(line) {
			return nil, false, fmt.Errorf("could be taken for a literal: %q", line)
		}
		cmds = append(cmds, cmd)
	}
	return cmds, idle, nil
}

// completions are the tagged responses of a server.
func completions(t *testing.T, out string) [][]string {
	var all [][]string
	for r := bufio.NewReader(strings.NewReader(out)); ; {
		unit, _, err := readUnit(r, 1<<20, func([]byte, int64, bool) (bool, error) { return true, nil })
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("the server's answer ends by %v", err)
			}
			return all
		}
		if words := strings.SplitN(string(withoutEOL(unit)), " ", 3); words[0] != "*" && words[0] != "+" {
			all = append(all, words)
		}
	}
}

// FuzzIMAPReadOnly sends arbitrary bytes through the filter to a server, and
// then looks whether the mailbox is as it was, and whether the server has seen
// the same commands as the filter.
func FuzzIMAPReadOnly(f *testing.F) {
	const opened = "s SELECT INBOX\r\n"
	for _, test := range filterAllowed {
		f.Add([]byte(opened+test.in+"z NOOP\r\n"), true)
		f.Add([]byte(opened+test.in+"z NOOP\r\n"), false)
	}
	for _, test := range filterRefused {
		if len(test.in) < 1000 {
			f.Add([]byte(opened+test.in+"z CLOSE\r\n"), true)
		}
	}
	for _, seed := range []string{
		"a IDLE\r\nDONE\r\nb FETCH 1:* BODY[]\r\nc CLOSE\r\n", "a IDLE\r\nb SELECT INBOX\r\nc IDLE\r\n",
		"a IDLE\r\nb SEARCH KEYWORD " + strings.Repeat("x", 5000) + " DELETE x\r\n",
		"a SEARCH BOGUS {30+}\r\nb STORE 1 +FLAGS (\\Deleted) \xc3\xbc\r\n", "a SEARCH TEXT {2+}\r\n\xc3\xbc STORE 1 FLAGS ()\r\n",
		"a SEARCH TEXT {2+}\r\n\xc3\xbc({28+}\r\nx STORE 1 +FLAGS (\\Deleted)\r\n", "a UID FETCH 1 RFC822\r\nb CLOSE\r\nc SELECT x\r\nd UNSELECT\r\n",
		"a SEARCH KEYWORD " + strings.Repeat("x", 51<<10) + " DELETE x\r\n", "a SELECT nowhere\r\nb CLOSE\r\nc LOGOUT\r\nd NOOP\r\n",
		"a FETCH 1 (FLAGS BODY[TEXT])\r\n\r\nb \x00\r\nc NOOP\rd STORE 1 FLAGS ()\r\n", "a SEARCH " + strings.Repeat("(", 2000) + "\r\nb STORE 1 FLAGS ()\r\n",
	} {
		f.Add([]byte(opened+seed), true)
		f.Add([]byte(seed), false)
	}
	want := newFilterServer(f).content(f)
	if !strings.Contains(want, `\deleted`) || !strings.Contains(want, "hello") || !strings.Contains(want, "Subscribed") {
		f.Fatalf("content: %s", want)
	}
	f.Fuzz(func(t *testing.T, input []byte, literals bool) {
		p := playFilter(bytes.NewReader(input), literals)
		for _, answer := range p.answers {
			if !replyLine.MatchString(answer) {
				t.Errorf("not an answer: %q", answer)
			}
		}
		for _, pass := range p.passed {
			if len(pass) > imapMaxPassed+len("DONE\r\n") {
				t.Errorf("%d bytes were passed on", len(pass))
			}
		}
		stream := strings.Join(p.passed, "")
		cmds, idle, err := readPassed(stream)
		if err != nil {
			t.Fatalf("%q was passed on: %v", stream, err)
		}
		server := newFilterServer(t)
		done := completions(t, server.play(t, []byte(stream)))
		if got := server.content(t); got != want {
			t.Errorf("%q changed the mailbox to %s", stream, got)
		}
		server.mu.Lock()
		defer server.mu.Unlock()
		if len(server.changes) > 0 {
			t.Errorf("%q led to %q", stream, server.changes)
		}
		for i, c := range done {
			if i >= len(cmds) || c[0] != cmds[i].tag {
				t.Fatalf("%q: response %d is to another command: %q", stream, i, c)
			}
			verb := cmds[i].verb
			if strings.HasSuffix(verb, "EXPUNGE") {
				t.Errorf("%q was passed on", stream)
			}
			if len(c) < 3 || c[1] == "OK" && !strings.HasSuffix(c[2], verb+" completed") {
				t.Errorf("%q: response to %s: %q", stream, verb, c)
			}
			if verb == "LOGOUT" && c[1] == "OK" {
				cmds = cmds[:i+1]
			}
		}
		answered := len(done) == len(cmds) || len(done) == len(cmds)-1 && idle
		if !answered && !cmds[max(len(done)-1, 0)].lost && !cmds[len(done)].lost && !strings.Contains(server.log.String(), "panic") {
			t.Errorf("%q: of %d commands the server answered %d: %s", stream, len(cmds), len(done), server.log.String())
		}
	})
}

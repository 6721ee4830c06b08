package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/transcript"
)

// TestTranscripts plays testdata/transcripts. Headers of a transcript:
//
//	mode: clear (default) | tls      the client begins TLS before the first step
//	remote: 203.0.113.9              the client's address, 127.0.0.1 by default
//	upstream: tls (default) | starttls
//	certificate: none                the gateway has none
//	refuse: expired text             the backend refuses every sign-in for this reason, with this text
//	dial: error                      the upstream cannot be reached
//	split: yes                       played once for each byte boundary of what the client sends
//	offers: ask                      what the upstream can do is not known ahead
//	grant: read-only                 the app password is read-only
//	from: @contoso.com, a@b.c        it may send as these
//	max-per-hour: 2                  it may send so many messages
//	send: graph | auto               it sends by Graph, or may; see fakeGraph for:
//	graph: ok, unknown               what Graph says to each message, ok at the end
//	sent: no, yes                    what Sent Items say each time, no at the end
//	ready: policy                    the token for Graph is refused for this reason
//	got: text                        a message that Graph got holds it (\r\n is a line's end)
//	got-no: text                     none does
//	messages: 1                      so many did it get
//	log: text                        the log holds it
//
// The folder is the protocol.
func TestTranscripts(t *testing.T) {
	root := filepath.Join("..", "..", "testdata", "transcripts")
	var played int
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		script, err := transcript.Parse(path, data)
		if err != nil {
			return err
		}
		played++
		script.Header["protocol"] = filepath.Base(filepath.Dir(path))
		t.Run(script.Header["protocol"]+"/"+strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			splits := 0
			if script.Header["split"] == "yes" {
				for _, step := range script.Steps {
					if step.Action == transcript.Send && !step.Upstream {
						splits += len(step.Text)
					}
				}
			}
			for split := range splits + 1 {
				synctest.Test(t, func(t *testing.T) { play(t, script, split) })
				if t.Failed() {
					t.Fatalf("with the client's bytes split after %d", split)
				}
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if played == 0 {
		t.Fatal("no transcripts found")
	}
}

func play(t *testing.T, script *transcript.Script, split int) {
	h := script.Header
	r := newRig(t, func(r *rig) { prepare(r, h) })
	remote := h["remote"]
	if remote == "" {
		remote = "127.0.0.1"
	}
	client := r.connect(net.JoinHostPort(remote, "50123"))
	if h["mode"] == "tls" {
		conn := tls.Client(client, r.trust)
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		client = conn
	}
	upstream := func() (net.Conn, error) {
		conn, err := r.acceptUpstream()
		if err == nil && h["upstream"] != "starttls" {
			server := tls.Server(conn, r.tls)
			return server, server.Handshake()
		}
		return conn, err
	}
	transcript.Player{Client: client, ClientTLS: r.trust, Upstream: upstream, ServerTLS: r.tls, Split: split,
		Timeout: 10 * time.Minute}.Play(t, script)
	time.Sleep(2 * time.Second) // of the bubble: what ended by itself has ended
	r.close()
	checkGraph(t, r, h)
	if want := h["log"]; !strings.Contains(r.log.String(), want) {
		t.Errorf("the log does not hold %q:\n%s", want, r.log.String())
	}
}

// known is what the upstreams of the transcripts can do before sign-in.
var known = map[Protocol][]string{
	POP3: {"TOP", "UIDL", "UTF8"},
	SMTP: {"SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"},
}

// prepare sets up what the headers ask for.
func prepare(r *rig, h map[string]string) {
	r.name = Protocol(h["protocol"])
	if h["offers"] != "ask" {
		r.server.offers.learned(r.backend.grant.Upstream.Address, known[r.name])
	}
	r.backend.grant.ReadOnly = h["grant"] == "read-only"
	if from := h["from"]; from != "" {
		r.backend.grant.From = strings.Split(from, ", ")
	}
	r.backend.grant.MaxPerHour, _ = strconv.Atoi(h["max-per-hour"])
	prepareGraph(r, h)
	if h["upstream"] == "starttls" {
		r.backend.grant.Upstream.StartTLS = true
	}
	if h["certificate"] == "none" {
		r.server.TLS = nil
	}
	if reason, public, _ := strings.Cut(h["refuse"], " "); reason != "" {
		r.backend.signIn = func(context.Context, Attempt) (Grant, error) {
			return Grant{}, &Refusal{Reason: Reason(reason), Public: strings.ReplaceAll(public, `\r\n`, "\r\n"), Err: errors.New("private cause")}
		}
	}
	if h["dial"] == "error" {
		r.server.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route to host") }
	}
}

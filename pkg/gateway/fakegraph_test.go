package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeGraph is a Submitter that says what it is told to.
type fakeGraph struct {
	mu       sync.Mutex
	says     []string // to each message: ok, unknown, done-unknown, denied, 429, 400, panic
	sees     []string // in Sent Items: yes, no, forbidden, down; none left: what is true
	ready    Reason
	messages [][]byte        // that it was given
	sent     [][]byte        // that it has sent
	looked   []string        // Message-IDs
	hold     chan struct{}   // what it waits for before it answers
	arrived  chan struct{}   // gets a value for each message
	after    func()          // is called once a message was carried out
	real     map[string]bool // Message-IDs of what was sent, if sees has none left
}

func (g *fakeGraph) Ready(context.Context, Grant) error {
	if g.ready != "" {
		return &Refusal{Reason: g.ready, Err: errors.New("no Mail.Send")}
	}
	return nil
}

func (g *fakeGraph) Submit(ctx context.Context, _ Grant, message []byte) error {
	g.mu.Lock()
	says := "ok"
	if len(g.says) > 0 {
		says, g.says = g.says[0], g.says[1:]
	}
	g.messages = append(g.messages, bytes.Clone(message))
	g.mu.Unlock()
	if g.arrived != nil {
		g.arrived <- struct{}{}
	}
	if g.hold != nil {
		select {
		case <-g.hold:
		case <-ctx.Done():
			return &SubmitError{Unknown: true, Err: ctx.Err()}
		}
	}
	if says == "ok" || says == "done-unknown" {
		g.mu.Lock()
		g.sent = append(g.sent, bytes.Clone(message))
		if g.real == nil {
			g.real = map[string]bool{}
		}
		fields, _ := splitHeader(message)
		g.real[messageID(fields)] = true
		g.mu.Unlock()
		if g.after != nil {
			g.after()
		}
	}
	switch says {
	case "ok":
		return nil
	case "unknown", "done-unknown":
		return &SubmitError{Unknown: true, Err: errors.New("the answer was lost")}
	case "denied":
		return &SubmitError{Code: "550 5.7.1", Public: "may not send", Denied: true, Err: errors.New("403")}
	case "429":
		return &SubmitError{Code: "450 4.3.2", Public: "too many", Wait: 42 * time.Second, Err: errors.New("429")}
	case "400":
		return &SubmitError{Code: "554 5.6.0", Public: "no MIME\r\n250 OK", Err: errors.New("400")}
	}
	panic("Submit " + says)
}

func (g *fakeGraph) Sent(_ context.Context, _ Grant, id string, _ time.Time) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.looked = append(g.looked, id)
	if len(g.sees) == 0 {
		return g.real[id], nil
	}
	var sees string
	sees, g.sees = g.sees[0], g.sees[1:]
	switch sees {
	case "yes":
		return true, nil
	case "forbidden":
		return false, fmt.Errorf("%w: 403", errors.ErrUnsupported)
	case "down":
		return false, errors.New("503")
	}
	return false, nil
}

// prepareGraph sets up what the headers of a transcript ask for.
func prepareGraph(r *rig, h map[string]string) {
	r.backend.grant.Send = Sending(h["send"])
	list := func(name string) (all []string) {
		for s := range strings.SplitSeq(h[name], ",") {
			if s = strings.TrimSpace(s); s != "" {
				all = append(all, s)
			}
		}
		return all
	}
	r.graph.says, r.graph.sees, r.graph.ready = list("graph"), list("sent"), Reason(h["ready"])
	if n, err := strconv.Atoi(h["size"]); err == nil {
		r.server.GraphSize = n
	}
}

// checkGraph holds what Graph got to the headers.
func checkGraph(t *testing.T, r *rig, h map[string]string) {
	t.Helper()
	plain := strings.NewReplacer(`\r\n`, "\r\n", `\t`, "\t")
	all := string(bytes.Join(r.graph.messages, []byte("\n----\n")))
	if want := plain.Replace(h["got"]); !strings.Contains(all, want) {
		t.Errorf("Graph did not get %q:\n%s", want, all)
	}
	if no := plain.Replace(h["got-no"]); no != "" && strings.Contains(all, no) {
		t.Errorf("Graph got %q:\n%s", no, all)
	}
	if want := h["messages"]; want != "" && want != strconv.Itoa(len(r.graph.messages)) {
		t.Errorf("Graph got %d messages, not %s:\n%s", len(r.graph.messages), want, all)
	}
}

// submitFuzzed has a client say that in a session that sends by Graph, and leave.
func submitFuzzed(t *testing.T, said []byte) {
	t.Helper()
	r := smtpRig(t, func(r *rig) { r.backend.grant.Send = SendGraph })
	conn := r.connect("127.0.0.1:5000")
	client := &end{conn, bufio.NewReader(conn)}
	client.hears(t, "220 ")
	client.says(t, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+goodUser+"\x00"+goodPassword))+"\r\n", "235 ")
	go func() {
		_, _ = conn.Write(said)
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	heard, _ := io.ReadAll(client.in)
	conn.Close()
	r.close()
	told := bytes.Count(heard, []byte("250 2.0.0 sent by Graph"))
	if told > len(r.graph.sent) || len(r.graph.messages) != len(r.graph.sent) {
		t.Errorf("%d answers for %d messages: %q to %q", told, len(r.graph.sent), heard, said)
	}
	if strings.Contains(r.log.String(), "panic") {
		t.Errorf("%s", r.log.String())
	}
	for _, m := range r.graph.sent {
		if _, err := mail.ReadMessage(bytes.NewReader(m)); err != nil {
			t.Errorf("%v: %q", err, m)
		}
	}
}

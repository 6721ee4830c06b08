package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Sending is the way that messages take from the gateway.
type Sending string

// The ways of a [Grant].
const (
	SendSMTP  Sending = "smtp"  // the upstream, whatever it says
	SendGraph Sending = "graph" // Microsoft Graph, without an SMTP session
	// SendAuto is SMTP, and Graph where the upstream says that SMTP AUTH is
	// switched off and the token for Graph says that it may send.
	SendAuto Sending = "auto"
)

// Submitter sends messages for mailboxes whose SMTP is closed. Its methods are
// called from many goroutines at once.
type Submitter interface {
	// Ready says whether the grant may be told that it can send: there is a token,
	// and it does not say that it is of no use. Its error is a [*Refusal], or is
	// taken for a fault as those of [Backend] are.
	Ready(ctx context.Context, grant Grant) error

	// Submit sends a message whose header names its recipients, and returns nil
	// once it was accepted. It asks once. Its error is a [*SubmitError].
	Submit(ctx context.Context, grant Grant, message []byte) error

	// Sent says whether a message with that Message-ID was sent from the mailbox
	// since then, by this machine's clock. No is not sure: it takes a while until
	// it is yes. An error that is errors.ErrUnsupported says that nobody may look.
	Sent(ctx context.Context, grant Grant, messageID string, since time.Time) (bool, error)
}

// SubmitError is a message that was not accepted, or of which nobody knows.
type SubmitError struct {
	// Unknown tells that it may have been sent. Otherwise it was not.
	Unknown bool
	// Code is the reply code with the enhanced one, such as "550 5.7.60"; empty
	// where Unknown. One that begins with 4 asks the client to come again.
	Code string
	// Public is for the person: what was wrong, in the server's words.
	Public string
	// Wait is how long the server asks to be left alone; 0: it does not.
	Wait time.Duration
	// Denied tells that the mailbox may not send by Graph at all.
	Denied bool
	// Err is for the log.
	Err error
}

// Error is for the log.
func (e *SubmitError) Error() string {
	if e.Err == nil {
		return strings.TrimSpace(e.Code + " " + e.Public)
	}
	return e.Err.Error()
}

// Unwrap returns the cause, which may be nil.
func (e *SubmitError) Unwrap() error { return e.Err }

// graphOffers are the extensions of a session that sends by Graph (RFC 5321
// section 4.1.1.1).
func graphOffers(size int64) []string {
	return []string{fmt.Sprintf("SIZE %d", size), "PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"}
}

// headerRoom is what Bcc and the like may add to a message: 500 addresses of the
// longest form that RFC 5321 allows would need twice as much, and are told so.
const headerRoom = 64 << 10

// graphSize is the largest message that a client may hand over for Graph.
func (s *Server) graphSize() int64 { return int64(cmp.Or(s.GraphSize, 2_900_000)) - headerRoom }

// graphKept is how long it is remembered that a mailbox has to send by Graph.
const graphKept = time.Hour

// switched remembers the mailboxes that have to send by Graph, and those that
// Graph does not let send. The zero value is ready.
type switched struct {
	mu     sync.Mutex
	until  map[string]time.Time
	name   map[string]string
	denied map[string]time.Time
}

// sendKey is what a decision for the mailbox holds for.
func (g Grant) sendKey() string {
	return g.Profile + "\x00" + g.Upstream.Address + "\x00" + strings.ToLower(g.Mailbox)
}

func (w *switched) is(g Grant) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Before(w.until[g.sendKey()])
}

// note remembers the mailbox; news says that it was not known.
func (w *switched) note(g Grant) (news bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.until == nil {
		w.until, w.name = map[string]time.Time{}, map[string]string{}
	}
	_, known := w.name[g.sendKey()]
	w.until[g.sendKey()], w.name[g.sendKey()] = time.Now().Add(graphKept), g.Mailbox
	return !known
}

func (w *switched) forget(g Grant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.until, g.sendKey())
	delete(w.name, g.sendKey())
}

// deny remembers that Graph has refused a message of the mailbox.
func (w *switched) deny(g Grant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.denied == nil {
		w.denied = map[string]time.Time{}
	}
	w.denied[g.sendKey()] = time.Now().Add(graphKept)
}

func (w *switched) isDenied(g Grant) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Before(w.denied[g.sendKey()])
}

// list are the mailboxes that send by Graph since SMTP is closed to them.
func (w *switched) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for key, until := range w.until {
		if time.Now().Before(until) && !slices.Contains(list, w.name[key]) {
			list = append(list, w.name[key])
		}
	}
	slices.Sort(list)
	return list
}

// ForgetSending forgets what was found out about the way that mailboxes send:
// the next sign-in of each tries SMTP first. It is due at a reload.
func (s *Server) ForgetSending() {
	s.switched.mu.Lock()
	defer s.switched.mu.Unlock()
	s.switched.until, s.switched.name, s.switched.denied = nil, nil, nil
}

// enter signs in at the upstream, or finds out that the grant is to send by
// Graph: then up is nil, and the grant that it returns says SendGraph.
func (s *Server) enter(ctx context.Context, p protocol, name Protocol, grant Grant, l login) (_ Grant, up *upstream, welcome string, err error) {
	if name != SMTP || s.Graph == nil || grant.Send != SendAuto && grant.Send != SendGraph {
		up, welcome, err = s.open(ctx, p, grant, l)
		return grant, up, welcome, err
	}
	byGraph := grant
	byGraph.Send = SendGraph
	if grant.Send == SendGraph {
		return byGraph, nil, "signed in, to send by Graph", s.Graph.Ready(ctx, grant)
	}
	if s.switched.is(grant) {
		if s.readyByGraph(ctx, grant) == nil {
			return byGraph, nil, "signed in, to send by Graph", nil
		}
		s.switched.forget(grant)
	}
	grant.Send = SendSMTP
	up, welcome, err = s.open(ctx, p, grant, l)
	said, ok := errors.AsType[*ServerError](err)
	if !ok || said.Fault != FaultSMTPAuthOff {
		return grant, up, welcome, err
	}
	grant.Send = SendAuto
	if not := s.readyByGraph(ctx, grant); not != nil {
		return grant, nil, "", bothClosed(err, not)
	}
	if s.switched.note(grant) {
		s.log().Warn("SMTP is closed to a mailbox; it sends by Graph instead", "mailbox", grant.Mailbox, "app_password", grant.Name, "profile", grant.Profile, "said", said.Reply)
	}
	return byGraph, nil, "signed in, to send by Graph", nil
}

func (s *Server) readyByGraph(ctx context.Context, grant Grant) error {
	if s.switched.isDenied(grant) {
		return &Refusal{Reason: Policy, Err: errors.New("graph has refused a message of this mailbox within the hour: the application may not send as it (Mail.Send)")}
	}
	return s.Graph.Ready(ctx, grant)
}

// bothClosed is the refusal of a mailbox that SMTP is closed to, and Graph, too.
// An outage of Graph's must not be told as the end of it.
func bothClosed(bySMTP, byGraph error) error {
	if r := refusalOf(byGraph); r.Reason == Unavailable {
		return &Refusal{Reason: Unavailable, Err: fmt.Errorf("%w; and whether it can send by Graph cannot be told for now: %v", bySMTP, byGraph)}
	}
	r := *refusalOf(bySMTP)
	r.Err = fmt.Errorf("%w; sending by Graph is the other way, and not open either: %v", r.Err, byGraph)
	if r.Reply != "" {
		r.Reply += "; or permits Mail.Send, and o365pw sends by Graph"
	}
	return &r
}

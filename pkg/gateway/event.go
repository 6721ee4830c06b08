package gateway

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"time"
	"unicode"
)

// EventKind says what an [Event] tells of.
type EventKind string

// The kinds of events.
const (
	SignedIn     EventKind = "signed-in"     // a client's OK, after the upstream's
	Refused      EventKind = "refused"       // a sign-in was refused, for Reason
	SessionEnded EventKind = "session-ended" // of a client that had signed in
	MessageSent  EventKind = "message-sent"  // the upstream has accepted a message
)

// Event is something that a gateway tells of: who signed in, who was refused,
// what ended. It holds no secret.
type Event struct {
	Kind       EventKind
	Time       time.Time // UTC
	Session    uint64    // unique while the gateway runs
	Protocol   Protocol
	Remote     netip.AddrPort
	TLS        bool
	TLSVersion string // as in "TLS 1.3"; empty: without

	// User is what the client gave as its user name, made fit for a log. Empty
	// once the sign-in is done.
	User string
	// Grant is the app password's. Its ID is empty where none matched.
	Grant Grant

	// Reason is why a sign-in was refused, or why this side ended a session;
	// empty for any other end. Cause is for the log and may be nil.
	Reason Reason
	Cause  error

	// Took is how long token and upstream took to sign in, of SignedIn.
	Took time.Duration
	// Lasted and the bytes passed on are of SessionEnded.
	Lasted             time.Duration
	BytesUp, BytesDown int64
}

// tell logs an event in one line and gives it to [Server.Observe].
func (s *session) tell(e Event) {
	e.Time, e.Session, e.Protocol, e.Remote, e.TLS, e.TLSVersion = time.Now().UTC(), s.id, s.name, s.client.remote, s.client.tls, s.client.version
	s.logEvent(e)
	if observe := s.server.Observe; observe != nil {
		observe(e)
	}
}

func (s *session) logEvent(e Event) {
	var args []any
	if e.User != "" {
		args = append(args, "user", e.User)
	}
	if e.Grant.ID != "" {
		args = append(args, "app_password", e.Grant.Name, "id", e.Grant.ID, "profile", e.Grant.Profile)
		if e.Grant.Mailbox != "" {
			args = append(args, "mailbox", e.Grant.Mailbox)
		}
	}
	if e.Reason != "" {
		args = append(args, "reason", string(e.Reason))
	}
	level, text := slog.LevelInfo, ""
	switch e.Kind {
	case SignedIn:
		text = "signed in"
		args = append(args, "tls", e.TLS)
		if e.TLSVersion != "" {
			args = append(args, "tls_version", e.TLSVersion)
		}
		args = append(args, "took", e.Took.Round(time.Millisecond))
	case Refused:
		level, text = slog.LevelWarn, "sign-in refused"
		if e.Reason == DecoyUsed {
			level, text = slog.LevelError, "a decoy app password was used: somebody has seen what only you should have"
		}
		if e.Cause != nil {
			args = append(args, "cause", e.Cause)
		}
	case SessionEnded:
		text = "session ended"
		args = append(args, "cause", cause(e.Cause), "bytes_up", e.BytesUp, "bytes_down", e.BytesDown, "lasted", e.Lasted.Round(time.Second))
	case MessageSent:
		level, text = slog.LevelDebug, "message sent"
	default:
		text = fmt.Sprint(e.Kind)
	}
	s.log.Log(s.background, level, text, args...)
}

func cause(err error) string {
	if err == nil || errors.Is(err, io.EOF) {
		return "the client left"
	}
	return err.Error()
}

// limited makes what somebody else wrote fit for a log: at most n characters,
// none of them a control character.
func limited(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text[:min(len(text), 4*n)], "?"))
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n]) + "…"
	}
	return text
}

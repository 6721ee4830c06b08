package sandbox

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Credential is a password credential of the mail application, without its
// secret.
type Credential struct {
	KeyID, DisplayName, Hint string
	Start, End               time.Time
}

// Credentials lists the password credentials of the mail application that have
// not been removed, oldest first, whatever replication shows of them.
func (s *Server) Credentials() []Credential { return s.CredentialsOf(s.dir.mail.clientID) }

// CredentialsOf is Credentials of any application, by its client id.
func (s *Server) CredentialsOf(clientID string) []Credential {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.dir.byClientID(clientID)
	if a == nil {
		return nil
	}
	var list []Credential
	for _, c := range a.credentials {
		if c.removed.IsZero() {
			list = append(list, c.shown())
		}
	}
	return list
}

func (c *credential) shown() Credential {
	return Credential{c.keyID, c.displayName, c.hint(), c.start, c.end}
}

// AddCredential gives the application with that client id a password credential
// of two years, as an administrator in the portal would an hour ago: nothing of
// it is still replicating.
func (s *Server) AddCredential(clientID, displayName string) (Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.dir.byClientID(clientID)
	if a == nil {
		return Credential{}, fmt.Errorf("sandbox: no application %s", clientID)
	}
	made := s.nowLocked().Add(-time.Hour).Truncate(time.Second)
	c := &credential{keyID: uuid.NewString(), displayName: displayName, secret: newSecret(), start: made, end: made.AddDate(2, 0, 0), added: made}
	a.credentials = append(a.credentials, c)
	return c.shown(), nil
}

// Removals counts the removePassword requests that were carried out or refused
// for what they asked, by key id. Those that a fault has kept from that do not
// count.
func (s *Server) Removals() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.graph.removals)
}

// RemoveCredential removes a password credential of the mail application, as
// an administrator in the portal would, and says whether there was one.
func (s *Server) RemoveCredential(keyID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.dir.mail.credentials {
		if c.keyID == keyID && c.removed.IsZero() {
			c.removed = s.nowLocked()
			return true
		}
	}
	return false
}

// Request is one HTTP request that the sandbox was sent.
type Request struct {
	Time time.Time
	// Service is "entra" or "graph".
	Service string
	Method  string
	// Path has no query.
	Path string
	// Status is 0 where the connection was cut before an answer.
	Status int
	// ClientRequestID is the header of that name.
	ClientRequestID string
}

// maxRequests is how many requests are remembered.
const maxRequests = 10000

// Requests lists the latest HTTP requests (10,000 at most) in the order in
// which they were answered.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// TokensIssued counts the access tokens given out, by grant type:
// "client_credentials", "authorization_code", "refresh_token", "device_code",
// "managed_identity".
func (s *Server) TokensIssued() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.entra.issued)
}

// Session is a mail session at the sandbox's Exchange that is signed in.
type Session struct {
	Protocol string // "imap", "pop3" or "smtp"
	Mailbox  string
	ClientID string // of the application that the token was issued to
	Remote   string
	Since    time.Time
	Expires  time.Time // when Exchange ends it
}

// Sessions lists the live sessions, oldest first.
func (s *Server) Sessions() []Session {
	if s.exchange == nil {
		return nil
	}
	return s.exchange.list()
}

// Message is a message that was submitted and accepted.
type Message struct {
	// By is "smtp", or "graph" for sendMail.
	By string
	// Mailbox is who had signed in: the message is in its Sent Items.
	Mailbox string
	// From and To are the envelope, as it was said: the address of MAIL, and
	// those of RCPT in order. For sendMail they are those of the header's fields
	// From, and To, Cc and Bcc, each once.
	From string
	To   []string
	// Data is the message byte for byte, without the dots of SMTP, or without
	// Bcc where it came by sendMail. Posted is what sendMail was given.
	Data, Posted []byte
	// Received is the sandbox's time at which it was accepted.
	Received time.Time
}

// Sent lists the messages that were submitted and accepted since Start, oldest
// first. The caller may change what it is given.
func (s *Server) Sent() []Message {
	if s.exchange == nil {
		return nil
	}
	return s.exchange.listSent()
}

// Deliver puts a message in the INBOX of a mailbox, as if it had just arrived.
func (s *Server) Deliver(address string, message []byte) error {
	m := s.exchange.mailbox(address)
	if m == nil {
		return fmt.Errorf("sandbox: no mailbox %s", address)
	}
	return m.deliver("INBOX", message, s.now())
}

// Config is a configuration file (TOML) that points at the running sandbox,
// with one profile, "sandbox". caFile is where the caller has put CAPEM.
func (s *Server) Config(caFile string) string {
	var b strings.Builder
	line := func(key, value string) { fmt.Fprintf(&b, "%s = %s\n", key, tomlString(value)) }
	line("default_profile", "sandbox")
	b.WriteString("\n[profiles.sandbox]\n")
	line("tenant", s.Tenant)
	line("client_id", s.dir.mail.clientID)
	line("login_client_id", s.dir.login.clientID)
	if len(s.Mailboxes) > 0 {
		line("mailbox", s.Mailboxes[0].Address)
	}
	line("cloud", "sandbox")
	b.WriteString("\n[clouds.sandbox]\n")
	line("authority", s.authority)
	line("graph", s.graphURL)
	line("imap", "imaps://"+s.imapAddr)
	line("pop3", "pop3s://"+s.pop3Addr)
	line("smtp", "smtp://"+s.smtpAddr)
	line("exchange_resource", exchangeResource)
	line("ca_file", caFile)
	return b.String()
}

// tomlString writes a basic string of TOML, which escapes as JSON does but for
// U+007F, which JSON lets stand.
func tomlString(v string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(v) // strings cannot fail
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}

// record notes every request once it is answered or cut.
func (s *Server) record(service string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &statusRecorder{ResponseWriter: w}
		defer func() {
			req := Request{
				Time: s.now(), Service: service, Method: r.Method, Path: r.URL.Path,
				Status: rec.status, ClientRequestID: r.Header.Get("client-request-id"),
			}
			s.mu.Lock()
			s.requests = append(s.requests, req)
			if over := len(s.requests) - maxRequests; over > 0 {
				s.requests = slices.Delete(s.requests, 0, over)
			}
			s.mu.Unlock()
			s.Log.Info("request", "service", service, "method", r.Method, "path", r.URL.Path, "status", rec.status)
		}()
		h.ServeHTTP(rec, r)
	})
}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *statusRecorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// cut ends the connection without an answer.
func cut() { panic(http.ErrAbortHandler) }

// Package sandbox is a small Microsoft 365 in one process: Entra (token
// endpoint, sign-in and device pages, for an organisation and for personal
// accounts), Microsoft Graph (applications with their credentials, service
// principals and permissions; people; mail that is sent), and an Exchange Online with IMAP, POP3 and SMTP
// submission, which its administrators set up by PowerShell.
//
// It is for tests, demonstrations, and people who build on this project. It
// listens on loopback addresses only, keeps everything in memory, forgets
// everything on Close, and draws new identifiers and keys on every Start. It
// is stricter than the real service: misspelt properties, query options it
// does not know, dates that are not UTC, sign-ins without PKCE and pages
// longer than a few entries do not exist here, nor do bare line feeds and long
// lines in what is sent. What goes wrong with the real
// service now and then goes wrong here on request: see [Faults].
//
// It shares no types with the packages that talk to the real service, so that
// the same mistake on both sides cannot go unseen.
package sandbox

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Mailbox is one mailbox of the sandbox's Exchange, and the person it belongs
// to in its Entra.
type Mailbox struct {
	// Address is the mailbox's primary SMTP address: the person's mail in
	// Graph.
	Address string
	// UPN is the person's user principal name, by which they sign in; empty is
	// Address.
	UPN string
	// Personal makes this a personal Microsoft account (Outlook.com), which is
	// not in the tenant: it signs in at /consumers and /common, to applications
	// whose audience has such accounts (see PersonalClientID).
	Personal bool
	// Messages are put in INBOX, oldest first. Each is a whole RFC 5322
	// message with CRLF line ends; its bytes come back unchanged.
	Messages [][]byte
	// SendAs are other addresses that the mailbox may send as, beside its own.
	SendAs []string
	// NotConnected makes Exchange accept the sign-in and then answer every
	// command with "User is authenticated but not connected"; see
	// Faults.ExchangeNotConnected for SMTP.
	NotConnected bool
	// OnlyByUPN makes Exchange treat a sign-in that names the mailbox by
	// Address, where UPN is another, as NotConnected does. By UPN it works.
	OnlyByUPN bool
	// NoAccess means that the mail application was not given FullAccess: by
	// IMAP its sign-in ends as with NotConnected, by POP3 and SMTP it fails.
	// See [Server.PowerShell] for how to give it.
	NoAccess bool
	// NoLicence means that the person exists in Entra, and no mailbox.
	NoLicence bool
}

// Server is the sandbox. Its zero value works. Set the fields before Start and
// leave them alone afterwards; [Server.SetFaults] is the exception.
type Server struct {
	// Listen addresses; empty is "127.0.0.1:0". Start refuses any that is not
	// a loopback address.
	AuthorityAddr, GraphAddr, IMAPAddr, POP3Addr, SMTPAddr string

	// Tenant is the tenant's GUID (empty: a new one on every Start), Domain
	// its verified domain (empty: "contoso.onmicrosoft.com").
	Tenant, Domain string

	// Now is the clock (nil: time.Now). FastForward adds to it.
	Now func() time.Time
	// Log receives what happens, without secrets (nil: nowhere).
	Log *slog.Logger

	// Mailboxes are the mailboxes and people; empty is DefaultMailboxes(). The
	// first person is the tenant's administrator; the others have no rights on
	// applications.
	Mailboxes []Mailbox

	// AutoSignIn signs the first person in without showing a page: authorize
	// redirects at once, and device codes are approved when they are made.
	AutoSignIn bool
	// RequireClientRequestID refuses Graph calls without a client-request-id.
	RequireClientRequestID bool
	// RevokeRotatedRefreshTokens ends a refresh token when it is used. Entra
	// does not do that, but it shows who fails to keep the rotated one.
	RevokeRotatedRefreshTokens bool
	// MoreMailApps is how many applications there are beside the mail application
	// that are like it, and owned by AdminClient; see [Server.MailApps].
	MoreMailApps int
	// ForgetSent makes Exchange take messages and keep none of them, so that a
	// load that goes on for long does not fill the memory.
	ForgetSent bool
	// AdminRoles are the Graph application permissions of AdminClient (nil:
	// Application.ReadWrite.OwnedBy alone).
	//
	// Setting an application up takes Application.ReadWrite.OwnedBy (register
	// it and its service principal), AppRoleAssignment.ReadWrite.All together
	// with Application.Read.All (grant roles), and
	// DelegatedPermissionGrant.ReadWrite.All (consent for people).
	AdminRoles []string
	// MailRoles are the Graph application permissions of the mail application and
	// those like it (nil: none), MailScopes the delegated ones beside User.Read that
	// were consented to for it and for that of PersonalClientID. To send by Graph
	// takes Mail.Send, to look in Sent Items Mail.ReadBasic or Mail.Read. See also
	// [Server.PowerShell], whose roles "Application Mail.Send" and so on do for some
	// mailboxes what the application permissions do for all.
	MailRoles, MailScopes []string
	// UserConsent has a person who signs in consent to what of Mail.Send and
	// Mail.ReadBasic the application asks for and does not have, as a tenant that
	// lets people consent does. Until then tokens with it are refused (AADSTS65001).
	UserConsent bool
	// OIDCSubject is the subject of the tokens that GitHubOIDC gives (empty:
	// "repo:contoso/mail:ref:refs/heads/main").
	OIDCSubject string

	// TokenLife is the life of an access token (0: 3599 s), RefreshTokenLife
	// that of an unused refresh token (0: 90 days), DeviceCodeLife that of a
	// device code (0: 15 min), DeviceInterval the shortest time between two
	// polls of it (0: 5 s).
	TokenLife, RefreshTokenLife, DeviceCodeLife, DeviceInterval time.Duration
	// LoopLimit is the number of refused, identical client credential requests
	// within a minute after which Entra sees a loop (0: 20).
	LoopLimit int
	// PageSize is the most entries in one page of a Graph collection (0: 2).
	PageSize int

	// Faults are those in force at Start; see SetFaults.
	Faults Faults

	mu        sync.Mutex // guards Faults and all below
	offset    time.Duration
	clockMove chan struct{} // closed and replaced when offset or Faults change
	dir       directory
	entra     entraState
	graph     graphState
	requests  []Request

	authority, graphURL          string
	imapAddr, pop3Addr, smtpAddr string
	idKey                        *ecdsa.PrivateKey
	oidcKey                      func() *rsa.PrivateKey // made when first needed
	oidcRequestToken             string
	oidcConnection               string // id of the service connection of Azure Pipelines
	identityHeader               string
	certs                        certificates
	exchange                     *exchange
	closing                      chan struct{}
	closers                      []func()
	wg                           sync.WaitGroup
	started                      bool
}

// Start listens on all addresses and serves until Close. On an error nothing
// is left listening. A Server can be started once.
func (s *Server) Start() (err error) {
	if s.started {
		return errors.New("sandbox: started already")
	}
	if err := s.prepare(); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	s.started = true
	defer func() {
		if err != nil {
			s.Close()
		}
	}()

	authority, err := s.listen("authority", s.AuthorityAddr)
	if err != nil {
		return err
	}
	graph, err := s.listen("Graph", s.GraphAddr)
	if err != nil {
		return err
	}
	imap, err := s.listen("IMAP", s.IMAPAddr)
	if err != nil {
		return err
	}
	pop3, err := s.listen("POP3", s.POP3Addr)
	if err != nil {
		return err
	}
	smtp, err := s.listen("SMTP", s.SMTPAddr)
	if err != nil {
		return err
	}
	s.authority = "http://" + authority.Addr().String()
	s.graphURL = "http://" + graph.Addr().String() + "/v1.0"
	s.imapAddr = imap.Addr().String()
	s.pop3Addr = pop3.Addr().String()
	s.smtpAddr = smtp.Addr().String()

	s.serveHTTP(authority, s.record("entra", s.withPowerShell(s.entraHandler())))
	s.serveHTTP(graph, s.record("graph", http.HandlerFunc(s.serveGraph)))
	s.exchange.serve(imap, s.exchange.imapSession)
	s.exchange.serve(pop3, s.exchange.popSession)
	s.exchange.serve(smtp, s.exchange.smtpSession)
	return nil
}

// Close ends every connection and session and waits for what they were doing.
// Closing twice, or before Start, is fine.
func (s *Server) Close() error {
	s.mu.Lock()
	closers := s.closers
	s.closers = nil
	if s.closing != nil {
		select {
		case <-s.closing:
		default:
			close(s.closing)
		}
	}
	s.mu.Unlock()
	for _, c := range slices.Backward(closers) {
		c()
	}
	s.wg.Wait()
	return nil
}

// prepare fills in the defaults and builds the tenant.
func (s *Server) prepare() error {
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Mailboxes == nil {
		s.Mailboxes = DefaultMailboxes()
	}
	if s.AdminRoles == nil {
		s.AdminRoles = []string{"Application.ReadWrite.OwnedBy"}
	}
	s.Tenant = cmp.Or(s.Tenant, uuid.NewString())
	if !isGUID(s.Tenant) {
		return fmt.Errorf("tenant %q is not a GUID", s.Tenant)
	}
	s.Domain = cmp.Or(s.Domain, "contoso.onmicrosoft.com")
	s.TokenLife = cmp.Or(s.TokenLife, 3599*time.Second)
	s.RefreshTokenLife = cmp.Or(s.RefreshTokenLife, 90*24*time.Hour)
	s.DeviceCodeLife = cmp.Or(s.DeviceCodeLife, 15*time.Minute)
	s.DeviceInterval = cmp.Or(s.DeviceInterval, 5*time.Second)
	s.LoopLimit = cmp.Or(s.LoopLimit, 20)
	s.PageSize = cmp.Or(s.PageSize, 2)

	s.closing = make(chan struct{})
	s.clockMove = make(chan struct{})
	s.entra = newEntraState()
	s.graph.pages, s.graph.removals, s.graph.sending = make(map[string]page), make(map[string]int), make(map[string]int)

	var err error
	if s.idKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	s.oidcKey = sync.OnceValue(func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil { // never, with a key of this size
			panic(err)
		}
		return key
	})
	s.oidcRequestToken, s.identityHeader = newToken(200, 300), newToken(32, 33)
	s.oidcConnection = uuid.NewString()
	s.OIDCSubject = cmp.Or(s.OIDCSubject, "repo:contoso/mail:ref:refs/heads/main")
	if s.certs, err = newCertificates(s.Now()); err != nil {
		return err
	}
	if s.dir, err = newDirectory(s); err != nil {
		return err
	}
	s.exchange, err = newExchange(s)
	return err
}

// listen opens a loopback listener that Close closes.
func (s *Server) listen(what, addr string) (net.Listener, error) {
	addr = cmp.Or(addr, "127.0.0.1:0")
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %s address %q: %w", what, addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("sandbox: %s address %q is not a loopback address", what, addr)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("sandbox: listen for %s: %w", what, err)
	}
	s.onClose(func() { ln.Close() })
	return ln, nil
}

func (s *Server) onClose(f func()) {
	s.mu.Lock()
	s.closers = append(s.closers, f)
	s.mu.Unlock()
}

// serveHTTP serves h on ln until Close, which then waits for every connection
// to end: net/http tells of each new one before it starts to serve it, so none
// can begin once Serve has returned.
func (s *Server) serveHTTP(ln net.Listener, h http.Handler) {
	ctx, cancel := context.WithCancel(context.Background())
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.wg.Add(1)
			case http.StateClosed, http.StateHijacked:
				s.wg.Done()
			}
		},
	}
	served := make(chan struct{})
	s.wg.Go(func() {
		defer close(served)
		srv.Serve(ln)
	})
	s.onClose(func() {
		cancel()
		srv.Close()
		<-served
	})
}

// now is the sandbox's time.
func (s *Server) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nowLocked()
}

func (s *Server) nowLocked() time.Time { return s.Now().Add(s.offset).UTC() }

// FastForward moves the sandbox's clock ahead by d: tokens and secrets expire,
// replication completes, mail sessions of expired tokens end.
func (s *Server) FastForward(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset += d
	s.wakeLocked()
}

// wakeLocked lets those look again who wait for a time.
func (s *Server) wakeLocked() {
	if s.clockMove != nil {
		close(s.clockMove)
		s.clockMove = make(chan struct{})
	}
}

// await waits until a time has come by the sandbox's clock, which may depend on
// the faults in force, and says true; or false where stop comes before, or the
// sandbox is closed.
func (s *Server) await(due func(Faults) time.Time, stop <-chan struct{}) bool {
	for {
		s.mu.Lock()
		left, moved := due(s.Faults).Sub(s.nowLocked()), s.clockMove
		s.mu.Unlock()
		if left <= 0 {
			return true
		}
		select {
		case <-time.After(left):
		case <-moved:
		case <-stop:
			return false
		case <-s.closing:
			return false
		}
	}
}

// after does f once a time has come, as await has it: before it returns where
// that is now.
func (s *Server) after(due func(Faults) time.Time, f func()) {
	s.mu.Lock()
	now := !s.nowLocked().Before(due(s.Faults))
	s.mu.Unlock()
	if now {
		f()
		return
	}
	s.wg.Go(func() {
		if s.await(due, nil) {
			f()
		}
	})
}

// tlsConfig is what Exchange serves with.
func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{s.certs.leaf}, MinVersion: tls.VersionTLS12}
}

func isGUID(s string) bool {
	// uuid.Parse takes other spellings too: braces, urn:uuid:, no dashes.
	_, err := uuid.Parse(s)
	return err == nil && len(s) == 36
}

// sameFold compares host names and addresses, which ignore case.
func sameFold(a, b string) bool { return strings.EqualFold(a, b) }

package sandbox

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2/imapserver"
)

// exchange is what the protocols of Exchange Online have in common: the
// mailboxes, the connections, and who is signed in. Each protocol is a
// function that serves one connection (see imapSession), in a file of its own.
type exchange struct {
	s         *Server
	mailboxes []*mailbox
	imap      *imapserver.Server
	pipes     *pipeListener // to imap

	mu       sync.Mutex
	history  []configVersion // oldest first; never empty
	conns    map[net.Conn]struct{}
	sessions []*mailSession
	sent     []Message
	rates    map[*mailbox]*sendRate // of sendMail
}

func newExchange(s *Server) (*exchange, error) {
	x := &exchange{s: s, conns: make(map[net.Conn]struct{}), rates: make(map[*mailbox]*sendRate)}
	names := make(map[string]bool)
	for _, m := range s.Mailboxes {
		box, err := newMailbox(m, s.Now())
		if err != nil {
			return nil, err
		}
		for name := range box.names() {
			if names[name] {
				return nil, fmt.Errorf("two mailboxes have the address or user principal name %s", name)
			}
			names[name] = true
		}
		if !m.NoLicence {
			x.mailboxes = append(x.mailboxes, box)
		}
	}
	x.history = []configVersion{{exchangeConfig: newExchangeConfig(s.dir.mail, x.mailboxes)}}
	x.imap = imapserver.New(&imapserver.Options{
		NewSession: newIMAPSession,
		Caps:       imapCaps,
		Logger:     slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	})
	x.pipes = newPipeListener()
	s.wg.Go(func() { x.imap.Serve(x.pipes) })
	s.onClose(func() {
		x.cutAll()
		x.pipes.Close()
	})
	return x, nil
}

// mailbox finds a mailbox by its address, as mail does.
func (x *exchange) mailbox(address string) *mailbox {
	i := slices.IndexFunc(x.mailboxes, func(m *mailbox) bool { return sameFold(m.Address, address) })
	if i < 0 {
		return nil
	}
	return x.mailboxes[i]
}

// byUser finds a mailbox by its address or its person's user principal name,
// as sign-ins do.
func (x *exchange) byUser(name string) *mailbox {
	i := slices.IndexFunc(x.mailboxes, func(m *mailbox) bool { return sameFold(m.Address, name) || sameFold(m.upn(), name) })
	if i < 0 {
		return nil
	}
	return x.mailboxes[i]
}

// serve gives every connection of ln to handle, with the faults of
// connections before it, until ln is closed.
func (x *exchange) serve(ln net.Listener, handle func(net.Conn)) {
	x.s.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					x.s.Log.Error("accept", "error", err)
				}
				return
			}
			x.s.wg.Go(func() {
				defer conn.Close()
				if !x.track(conn) {
					return
				}
				defer x.forget(conn)
				switch f := x.s.CurrentFaults(); {
				case f.ExchangeDown:
				case f.ExchangeStall:
					io.Copy(io.Discard, conn)
				default:
					handle(conn)
				}
			})
		}
	})
}

// track notes a connection, for cutAll, unless the server is closing.
func (x *exchange) track(conn net.Conn) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	select {
	case <-x.s.closing:
		return false
	default:
	}
	x.conns[conn] = struct{}{}
	return true
}

func (x *exchange) forget(conn net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.conns, conn)
}

// cutAll closes all connections, without a word.
func (x *exchange) cutAll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for conn := range x.conns {
		conn.Close()
	}
}

// startTLS does the server's part of a handshake, within a time limit.
func (x *exchange) startTLS(conn net.Conn) (*tls.Conn, error) {
	secured := tls.Server(conn, x.s.tlsConfig())
	secured.SetDeadline(time.Now().Add(preAuthTimeout))
	if err := secured.Handshake(); err != nil {
		x.s.Log.Info("TLS", "error", err)
		return nil, err
	}
	secured.SetDeadline(time.Time{})
	return secured, nil
}

const (
	preAuthTimeout = time.Minute
	idleTimeout    = 35 * time.Minute
)

// mailSession is somebody signed in.
type mailSession struct {
	Session
	mailbox *mailbox
	as      sid // whose rights it has
	// delegate is a person in a mailbox that is not that person's own.
	delegate bool
	// notConnected: it is signed in, and can do nothing.
	notConnected bool
}

// protocolNames are what this project calls the protocols that permissions
// name as IMAP, POP and SMTP.
var protocolNames = map[string]string{"IMAP": "imap", "POP": "pop3", "SMTP": "smtp"}

// signIn checks an XOAUTH2 response (after base64) for a protocol, named as in
// the permissions: IMAP, POP, SMTP. The error says what to tell the client; see
// errRefused. The caller calls signOut at the end.
func (x *exchange) signIn(protocol, remote string, response []byte) (*mailSession, error) {
	user, text, err := parseXOAUTH2(response)
	if err != nil {
		x.s.Log.Info("sign-in refused", "protocol", protocol, "reason", err)
		return nil, errRefused
	}
	refuse := func(err error, reason string) (*mailSession, error) {
		x.s.Log.Info("sign-in refused", "protocol", protocol, "mailbox", user, "reason", reason)
		return nil, err
	}
	t := x.s.token(text)
	if t == nil {
		return refuse(errRefused, "the token is unknown or expired")
	}
	box := x.byUser(user)
	if box == nil {
		return refuse(errRefused, "no such mailbox")
	}
	config := x.config()
	a := x.access(config, t, box, protocol)
	if a.refused != "" {
		return refuse(errRefused, a.refused)
	}
	if err := x.switchedOff(config, box, protocol); err != nil {
		return refuse(err, err.Error())
	}
	now := x.s.now()
	sess := &mailSession{
		Session: Session{
			Protocol: protocolNames[protocol], Mailbox: box.Address, ClientID: t.app.clientID,
			Remote: remote, Since: now, Expires: t.expires,
		},
		mailbox: box, as: a.as, delegate: a.delegate,
		notConnected: a.notConnected || box.NotConnected || box.OnlyByUPN && !sameFold(user, box.upn()),
	}
	if life := x.s.CurrentFaults().SessionLife; life > 0 && now.Add(life).Before(sess.Expires) {
		sess.Expires = now.Add(life)
	}
	x.mu.Lock()
	x.sessions = append(x.sessions, sess)
	x.mu.Unlock()
	return sess, nil
}

func (x *exchange) signOut(sess *mailSession) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sessions = slices.DeleteFunc(x.sessions, func(o *mailSession) bool { return o == sess })
}

func (x *exchange) list() []Session {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []Session
	for _, sess := range x.sessions {
		list = append(list, sess.Session)
	}
	return list
}

// expired says whether a session's token has expired.
func (x *exchange) expired(sess *mailSession) bool { return !x.s.now().Before(sess.Expires) }

// whileSignedIn runs f, and end if the session's token expires before f is
// done. end must make f return.
func (x *exchange) whileSignedIn(sess *mailSession, end, f func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if x.s.await(func(Faults) time.Time { return sess.Expires }, stop) {
			end()
		}
	})
	f()
	close(stop)
	wg.Wait()
}

// parseXOAUTH2 takes an initial client response apart:
//
//	"user=" address ^A "auth=Bearer " token ^A ^A
func parseXOAUTH2(response []byte) (address, token string, err error) {
	fields := strings.Split(string(response), "\x01")
	if len(fields) != 4 || fields[2] != "" || fields[3] != "" {
		return "", "", errors.New("the XOAUTH2 response is not two fields that end in ^A, and ^A")
	}
	address, ok1 := strings.CutPrefix(fields[0], "user=")
	token, ok2 := strings.CutPrefix(fields[1], "auth=Bearer ")
	if !ok1 || !ok2 || address == "" || token == "" {
		return "", "", errors.New("the XOAUTH2 response lacks user or token")
	}
	return address, token, nil
}

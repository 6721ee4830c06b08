package entra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

const (
	// defaultSignInLimit is how long to wait for the person.
	defaultSignInLimit = 5 * time.Minute
	// listenTries is how many ports are tried until one is free on both
	// loopback addresses.
	listenTries = 10
)

// BrowserSignIn says how a person signs in by [Client.SignInBrowser].
type BrowserSignIn struct {
	ClientID string
	// Scope names one resource, such as https://graph.microsoft.com/.default.
	// openid, profile and offline_access are added.
	Scope string
	// LoginHint is the address to sign in with, if it is known. Without it the
	// person picks an account.
	LoginHint string
	// Claims is what Entra wants to see proven (OpenID Connect Core section
	// 5.5): JSON, from an [Error] that names some.
	Claims string
	// Prompt is "select_account", which "" means where there is no LoginHint,
	// "consent" to be asked again for what was consented to, or "login" to
	// type the password again (OpenID Connect Core section 3.1.2.1).
	Prompt string
	// Announce is called first, with the address to open: print it, since no
	// browser may be found. Open then opens a browser; its error is the
	// caller's to report, and the sign-in goes on. It is not waited for, as
	// some browsers keep their starter until they are closed. Either may be
	// nil.
	Announce func(url string)
	Open     func(url string) error
	// Limit is how long to wait for the person; 0 is 5 minutes.
	Limit time.Duration
}

// SignInBrowser lets a person sign in with a browser: authorization code
// (RFC 6749 section 4.1) with PKCE S256 (RFC 7636) and a loopback redirect
// (RFC 8252 section 7.3). The application needs the redirect URI
// http://localhost of the platform "Mobile and desktop applications"; Entra
// ignores the port (https://learn.microsoft.com/entra/identity-platform/reply-url).
//
// It listens on 127.0.0.1 and, where there is one, ::1, for this one answer,
// and is gone from there when it returns. A failure is an [*Error]: Declined
// when the person said no, Expired when nobody answered within Limit; it wraps
// ctx.Err() when ctx has ended.
func (c *Client) SignInBrowser(ctx context.Context, b BrowserSignIn) (Token, error) {
	a, err := c.start(authorization{
		op:       "sign in with a browser",
		clientID: b.ClientID, scope: b.Scope, loginHint: b.LoginHint, claims: b.Claims, prompt: b.Prompt,
	})
	if err != nil {
		return Token{}, err
	}
	if b.Announce == nil && b.Open == nil {
		return Token{}, &Error{Op: a.op, URL: a.authorize, Err: errors.New("nobody would learn the address to open"), kind: Misconfigured}
	}
	listeners, port, err := listenLoopback(ctx)
	if err != nil {
		return Token{}, &Error{Op: a.op, URL: a.authorize, Err: err}
	}

	// Entra takes no other spelling than localhost unless it is registered,
	// and [::1] never.
	a.redirect = "http://localhost:" + strconv.Itoa(port)
	cb := newCallback(port, a.state)
	stop := cb.serve(listeners)

	address := a.address()
	if b.Announce != nil {
		b.Announce(address)
	}
	if b.Open != nil {
		go func() { _ = b.Open(address) }()
	}
	t, err := c.finish(ctx, cb, a, cmp.Or(b.Limit, defaultSignInLimit))
	cb.finish(t.Identity, err)
	stop()
	return t, err
}

// finish waits for the browser and redeems the code it brings.
func (c *Client) finish(ctx context.Context, cb *callback, a authorization, limit time.Duration) (Token, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return Token{}, &Error{Op: a.op, URL: a.authorize, Err: ctx.Err()}
	case <-timer.C:
		return Token{}, &Error{Op: a.op, URL: a.authorize, kind: Expired,
			Err: fmt.Errorf("no answer from the browser within %v", limit)}
	case answer := <-cb.answers:
		return c.redeem(ctx, a, answer)
	}
}

// listenLoopback listens on one port of 127.0.0.1 and, where the machine has
// it, of ::1, as browsers may take localhost for either. A port that somebody
// else holds on ::1 will not do: the code could go there.
func listenLoopback(ctx context.Context) (listeners []net.Listener, port int, err error) {
	var config net.ListenConfig
	for range listenTries {
		v4, err := config.Listen(ctx, "tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, 0, fmt.Errorf("wait for the browser: %w", err)
		}
		port := v4.Addr().(*net.TCPAddr).Port
		v6, err := config.Listen(ctx, "tcp6", net.JoinHostPort("::1", strconv.Itoa(port)))
		if err == nil {
			return []net.Listener{v4, v6}, port, nil
		}
		// Is it the port or the address?
		probe, err := config.Listen(ctx, "tcp6", "[::1]:0")
		if err != nil {
			return []net.Listener{v4}, port, nil
		}
		probe.Close()
		v4.Close()
	}
	return nil, 0, errors.New("wait for the browser: no port is free on both 127.0.0.1 and ::1")
}

package gateway

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// probeTimeout bounds a probe whose context has no deadline. A gateway that is
// tried waits for its upstream itself.
const probeTimeout = time.Minute

// Check proves that the grant's mailbox can be opened: it gets an access token,
// signs in at the upstream, and leaves at once. Over IMAP it asks for the state
// of the inbox, over POP3 for that of the mailbox; over SMTP it names the
// mailbox as a sender and takes that back, so that nothing is sent. The error
// says what fails, as for a client: what the upstream does is a [*ServerError].
func (s *Server) Check(ctx context.Context, name Protocol, grant Grant) error {
	p, ok := protocols[name]
	if !ok {
		return fmt.Errorf("gateway: protocol %q is not served", name)
	}
	ctx, cancel := context.WithTimeout(ctx, s.upstreamTimeout())
	defer cancel()
	up, _, err := s.open(ctx, p, grant, login{probe: true})
	if err != nil {
		return err
	}
	defer up.close()
	_ = up.send(p.leave)
	return nil
}

// ProbeRequest is a sign-in at an upstream to be tried with a token that the
// caller has.
type ProbeRequest struct {
	Protocol  Protocol
	Upstream  Upstream
	Mailbox   string
	Token     secret.Text
	Delegated bool // as of [Grant]; decides what an error's Fix says

	// Dial and Proxy are as those of [Server].
	Dial  func(ctx context.Context, network, address string) (net.Conn, error)
	Proxy func(*url.URL) (*url.URL, error)
}

// Probe is [Server.Check] without a gateway. It returns the steps that were
// done, in order; where one failed, the error is a [*Refusal] as a mail client
// would meet it, with a [*ServerError] that names the step. Without a deadline
// of ctx it takes a minute at most.
func Probe(ctx context.Context, r ProbeRequest) (passed []Step, err error) {
	p, ok := protocols[r.Protocol]
	if !ok {
		return nil, fmt.Errorf("gateway: protocol %q is not served", r.Protocol)
	}
	ctx, cancel := withDeadline(ctx, probeTimeout)
	defer cancel()
	d := dialer{dialTCP: r.Dial, proxy: r.Proxy, passed: func(s Step) { passed = append(passed, s) }}
	up, err := d.dial(ctx, r.Upstream)
	if err != nil {
		return passed, err
	}
	defer up.close()
	if _, err := up.signIn(ctx, p, login{mailbox: r.Mailbox, token: r.Token, delegated: r.Delegated, probe: true}); err != nil {
		return passed, err
	}
	up.at("")
	_ = up.send(p.leave)
	return passed, nil
}

// withDeadline gives ctx the time d, unless it has a deadline of its own.
func withDeadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

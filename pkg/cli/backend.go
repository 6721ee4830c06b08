package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/secret"
)

// backend lets the gateway ask the app passwords: it translates between the
// two packages, which do not know each other.
type backend struct {
	verifier *apppassword.Verifier
	clouds   func(name string) (config.Cloud, error)
	sending  func(profile string) string // how a profile sends; empty: it is not known

	mu  sync.Mutex
	tls map[string]*tls.Config // by cloud: one, so that its session tickets serve again
}

// SignIn implements [gateway.Backend].
func (b *backend) SignIn(ctx context.Context, at gateway.Attempt) (gateway.Grant, error) {
	rec, mailbox, err := b.verifier.Verify(ctx, at.User, at.Password, string(at.Protocol), at.Remote.Addr())
	if err != nil {
		var grant gateway.Grant
		if re, ok := errors.AsType[*apppassword.RefusedError](err); ok {
			grant = gateway.Grant{ID: re.Record.ID, Name: re.Record.Name, Profile: re.Record.Profile}
			if len(re.Record.Mailboxes) == 1 {
				grant.Mailbox = re.Record.Mailboxes[0]
			}
		}
		err = refusal(err)
		if r, ok := errors.AsType[*gateway.Refusal](err); ok {
			r.UserIsSecret = b.verifier.IsPassword(at.User)
		}
		return grant, err
	}
	return b.grant(rec, mailbox, at.Protocol)
}

// grant is what the record lets a client do on one of its mailboxes.
func (b *backend) grant(rec apppassword.Record, mailbox string, p gateway.Protocol) (gateway.Grant, error) {
	g := gateway.Grant{
		ID: rec.ID, Name: rec.Name, Profile: rec.Profile, Mailbox: mailbox, Expires: rec.Expires,
		Credential: b.verifier.CredentialKey(rec), Revision: rec.Revision(),
		Delegated: rec.Backing == apppassword.BackingUser,
		ReadOnly:  rec.ReadOnly, From: rec.From, MaxPerHour: rec.MaxPerHour,
		Send:  gateway.Sending(cmp.Or(rec.Send, b.sending(rec.Profile), config.DefaultSend)),
		Quota: rec.Profile + "\x00" + strings.ToLower(rec.Name), // which a rotation does not change
	}
	cloud, err := b.clouds(rec.Cloud)
	if err != nil {
		return g, refusal(&apppassword.RefusedError{Reason: apppassword.TenantRefuses, Record: rec, Err: err})
	}
	g.Upstream, err = b.upstream(cloud, p)
	return g, err
}

// Upstreams implements [gateway.Backend].
func (b *backend) Upstreams(p gateway.Protocol) []gateway.Upstream {
	var list []gateway.Upstream
	for _, rec := range b.verifier.Records() {
		if !slices.Contains(rec.Allow, string(p)) {
			continue
		}
		g, err := b.grant(rec, "", p)
		g.Upstream.ByGraph = p == gateway.SMTP && g.Send == gateway.SendGraph
		known := slices.ContainsFunc(list, func(u gateway.Upstream) bool {
			return u.Address == g.Upstream.Address && u.ByGraph == g.Upstream.ByGraph
		})
		if err == nil && !known {
			list = append(list, g.Upstream)
		}
	}
	return list
}

// Token implements [gateway.Backend].
func (b *backend) Token(ctx context.Context, g gateway.Grant) (secret.Text, error) {
	t, err := b.verifier.Token(ctx, g.ID)
	return t, refusal(err)
}

// Allowed implements [gateway.Backend].
func (b *backend) Allowed(g gateway.Grant) error {
	return refusal(b.verifier.Allowed(g.ID, g.Revision))
}

// Revalidate implements [gateway.Backend].
func (b *backend) Revalidate(ctx context.Context, g gateway.Grant) error {
	return refusal(b.verifier.Revalidate(ctx, g.ID))
}

func (b *backend) upstream(cloud config.Cloud, p gateway.Protocol) (gateway.Upstream, error) {
	ep := map[gateway.Protocol]config.Endpoint{gateway.IMAP: cloud.IMAP, gateway.POP3: cloud.POP3, gateway.SMTP: cloud.SMTP}[p]
	if ep.Host == "" {
		return gateway.Upstream{}, fmt.Errorf("cloud %s has no server for %s", cloud.Name, p)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	key := cloud.Name + " " + ep.Host
	c := b.tls[key]
	if c == nil {
		roots, err := cloudRoots(cloud)
		if err != nil {
			return gateway.Upstream{}, err
		}
		c = &tls.Config{RootCAs: roots, ServerName: ep.Host, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(64)}
		if b.tls == nil {
			b.tls = map[string]*tls.Config{}
		}
		b.tls[key] = c
	}
	return gateway.Upstream{Address: net.JoinHostPort(ep.Host, strconv.Itoa(ep.Port)), StartTLS: ep.Security == "starttls", TLS: c}, nil
}

// forget drops what was derived from the configuration.
func (b *backend) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tls = nil
}

var reasons = map[apppassword.Refused]gateway.Reason{
	apppassword.WrongPassword:      gateway.BadCredentials,
	apppassword.DecoyUsed:          gateway.DecoyUsed,
	apppassword.MailboxNotAllowed:  gateway.MailboxNotAllowed,
	apppassword.ProtocolNotAllowed: gateway.ProtocolNotAllowed,
	apppassword.NetworkNotAllowed:  gateway.NetworkNotAllowed,
	apppassword.PasswordExpired:    gateway.Expired,
	apppassword.PasswordRevoked:    gateway.Revoked,
	apppassword.PasswordChanged:    gateway.Revoked,
	apppassword.PasswordReplaced:   gateway.Revoked,
	apppassword.TenantRefuses:      gateway.Policy,
	apppassword.SignInAgain:        gateway.SignInRequired,
	apppassword.NotAvailable:       gateway.Unavailable,
}

// refusal gives the gateway the reason, and the log the cause with what mends
// it.
func refusal(err error) error {
	re, ok := errors.AsType[*apppassword.RefusedError](err)
	if !ok {
		return err
	}
	r := &gateway.Refusal{Reason: reasons[re.Reason], Err: err}
	switch re.Reason {
	case apppassword.PasswordChanged:
		r.Public = "this app password was changed; sign in again"
	case apppassword.PasswordReplaced:
		r.Public = "this app password was replaced by a new one"
	}
	if re.Record.Name != "" {
		r.Err = fmt.Errorf("app password %q: %w", re.Record.Name, err)
	}
	if ee, ok := errors.AsType[*entra.Error](err); ok {
		if x, ok := explainEntra(ee); ok {
			x = x.Fill(recordValues(re.Record))
			r.Err = fmt.Errorf("%w; to mend it (%s): %s", r.Err, x.Mover, x.Fix)
		}
	}
	return r
}

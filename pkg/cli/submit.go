package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/secret"
)

// submitter lets the gateway send by Graph, with tokens of what stands behind an
// app password.
type submitter struct {
	verifier *apppassword.Verifier
	clouds   func(name string) (config.Cloud, error)
	http     func(config.Cloud) (*http.Client, error)
}

// mailSend is the permission to send by Graph, for an application as for people.
const mailSend = "Mail.Send"

// Ready implements [gateway.Submitter]. A token of the application that does not
// name Mail.Send says nothing where Exchange may permit it by a role of its own
// (RBAC for Applications): there Send is graph, which somebody has asked for.
func (s *submitter) Ready(ctx context.Context, g gateway.Grant) error {
	t, err := s.verifier.GraphToken(ctx, g.ID)
	if err != nil {
		return refusal(err)
	}
	claims, ok := entra.Peek(t)
	if !ok {
		return nil
	}
	may := slices.Contains(claims.Roles, mailSend)
	if g.Delegated {
		may = slices.ContainsFunc(claims.Scopes, func(scope string) bool { return scope == mailSend || scope == mailSend+".Shared" })
	}
	switch {
	case may, !g.Delegated && g.Send == gateway.SendGraph:
		return nil
	case g.Delegated:
		return &gateway.Refusal{Reason: gateway.SignInRequired, Err: &apppassword.GraphConsentError{Username: claims.Username}}
	}
	return &gateway.Refusal{Reason: gateway.Policy, Err: errors.New("the token for Graph does not have Mail.Send: an administrator runs what o365pw setup --send graph prints, " +
		"which lets it send for its mailboxes alone; then set send = \"graph\"")}
}

// client is Graph with the app password's token.
func (s *submitter) client(g gateway.Grant) (*graph.Client, error) {
	rec, ok := s.verifier.Record(g.ID)
	if !ok {
		return nil, refusal(&apppassword.RefusedError{Reason: apppassword.PasswordRevoked})
	}
	cloud, err := s.clouds(rec.Cloud)
	if err != nil {
		return nil, err
	}
	h, err := s.http(cloud)
	if err != nil {
		return nil, err
	}
	return &graph.Client{BaseURL: cloud.Graph, HTTP: h, UserAgent: userAgent(), MaxWait: time.Second,
		Token: func(ctx context.Context) (secret.Text, error) { return s.verifier.GraphToken(ctx, g.ID) }}, nil
}

// Submit implements [gateway.Submitter].
func (s *submitter) Submit(ctx context.Context, g gateway.Grant, message []byte) error {
	c, err := s.client(g)
	if err == nil {
		err = c.SendMIME(ctx, g.Mailbox, message)
	}
	if err == nil {
		return nil
	}
	return submitError(err, g)
}

// Sent implements [gateway.Submitter].
func (s *submitter) Sent(ctx context.Context, g gateway.Grant, messageID string, since time.Time) (bool, error) {
	c, err := s.client(g)
	if err != nil {
		return false, err
	}
	sent, err := c.SentMessage(ctx, g.Mailbox, messageID, since)
	if ge, ok := errors.AsType[*graph.Error](err); ok && ge.IsForbidden() {
		return false, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return sent, err
}

// submitError says in SMTP's words why Graph did not take a message.
func submitError(err error, g gateway.Grant) *gateway.SubmitError {
	e := &gateway.SubmitError{Err: err}
	ge, ok := errors.AsType[*graph.Error](err)
	if !ok {
		// There was no token, so there was no request.
		r, is := errors.AsType[*gateway.Refusal](refusal(err))
		if !is || r.Reason == gateway.Unavailable {
			e.Code, e.Public = "451 4.7.0", "there is no access token for Graph for now"
			return e
		}
		e.Code, e.Public = "550 5.7.0", cmp.Or(r.Public, "the app password may not send: "+string(r.Reason))
		e.Err = r
		return e
	}
	e.Wait = ge.RetryAfter
	if ge.Ambiguous() {
		e.Unknown = true
		return e
	}
	said := func(otherwise string) string {
		if ge.Message == "" {
			return otherwise
		}
		return strings.TrimRight(ge.Message, ". ")
	}
	switch {
	case ge.Status == 0:
		e.Code, e.Public = "451 4.4.1", "Microsoft Graph cannot be reached for now"
	case ge.IsThrottled():
		e.Code, e.Public, e.Wait = "450 4.3.2", "Microsoft Graph takes no more messages of this mailbox for now", cmp.Or(e.Wait, time.Minute)
	case ge.IsUnauthorized():
		e.Code, e.Public = "451 4.7.0", "Microsoft Graph does not accept the access token: "+said("401")
	case ge.Status == http.StatusRequestEntityTooLarge:
		e.Code, e.Public = "552 5.3.4", "the message is too large for Microsoft Graph"
	case ge.HasCode("ErrorSendAsDenied"):
		e.Code, e.Public = "550 5.7.60", g.Mailbox+" may not send as the sender of this message: set "+g.Mailbox+" as the sender ("+said("ErrorSendAsDenied")+")"
	case ge.IsForbidden():
		e.Code, e.Public, e.Denied = "550 5.7.1", "Microsoft Graph does not let it send as "+g.Mailbox+": an administrator permits Mail.Send ("+said("403")+")", true
	case ge.IsNotFound():
		e.Code, e.Public = "550 5.2.1", "Microsoft Graph has no mailbox "+g.Mailbox+" ("+said("404")+")"
	case ge.Status == http.StatusBadRequest:
		e.Code, e.Public = "554 5.6.0", "Microsoft Graph does not take the message: "+said("400")
	default:
		e.Code, e.Public = "554 5.0.0", "Microsoft Graph does not take the message: "+said(fmt.Sprint(ge.Status))
	}
	return e
}

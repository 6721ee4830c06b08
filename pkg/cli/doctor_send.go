package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/graph"
)

// sending asks for a token for Graph as the gateway does, and looks into Sent Items
// for a message that nobody has sent. Whether a message would be taken, only one
// can show.
func (d *doctor) sending(ctx context.Context, mailbox string) result {
	if d.subject == nil {
		return skipped("it sends by Microsoft Graph, and there is no app password here to try that with; make one: o365pw create")
	}
	by, grant, err := d.submitter(ctx, mailbox)
	if err != nil {
		return d.failMail(err)
	}
	grant.Send = gateway.SendAuto // which wants Mail.Send to be named
	err = by.Ready(ctx, grant)
	named := err == nil
	if grant.Send = gateway.SendGraph; !named && d.send() == string(gateway.SendGraph) {
		err = by.Ready(ctx, grant)
	}
	if err != nil {
		return d.failMail(err)
	}
	_, err = by.Sent(ctx, grant, "<"+uuid.NewString()+"@o365pw.invalid>", time.Now())
	ge, _ := errors.AsType[*graph.Error](err)
	looks := errors.Is(err, errors.ErrUnsupported)
	switch {
	case err == nil && named:
		return passed("by Microsoft Graph: the token has Mail.Send, and Sent Items may be looked into; nothing was sent")
	case err == nil:
		return passed("by Microsoft Graph, by a role in Exchange (Application Mail.Send), which no token shows: only a message does; Sent Items may be looked into")
	case ge != nil && ge.IsNotFound():
		return d.failMail(err)
	case looks && named:
		r := result{status: checkWarning, ids: requestIDs(err),
			detail: "by Microsoft Graph: the token has Mail.Send; Sent Items may not be looked into, so that of a message whose answer is lost nobody can tell whether it was sent"}
		r.remedies = []remedy{d.letSend("the permission Mail.ReadBasic is optional, and not given")}
		return r
	case looks:
		r := result{status: checkWarning, ids: requestIDs(err),
			detail: "by Microsoft Graph: the token does not have Mail.Send, and Graph does not let the application into the mailbox, as the roles that setup prints would; it can send only if Exchange has given it the role Application Mail.Send alone"}
		if ge != nil {
			r.detail += ": " + ge.Error()
		}
		r.remedies = []remedy{d.letSend("no role in Exchange lets it send for this mailbox, or it was given within the hour")}
		return r
	}
	return d.warning(err)
}

// submitter is what the gateway sends by, for the app password that is looked at.
func (d *doctor) submitter(ctx context.Context, mailbox string) (*submitter, gateway.Grant, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g, err := d.a.withoutListeners(ctx, d.session, d.subject.Record)
	if err != nil {
		return nil, gateway.Grant{}, err
	}
	b := &backend{verifier: g.verifier, clouds: g.cloud, sending: g.sending}
	grant, err := b.grant(d.subject.Record, mailbox, gateway.SMTP)
	return &submitter{verifier: g.verifier, clouds: g.cloud, http: g.httpClient}, grant, err
}

// letSend is how the mailbox comes to what sending by Graph stands on.
func (d *doctor) letSend(cause string) remedy {
	if d.delegated() {
		return yours(cause, "o365pw setup --profile "+asArgument(d.session.profile.Name)+" --just-me --send "+string(gateway.SendGraph))
	}
	line := "o365pw setup --profile " + asArgument(d.session.profile.Name) + " --organization --allow " + strings.Join(d.allow, ",") + " --send " + string(gateway.SendGraph)
	return yours(cause+": an administrator of Exchange runs the lines that this prints", line)
}

// instead is what holds of a mailbox to which SMTP is closed: whether it sends by
// Graph. ok is false where that is not meant to be, or not possible.
func (d *doctor) instead(ctx context.Context, mailbox string) (r result, ok bool) {
	if d.subject == nil || d.send() == string(gateway.SendSMTP) {
		return result{}, false
	}
	r = d.sending(ctx, mailbox)
	r.detail = "SMTP is closed to it, and it sends in its place " + r.detail
	return r, r.status != checkFailed
}

// send is how the app password that is looked at sends, or else the profile.
func (d *doctor) send() string {
	if d.subject != nil && d.subject.Send != "" {
		return d.subject.Send
	}
	if d.session.profile.Send != "" {
		return d.session.profile.Send
	}
	return config.DefaultSend
}

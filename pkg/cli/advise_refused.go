package cli

import (
	"cmp"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// adviseRefused is for an app password that token and connect may not use, or
// cannot. Of what Entra said its own rows know more.
func adviseRefused(e *apppassword.RefusedError) advice {
	name := asArgument(e.Record.Name)
	switch e.Reason {
	case apppassword.MailboxNotAllowed:
		return advice{wrongUsage, "name one of its mailboxes: o365pw show " + name}
	case apppassword.ProtocolNotAllowed:
		return advice{wrongUsage, "what it may be used for: o365pw show " + name + "; make one that may more: o365pw create --allow imap,pop3,smtp"}
	case apppassword.NetworkNotAllowed:
		return advice{wrongUsage, "a program that is run here comes from this machine, which its networks lack; make one that has it: o365pw create --network 127.0.0.1/32 …"}
	case apppassword.PasswordExpired:
		return advice{signInRequired, "o365pw rotate " + name}
	case apppassword.PasswordReplaced, apppassword.PasswordChanged:
		return advice{unavailable, "run the same again: it then takes the app password as it is now"}
	case apppassword.SignInAgain:
		return advice{signInRequired, "o365pw login"}
	case apppassword.DecoyUsed:
		return advice{wrongUsage, "it is a decoy, which opens nothing; what else there is: o365pw list"}
	}
	var cause advice
	if e.Err != nil {
		cause = advise(e.Err)
	}
	switch e.Reason {
	case apppassword.PasswordRevoked:
		return advice{notFound, cmp.Or(cause.hint, "o365pw list")}
	case apppassword.TenantRefuses:
		if cause.code == failed {
			cause.code = refused
		}
		return cause
	}
	later, _ := explain.Exit(int(unavailable))
	return advice{unavailable, cmp.Or(cause.hint, later.Hint())}
}

// adviseRefusal is for what the gateway's part of connect finds out by itself.
func adviseRefusal(r *gateway.Refusal) advice {
	x, _ := explain.Gateway(string(r.Reason))
	code := map[gateway.Reason]exitCode{
		gateway.MailboxNotAllowed: wrongUsage, gateway.Expired: signInRequired, gateway.SignInRequired: signInRequired,
		gateway.Policy: refused, gateway.Revoked: notFound, gateway.Unavailable: unavailable,
	}[r.Reason]
	return advice{cmp.Or(code, failed), x.Hint()}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/graph"
)

// setupError is a setup that could not be ended.
type setupError struct {
	err   error
	code  exitCode // 0: that of err
	move  string   // whose it is, and what; empty: what the table says of err
	again string   // the command that goes on

	values map[string]string // of placeholders: the profile may not be written yet
}

func (e *setupError) Error() string { return e.err.Error() }

func (e *setupError) Unwrap() error { return e.err }

// advice is the table's, with the way to go on.
func (e *setupError) advice() advice {
	adv := advise(e.err)
	if e.code != 0 {
		adv.code = e.code
	}
	if e.move != "" {
		adv.hint = e.move
	}
	adv.hint = explain.FillText(adv.hint, e.values)
	if adv.hint != "" && e.again != "" {
		adv.hint += "; then: "
	}
	adv.hint += e.again
	return adv
}

// stopped names what exists already, and the ways on and back.
func (w *setup) stopped(err error) error {
	if !w.begun {
		return w.withoutRights(err)
	}
	ge, refusedByGraph := errors.AsType[*graph.Error](err)
	switch {
	case len(w.done) > 0:
		w.warn("what is there already, and stays: %s", strings.Join(w.done, "; "))
	case refusedByGraph && !ge.Temporary() && ge.Err == nil:
		w.warn("nothing was made")
	default:
		w.warn("nothing was finished; what was under way may have been done all the same, and the next run finds it")
		if !w.justMe && w.application.AppID == "" {
			w.warn("an application would be there with the unique name %s", w.uniqueName)
		}
	}
	if w.made {
		w.warn("to take the application back in place of going on: az ad app delete --id %s", w.application.AppID)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, errInterrupted) {
		w.warn("to go on: %s", w.again())
		return err
	}
	if err := w.withoutRights(err); advise(err).code == refused {
		return err
	}
	return &setupError{err: err, again: w.again()}
}

// withoutRights turns a refusal into a message for whoever has the rights. What
// is none comes back as it is.
func (w *setup) withoutRights(err error) error {
	if _, ok := errors.AsType[*setupError](err); ok {
		return err
	}
	if _, ok := errors.AsType[*noExchangeError](err); ok {
		return &setupError{err: err, code: refused, move: "check the tenant (--tenant, --cloud); where it is right, it needs a licence for Exchange Online"}
	}
	if ge, ok := errors.AsType[*graph.Error](err); ok && ge.IsForbidden() {
		if w.signer != nil && w.signer.env {
			return &setupError{err: err, code: refused, move: "an administrator's move: grant the application that signs in the permissions of Microsoft Graph Application.ReadWrite.OwnedBy, " +
				"AppRoleAssignment.ReadWrite.All and Application.Read.All, or run it as a person", again: w.again()}
		}
		w.messageForAdministrator()
		return &setupError{err: err, code: refused, move: "an administrator's move (Application Administrator, Cloud Application Administrator or Privileged Role Administrator): " +
			"sign in as one" + w.signOutFirst() + ", or send them the message above", again: w.again()}
	}
	ee, ofEntra := errors.AsType[*entra.Error](err)
	if ofEntra && ee.Number() == 90002 {
		return &setupError{err: err, move: "name the tenant with --tenant (its GUID, or a domain such as contoso.onmicrosoft.com), and its cloud with --cloud"}
	}
	if ofEntra && ee.Kind() == entra.Forbidden {
		w.messageForAdministrator()
		clientID := w.profile.LoginClientID
		if w.justMe {
			clientID = w.profile.ClientID
		}
		return &setupError{err: err, code: refused, again: w.again(),
			values: map[string]string{"CLIENT_ID": inAnyShell(clientID), "TENANT": inAnyShell(w.profile.Tenant)}}
	}
	return err
}

// signOutFirst is for a sign-in that is kept, which would be taken again.
func (w *setup) signOutFirst() string {
	if w.signer == nil || w.signer.isNew || w.was.Name == "" {
		return ""
	}
	return " (first: o365pw logout --profile " + w.profile.Name + ")"
}

// messageForAdministrator is ready to be sent.
func (w *setup) messageForAdministrator() {
	to := strings.Join(w.mailboxes, ", ")
	lines := []string{"", "--- message for your administrator ---",
		fmt.Sprintf("I would like to use a mail program that knows only passwords with %s, by way of o365pw.", to)}
	if w.justMe {
		lines = append(lines,
			fmt.Sprintf("It signs in as me, with the application %s, and needs these delegated permissions of", w.profile.ClientID),
			"Office 365 Exchange Online: "+strings.Join(delegatedNames(w.profile.Allow), ", ")+" (and offline_access).")
		if w.profile.Send == viaGraph {
			lines = append(lines, "Of Microsoft Graph, by which it sends: Mail.Send and Mail.ReadBasic.")
		}
		lines = append(lines,
			"They open what I may open, and nothing else. To consent, please open this address:",
			"  "+w.consentURL(w.profile.ClientID))
	} else {
		lines = append(lines,
			"It needs an application in Entra, for this tenant alone, with these application permissions of",
			"Office 365 Exchange Online: "+strings.Join(w.wantedRoles(), ", ")+". They open only the mailboxes that Exchange",
			"lets the application open: "+to+".",
			"Please run this, as Application Administrator or Cloud Application Administrator:",
			"  "+w.again(),
			"It shows what it does before it does it, and prints the lines for Exchange PowerShell that come after.",
			"By hand it is described in docs/admin-setup.md.")
		if w.profile.LoginClientID != "" && w.signer != nil && !w.signer.env {
			lines = append(lines, "If Entra asks for consent to the sign-in itself: "+w.consentURL(w.profile.LoginClientID))
		}
	}
	w.block(append(lines, "--- end ---", ""))
}

func (w *setup) wantedRoles() []string {
	var all []string
	for _, p := range w.profile.Allow {
		all = append(all, appRoles[p])
	}
	return all
}

func delegatedNames(allow []string) []string {
	names := map[string]string{"imap": "IMAP.AccessAsUser.All", "pop3": "POP.AccessAsUser.All", "smtp": "SMTP.Send"}
	var all []string
	for _, p := range allow {
		all = append(all, names[p])
	}
	return all
}

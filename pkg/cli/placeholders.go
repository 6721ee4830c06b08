package cli

import (
	"cmp"
	"errors"
	"regexp"
	"strings"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// advise is the table's advice, with what is known of this profile in its
// commands.
func (a *app) advise(err error) advice {
	_, many := errors.AsType[*failedError](err)
	if e, ok := errors.AsType[*apppassword.ProfileError](err); ok && !many && e.Profile != a.profile {
		of := app{Env: a.Env, profile: e.Profile, configPath: a.configPath}
		return of.advise(err)
	}
	adv := advise(err)
	if explain.HasPlaceholders(adv.hint) {
		adv.hint = explain.FillText(adv.hint, a.valuesFor(err))
	}
	adv.hint = a.withPurpose(err, adv.hint)
	_, unknown := errors.AsType[*config.UnknownProfileError](err)
	if a.profile != "" && !unknown && !strings.Contains(adv.hint, "--profile") {
		// As it stands, it would be about another profile.
		adv.hint = ofProfile.ReplaceAllString(adv.hint, "${0} --profile "+strings.ReplaceAll(shellQuote(a.profile), "$", "$$"))
	}
	return adv
}

// withPurpose tells login which sign-in is missing, where the profile's backing
// needs the other one.
func (a *app) withPurpose(err error, hint string) string {
	_, graph := errors.AsType[*signInError](err)
	_, mail := errors.AsType[*apppassword.SignInError](err)
	if !graph && !mail {
		return hint
	}
	switch user := a.profileValues()["backing"] == apppassword.BackingUser; {
	case graph && user:
		return strings.Replace(hint, "o365pw login", "o365pw login --for graph", 1)
	case mail && !user:
		return strings.Replace(hint, "o365pw login", "o365pw login --for mail", 1)
	}
	return hint
}

// ofProfile are the commands in hints that mend what belongs to one profile.
var ofProfile = regexp.MustCompile(`\bo365pw (login|setup|list)\b`)

// valuesFor are the placeholders' values for an error: an error of Entra's is
// about the application that asked for the token, all others about the one
// that holds the app passwords. The mailbox of the profile need not be the
// error's.
func (a *app) valuesFor(err error) map[string]string {
	values := a.profileValues()
	if values == nil {
		return nil
	}
	delete(values, "ADDRESS")
	_, ofEntra := errors.AsType[*entra.Error](err)
	_, ofAppPassword := errors.AsType[*apppassword.UnusableError](err)
	_, unattended := errors.AsType[*unattendedError](err)
	switch {
	case unattended:
		values["CLIENT_ID"], values["TENANT"] = inAnyShell(a.Getenv("AZURE_CLIENT_ID")), inAnyShell(cmp.Or(a.Getenv("AZURE_TENANT_ID"), values["TENANT"]))
	case ofEntra && !ofAppPassword:
		// With the backing user people sign in to both.
		if login := values["login"]; login != "" && values["backing"] == "user" {
			delete(values, "CLIENT_ID")
		} else {
			values["CLIENT_ID"] = cmp.Or(login, values["CLIENT_ID"])
		}
	}
	return values
}

// profileValues are the placeholders that the profile knows; nil where there
// is no profile.
func (a *app) profileValues() map[string]string {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil
	}
	p, err := config.Resolve(cfg, a.profile, a.Getenv)
	if err != nil {
		return nil
	}
	return map[string]string{
		"CLIENT_ID": inAnyShell(p.ClientID), "TENANT": inAnyShell(p.Tenant), "ADDRESS": inAnyShell(p.Mailbox),
		"login": inAnyShell(p.LoginClientID), "backing": p.Backing, // no placeholders
	}
}

// recordValues are the placeholders that an app password knows.
func recordValues(rec apppassword.Record) map[string]string {
	values := map[string]string{"CLIENT_ID": inAnyShell(rec.ClientID), "TENANT": inAnyShell(rec.Tenant)}
	if rec.Name != "" {
		values["NAME"] = asArgument(rec.Name)
	}
	if len(rec.Mailboxes) == 1 {
		values["ADDRESS"] = inAnyShell(rec.Mailboxes[0])
	}
	return values
}

// grantValues are the placeholders that a grant of the gateway's knows.
func grantValues(g gateway.Grant) map[string]string {
	values := map[string]string{"ADDRESS": inAnyShell(g.Mailbox)}
	if g.Name != "" {
		values["NAME"] = asArgument(g.Name)
	}
	return values
}

// inAnyShell writes s so that a POSIX shell and PowerShell take it as one
// argument; empty where both cannot.
func inAnyShell(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-@"
	only := func(chars string) bool {
		return !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(chars, r) })
	}
	switch {
	case s == "" || s[0] == '-' || s[0] == '@':
		return ""
	case only(plain):
		return s
	case only(plain + "'"): // as in o'brien@contoso.com
		return `"` + s + `"`
	}
	return ""
}

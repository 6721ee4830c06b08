package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
)

// graphTools is the client id of Microsoft Graph Command Line Tools, which every
// tenant of Microsoft's own clouds knows, and which asks for any permission of
// Graph's. Somebody who has no application yet needs one to sign in with.
const graphTools = "14d82eec-204b-4c2f-b7e8-296a70dab67e"

// pendingID stands for the client id of an application that is still to be
// made.
const pendingID = "00000000-0000-0000-0000-000000000000"

// takeProfile fills in what the profile is to be, but for its cloud.
func (w *setup) takeProfile(ctx context.Context, name string, asked bool) (err error) {
	p := &w.profile
	p.Name, p.Expires = name, cmp.Or(w.was.Expires, config.DefaultExpires)
	p.AssertionAlgorithm = cmp.Or(w.was.AssertionAlgorithm, config.DefaultAssertionAlgorithm)
	p.Send = cmp.Or(w.o.send, w.was.Send, config.DefaultSend)
	if err := apppassword.CheckSend(p.Send); err != nil {
		return err
	}
	p.Keychain = cmp.Or(w.Getenv("O365PW_KEYCHAIN"), w.was.Keychain, config.DefaultKeychain)
	p.Certificate = cmp.Or(w.was.Certificate, w.imported.Certificate)
	if len(w.mailboxes) > 0 {
		p.Mailbox = w.mailboxes[0]
	}
	if !w.justMe && w.was.Mailbox != "" {
		p.Mailbox = w.was.Mailbox // the others are further ones of the same application
	}
	allow := w.o.allow
	for _, known := range [][]string{w.imported.Allow, w.was.Allow, {"imap", "smtp"}} {
		if len(allow) == 0 {
			allow = known
		}
	}
	if p.Allow, err = apppassword.ParseAllow(allow); err != nil {
		return err
	}
	p.Backing = apppassword.BackingUser
	if !w.justMe {
		p.Backing = apppassword.BackingSecret // until the policy is known
		for _, known := range []string{w.was.Backing, w.imported.Backing, w.o.backing} {
			if known != "" && known != apppassword.BackingUser {
				p.Backing = known
			}
		}
	}
	w.takeTenant()
	if problem, hint := config.CheckTenant(p.Tenant, p.Backing, p.Cloud); problem != "" {
		return &usageError{problem: problem, hint: hint}
	}
	if w.justMe {
		p.LoginClientID = w.was.LoginClientID
		return w.takeClientID(ctx, asked)
	}
	if w.was.Backing != apppassword.BackingUser {
		p.ClientID = w.was.ClientID
	}
	if w.imported.Backing != "" && w.imported.Backing != apppassword.BackingUser {
		p.ClientID = cmp.Or(w.imported.ClientID, p.ClientID)
	}
	p.ClientID = strings.ToLower(cmp.Or(w.o.clientID, w.Getenv("O365PW_CLIENT_ID"), p.ClientID))
	if w.o.app != "" {
		p.ClientID = ""
	}
	w.uniqueName = w.o.app
	if w.uniqueName == "" {
		w.uniqueName = uniqueNameFor(cmp.Or(p.Mailbox, name))
	}
	return w.takeLoginClient()
}

// plainAddress is one whose parts can be told apart when "-" stands for "@".
var plainAddress = regexp.MustCompile(`^[a-z0-9._]{1,64}@[a-z0-9.-]{1,48}$`)

// uniqueNameFor gives each mailbox an application of its own: two addresses
// never have the same name, or one would get the other's.
func uniqueNameFor(mailbox string) string {
	mailbox = strings.ToLower(mailbox)
	if plainAddress.MatchString(mailbox) {
		return "o365pw-" + strings.Replace(mailbox, "@", "-", 1)
	}
	sum := sha256.Sum256([]byte(mailbox))
	return "o365pw-" + nameFrom(mailbox) + "--" + hex.EncodeToString(sum[:6])
}

func (w *setup) takeTenant() {
	p := &w.profile
	imported := w.imported.Tenant
	if problem, _ := config.CheckTenant(imported, p.Backing, p.Cloud); problem != "" {
		imported = "" // good for people, and not for an application
	}
	p.Tenant = cmp.Or(w.o.tenant, w.Getenv("O365PW_TENANT"), imported, w.was.Tenant)
	w.tenantNamed = p.Tenant != ""
	w.tenantNew = p.Tenant == "" || p.Tenant != w.was.Tenant
	if p.Tenant != "" || len(w.mailboxes) == 0 {
		return
	}
	_, p.Tenant, _ = strings.Cut(w.mailboxes[0], "@")
	if w.justMe && config.IsPersonalAddress(w.mailboxes[0]) {
		p.Tenant = "consumers"
	}
}

// takeLoginClient finds the public client to sign in to Graph with.
func (w *setup) takeLoginClient() error {
	p := &w.profile
	p.LoginClientID = strings.ToLower(cmp.Or(w.o.loginClientID, w.was.LoginClientID))
	if _, without := w.unattended(); without || w.Getenv("O365PW_ACCESS_TOKEN") != "" || w.o.azureCLI || p.LoginClientID != "" {
		return nil
	}
	if w.cfg != nil {
		for _, name := range slices.Sorted(maps.Keys(w.cfg.Profiles)) {
			if o := w.cfg.Profiles[name]; o.CloudName == p.CloudName && strings.EqualFold(o.Tenant, p.Tenant) && o.LoginClientID != "" {
				p.LoginClientID = o.LoginClientID
				return nil
			}
		}
	}
	if _, builtin := config.BuiltinCloud(p.CloudName); !builtin {
		return &usageError{problem: "for a cloud of one's own it is not known which application people sign in to Graph with",
			hint: "name a public client of it with --login-client-id, or set AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"}
	}
	p.LoginClientID = graphTools
	return nil
}

// takeClientID finds the application that a person signs in to for mail.
func (w *setup) takeClientID(ctx context.Context, asked bool) error {
	p := &w.profile
	p.ClientID = strings.ToLower(cmp.Or(w.o.clientID, w.Getenv("O365PW_CLIENT_ID"), w.imported.ClientID, w.was.ClientID))
	switch {
	case p.ClientID != "":
		return nil
	case !asked:
		w.explainClientID()
		return &usageError{problem: "it is not known which application to sign in to", hint: "add --client-id GUID: that of a public client, made as the lines above say"}
	}
	w.explainClientID()
	return w.ask(ctx, question{text: "Client id of the application to sign in to", flag: "--client-id", take: func(answer string) error {
		if !guidOrEmpty.MatchString(answer) {
			return errors.New("a client id is a GUID, as in 00001111-aaaa-2222-bbbb-3333cccc4444")
		}
		p.ClientID = strings.ToLower(answer)
		return nil
	}})
}

// explainClientID tells how to come by an application to sign in to.
func (w *setup) explainClientID() {
	audience, portal := "AzureADMyOrg", cmp.Or(w.profile.Cloud.Portal, "https://entra.microsoft.com")
	if w.profile.Tenant == "consumers" {
		audience = "AzureADandPersonalMicrosoftAccount"
	}
	lines := []string{
		"for this you need the client id of an application that people sign in to (a public client).",
		"Somebody who may register applications makes one, once for all people:",
		fmt.Sprintf("  in a browser: %s, App registrations, New registration; platform \"Mobile and desktop applications\" with http://localhost;", portal),
		"    API permissions, Office 365 Exchange Online, Delegated permissions: " + strings.Join(delegatedNames(w.profile.Allow), ", "),
		"  with the Azure CLI:",
		fmt.Sprintf("    az ad app create --display-name \"o365pw for people\" --sign-in-audience %s \\", audience),
		"        --public-client-redirect-uris http://localhost --is-fallback-public-client true --query appId -o tsv",
		"    az ad app permission add --id CLIENT_ID --api 00000002-0000-0ff1-ce00-000000000000 \\",
		"        --api-permissions " + delegatedIDs(w.profile.Allow),
	}
	if w.profile.Tenant == "consumers" {
		lines[2] += "\n    for accounts in any organizational directory and personal Microsoft accounts;"
	} else {
		lines = append(lines, "An organisation may want an administrator to consent, who opens then:", "  "+w.consentURL("CLIENT_ID"))
	}
	w.block(lines)
}

// delegatedIDs are the delegated permissions of Office 365 Exchange Online for
// the protocols, as az takes them.
func delegatedIDs(allow []string) string {
	ids := map[string]string{"imap": "195adc35-e27b-454b-a7ed-1ecdffa1c09f", "pop3": "fb698133-92fa-453e-a9ed-688e10f2e5ac", "smtp": "76faac2a-0f20-42f1-928a-50de5b9dbe52"}
	var all []string
	for _, p := range allow {
		all = append(all, ids[p]+"=Scope")
	}
	return strings.Join(all, " ")
}

// consentURL is where an administrator consents to what an application asks
// for: https://learn.microsoft.com/entra/identity-platform/v2-admin-consent.
func (w *setup) consentURL(clientID string) string {
	return w.profile.Cloud.Authority + "/" + w.profile.Tenant + "/adminconsent?client_id=" + clientID
}

// settings are the keys of the profile to write.
func (w *setup) settings() []config.Setting {
	p := w.profile
	all := []config.Setting{{Key: "tenant", Value: p.Tenant}, {Key: "client_id", Value: cmp.Or(p.ClientID, pendingID)}}
	add := func(key, value, was, standard string) {
		if value != was && (value != standard || was != "") && value != "" {
			all = append(all, config.Setting{Key: key, Value: value})
		}
	}
	add("login_client_id", p.LoginClientID, w.was.LoginClientID, "")
	add("mailbox", p.Mailbox, w.was.Mailbox, "")
	all = append(all, config.Setting{Key: "backing", Value: p.Backing}, config.Setting{Key: "allow", Value: p.Allow})
	add("cloud", p.CloudName, w.was.CloudName, config.DefaultCloud)
	if w.was.Name == "" {
		add("keychain", p.Keychain, "", config.DefaultKeychain)
	}
	add("send", p.Send, w.was.Send, config.DefaultSend)
	add("certificate", p.Certificate, w.was.Certificate, "")
	if w.was.Name != "" {
		// What the file leaves to the default stays so.
		all = slices.DeleteFunc(all, func(s config.Setting) bool {
			return s.Key == "backing" && p.Backing == w.was.Backing ||
				s.Key == "allow" && slices.Equal(p.Allow, sorted(w.was.Allow))
		})
	}
	return all
}

// sorted is a list of protocols in the order of ParseAllow, which has no error
// for those of a configuration.
func sorted(allow []string) []string {
	all, _ := apppassword.ParseAllow(allow)
	return all
}

// planProfile is the step that writes the profile.
func (w *setup) planProfile() error {
	edit, err := config.PreviewProfile(w.path, w.profile.Name, w.settings())
	if err != nil {
		return err
	}
	st := setupStep{Name: "profile", Change: changeNone, Text: "profile " + w.profile.Name + " in " + w.path}
	switch {
	case edit.Diff == "":
	case w.was.Name == "":
		st.Change, st.Text = changeCreate, "write the profile "+w.profile.Name+" to "+w.path
	default:
		st.Change, st.Text = changeUpdate, "change the profile "+w.profile.Name+" in "+w.path
	}
	w.diff = changedLines(edit.Diff)
	st.do = func(ctx context.Context) (string, error) {
		// What it says was agreed to, and its parts are there: Ctrl-C no longer
		// stops it.
		_, err := config.SetProfile(context.WithoutCancel(ctx), w.path, w.profile.Name, w.settings())
		return "profile " + w.profile.Name + " in " + w.path, err
	}
	w.step(st)
	return nil
}

// changedLines are the lines of a unified diff that come and go.
func changedLines(diff string) []string {
	var all []string
	for line := range strings.Lines(diff) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "+++ ") || strings.HasPrefix(line, "--- ") || line == "" || line[0] != '+' && line[0] != '-' || len(line) == 1 {
			continue
		}
		all = append(all, strings.ReplaceAll(line, pendingID, "(of the new application)"))
	}
	return all
}

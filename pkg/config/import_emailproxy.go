package config

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// ImportEmailProxy reads a configuration of email-oauth2-proxy
// (https://github.com/simonrob/email-oauth2-proxy): one profile for each account,
// in the order of the file. Accounts elsewhere than at Microsoft are there with
// the reason why they make none. Client secrets, stored tokens and redirect
// addresses are not taken over. Errors are *Error, without a path.
func ImportEmailProxy(r io.Reader) ([]Imported, error) {
	data, err := readImport(r)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	return importEmailProxy(data)
}

// proxyKeys are the keys whose values matter here. None holds a secret.
var proxyKeys = []string{
	"permission_url", "token_url", "oauth2_scope", "oauth2_resource", "oauth2_flow", "redirect_uri", "client_id",
	"jwt_certificate_path", "jwt_key_path", "server_address", "local_address", "allow_catch_all_accounts",
}

var proxyServer = regexp.MustCompile(`^(IMAP|POP|SMTP)-([0-9]+)$`)

// A proxyListener is a local server of email-oauth2-proxy's.
type proxyListener struct {
	protocol, cloud string
	host            string // empty: not said, which means every address
	port            uint16
}

func importEmailProxy(data []byte) ([]Imported, error) {
	sections, err := readINI(data, func(key string) bool { return slices.Contains(proxyKeys, key) })
	if err != nil {
		return nil, err
	}
	var listeners []proxyListener
	catchAll := map[string]map[string]string{} // by domain with its @, and @ for all
	allowed := false
	for _, s := range sections {
		if m := proxyServer.FindStringSubmatch(s.name); m != nil {
			l := proxyListener{strings.ToLower(strings.Replace(m[1], "POP", "POP3", 1)), cloudOfMail(s.values["server_address"]), s.values["local_address"], localPort(m[2])}
			if l.cloud != "" && l.port != 0 {
				listeners = append(listeners, l)
			}
		}
		if strings.HasPrefix(s.name, "@") {
			catchAll[s.name] = s.values
		}
		if s.name == "emailproxy" {
			allowed = slices.Contains([]string{"1", "yes", "true", "on"}, strings.ToLower(s.values["allow_catch_all_accounts"]))
		}
	}
	var all []Imported
	for _, s := range sections {
		if !strings.Contains(s.name, "@") {
			continue
		}
		// What an account does not say, its domain's section says, then that of all.
		values := []map[string]string{s.values}
		if allowed {
			values = append(values, catchAll[s.name[strings.LastIndexByte(s.name, '@'):]], catchAll["@"])
		}
		all = append(all, proxyAccount{s.name, values}.imported(listeners, allowed))
	}
	if len(all) == 0 {
		return nil, &Error{Problem: "there is no account in it: no section that is called by a mail address", Hint: "name the emailproxy.config with the accounts"}
	}
	nameProfiles(all)
	return all, nil
}

// A proxyAccount is a section for an account, with those that stand in for it.
type proxyAccount struct {
	name   string
	values []map[string]string
}

func (a proxyAccount) has(key string) bool {
	return slices.ContainsFunc(a.values, func(v map[string]string) bool { _, ok := v[key]; return ok })
}

func (a proxyAccount) get(key string) string {
	for _, v := range a.values {
		if value, ok := v[key]; ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (a proxyAccount) imported(listeners []proxyListener, catchAll bool) Imported {
	i := Imported{}
	if strings.HasPrefix(a.name, "@") {
		i.note("the section stood for every account of %s: name the mailboxes at o365pw create", cmp.Or(a.name[1:], "all domains"))
		i.Name = cmp.Or(strings.SplitN(a.name[1:], ".", 2)[0], "mail")
		if !catchAll {
			return Imported{Skipped: fmt.Sprintf("section %q stands for every account of a domain, which allow_catch_all_accounts does not allow", a.name)}
		}
	} else {
		i.takeMailbox(a.name)
	}
	token := urlOf(a.get("token_url"))
	i.Cloud = cloudOfLogin(token.Hostname())
	if a.get("token_url") == "" {
		return Imported{Mailbox: i.Mailbox, Skipped: "it has no token_url, without which nothing tells where it signs in"}
	}
	if a.get("oauth2_flow") == "service_account" {
		return Imported{Mailbox: i.Mailbox, Skipped: "it signs in by a service account, which is Google's"}
	}
	if i.Cloud == "" {
		return Imported{Mailbox: i.Mailbox, Skipped: fmt.Sprintf("its tokens come from %q, not from Microsoft", token.Hostname())}
	}
	// GCC High and DoD have one sign-in host; what the token is for tells them apart.
	for _, v := range append(strings.Fields(a.get("oauth2_scope")), a.get("oauth2_resource")) {
		if c := cloudOfMail(hostOf(v)); c != "" && i.Cloud == usgov.Name {
			i.Cloud = c
		}
	}
	if i.Cloud == usgov.Name && !slices.ContainsFunc(listeners, func(l proxyListener) bool { return l.cloud == usgov.Name }) &&
		slices.ContainsFunc(listeners, func(l proxyListener) bool { return l.cloud == dod.Name }) {
		i.Cloud = dod.Name
	}
	a.backing(&i)
	tenant, _, _ := strings.Cut(strings.TrimPrefix(token.Path, "/"), "/")
	i.takeTenant(tenant)
	i.takeClientID(a.get("client_id"))
	a.listeners(&i, listeners)
	a.leftOut(&i)
	return i
}

// backing fills in what stands behind an app password, by the flow.
func (a proxyAccount) backing(i *Imported) {
	certificate, key := a.get("jwt_certificate_path"), a.get("jwt_key_path")
	i.Backing = "user"
	switch flow := a.get("oauth2_flow"); {
	case flow == "client_credentials" && certificate != "":
		i.Backing = "certificate"
		if certificate == key && filepath.IsAbs(certificate) && utf8.ValidString(certificate) {
			i.Certificate = certificate
			break
		}
		i.note("certificate and key are in two files, %q and %q: put both into one PEM file and name that by certificate = \"…\" in the profile", certificate, key)
	case flow == "client_credentials":
		i.Backing = "secret"
	case flow == "password":
		i.note("it signed in by sending the person's password, which o365pw does not do: sign in once with o365pw login")
	case flow == "device":
		i.note("it signed in by device code: o365pw login --device-code")
	case flow != "" && flow != "authorization_code":
		i.note("its flow %q is not known here; a person's sign-in is taken for it", flow)
	}
	if i.Backing == "user" && certificate != "" {
		i.note("its certificate was not taken over: a person's sign-in needs none, if public client flows are allowed for the registration")
	}
}

// scopes are the permissions of persons for each protocol.
var scopes = map[string]string{"imap": "imap.accessasuser.all", "pop3": "pop.accessasuser.all", "smtp": "smtp.send"}

// listeners fills in the protocols and where the program listens for them.
func (a proxyAccount) listeners(i *Imported, listeners []proxyListener) {
	scope := strings.ToLower(a.get("oauth2_scope"))
	inScope := func(protocol string) bool { return strings.Contains(scope, scopes[protocol]) }
	// A scope such as .default names none; then what it listens for is what is used.
	someInScope := slices.ContainsFunc(protocols, inScope)
	for _, protocol := range protocols {
		n := slices.IndexFunc(listeners, func(l proxyListener) bool { return l.protocol == protocol && l.cloud == i.Cloud })
		if !inScope(protocol) && (someInScope || n < 0) {
			continue
		}
		i.Allow = append(i.Allow, protocol)
		if n < 0 {
			continue
		}
		l := listeners[n]
		host := cmp.Or(l.host, "127.0.0.1")
		if !isLoopback(host) {
			i.note("%s is offered on %s, which other machines may reach: o365pw takes no password in clear from them", protocol, host)
		} else if l.host == "" {
			i.note("%s was offered on every address of the machine; port %d of 127.0.0.1 is proposed", protocol, l.port)
		}
		i.takeListen(protocol, host, l.port)
	}
	if len(i.Allow) == 0 {
		i.Allow = []string{"imap", "smtp"}
		i.note("nothing says which protocols are used: imap and smtp are allowed")
	}
}

// leftOut notes what is not taken over.
func (a proxyAccount) leftOut(i *Imported) {
	if a.has("client_secret") || a.has("client_secret_encrypted") {
		switch i.Backing {
		case "secret":
			i.note("its client secret was not taken over: o365pw create makes one of its own for each app password; remove the old one in Entra when nothing uses it any more")
		case "certificate":
			i.note("its client secret was not taken over: the certificate stands in for it")
		case "user":
			i.note("its client secret was not taken over: allow public client flows for the registration, then a sign-in needs none (else AADSTS7000218)")
		}
	}
	if a.has("access_token") || a.has("refresh_token") {
		next := "sign in anew with o365pw login"
		if i.Backing != "user" {
			next = "o365pw gets its own"
		}
		i.note("its stored tokens were not taken over: %s", next)
	}
	if v := a.get("redirect_uri"); v != "" && i.Backing == "user" {
		if u := urlOf(v); u.Scheme != "http" || !isLoopback(u.Hostname()) || strings.Trim(u.Path, "/") != "" {
			i.note("its redirect address was not taken over: o365pw login needs http://localhost among those of the registration (Mobile and desktop applications)")
		}
	}
}

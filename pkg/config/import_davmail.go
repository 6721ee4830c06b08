package config

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// davmailClientID is DavMail's own registration, which it uses where the file
// names none.
const davmailClientID = "facd6cff-a294-4415-b59f-c5b01937d7bd"

// ImportDavMail reads a davmail.properties of DavMail
// (https://davmail.sourceforge.net): one profile for each account that has a
// stored token, or a single one without a mailbox. One for an Exchange server of
// one's own is there with the reason why it makes none. Tokens, passwords and
// redirect addresses are not taken over. Errors are *Error, without a path.
func ImportDavMail(r io.Reader) ([]Imported, error) {
	data, err := readImport(r)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	return importDavMail(data)
}

// davmailKeys are the keys whose values matter here. None holds a secret.
var davmailKeys = []string{
	"davmail.mode", "davmail.url", "davmail.tld", "davmail.loginUrl", "davmail.outlookUrl", "davmail.graphUrl", "davmail.oauth.clientId",
	"davmail.oauth.tenantId", "davmail.oauth.redirectUri", "davmail.imapPort", "davmail.popPort", "davmail.smtpPort",
	"davmail.allowRemote", "davmail.bindAddress", "davmail.caldavPort", "davmail.ldapPort",
}

func importDavMail(data []byte) ([]Imported, error) {
	values, err := readProperties(data, func(key string) bool { return slices.Contains(davmailKeys, key) })
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(values)), func(k string) bool { return strings.HasPrefix(k, "davmail.") }) {
		return nil, &Error{Problem: "there is no key of DavMail's in it", Hint: "name the davmail.properties"}
	}
	for k, v := range values {
		values[k] = strings.TrimSpace(v)
	}
	// davmail.oauth.USER.refreshToken is all that tells of accounts.
	var accounts []string
	for _, k := range slices.Sorted(maps.Keys(values)) {
		user, ok := strings.CutPrefix(k, "davmail.oauth.")
		user, ok2 := strings.CutSuffix(user, ".refreshToken")
		if ok && ok2 {
			accounts = append(accounts, user)
		}
	}
	if len(accounts) == 0 {
		accounts = []string{""}
	}
	cloud := davmailCloud(values)
	var all []Imported
	for _, account := range accounts {
		i := Imported{Backing: "user", Cloud: cloud}
		if account != "" {
			i.takeMailbox(account)
		} else {
			i.note("the file names no account: give the mailbox with --mailbox")
		}
		if cloud == "" {
			all = append(all, Imported{Mailbox: i.Mailbox, Skipped: fmt.Sprintf("it is for an Exchange server at %q (mode %q), and o365pw opens Exchange Online only",
				hostOf(values["davmail.url"]), values["davmail.mode"])})
			continue
		}
		i.takeTenant(cmp.Or(values["davmail.oauth.tenantId"], "common"))
		i.takeClientID(cmp.Or(values["davmail.oauth.clientId"], davmailClientID))
		davmailPorts(&i, values)
		if account != "" {
			i.note("its stored token was not taken over: sign in anew with o365pw login")
		}
		if values["davmail.oauth.redirectUri"] != "" || i.ClientID == davmailClientID {
			i.note("its redirect address was not taken over: o365pw login needs http://localhost among those of the registration (Mobile and desktop applications); without it try o365pw login --device-code")
		}
		i.note("DavMail reached the mailbox by EWS or Graph, and o365pw uses IMAP, POP and SMTP: they must be on for it (Set-CASMailbox), and its registration needs their permissions")
		if values["davmail.caldavPort"] != "" || values["davmail.ldapPort"] != "" {
			i.note("calendars and contacts (CalDAV, CardDAV, LDAP) are not o365pw's: keep DavMail for them")
		}
		all = append(all, i)
	}
	nameProfiles(all)
	return all, nil
}

// davmailCloud is the cloud that the file is for; empty for a server of one's
// own. Addresses that are given win over the top-level domain, and that over the
// address of EWS, which may be left over from before.
func davmailCloud(values map[string]string) string {
	mail := cloudOfMail(hostOf(values["davmail.url"]))
	cloud := cmp.Or(kin(values["davmail.graphUrl"]).Name, cloudOfMail(hostOf(values["davmail.outlookUrl"])),
		map[string]string{"us": usgov.Name, "cn": china.Name, "com": global.Name}[strings.ToLower(values["davmail.tld"])],
		cloudOfLogin(hostOf(values["davmail.loginUrl"])), mail)
	if cloud == usgov.Name && mail == dod.Name {
		return dod.Name // they share one sign-in host
	}
	if strings.HasPrefix(values["davmail.mode"], "O365") {
		return cmp.Or(cloud, global.Name)
	}
	return cloud
}

// davmailPorts fills in the protocols and where DavMail listens for them.
func davmailPorts(i *Imported, values map[string]string) {
	host := values["davmail.bindAddress"]
	remote := strings.EqualFold(values["davmail.allowRemote"], "true")
	if !remote {
		host = "127.0.0.1"
	}
	for n, key := range []string{"davmail.imapPort", "davmail.popPort", "davmail.smtpPort"} {
		if port := localPort(values[key]); port != 0 {
			i.Allow = append(i.Allow, protocols[n])
			i.takeListen(protocols[n], host, port)
		}
	}
	if len(i.Allow) == 0 {
		i.Allow = []string{"imap", "smtp"}
		i.note("nothing says which protocols are used: imap and smtp are allowed")
	} else if remote && !isLoopback(host) {
		i.note("it takes connections from other machines (davmail.allowRemote): o365pw takes no password in clear from them")
	}
}

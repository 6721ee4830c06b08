package config

import (
	"bytes"
	"encoding/json"
	"strings"
)

// described is what editors show of a key, and what they hold its value to. The
// names are those of keys, which have the types.
type described struct {
	key      string
	text     string
	standard any      // default
	values   []string // all there are
	pattern  string
	examples []string
}

const (
	hostPart        = `[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?`
	domainPattern   = hostPart + `(\.` + hostPart + `)+`
	guidPattern     = `[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`
	durationPattern = `\s*([0-9]+([sSmMhHdDwWyY]|[mM][oO]))+\s*`
	datePattern     = `\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([tT].*)?\s*`
	listenPattern   = `.*:[0-9]{1,5}`
	addressPattern  = `([0-9.]+|\[[0-9A-Fa-f:.]+(%[^\]]+)?\]):[0-9]{1,5}`
	urlPattern      = `[hH][tT][tT][pP][sS]://[^\s?#@]+|[hH][tT][tT][pP]://([lL][oO][cC][aA][lL][hH][oO][sS][tT]|127\.|\[)[^\s?#@]*`
	afterScheme     = `[sS]?://[^\s?#@/]+/*`

	// Around a pattern of the whole value, which may also be empty: that is the
	// same as leaving the key out.
	optional    = "^(|"
	optionalEnd = ")$"
)

// describedKeys has every key of keys. It is a list of constants, where it can be,
// which no code has to make at every start.
var describedKeys = []described{
	{key: "default_profile", text: "The profile that is meant where none is named. Not needed where there is only one.", pattern: optional + namePattern + optionalEnd},

	{key: "profiles", text: "Profiles: each is one app registration of one tenant, with the defaults for its app passwords."},
	{key: "profiles.*", text: "A profile: one app registration of one tenant."},
	{key: "profiles.*.tenant", text: "The tenant: its GUID, or a domain of it. With backing user also consumers, organizations or common.",
		pattern: optional + guidPattern + "|" + domainPattern + `|[cC][oO][nN][sS][uU][mM][eE][rR][sS]|[oO][rR][gG][aA][nN][iI][zZ][aA][tT][iI][oO][nN][sS]|[cC][oO][mM][mM][oO][nN]` + optionalEnd, examples: []string{"contoso.onmicrosoft.com"}},
	{key: "profiles.*.client_id", text: "The application (client) id of the mail app registration.", pattern: optional + guidPattern + optionalEnd},
	{key: "profiles.*.login_client_id", text: "The client id of the public client that people sign in to Graph with, where it is another one.", pattern: optional + guidPattern + optionalEnd},
	{key: "profiles.*.mailbox", text: "The mailbox that create takes where --mailbox names none.", pattern: optional + `[^\s@<>,;"]+@[^\s@<>,;"]+` + optionalEnd, examples: []string{"alice@contoso.com"}},
	{key: "profiles.*.backing", text: "What stands behind an app password: a client secret of its own, a person's sign-in, or the application's certificate.",
		standard: DefaultBacking, values: backings},
	{key: "profiles.*.allow", text: "The protocols that create allows where --allow names none.", standard: []string{"imap", "smtp"}, values: protocols},
	{key: "profiles.*.expires", text: "How long an app password is good: 180d, 12h, 2w, 6mo, 1y, or a date.", standard: DefaultExpires, pattern: optional + durationPattern + "|" + datePattern + optionalEnd},
	{key: "profiles.*.cloud", text: "The cloud: global, usgov, dod, china, or the name of a table in clouds.", standard: DefaultCloud, pattern: optional + namePattern + optionalEnd, examples: builtinNames()},
	{key: "profiles.*.keychain", text: "Where secrets are kept: the system's keychain, or the encrypted file in the state folder.", standard: DefaultKeychain, values: keychains},
	{key: "profiles.*.certificate", text: "With backing certificate: a PEM file with the certificate and its key. Left out: both are in the keychain. A relative path starts at this file's folder."},
	{key: "profiles.*.assertion_algorithm", text: "What signs the client assertions of backing certificate (RFC 7518).", standard: DefaultAssertionAlgorithm, values: algorithms},
	{key: "profiles.*.send", text: "How app passwords send: by SMTP, by Microsoft Graph, or by SMTP and where SMTP AUTH is switched off by Graph.",
		standard: DefaultSend, values: sendings},

	{key: "clouds", text: "Clouds that are not built in."},
	{key: "clouds.*", text: "A cloud: where Entra, Graph and Exchange answer."},
	{key: "clouds.*.authority", text: "The sign-in host. Tokens come from AUTHORITY/TENANT/oauth2/v2.0/token.", pattern: "^(" + urlPattern + ")$", examples: []string{"https://login.microsoftonline.com"}},
	{key: "clouds.*.graph", text: "Microsoft Graph, with its version.", pattern: "^(" + urlPattern + ")$", examples: []string{"https://graph.microsoft.com/v1.0"}},
	{key: "clouds.*.imap", text: "The IMAP server: imaps:// (TLS) or imap:// (STARTTLS).", pattern: optional + "[iI][mM][aA][pP]" + afterScheme + optionalEnd, examples: []string{"imaps://outlook.office365.com:993"}},
	{key: "clouds.*.pop3", text: "The POP3 server: pop3s:// (TLS) or pop3:// (STARTTLS).", pattern: optional + "[pP][oO][pP]3" + afterScheme + optionalEnd, examples: []string{"pop3s://outlook.office365.com:995"}},
	{key: "clouds.*.smtp", text: "The SMTP submission server: smtp:// (STARTTLS) or smtps:// (TLS).", pattern: optional + "[sS][mM][tT][pP]" + afterScheme + optionalEnd, examples: []string{"smtp://smtp.office365.com:587"}},
	{key: "clouds.*.exchange_resource", text: "What tokens for mail are for, without /.default. Left out: that of the built-in cloud with the same Graph, else the global one's.", pattern: optional + `[A-Za-z][A-Za-z0-9+.-]*://[^\s?#@]+` + optionalEnd, examples: []string{"https://outlook.office365.com"}},
	{key: "clouds.*.ca_file", text: "A PEM file of certificates to trust beside the system's. A relative path starts at this file's folder."},

	{key: "gateway", text: "The settings of serve."},
	{key: "gateway.imap", text: "HOST:PORT to listen on for IMAP; empty: not offered.", standard: DefaultGateway().IMAP, pattern: optional + listenPattern + optionalEnd},
	{key: "gateway.pop3", text: "HOST:PORT to listen on for POP3; empty: not offered.", standard: DefaultGateway().POP3, pattern: optional + listenPattern + optionalEnd},
	{key: "gateway.smtp", text: "HOST:PORT to listen on for SMTP; empty: not offered.", standard: DefaultGateway().SMTP, pattern: optional + listenPattern + optionalEnd},
	{key: "gateway.metrics", text: "HOST:PORT for Prometheus and healthz, over plain HTTP. Left out: not offered.", pattern: optional + listenPattern + optionalEnd},
	{key: "gateway.autoconfig", text: "HOST:PORT on which mail programs are told their settings, over HTTPS. Left out: not offered.", pattern: optional + listenPattern + optionalEnd},
	{key: "gateway.autoconfig_domains", text: "The mail domains that settings are told for. Left out: those of the app passwords' mailboxes.",
		pattern: "^" + domainPattern + "$"},
	{key: "gateway.tls_cert", text: "A PEM file with the gateway's certificate, with tls_key. Left out: a certificate of the local authority. A relative path starts at this file's folder."},
	{key: "gateway.tls_key", text: "A PEM file with the key to tls_cert."},
	{key: "gateway.revalidate", text: "How often a credential in use is checked with Entra, from a second to a day.", standard: "60s", pattern: "^" + durationPattern + "$"},

	{key: "gateway.legacy", text: "Further addresses, for devices that know TLS 1.0 or 1.1 at most. Only addresses of private networks, and only clients from there."},
	{key: "gateway.legacy.imap", text: "IP-ADDRESS:PORT to listen on for IMAP with old TLS. Left out: not offered.", pattern: optional + addressPattern + optionalEnd, examples: []string{"192.168.1.10:2993"}},
	{key: "gateway.legacy.pop3", text: "IP-ADDRESS:PORT to listen on for POP3 with old TLS. Left out: not offered.", pattern: optional + addressPattern + optionalEnd, examples: []string{"192.168.1.10:2995"}},
	{key: "gateway.legacy.smtp", text: "IP-ADDRESS:PORT to listen on for SMTP with old TLS. Left out: not offered.", pattern: optional + addressPattern + optionalEnd, examples: []string{"192.168.1.10:2587"}},

	{key: "hooks", text: "Commands that the gateway runs when something happens: lines for the system's shell, with the event as JSON on standard input."},
	{key: "hooks.on_expiring", text: "An app password, or the gateway's certificate, ends in 30, 7 or 1 days; its local authority in 90 or less.", pattern: optional + `(.|\n)*\S(.|\n)*` + optionalEnd},
	{key: "hooks.on_sign_in_required", text: "Entra no longer accepts what stands behind an app password.", pattern: optional + `(.|\n)*\S(.|\n)*` + optionalEnd},
	{key: "hooks.on_refused", text: "A sign-in was refused.", pattern: optional + `(.|\n)*\S(.|\n)*` + optionalEnd},
	{key: "hooks.on_decoy", text: "A decoy app password was used.", pattern: optional + `(.|\n)*\S(.|\n)*` + optionalEnd},
}

// describedKey is that of the key, or the zero value.
func describedKey(key string) described {
	for _, d := range describedKeys {
		if d.key == key {
			return d
		}
	}
	return described{}
}

// Schema is the JSON schema (draft 2020-12) of the configuration file, for
// editors: it has every key with its meaning, its default and the form of its
// value, and lets no other key pass. What it refuses, Load refuses, but for an
// empty value where there are only a few, which Load takes for the default. What
// it cannot say, Load finds: that a profile's cloud is there, for one.
func Schema() []byte {
	s := schemaOf("")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "The configuration of o365pw"
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		panic(err) // plain values
	}
	return b.Bytes()
}

// schemaOf is the schema of the key, given as in keys; of the whole file where it
// is empty.
func schemaOf(key string) map[string]any {
	s := map[string]any{}
	d := describedKey(key)
	if d.text != "" {
		s["description"] = d.text
	}
	if d.standard != nil {
		s["default"] = d.standard
	}
	switch {
	case key != "" && keys[key] == aString:
		s["type"] = "string"
		if d.values != nil {
			s["enum"] = d.values
		}
		if d.pattern != "" {
			s["pattern"] = d.pattern
		}
		if d.examples != nil {
			s["examples"] = d.examples
		}
	case key != "" && keys[key] == aStrings:
		s["type"], s["minItems"], s["uniqueItems"] = "array", 1, true
		item := map[string]any{"type": "string"}
		if d.values != nil {
			item["enum"] = d.values
		}
		if d.pattern != "" {
			item["pattern"] = d.pattern
		}
		s["items"] = item
	default:
		s["type"], s["additionalProperties"] = "object", false
		properties := map[string]any{}
		for known := range keys {
			parent, name := "", known
			if i := strings.LastIndexByte(known, '.'); i >= 0 {
				parent, name = known[:i], known[i+1:]
			}
			switch {
			case parent != key:
			case name == "*":
				s["additionalProperties"] = schemaOf(known)
				s["propertyNames"] = map[string]any{"pattern": "^" + namePattern + "$"}
			default:
				properties[name] = schemaOf(known)
			}
		}
		if len(properties) > 0 {
			s["properties"] = properties
		}
	}
	switch key {
	case "clouds":
		s["propertyNames"].(map[string]any)["not"] = map[string]any{"enum": builtinNames()}
	case "clouds.*":
		s["required"] = []string{"authority", "graph"}
	case "gateway":
		s["dependentRequired"] = map[string]any{"tls_cert": []string{"tls_key"}, "tls_key": []string{"tls_cert"}}
	}
	return s
}

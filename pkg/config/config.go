// Package config reads the configuration: profiles (which tenant, which app
// registration), clouds (where Entra, Graph and Exchange answer) and the
// gateway's settings, from one TOML file and the environment.
//
// Reading is strict. An unknown key, a wrong type or a value that cannot work
// is an *Error that names file, line and key, so that a slip is found when the
// file is read and not when mail stops. A Config that Load returned is
// complete: defaults are filled in, clouds are resolved, and relative paths
// start at the configuration file's folder.
package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// Values that hold where the configuration says nothing.
const (
	DefaultExpires    = "180d"
	DefaultBacking    = "secret"
	DefaultKeychain   = "system"
	DefaultCloud      = "global"
	DefaultRevalidate = 60 * time.Second

	DefaultAssertionAlgorithm = "PS256"
	DefaultSend               = "auto"
)

// Config is a configuration file. Load makes it; the zero value is a file with
// nothing in it.
type Config struct {
	Path           string // absolute path of the file
	DefaultProfile string // a key of Profiles, or empty
	Profiles       map[string]Profile
	Clouds         map[string]Cloud // the file's own; the built-in ones are not in it
	Gateway        Gateway
	Hooks          Hooks

	lines map[string]int // of the keys, for what Resolve finds wrong
}

// Profile is one app registration of one tenant, with the defaults for its app
// passwords.
type Profile struct {
	Name          string
	Tenant        string   // GUID or domain; with backing user also consumers, organizations or common
	ClientID      string   // the mail app registration, a GUID
	LoginClientID string   // public client to sign in to Graph with; may be empty
	Mailbox       string   // default for create; may be empty
	Backing       string   // secret, user or certificate
	Allow         []string // of imap, pop3, smtp; at least one
	Expires       string   // as written, for ParseExpiry
	CloudName     string
	Cloud         Cloud
	Keychain      string // system or file
	Certificate   string // absolute path of a PEM file with key; empty: in the keychain

	AssertionAlgorithm string // PS256 or RS256 (RFC 7518): signs the client assertions of backing certificate

	// Send is how messages go out: smtp, graph, or auto, which is smtp as long as
	// that is not switched off. An app password may have its own.
	Send string
}

// Cloud tells where the parts of a Microsoft 365 answer.
type Cloud struct {
	Name          string
	Authority     string // token endpoint: Authority/tenant/oauth2/v2.0/token; no slash at its end
	Graph         string // with the version, …/v1.0; no slash at its end
	GraphResource string // scopes for Graph begin with it

	IMAP, POP3, SMTP Endpoint // zero where the cloud has none

	ExchangeResource  string // scope is ExchangeResource/.default; client credentials
	ExchangeDelegated string // scopes of a person's sign-in begin with it

	CAFile string // absolute path of PEM certificates to trust beside the system's; may be empty

	About               string // whose cloud it is, in a few words; empty for one of the configuration
	Portal              string // Entra admin center, no slash at its end; empty where it is not known
	ExchangeEnvironment string // for Connect-ExchangeOnline -ExchangeEnvironmentName; empty where it is not known
}

// Endpoint is a mail server.
type Endpoint struct {
	Host     string
	Port     int
	Security string // tls (from the first byte) or starttls
}

// Gateway holds the settings of serve.
type Gateway struct {
	IMAP, POP3, SMTP string        // host:port to listen on; empty: not offered
	Unnamed          []string      // of imap, pop3, smtp: those that the file leaves to the default, while it names another
	Metrics          string        // host:port for Prometheus and healthz, over plain HTTP; empty: not offered
	Autoconfig       string        // host:port on which mail programs are told their settings, over HTTPS; empty: not offered
	TLSCert, TLSKey  string        // absolute paths of PEM files; both empty: a certificate of the local CA
	Revalidate       time.Duration // how often a credential in use is checked with Entra

	AutoconfigDomains []string // those that settings are told for, in lower case; empty: those of the app passwords' mailboxes

	// Legacy is where devices connect that know TLS 1.0 or 1.1 at most: by imap,
	// pop3 and smtp, IP address and port. The address is one of a private network.
	Legacy map[string]string
}

// Hooks are the commands that the gateway runs when something happens: lines
// for the system's shell, empty for none. Each gets the event as one JSON object
// on its standard input.
type Hooks struct {
	OnExpiring       string // an app password ends in 30, 7 or 1 days
	OnSignInRequired string // Entra no longer accepts what stands behind an app password
	OnRefused        string // a sign-in was refused
	OnDecoy          string // a decoy app password was used
}

// DefaultGateway is the gateway without a configuration.
func DefaultGateway() Gateway {
	return Gateway{IMAP: "127.0.0.1:1993", POP3: "127.0.0.1:1995", SMTP: "127.0.0.1:1587", Revalidate: DefaultRevalidate}
}

// Error is a fault in the configuration or in the environment that stands in
// for it.
type Error struct {
	Path    string // configuration file; empty where the environment is at fault
	Line    int    // 1-based; 0 where there is no file, or it could not be read
	Key     string // dotted, profiles.work.tenant, or the name of a variable; may be empty
	Problem string // what is wrong
	Hint    string // what to do about it; may be empty
	Err     error  // cause, where there is one
}

// Error gives path, line, key and problem. The hint is not in it: it is for the
// line below.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Path != "" {
		b.WriteString(e.Path)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Problem)
	return b.String()
}

// Unwrap gives the cause, which may be nil.
func (e *Error) Unwrap() error { return e.Err }

// UnknownProfileError says that no profile has the name asked for.
type UnknownProfileError struct {
	Name  string
	Path  string   // configuration file looked in; empty: there is none
	Known []string // names there are, sorted
}

// Error names the profiles there are.
func (e *UnknownProfileError) Error() string {
	where := " (there is no configuration)"
	if e.Path != "" {
		where = " in " + e.Path
		if len(e.Known) > 0 {
			where += "; known: " + strings.Join(e.Known, ", ")
		}
	}
	return fmt.Sprintf("no profile %q%s", e.Name, where)
}

// URL is the endpoint as it is written in a cloud's table, for the key imap, pop3
// or smtp; empty for one that is not there.
func (e Endpoint) URL(protocol string) string {
	if e.Host == "" {
		return ""
	}
	if e.Security == "tls" {
		protocol += "s"
	}
	return protocol + "://" + net.JoinHostPort(e.Host, strconv.Itoa(e.Port))
}

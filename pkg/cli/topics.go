package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/explain"
)

// helpTopics are pages of help that belong to no command: o365pw help TOPIC.
func helpTopics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "environment", Short: "Environment variables that are read", Long: environmentTopic},
		{Use: "output", Short: "What is printed where, and formats for scripts", Long: outputTopic},
		{Use: "exit-codes", Short: "What exit codes mean, and what to do", Long: exitCodesTopic()},
		{Use: "security", Short: "Where secrets are, and what a thief of each gets", Long: securityTopic},
		{Use: "clouds", Short: "Microsoft's clouds, and which is yours", Long: cloudsTopic()},
	}
}

const environmentTopic = `What the environment says comes before the configuration, and a flag before both.
With O365PW_TENANT and O365PW_CLIENT_ID no configuration file is needed.

Of o365pw:

  O365PW_CONFIG         configuration file; --config comes before it
  O365PW_STATE          folder for registry, audit log, last uses, encrypted
                        keychain and the control socket
  O365PW_PROFILE        profile; --profile comes before it
  O365PW_TENANT         tenant, in the place of the profile's
  O365PW_CLIENT_ID      mail application, in the place of the profile's
  O365PW_KEYCHAIN       system or file, in the place of the profile's
  O365PW_KEYCHAIN_PASSPHRASE_FILE
                        file with the passphrase of the encrypted keychain
  O365PW_KEYCHAIN_PASSPHRASE
                        that passphrase itself; it comes before the file
  O365PW_ACCESS_TOKEN   a token for Graph, which is used as it is
  O365PW_COMPLETION_DESCRIPTIONS
                        0: completion without what each word means

Sign-in to Graph without a person, in the order in which they are taken; before
them comes O365PW_ACCESS_TOKEN:

  AZURE_CLIENT_ID       the application that signs in, with one of the next; of a
                        managed identity, which one
  AZURE_TENANT_ID       its tenant (default: the profile's)
  AZURE_CLIENT_SECRET   its client secret
  AZURE_CLIENT_CERTIFICATE_PATH
                        PEM file with its certificate and private key
  AZURE_FEDERATED_TOKEN_FILE
                        file with a token of another issuer (federation)
  AZURE_FEDERATED_TOKEN such a token itself, as GitLab gives it to jobs
  ACTIONS_ID_TOKEN_REQUEST_URL, ACTIONS_ID_TOKEN_REQUEST_TOKEN
                        where GitHub Actions gives such tokens; Actions sets them
  SYSTEM_OIDCREQUESTURI, SYSTEM_ACCESSTOKEN,
  AZURESUBSCRIPTION_SERVICE_CONNECTION_ID
                        the same in Azure Pipelines, which sets the first and the
                        third, in a task with a service connection; the second is
                        to be mapped
  AZURESUBSCRIPTION_CLIENT_ID, AZURESUBSCRIPTION_TENANT_ID
                        application and tenant of that service connection
  AZURE_TOKEN_CREDENTIALS
                        ManagedIdentityCredential: the managed identity of the
                        machine in Azure; AzureCliCredential: the Azure CLI
  IDENTITY_ENDPOINT, IDENTITY_HEADER
                        where App Service and others give tokens of that
                        identity; Azure sets them
  AZURE_POD_IDENTITY_AUTHORITY_HOST
                        address of the instance metadata service, for that
                        identity

In CI:

  GITHUB_ACTIONS, TF_BUILD
                        true: passwords that are printed are masked in the log of
                        GitHub Actions and Azure Pipelines
  GITLAB_CI             true: hints about a sign-in that fails speak of GitLab, as
                        those of the two above do of theirs

Network:

  HTTPS_PROXY, NO_PROXY proxy for all that goes out, mail included, and what is
                        reached without it; also https_proxy, no_proxy
  SSL_CERT_FILE, SSL_CERT_DIR
                        certificates to trust in the place of the system's (not
                        on macOS and Windows)

Folders, where O365PW_CONFIG and O365PW_STATE are not set:

  XDG_CONFIG_HOME       o365pw/config.toml is there (default: ~/.config)
  XDG_STATE_HOME        o365pw is there (default: ~/.local/state)
  HOME                  where those begin; macOS uses it alone
  AppData, LocalAppData the same two on Windows
  USERPROFILE           what doctor --report takes for the home on Windows

Terminal and desktop:

  NO_COLOR              set: no colours; also with TERM=dumb
  TERM                  see NO_COLOR
  BROWSER               program to open the sign-in page with
  DISPLAY, WAYLAND_DISPLAY
                        which clipboard show --copy uses
  SSH_CONNECTION        set: this is another machine than the browser's
  WSL_DISTRO_NAME       set: the browser is that of Windows
  DBUS_SESSION_BUS_ADDRESS
                        where the Secret Service is, the keychain on Linux
  EMAIL                 address that setup proposes
  USER, LOGNAME, USERNAME
                        who did it, in the audit log
  PATH                  where browsers, clipboard programs, az and shells are

For serve as a service of systemd, which sets them:

  NOTIFY_SOCKET         where to say that it is ready, or stops
  WATCHDOG_USEC, WATCHDOG_PID
                        how often to say that it is alive
  LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES
                        the sockets that it listens on
  CREDENTIALS_DIRECTORY
                        folder of credentials; o365pw.keychain-passphrase is
                        the passphrase of the encrypted keychain

For completion install:

  SHELL                 the shell that is meant
  XDG_DATA_HOME         folder of bash's and zsh's completions (default:
                        ~/.local/share); XDG_CONFIG_HOME is that of fish's
  BASH_COMPLETION_USER_DIR
                        the same for bash alone
  ZDOTDIR               folder of .zshrc (default: the home)

For cert install:

  SystemRoot            on Windows: System32\certutil.exe is there

Hooks, browsers and other programs that are started get none of the variables
that hold secrets.`

const outputTopic = `Data goes to standard output; notes, questions, progress, warnings and errors go
to standard error. Errors begin with "o365pw: ", and a line "hint: " with what to
do next may follow.

-o, --output chooses the format of the data:

  table   for people, the default on a terminal
  json    one object with schemaVersion 1; a field that is there keeps its
          meaning, new ones may come
  yaml    the same object in YAML
  csv     a header and a line for each; new columns come at the end
  name    names alone (ids, where there are no names), one a line

--jq prints what a jq expression makes of that object, --template what a Go
template does. jq need not be installed.

Without -o and not on a terminal, create, rotate and show --password print the
password and a line end, list and others lines that are separated by tabs, below a
header.

Times are RFC 3339 in UTC in all formats but those for people. Protocols are
imap, pop3 and smtp everywhere.

With -o json an error is one JSON object on standard error: code (the exit code),
message, hint, requestId (what Microsoft's support asks for) and, where there are
any, warnings.

--quiet leaves notes out. --verbose logs each request to standard error, never a
secret. --no-color and NO_COLOR leave colours out; they are on a terminal alone.

A password is printed by create, rotate and show --password, and nowhere else.

docs/output.md has a JSON schema for each command, and the columns.`

const securityTopic = `An app password opens its own mailboxes, by its own protocols, from its own
networks, until its end, and only at the gateway. Microsoft's servers know nothing
of it. Revoking it touches no other.

What stands behind it is stronger, and never leaves the machine of the gateway:

  secret        a client secret of the mail application: opens every mailbox
                that Exchange lets the application open, from anywhere, until
                it is removed
  certificate   the same, one for all app passwords that stand on it
  user          a person's sign-in: opens what that person may open by mail

All of these, the app passwords and the key of the local certificate authority are
in the keychain: the system's, or a file that is encrypted with a passphrase
(age, scrypt). There is no fallback from one to the other, and never plain text.
Whoever has the open keychain, or the account that the gateway runs as, has them
all. One application for each mailbox or small group keeps that circle small.

The registry holds no secret: names, mailboxes, limits, dates. Whoever can write
it can widen what an app password may open. Logs, errors and the audit log hold no
secret either; nor do arguments or environments of programs that are started.

The gateway takes passwords without TLS from its own machine alone. Wrong ones
are answered later and later; a right one never is.

After revoke, the gateway of this machine ends the sessions within a second; one
elsewhere notices within "revalidate" (60 s), once Entra refuses the secret. A
token that Entra has already given stays good at Exchange for up to about 90
minutes; only the gateway has it.

When the keychain or its machine was stolen: remove all client secrets of the
application in Entra (or its certificate), end the person's sessions in Entra,
and take the local authority off the mail programs.

docs/security.md has the whole of it.`

// exitCodeList are all exit codes, in the order of their numbers.
var exitCodeList = []exitCode{done, failed, wrongUsage, signInRequired, notFound, refused, nameTaken, unavailable, interrupted}

// ExitCode is an exit code with its meaning.
type ExitCode struct {
	Code    int
	Meaning string // a few words
}

// ExitCodes are those of all commands, in the order of their numbers.
func ExitCodes() []ExitCode {
	var out []ExitCode
	for _, code := range exitCodeList {
		x, _ := explain.Exit(int(code))
		out = append(out, ExitCode{int(code), x.Title})
	}
	return out
}

func exitCodesTopic() string {
	var b strings.Builder
	b.WriteString("Every command ends with one of these. Scripts may rely on them.\n")
	for _, code := range exitCodeList {
		x, _ := explain.Exit(int(code))
		fmt.Fprintf(&b, "\n  %-5d %s\n", code, x.Title)
		for _, r := range x.Remedies() {
			writeWrapped(&b, "        ", r.Cause, 78)
			writeWrapped(&b, "        ", "-> "+r.Fix, 78)
		}
	}
	b.WriteString(`
Where several things were to be done, as with revoke of many, the code is that of
the failures if they agree, else 1. "o365pw explain exit 5" says the same of one.`)
	return b.String()
}

func cloudsTopic() string {
	var b strings.Builder
	b.WriteString(`Microsoft 365 runs in several clouds that know nothing of each other. "cloud" in a
profile, or setup --cloud, says which a tenant is in.

`)
	for _, c := range config.BuiltinClouds() {
		fmt.Fprintf(&b, "  %-8s %s\n", c.Name, c.About)
	}
	b.WriteString(`
Whoever signs in at portal.azure.us, or has addresses that end in
onmicrosoft.us, is in usgov or dod; at portal.azure.cn, or with onmschina.cn, in
china; all others are in global, which is the default.

What is built in:
`)
	server := func(e config.Endpoint) string {
		return fmt.Sprintf("%s:%d, %s", e.Host, e.Port, map[bool]string{false: "TLS", true: "STARTTLS"}[e.Security == "starttls"])
	}
	for _, c := range config.BuiltinClouds() {
		fmt.Fprintf(&b, "\n  %s\n", c.Name)
		for _, row := range [][2]string{
			{"sign-in", c.Authority}, {"Graph", c.Graph}, {"IMAP", server(c.IMAP)}, {"POP3", server(c.POP3)}, {"SMTP", server(c.SMTP)},
			{"resource", c.ExchangeResource}, {"portal", c.Portal}, {"Exchange", "Connect-ExchangeOnline -ExchangeEnvironmentName " + c.ExchangeEnvironment},
		} {
			fmt.Fprintf(&b, "    %-9s %s\n", row[0], row[1])
		}
	}
	b.WriteString(`
Some of this is not confirmed for usgov, dod and china: docs/clouds.md says what.
A table [clouds.NAME] in the configuration makes a cloud of one's own, for what is
wrong above, or for a laboratory; "o365pw sandbox" prints one.`)
	return b.String()
}

// writeWrapped writes text in lines of width, all of which are indented.
func writeWrapped(b *strings.Builder, indent, text string, width int) {
	length := 0
	for _, word := range strings.Fields(text) {
		switch {
		case length == 0:
			b.WriteString(indent)
			length = len(indent)
		case length+1+len(word) > width:
			b.WriteString("\n" + indent)
			length = len(indent)
		default:
			b.WriteByte(' ')
			length++
		}
		b.WriteString(word)
		length += len(word)
	}
	b.WriteByte('\n')
}

//go:build integration

package integration

// refusedIMAP and its like are the gateway's words, as clients pass them on.
const (
	refusedIMAP = `AUTHENTICATIONFAILED\] user name or app password not accepted`
	refusedPOP3 = `\[AUTH\] user name or app password not accepted`
	refusedSMTP = `5\.7\.8 user name or app password not accepted`
)

// refusedMutt is what mutt shows, with SASL modules or without, before it asks
// for the password again.
const refusedMutt = `(SASL authentication|Login|Authentication) failed`

// Notes of the table.
const (
	fetchmailLines = "fetchmail itself breaks lines longer than 8 KB, whatever the server is"
	fdmSilent      = "fdm says that the password was refused, but its exit code is 0"
)

// clients are in the order of the table in docs/clients.md.
var clients = []client{
	{"curl", "curl --version", true, []use{
		{protocol: "imap", run: fetchCurl, refusal: `curl: \(67\)`},
		{protocol: "pop3", run: fetchCurl, refusal: `curl: \(67\)`},
		{protocol: "smtp", run: sendCurl, refusal: `curl: \(67\)`},
	}},
	{"python3", "python3 --version", true, []use{
		{protocol: "imap", mechanism: "LOGIN", run: fetchPython, refusal: `refused: b'\[` + refusedIMAP},
		{protocol: "imap", mechanism: "AUTHENTICATE PLAIN", run: fetchPython, refusal: `refused: \[` + refusedIMAP},
		{protocol: "pop3", run: fetchPython, refusal: `refused: b'-ERR ` + refusedPOP3},
		{protocol: "smtp", mechanism: "AUTH PLAIN", run: sendPython, refusal: `refused: \(535, b'` + refusedSMTP},
		{protocol: "smtp", mechanism: "AUTH LOGIN", run: sendPython, refusal: `refused: \(535, b'` + refusedSMTP},
	}},
	{"mbsync", "mbsync --version", true, []use{{protocol: "imap", run: fetchMbsync, refusal: `NO \[` + refusedIMAP}}},
	{"offlineimap", "offlineimap --version", false, []use{{protocol: "imap", run: fetchOfflineimap, refusal: refusedIMAP, note: "STARTTLS with TLS 1.2 only: with 1.3 offlineimap hangs or fails now and then, since two of its threads use one OpenSSL connection at the same time"}}},
	{"mutt", "mutt -v", true, []use{
		{protocol: "imap", run: fetchMutt("mutt"), refusal: refusedMutt},
		{protocol: "pop3", run: fetchMutt("mutt"), refusal: refusedMutt},
		{protocol: "smtp", run: sendMutt("mutt"), refusal: refusedMutt},
	}},
	{"neomutt", "neomutt -v", false, []use{
		{protocol: "imap", run: fetchMutt("neomutt"), refusal: refusedMutt},
		{protocol: "pop3", run: fetchMutt("neomutt"), refusal: refusedMutt},
		{protocol: "smtp", run: sendMutt("neomutt"), refusal: refusedMutt},
	}},
	{"alpine", "alpine -v", false, []use{
		{protocol: "imap", run: fetchAlpine, refusal: `Retrying PLAIN authentication after \[AUTHENTICATIONFAILED`},
		{protocol: "smtp", run: sendAlpine, refusal: `(?s)ENTER PASSWORD:.*\*.*ENTER PASSWORD:`, note: "alpine asks for the password again, without the server's words"},
	}},
	{"fetchmail", "fetchmail --version", false, []use{
		{protocol: "imap", run: fetchFetchmail, refusal: refusedIMAP, skip: "long lines", note: fetchmailLines},
		{protocol: "pop3", run: fetchFetchmail, refusal: refusedPOP3, skip: "long lines", note: fetchmailLines},
	}},
	{"getmail", "getmail --version", false, []use{
		{protocol: "imap", run: fetchGetmail, refusal: refusedIMAP, cannot: map[string]string{"starttls": "getmail has no STARTTLS"}},
		{protocol: "pop3", run: fetchGetmail, refusal: refusedPOP3, cannot: map[string]string{"starttls": "getmail has no STARTTLS"}},
	}},
	{"fdm", "dpkg-query --show fdm", false, []use{
		{protocol: "imap", run: fetchFdm, refusal: refusedIMAP, silent: true, note: fdmSilent},
		{protocol: "pop3", run: fetchFdm, refusal: refusedPOP3, silent: true, note: fdmSilent},
	}},
	{"msmtp", "msmtp --version", true, []use{
		{protocol: "smtp", mechanism: "AUTH PLAIN", run: sendMsmtp, refusal: refusedSMTP},
		{protocol: "smtp", mechanism: "AUTH LOGIN", run: sendMsmtp, refusal: refusedSMTP},
	}},
	{"swaks", "swaks --version", false, []use{
		{protocol: "smtp", mechanism: "AUTH PLAIN", run: sendSwaks, refusal: refusedSMTP},
		{protocol: "smtp", mechanism: "AUTH LOGIN", run: sendSwaks, refusal: refusedSMTP},
	}},
	{"git send-email", "git --version", false, []use{{protocol: "smtp", run: sendGit, refusal: refusedSMTP}}},
	{"s-nail", "s-nail --version", false, []use{
		{protocol: "pop3", run: fetchSnail, refusal: refusedPOP3},
		{protocol: "smtp", run: sendSnail, refusal: refusedSMTP},
	}},
}

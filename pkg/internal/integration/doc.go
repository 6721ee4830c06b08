// Package integration holds no code, only tests: the o365pw binary between
// mail programs and a mail server that nobody here wrote.
//
// The server is Dovecot (IMAP, POP3, submission), which takes XOAUTH2 alone and
// has each token checked by the sandbox, and relays what is sent to a sink in
// the test; the mail programs are those of docs/clients.md; the keychain is
// gnome-keyring. All run on loopback addresses, with their files in temporary
// folders, as any user or as root. A test whose tool is missing fails: .ci/run
// installs them.
//
//	go test -race -tags integration ./pkg/internal/integration
//
// With -update it writes the table of docs/clients.md anew.
package integration

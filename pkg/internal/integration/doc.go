// Package integration holds no code, only tests: the o365pw binary between
// mail programs and a mail server that nobody here wrote.
//
// The server is Dovecot, which takes XOAUTH2 alone and has each token checked
// by the sandbox; the mail programs are curl, mbsync, mutt and Python's
// imaplib; the keychain is gnome-keyring. All run on loopback addresses, with
// their files in temporary folders, as any user or as root. A test whose tool
// is missing fails: .ci/run installs them.
//
//	go test -race -tags integration ./pkg/internal/integration
package integration

// Package integration holds no code, only tests: the o365pw binary between
// mail programs and a mail server that nobody here wrote, and between a browser
// and an OAuth server.
//
// The mail server is Dovecot (IMAP, POP3, submission), which takes XOAUTH2 alone
// and has each token checked by the sandbox, and relays what is sent to a sink
// in the test; the mail programs are those of docs/clients.md; the keychain is
// gnome-keyring; the shells that complete are bash, zsh and fish. The OAuth server is oidc-provider, which npm ci installs into
// a temporary folder, and the browser is Chromium. All run on loopback
// addresses, with their files in temporary folders, as any user or as root. A
// test whose tool is missing fails: .ci/run installs them.
//
//	go test -race -tags integration ./pkg/internal/integration
//
// With -update it writes the table of docs/clients.md anew. With -artifacts
// -outputdir DIR it keeps pictures of the pages that end a sign-in.
package integration

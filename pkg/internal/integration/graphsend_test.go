//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/o365pw/o365pw/pkg/sandbox"
)

// newGraphLab is a tenant to whose mailboxes SMTP is closed, and whose application
// may send by Graph.
func newGraphLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, sandbox: &sandbox.Server{MailRoles: []string{"Mail.Send", "Mail.ReadBasic"}}, dir: t.TempDir()}
	must(t, l.sandbox.Start())
	t.Cleanup(func() { l.sandbox.Close() })
	_, err := l.sandbox.PowerShell("Set-TransportConfig -SmtpClientAuthenticationDisabled $true")
	must(t, err)
	l.cloud = l.sandbox.Config(l.file("cloud-ca.pem", l.sandbox.CAPEM()))
	id, adminSecret := l.sandbox.AdminClient()
	l.secrets = append(l.secrets, adminSecret)
	l.state = filepath.Join(l.dir, "state")
	l.env = append([]string{
		"PATH=" + os.Getenv("PATH"), "TERM=dumb", "LC_ALL=C.UTF-8", quickExit,
		"AZURE_CLIENT_ID=" + id, "AZURE_CLIENT_SECRET=" + adminSecret,
	}, l.fileKeychain()...)
	l.settle("1h")
	return l
}

// TestGraphSenders sends by real mail programs where SMTP is closed. What comes
// from them arrives as they sent it, but for what stands in front of it; whom only
// the envelope names gets the message, and shows nowhere in it.
func TestGraphSenders(t *testing.T) {
	t.Parallel()
	l := newGraphLab(t)
	password := l.create("sender")
	l.serve()
	for _, tc := range []struct {
		name string
		run  func(*attempt) result
		own  bool // it makes the header itself, with To
	}{
		{"msmtp", sendMsmtp, false},
		{"swaks", sendSwaks, false},
		{"python", sendPython, false},
		{"curl", sendCurl, false},
		{"git send-email", sendGit, true},
		{"s-nail", sendSnail, true},
	} {
		for _, way := range ways {
			t.Run(tc.name+"/"+way, func(t *testing.T) {
				subject := strings.ReplaceAll(tc.name, " ", "-") + " " + way
				text := crlf(fmt.Appendf(nil, "From: Alice <%s>\nTo: undisclosed-recipients:;\nSubject: %s\nDate: Tue, 24 Nov 2026 18:00:00 +0000\nMessage-ID: <%s@client.test>\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße\n.\n.. two dots\nFrom here\nend\n",
					mailbox, subject, strings.ReplaceAll(subject, " ", "-")))
				a := &attempt{lab: l.in(t), use: use{protocol: "smtp", mechanism: "AUTH PLAIN"}, way: way, password: password, to: "bob@contoso.com"}
				if tc.own {
					text = bytes.Replace(text, []byte("undisclosed-recipients:;"), []byte("bob@contoso.com"), 1)
				}
				a.mail = a.file("message.eml", text)
				before := len(l.sandbox.Sent())
				r := tc.run(a)
				if r.code != 0 {
					t.Fatalf("exit code %d\n%s%s\n%s", r.code, r.stdout, r.stderr, l.server.out)
				}
				sent := l.sandbox.Sent()[before:]
				if len(sent) != 1 {
					t.Fatalf("%d messages were sent", len(sent))
				}
				m := sent[0]
				if m.By != "graph" || !strings.EqualFold(m.From, mailbox) || !slices.Equal(m.To, []string{"bob@contoso.com"}) {
					t.Errorf("by %s from %s to %v", m.By, m.From, m.To)
				}
				if tc.own {
					if !bytes.Contains(m.Data, []byte("To: bob@contoso.com")) || bytes.Contains(m.Posted, []byte("Bcc:")) {
						t.Errorf("%s", m.Posted)
					}
					return
				}
				want := text
				if a.copied != nil {
					want = a.copied
				}
				if !bytes.Equal(m.Data, want) {
					t.Errorf("it arrived as\n%q\nand not as\n%q", m.Data, want)
				}
				if !bytes.HasPrefix(m.Posted, []byte("Bcc: bob@contoso.com\r\n")) || bytes.Contains(m.Data, []byte("bob@")) {
					t.Errorf("Graph was given\n%s", m.Posted)
				}
			})
		}
	}
	if status := l.o365pw("status"); !strings.Contains(status, mailbox+" sends by Graph, since SMTP is closed to it") {
		t.Errorf("status does not say so:\n%s", status)
	}
}

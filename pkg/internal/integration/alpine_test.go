//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// alpine starts it on a terminal. It keeps no password, and trusts what
// OpenSSL's variable names; it has no setting for that.
func (a *attempt) alpine(args ...string) *process {
	a.t.Helper()
	tool(a.t, "alpine")
	secure := a.pick("notls", "tls", "ssl")
	rc := a.file("pinerc", fmt.Appendf(nil, `inbox-path={localhost:%s/imap/%[2]s/user=%[3]s}INBOX
smtp-server=localhost:%[4]s/%[2]s/user=%[3]s
folder-collections=%[5]s/mail/[]
default-fcc=sent
customized-hdrs=From: Alice <%[3]s>
user-domain=contoso.com
feature-list=enable-aggregate-command-set,enable-unix-pipe-cmd,quit-without-confirm,send-without-confirm,disable-password-file-saving,save-will-not-delete,no-enable-mail-check-cue
last-version-used=6.26
`, port(a.gateway["imap"]), secure, mailbox, port(a.gateway["smtp"]), a.dir))
	a.file("mail/sent", nil)
	a.file("mail/kept", nil)
	a.env = append(a.env, "SSL_CERT_FILE="+a.ca)
	command := "stty rows 24 cols 80; TERM=vt100 exec alpine -p " + rc + " " + strings.Join(args, " ")
	return a.start("script", "--quiet", "--return", "--flush", "--command", command, filepath.Join(a.dir, "typescript"))
}

// dialog awaits texts on the screen, in order, and types what belongs to each.
func (p *process) dialog(awaitAndType ...string) {
	p.t.Helper()
	for i := 0; i < len(awaitAndType); i += 2 {
		eventually(p.t, fmt.Sprintf("%q on the screen", awaitAndType[i]), func() bool {
			said := p.out.String()
			at := strings.Index(said[p.seen:], awaitAndType[i])
			if at >= 0 {
				p.seen = len(said)
			}
			return at >= 0
		})
		_, err := io.WriteString(p.stdin, awaitAndType[i+1])
		must(p.t, err)
	}
}

// refusedAlpine waits for the refusal: alpine then asks for the password again.
func (a *attempt) refusedAlpine(p *process) result {
	a.t.Helper()
	refused := regexp.MustCompile(a.refusal)
	eventually(a.t, "alpine's refusal", func() bool { return refused.MatchString(p.out.String()) })
	p.kill()
	return result{stdout: p.out.String(), code: -1}
}

// mark are the lines that alpine puts into the header of a message in an mbox.
var mark = regexp.MustCompile(`(?m)^(X-IMAPbase|Status|X-Status|X-Keywords|X-UID|Content-Length):.*\n`)

// unmarked is a message of alpine's mbox without alpine's lines.
func unmarked(data []byte) []byte {
	header, body, _ := bytes.Cut(data, []byte("\n\n"))
	return bytes.Join([][]byte{bytes.TrimSuffix(mark.ReplaceAll(append(header, '\n'), nil), []byte("\n")), body}, []byte("\n\n"))
}

// mboxLine begins a message in an mbox of alpine's.
var mboxLine = regexp.MustCompile(`(?m)^From \S+ \w{3} \w{3} .*\n`)

// quotedFrom is a message as alpine writes it into an mbox: there is an empty
// line after it, and what looks like the beginning of a message is quoted.
func quotedFrom(data []byte) []byte {
	return mboxLine.ReplaceAll(ended(data), []byte(">$0"))
}

// fetchAlpine selects all messages and saves them to a folder of its own,
// which is an mbox.
func fetchAlpine(a *attempt) result {
	a.t.Helper()
	p := a.alpine("-i")
	p.dialog("PASSWORD:", a.password+"\r")
	if a.password == wrong {
		return a.refusedAlpine(p)
	}
	p.dialog("plain", ";", "SELECT criteria", "a", "messages selected", "a", "APPLY command", "s", "SAVE", "kept\r")
	kept := filepath.Join(a.dir, "mail/kept")
	eventually(a.t, "alpine to save all messages", func() bool {
		data, err := os.ReadFile(kept)
		return err == nil && bytes.HasSuffix(data, append(lf(body(a.want[len(a.want)-1].data)), '\n'))
	})
	_, err := io.WriteString(p.stdin, "q")
	must(a.t, err)
	r := result{stdout: p.out.String(), code: p.wait(20 * time.Second)}
	a.unix, a.made = true, quotedFrom
	data, err := os.ReadFile(kept)
	must(a.t, err)
	starts := mboxLine.FindAllIndex(data, -1)
	for i, at := range starts {
		end := len(data)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		must(a.t, os.WriteFile(filepath.Join(a.folder, strconv.Itoa(i)), unmarked(data[at[1]:end-1]), 0o600))
	}
	return r
}

var preamble = regexp.MustCompile(`  This message is in MIME format\.  The first part should be readable text,\r\n.*\r\n\r\n`)

// withoutPreamble takes off what alpine says before the first part, but not in
// its copy, which is in an mbox.
func withoutPreamble(data []byte) []byte { return append(preamble.ReplaceAll(data, nil), "\r\n"...) }

// sendAlpine has alpine attach the message, read the text from a file, and keep
// a copy.
func sendAlpine(a *attempt) result {
	a.t.Helper()
	text := a.file("text", []byte(a.text()))
	p := a.alpine("-attach", a.attach(), a.to)
	p.dialog("NxtPg/End", "\x16\x0e\x12", "nsert", text+"\r", "Inserted", "\x18", "PASSWORD:", a.password+"\r")
	if a.password == wrong {
		return a.refusedAlpine(p)
	}
	sent := filepath.Join(a.dir, "mail/sent")
	eventually(a.t, "alpine to have sent and kept the message", func() bool {
		info, err := os.Stat(sent)
		return err == nil && info.Size() > int64(len(a.attached)) && len(a.dovecot.sink.to(a.to)) > 0
	})
	r := result{stdout: p.out.String(), code: p.wait(20 * time.Second)} // it ends by itself
	data, err := os.ReadFile(sent)
	must(a.t, err)
	a.copied, a.made = crlf(unmarked(withoutFrom(data))), withoutPreamble
	return r
}

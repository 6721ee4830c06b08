//go:build integration

package integration

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// mutt writes a configuration of mutt's and neomutt's.
func (a *attempt) mutt(more string) (rc string) {
	a.t.Helper()
	scheme, spool := a.pick("", "", "s"), "+INBOX"
	if a.protocol == "pop3" {
		spool = "pop" + scheme + "://localhost:" + a.port() + "/"
	}
	return a.file("muttrc", fmt.Appendf(nil, `set folder="imap%[1]s://localhost:%[2]s/" spoolfile="%[10]s"
set imap_user="%[3]s" imap_pass="%[4]s" imap_login="$imap_user" pop_user="%[3]s" pop_pass="%[4]s"
set smtp_url="smtp%[1]s://%[3]s@localhost:%[5]s/" smtp_pass="%[4]s" from="%[3]s" hostname="client.test"
set certificate_file="%[6]s" ssl_starttls=%[7]s ssl_force_tls=%[8]s ssl_verify_host=yes
set header_cache="" message_cachedir="" postponed="" mail_check=600 net_inc=0 read_inc=0
%[9]s
%[11]s`, scheme, port(a.gateway["imap"]), mailbox, a.password, port(a.gateway["smtp"]), a.ca, a.pick("no", "yes", "no"), a.pick("no", "yes", "yes"), more, spool, a.muttrc))
}

// fetchMutt lets mutt, on a terminal, show the list, open a message, and pipe
// each message into a file.
func fetchMutt(program string) func(a *attempt) result {
	return func(a *attempt) result {
		a.t.Helper()
		tool(a.t, program)
		rc := a.mutt(fmt.Sprintf(`set record=""
set pipe_split=yes pipe_decode=no pipe_sep="" wait_key=no pager_stop=yes quit=yes sleep_time=0
macro pager X "<exit><tag-pattern>~A<enter><tag-prefix><pipe-message>cat >%s/$$<enter><exit>"
%s`, a.folder, map[bool]string{false: `push "<first-entry><display-message>"`}[a.password == wrong]))
		a.unix = true
		p := a.start("script", "--quiet", "--return", "--flush", "--command", "TERM=vt100 exec "+program+" -n -F "+rc, filepath.Join(a.dir, "typescript"))
		if a.password == wrong { // it asks for another one
			refused := regexp.MustCompile(a.refusal)
			eventually(a.t, program+"'s refusal", func() bool { return refused.MatchString(p.out.String()) })
			p.kill()
			return result{stdout: p.out.String(), code: -1}
		}
		for _, shown := range []string{"attachments", "latin1", "dots", "hello"} { // of the list, and the first message
			p.await(shown)
		}
		_, err := io.WriteString(p.stdin, "X")
		must(a.t, err)
		return result{stdout: p.out.String(), code: p.wait(20 * time.Second)}
	}
}

var dateLine = regexp.MustCompile(`(?m)^Date: .*\r\n`)

// sendMutt has mutt attach the message to a text, and keep a copy, which it
// dates anew.
func sendMutt(program string) func(a *attempt) result {
	return func(a *attempt) result {
		a.t.Helper()
		record := filepath.Join(a.dir, "sent")
		rc := a.mutt(fmt.Sprintf("set mbox_type=Maildir record=%q copy=yes charset=utf-8 send_charset=utf-8 use_envelope_from=yes", record))
		undated := func(data []byte) []byte { return withoutLine(a.t, data, dateLine) }
		text := string(lf(outgoing(false)[0].data))
		r := a.try(text, program, "-n", "-F", rc, "-s", "text", "-a", a.attach(), "--", a.to)
		if r.code == 0 {
			for _, data := range mail(a.t, record) {
				a.copied, a.made = undated(crlf([]byte(data))), undated
			}
			must(a.t, os.RemoveAll(record))
		}
		return r
	}
}

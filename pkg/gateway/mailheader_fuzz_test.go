package gateway

import (
	"bytes"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzFit holds what Graph gets to what came: nothing but whole header fields of
// ours in front, and Bcc fields taken out; and to the envelope: whoever reads the
// result by net/mail sends to whom the envelope names, and to nobody else.
func FuzzFit(f *testing.F) {
	for _, seed := range []string{
		"From: alice@contoso.com\r\nTo: bob@contoso.com\r\n\r\nhi\r\n",
		"To: bob@contoso.com\r\nBcc: carol@contoso.com\r\nbcc:\r\n\tdave@contoso.com\r\nMessage-ID: <a@b>\r\n\r\nBcc: x@y\r\n",
		"Cc: A: \"x, y\" <bob@contoso.com>, carol@contoso.com;\r\nDate: x\r\n\r\n",
		"\r\nTo: evil@example.com\r\n", "", "Subject: x", "Subject: x\r\n y\r\n", "To: a\r\n\r\n", "Sender: alice@contoso.com\r\nFrom: ALICE@contoso.com\r\n\r\n\r\n",
		"To: =?utf-8?q?a=40b=2C?= <bob@contoso.com> (c, <d@e>)\r\n\r\n", "To: \"dave d\"@contoso.com, bob@contoso.com\r\n\r\n",
	} {
		f.Add([]byte(seed), "bob@contoso.com", "carol@contoso.com")
		f.Add([]byte(seed), "\"dave d\"@contoso.com", "\"a\\\"b\"@contoso.com")
	}
	g := Grant{Mailbox: "alice@contoso.com"}
	f.Fuzz(func(t *testing.T, raw []byte, a, b string) {
		message := withCRLF(raw)
		l := letter{from: g.Mailbox, message: message}
		for _, to := range []string{a, b} {
			if address, _, ok := smtpAddress("TO:", "TO:<"+to+">"); ok && address != "" && !strings.ContainsFunc(address, func(r rune) bool { return r > '~' }) {
				l.to = append(l.to, address)
			}
		}
		if len(l.to) == 0 {
			return
		}
		before := bytes.Clone(message)
		out, err := l.fit(g, time.Now(), "<given@contoso.com>")
		if !bytes.Equal(before, message) {
			t.Fatal("the message was changed in place")
		}
		if err != nil {
			reply := err.Error()
			if len(reply) < 10 || reply[0] != '5' || strings.ContainsAny(reply, "\r\n") {
				t.Fatalf("not a reply: %q", reply)
			}
			return
		}
		// Without the Bcc fields, what came is the end of what goes.
		fields, err := splitHeader(message)
		if err != nil {
			t.Fatal(err)
		}
		kept := message
		if !bytes.HasSuffix(out.message, message) {
			if kept = cutFields(message, fields, "bcc"); !bytes.HasSuffix(out.message, kept) {
				t.Fatalf("%q became %q", message, out.message)
			}
		}
		added, err := splitHeader(out.message[:len(out.message)-len(kept)])
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range added {
			if !slices.Contains([]string{"bcc", "from", "message-id", "date"}, f.name) || f.name != "bcc" && slices.ContainsFunc(fields, func(o field) bool { return o.name == f.name }) {
				t.Fatalf("added %q to %q", f.name, message)
			}
		}
		// An independent reader.
		read, err := mail.ReadMessage(bytes.NewReader(out.message))
		if err != nil {
			t.Fatalf("%v: %q", err, out.message)
		}
		var got []string
		for _, name := range []string{"To", "Cc", "Bcc"} {
			values := read.Header[name]
			if len(values) > 1 {
				t.Fatalf("%d fields %s in %q", len(values), name, out.message)
			}
			if len(values) == 0 || strings.TrimSpace(values[0]) == "" {
				continue
			}
			parser := mail.AddressParser{}
			list, err := parser.ParseList(values[0])
			if err != nil && strings.Contains(err.Error(), "charset") {
				return
			}
			if err != nil {
				t.Fatalf("%v: %q", err, values[0])
			}
			for _, a := range list {
				got = append(got, a.Address)
			}
		}
		for _, to := range l.to {
			if !containsAddress(got, to) {
				t.Fatalf("%s gets nothing of %q", to, out.message)
			}
		}
		for _, to := range got {
			if !containsAddress(l.to, to) {
				t.Fatalf("%s gets %q", to, out.message)
			}
		}
	})
}

// FuzzSubmitSession sends whatever a client may, and counts: each message that
// Graph gets was answered by one 250 at most, and each has the session's sender.
func FuzzSubmitSession(f *testing.F) {
	const hello = "MAIL FROM:<alice@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\n"
	for _, seed := range []string{
		hello + "DATA\r\nTo: bob@contoso.com\r\n\r\nx\r\n.\r\nQUIT\r\n",
		hello + "BDAT 3\r\na\r\nBDAT 2 LAST\r\n\r\nRSET\r\n", "BDAT 99999999999 LAST\r\n", "RSET\r\nNOOP\r\n" + hello + hello,
		hello + "DATA\r\n\n.\nMAIL FROM:<evil@example.com>\r\n.\r\n", "DATA\r\n.\r\n", strings.Repeat("x", 3000), "EHLO\r\nMAIL FROM:<\r\nMAIL FROM:<a@b> SIZE=x\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		submitFuzzed(t, said)
	})
}

package sandbox

import (
	"encoding/base64"
	"strings"
)

// DefaultMailboxes are alice@contoso.com and bob@contoso.com, each with a few
// real messages: plain, 8-bit UTF-8, multipart with an attachment, and HTML
// with an inline picture.
func DefaultMailboxes() []Mailbox {
	return []Mailbox{
		{Address: "alice@contoso.com", Messages: sampleMessages("Alice <alice@contoso.com>", "Bob <bob@contoso.com>", "alice")},
		{Address: "bob@contoso.com", Messages: sampleMessages("Bob <bob@contoso.com>", "Alice <alice@contoso.com>", "bob")},
	}
}

// sampleMessages are messages to a person from another. id keeps their
// Message-IDs apart.
func sampleMessages(to, from, id string) [][]byte {
	plain := `From: ` + from + `
To: ` + to + `
Subject: Lunch on Thursday?
Date: Mon, 16 Nov 2026 09:12:33 +0100
Message-ID: <lunch-` + id + `@contoso.com>
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii

Hello,

shall we say noon, at the usual place?
From there it is a short walk to the office.

..
A line of two dots above, a lone dot below, and a line that looks like a
literal: {42}
.
From the beginning of a line, as mbox files dislike.
`
	eightBit := `From: =?utf-8?Q?Zo=C3=AB_M=C3=BCller?= <zoe@fabrikam.example>
To: ` + to + `
Subject: =?utf-8?B?w5xiZXJzaWNodCDigJMg4oKsIDEyLDUw?=
Date: Tue, 17 Nov 2026 18:40:00 +0000
Message-ID: <overview-` + id + `@fabrikam.example>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Grüße aus Łódź – der Betrag ist € 12,50.
日本語の行と emoji 📬 gehören auch dazu.
`
	picture := "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
	attachment := `From: ` + from + `
To: ` + to + `
Subject: Minutes and figures
Date: Wed, 18 Nov 2026 07:05:09 -0500
Message-ID: <minutes-` + id + `@contoso.com>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="=_outer"

This is a message in several parts.
--=_outer
Content-Type: multipart/alternative; boundary="=_inner"

--=_inner
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

The minutes are attached =E2=80=93 please read them before Friday, all of t=
hem.

--=_inner
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable

<p>The minutes are attached =E2=80=93 <b>please read them</b> before Friday.</p>

--=_inner--

--=_outer
Content-Type: text/csv; name="figures.csv"
Content-Disposition: attachment; filename="figures.csv"
Content-Transfer-Encoding: base64

` + wrapBase64([]byte("quarter,amount\r\nQ1,1200\r\nQ2,1350\r\nQ3,990\r\nQ4,1475\r\n")) + `
--=_outer
Content-Type: image/png; name="dot.png"
Content-Disposition: attachment; filename="dot.png"
Content-Transfer-Encoding: base64

` + picture + `
--=_outer--
`
	html := `From: Newsletter <news@fabrikam.example>
To: ` + to + `
Subject: A very long subject that is folded over two lines, as RFC 5322
 section 2.2.3 allows, and a third
	one that begins with a tab
Date: Thu, 19 Nov 2026 23:59:59 +0530
Message-ID: <news-` + id + `@fabrikam.example>
List-Unsubscribe: <mailto:leave@fabrikam.example>
MIME-Version: 1.0
Content-Type: multipart/related; boundary=rel

--rel
Content-Type: text/html; charset=utf-8

<html><body><h1>News</h1><img src="cid:dot"></body></html>

--rel
Content-Type: image/png
Content-ID: <dot>
Content-Transfer-Encoding: base64

` + picture + `
--rel--
`
	var messages [][]byte
	for _, m := range []string{plain, eightBit, attachment, html} {
		messages = append(messages, []byte(strings.ReplaceAll(m, "\n", "\r\n")))
	}
	return messages
}

// wrapBase64 encodes in lines of 76 characters (RFC 2045 section 6.8).
func wrapBase64(data []byte) string {
	var b strings.Builder
	for text := base64.StdEncoding.EncodeToString(data); text != ""; {
		n := min(76, len(text))
		b.WriteString(text[:n])
		text = text[n:]
		if text != "" {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

package entra

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"net/http"
)

// page is what the browser shows: what has happened, and what to do next.
type page struct {
	Status  int
	Mark    string // a key of marks
	Heading string
	Account string // who signed in
	Text    string // what has happened
	Next    string // what to do
	Code    string // Entra's number, for whoever is asked for help
}

// refusal is the page for a request that is not the answer waited for.
func refusal(status int, why string) page {
	return page{Status: status, Mark: "refused", Heading: "Refused", Text: why,
		Next: "Nothing was changed. You can close this window."}
}

// outcome is the page for the end of a sign-in.
func outcome(who Identity, err error) page {
	if err == nil {
		return page{Status: http.StatusOK, Mark: "done", Heading: "Signed in", Account: who.Username,
			Text: "o365pw has what it needs.",
			Next: "You can close this window and go back to the terminal."}
	}
	p := page{Status: http.StatusOK, Mark: "failed", Heading: "Not signed in",
		Text: "The sign-in did not work.",
		Next: "You can close this window. The terminal says more."}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return p
	}
	switch e.Kind() {
	case Declined:
		p.Text = "The sign-in was cancelled or declined."
		p.Next = "You can close this window, and begin again in the terminal."
	case Forbidden:
		p.Text = "The organization does not allow this sign-in."
		p.Next = "You can close this window. The terminal says who can allow it."
	case Unavailable:
		p.Text = "Microsoft's sign-in service could not be reached, or gave no answer that makes sense."
		p.Next = "You can close this window, and try again in a few minutes."
	}
	if n := e.Number(); n != 0 {
		p.Code = fmt.Sprintf("AADSTS%d", n)
	}
	return p
}

const pageStyle = `:root{color-scheme:light dark;--ink:#1c1c22;--soft:#5b5b66;--ground:#f6f6f8;--card:#fff;--edge:#e2e2e8;` +
	`--done:#1a7f4b;--failed:#b3261e;--refused:#8a5a00}` +
	`@media(prefers-color-scheme:dark){:root{--ink:#ececf1;--soft:#a5a5b3;--ground:#141418;--card:#1e1e24;--edge:#33333d;` +
	`--done:#5fd39a;--failed:#ff8a80;--refused:#f2b950}}` +
	`*{box-sizing:border-box}` +
	`body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;` +
	`font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:var(--ink);background:var(--ground)}` +
	`main{width:100%;max-width:27rem;padding:2.25rem 2rem;text-align:center;background:var(--card);` +
	`border:1px solid var(--edge);border-radius:.875rem}` +
	`svg{display:block;width:3.25rem;height:3.25rem;margin:0 auto 1.125rem;fill:none;stroke:currentColor;` +
	`stroke-width:2.5;stroke-linecap:round;stroke-linejoin:round}` +
	`.done{color:var(--done)}.failed{color:var(--failed)}.refused{color:var(--refused)}` +
	`h1{font-size:1.375rem;line-height:1.3;font-weight:600;margin:0}` +
	`p{margin:.75rem 0 0;overflow-wrap:anywhere;text-wrap:balance}.account{margin-top:.25rem;font-weight:600}.next,.code,footer{color:var(--soft)}` +
	`.code{font:.875rem/1.5 ui-monospace,Consolas,monospace}` +
	`footer{margin-top:1.75rem;font-size:.8125rem;letter-spacing:.02em}`

// marks are what the picture of each kind of page shows, in a circle.
var marks = map[string]string{
	"done":    `<path d="M15 24.5l6.5 6.5L33.5 18"/>`,
	"failed":  `<path d="M17 17l14 14M31 17L17 31"/>`,
	"refused": `<path d="M24 14v12M24 33.5v.1"/>`,
}

// html is the page. It is put together by hand: html/template would keep the
// linker from leaving out what no program calls, and cost 2 MB. All that is
// not written here is text between tags, which html.EscapeString is made for.
func (p page) html() []byte {
	var b bytes.Buffer
	line := func(before, text, after string) {
		if text != "" {
			b.WriteString(before + html.EscapeString(text) + after + "\n")
		}
	}
	b.WriteString(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
`)
	line("<title>", p.Heading+" · o365pw", "</title>")
	b.WriteString("<style>" + pageStyle + `</style>
</head>
<body>
<main>
<svg class="` + p.Mark + `" viewBox="0 0 48 48" aria-hidden="true"><circle cx="24" cy="24" r="21"/>` + marks[p.Mark] + "</svg>\n")
	line("<h1>", p.Heading, "</h1>")
	line(`<p class="account">as `, p.Account, "</p>")
	line("<p>", p.Text, "</p>")
	line(`<p class="next">`, p.Next, "</p>")
	line(`<p class="code">`, p.Code, "</p>")
	b.WriteString("<footer>o365pw</footer>\n</main>\n</body>\n</html>\n")
	return b.Bytes()
}

// write sends the page. It holds no script and asks for nothing from
// anywhere; the address of the request, which holds the code, is neither kept
// nor passed on.
func (p page) write(w http.ResponseWriter) {
	style := sha256.Sum256([]byte(pageStyle))
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'sha256-"+
		base64.StdEncoding.EncodeToString(style[:])+"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	_, _ = w.Write(p.html()) // the browser may have gone
}

package sandbox

import (
	"cmp"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// pageData is what the pages show.
type pageData struct {
	App, Action, Title, Text, UserCode string
	Hidden                             map[string]string
	People                             []pagePerson
}

type pagePerson struct {
	Name, UPN string
	Suggested bool
}

// people are those who can sign in; the one hinted at is marked.
func (s *Server) people(in realm, hint string) []pagePerson {
	var list []pagePerson
	for _, p := range s.dir.people {
		if in.admits(p) {
			list = append(list, pagePerson{p.name, p.upn, sameFold(p.upn, hint)})
		}
	}
	return list
}

const pageHead = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in – o365pw sandbox</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 28em; margin: 4em auto; padding: 0 1em }
button, input { font: inherit; padding: .4em .8em; margin: .2em 0; width: 100%; box-sizing: border-box }
button.suggested { font-weight: bold }
small { color: #555 }
</style>
</head>
<body>
<main>
`

const pageFoot = `<p><small>A sandbox. Nobody's password is asked for, and nothing leaves this machine.</small></p>
</main>
</body>
</html>
`

// markup puts a page together: what is data stands in %s, between tags or in
// a quoted attribute, and is escaped for both. (html/template would keep the
// linker from leaving out what no program calls.)
type markup struct{ strings.Builder }

func (m *markup) add(format string, data ...string) {
	escaped := make([]any, len(data))
	for i, d := range data {
		escaped[i] = html.EscapeString(d)
	}
	fmt.Fprintf(m, format, escaped...)
}

func (m *markup) hidden(fields map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		m.add("<input type=\"hidden\" name=\"%s\" value=\"%s\">\n", name, fields[name])
	}
}

func signInPage(m *markup, d pageData) {
	m.add("<h1>Sign in</h1>\n<p>to <strong>%s</strong></p>\n<form method=\"post\" action=\"%s\">\n", d.App, d.Action)
	m.hidden(d.Hidden)
	m.add("<input type=\"hidden\" name=\"action\" value=\"accept\">\n")
	for _, p := range d.People {
		mark := ""
		if p.Suggested {
			mark = ` class="suggested" autofocus`
		}
		m.add("<button name=\"user\" value=\"%s\""+mark+">%s (%s)</button>\n", p.UPN, p.Name, p.UPN)
	}
	m.add("</form>\n<form method=\"post\" action=\"%s\">\n", d.Action)
	m.hidden(d.Hidden)
	m.add("<button name=\"action\" value=\"decline\">Cancel</button>\n</form>\n")
}

func devicePage(m *markup, d pageData) {
	m.add(`<h1>Enter code</h1>
<p>Enter the code shown by the application, and choose who signs in.</p>
<form method="post" action="/devicelogin">
<p><label for="user_code">Code</label>
<input id="user_code" name="user_code" value="%s" autocomplete="off" required></p>
`, d.UserCode)
	for _, p := range d.People {
		mark := ""
		if p.Suggested {
			mark = " checked"
		}
		m.add("<p><label><input type=\"radio\" name=\"user\" value=\"%s\" style=\"width: auto\""+mark+"> %s (%s)</label></p>\n", p.UPN, p.Name, p.UPN)
	}
	m.add("<button name=\"action\" value=\"accept\">Sign in</button>\n<button name=\"action\" value=\"decline\">Cancel</button>\n</form>\n")
}

func messagePage(m *markup, d pageData) { m.add("<h1>%s</h1>\n<p>%s</p>\n", d.Title, d.Text) }

// writePage writes a page that must not be kept or framed.
func (s *Server) writePage(w http.ResponseWriter, status int, content func(*markup, pageData), data pageData) {
	var m markup
	m.WriteString(pageHead)
	content(&m, data)
	m.WriteString(pageFoot)
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.WriteHeader(status)
	io.WriteString(w, m.String())
}

// signInError shows a refusal to the person at the browser.
func (s *Server) signInError(w http.ResponseWriter, e *oauthError) {
	s.writePage(w, cmp.Or(e.status, http.StatusBadRequest), messagePage, pageData{
		Title: "Sorry, but we’re having trouble signing you in.",
		Text:  fmt.Sprintf("AADSTS%d: %s", e.number, e.text),
	})
}

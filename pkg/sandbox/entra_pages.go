package sandbox

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"net/http"
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
<title>{{block "title" .}}Sign in{{end}} – o365pw sandbox</title>
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

var (
	signInPage = template.Must(template.New("sign-in").Parse(pageHead + `<h1>Sign in</h1>
<p>to <strong>{{.App}}</strong></p>
<form method="post" action="{{.Action}}">
{{range $name, $value := .Hidden}}<input type="hidden" name="{{$name}}" value="{{$value}}">
{{end}}<input type="hidden" name="action" value="accept">
{{range .People}}<button name="user" value="{{.UPN}}"{{if .Suggested}} class="suggested" autofocus{{end}}>{{.Name}} ({{.UPN}})</button>
{{end}}</form>
<form method="post" action="{{.Action}}">
{{range $name, $value := .Hidden}}<input type="hidden" name="{{$name}}" value="{{$value}}">
{{end}}<button name="action" value="decline">Cancel</button>
</form>
` + pageFoot))

	devicePage = template.Must(template.New("device").Parse(pageHead + `<h1>Enter code</h1>
<p>Enter the code shown by the application, and choose who signs in.</p>
<form method="post" action="/devicelogin">
<p><label for="user_code">Code</label>
<input id="user_code" name="user_code" value="{{.UserCode}}" autocomplete="off" required></p>
{{range .People}}<p><label><input type="radio" name="user" value="{{.UPN}}" style="width: auto"{{if .Suggested}} checked{{end}}> {{.Name}} ({{.UPN}})</label></p>
{{end}}<button name="action" value="accept">Sign in</button>
<button name="action" value="decline">Cancel</button>
</form>
` + pageFoot))

	messagePage = template.Must(template.New("message").Parse(pageHead + `<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
` + pageFoot))
)

// writePage writes a page that must not be kept or framed.
func (s *Server) writePage(w http.ResponseWriter, status int, t *template.Template, data pageData) {
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		s.Log.Error("page", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// signInError shows a refusal to the person at the browser.
func (s *Server) signInError(w http.ResponseWriter, e *oauthError) {
	s.writePage(w, cmp.Or(e.status, http.StatusBadRequest), messagePage, pageData{
		Title: "Sorry, but we’re having trouble signing you in.",
		Text:  fmt.Sprintf("AADSTS%d: %s", e.number, e.text),
	})
}

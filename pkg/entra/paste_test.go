package entra

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
)

func TestSignInPaste(t *testing.T) {
	c, f := newClient(t, tokenReply(map[string]any{"refresh_token": "0.r"}))
	c.Tenant = "consumers"
	var asked url.Values
	got, err := c.SignInPaste(t.Context(), PasteSignIn{
		ClientID: testClient, Scope: "https://outlook.office.com/SMTP.Send", LoginHint: "alice@outlook.com", Claims: "{}", Prompt: "consent",
		Ask: func(_ context.Context, address string) (string, error) {
			u, err := url.Parse(address)
			if err != nil || u.Path != "/consumers/oauth2/v2.0/authorize" {
				t.Errorf("asked to open %s", address)
			}
			asked = u.Query()
			return "http://localhost/?code=the-code&state=" + asked.Get("state") + "&session_state=x#", nil
		},
	})
	if err != nil || got.Refresh.Reveal() != "0.r" {
		t.Fatalf("got %v, %v", got, err)
	}
	if asked.Get("redirect_uri") != "http://localhost" || asked.Get("login_hint") != "alice@outlook.com" || asked.Get("claims") != "{}" ||
		asked.Get("prompt") != "consent" || asked.Get("response_mode") != "query" || asked.Get("code_challenge_method") != "S256" {
		t.Errorf("authorize request %v", asked)
	}
	r := f.got()[0]
	if r.path != "/consumers/oauth2/v2.0/token" || r.form.Get("code") != "the-code" || r.form.Get("redirect_uri") != "http://localhost" ||
		r.form.Get("grant_type") != "authorization_code" || len(r.form.Get("code_verifier")) < 43 {
		t.Errorf("token request %s %v", r.path, r.form)
	}
}

func TestPasted(t *testing.T) {
	const answer = "code=0.AX-_y&state=the-state"
	tests := map[string]string{
		"address":              "http://localhost/?" + answer,
		"with line ends":       "\r\n http://localhost/?code=0.AX-\r\n_y&sta\n te=the-state \n",
		"query":                answer,
		"query with mark":      "?" + answer,
		"query with ampersand": "&" + answer + "&",
		"no scheme":            "localhost/?" + answer,
		"quoted":               `"http://localhost/?` + answer + `"`,
		"typographic quotes":   "“http://localhost/?" + answer + "”",
		"angle brackets":       " <http://localhost/?" + answer + "> ",
		"markdown":             "`http://localhost/?" + answer + "`",
		"with a fragment":      "http://localhost/?" + answer + "#",
		"bracketed paste":      "\x1b[200~http://localhost/?" + answer + "\x1b[201~",
		"invisible characters": "\u200bhttp://localhost/?" + answer + "\ufeff",
		"state first":          "http://localhost/?state=the-state&code=0.AX-_y",
	}
	for name, in := range tests {
		got, err := parsePaste(in)
		if err != nil || got.Get("code") != "0.AX-_y" || got.Get("state") != "the-state" {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	for name, in := range map[string]string{
		"empty":                     "",
		"blank":                     " \n",
		"the address to open":       "https://login.microsoftonline.com/common/oauth2/v2.0/authorize?client_id=x&state=the-state",
		"the code alone":            "0.AX-_y",
		"code and error":            "?code=c&error=e&state=the-state",
		"twice":                     "?code=c&code=d&state=the-state",
		"pasted twice":              "http://localhost/?" + answer + "\nhttp://localhost/?" + answer,
		"code without a value":      "?code=&state=the-state",
		"not percent-encoded right": "?code=%zz&state=the-state",
		"endless":                   strings.Repeat(" ", 1<<20) + answer,
	} {
		if got, err := parsePaste(in); !errors.Is(err, ErrNotAnAnswer) || !errors.Is(CheckPaste(in), ErrNotAnAnswer) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	if err := CheckPaste(answer); err != nil {
		t.Error(err)
	}
}

func TestSignInPasteFails(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	tests := []struct {
		name   string
		ctx    context.Context
		pasted func(state string) (string, error)
		kind   Kind
		number int
		is     error
	}{
		{"nothing", t.Context(), func(string) (string, error) { return "", nil }, SignInRequired, 0, ErrNotAnAnswer},
		{"wrong state", t.Context(), func(state string) (string, error) { return "?code=the-code&state=" + state + "x", nil }, SignInRequired, 0, nil},
		{"no state", t.Context(), func(string) (string, error) { return "?code=the-code", nil }, SignInRequired, 0, nil},
		{"declined", t.Context(), func(state string) (string, error) {
			return "?error=access_denied&error_subcode=cancel&error_description=AADSTS65004%3a+x%0d%0aTrace+ID%3a+t&state=" + state, nil
		}, Declined, 65004, nil},
		{"error of another sign-in", t.Context(), func(string) (string, error) { return "?error=access_denied&state=x", nil }, SignInRequired, 0, nil},
		{"code refused", t.Context(), func(state string) (string, error) { return "?code=the-code&state=" + state, nil }, SignInRequired, 70008, nil},
		{"end of input", t.Context(), func(string) (string, error) { return "", io.EOF }, Expired, 0, io.EOF},
		{"interrupted", cancelled, func(string) (string, error) { cancel(); return "", io.EOF }, Unavailable, 0, context.Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, f := newClient(t, errorReply(400, "invalid_grant", 70008))
			_, err := c.SignInPaste(tt.ctx, PasteSignIn{ClientID: testClient, Scope: "x", Ask: func(_ context.Context, address string) (string, error) {
				u, _ := url.Parse(address)
				return tt.pasted(u.Query().Get("state"))
			}})
			e := asError(t, err)
			if e.Kind() != tt.kind || e.Number() != tt.number || tt.is != nil && !errors.Is(err, tt.is) || strings.Contains(e.Error(), "the-code") {
				t.Errorf("got %v: %v", e.Kind(), e)
			}
			if n := len(f.got()); n != 0 && tt.name != "code refused" {
				t.Errorf("%d token requests", n)
			}
		})
	}
	ask := func(context.Context, string) (string, error) { t.Error("asked"); return "", nil }
	for _, p := range []PasteSignIn{{Ask: ask}, {ClientID: "x"}, {ClientID: "x", Ask: ask, Prompt: "none"}, {ClientID: "x", Ask: ask, Claims: "x"}} {
		c, _ := newClient(t, tokenReply(nil))
		if _, err := c.SignInPaste(t.Context(), p); asError(t, err).Kind() != Misconfigured {
			t.Errorf("got %v", err)
		}
	}
}

// Every way in which a person signs in takes the tenant of personal accounts.
func TestPersonalAccounts(t *testing.T) {
	c, f := newClient(t, deviceReply(map[string]any{"interval": 0.01}), tokenReply(nil))
	c.Tenant = "consumers"
	if _, err := c.SignInDeviceCode(t.Context(), testClient, "x", nil); err != nil {
		t.Error(err)
	}
	_, err := c.SignInBrowser(t.Context(), BrowserSignIn{ClientID: testClient, Scope: "x", Open: func(address string) error {
		if u, _ := url.Parse(address); u.Path != "/consumers/oauth2/v2.0/authorize" {
			t.Errorf("opened %s", address)
		}
		consent(t, address, map[string]string{"code": "the-code"})
		return nil
	}})
	if err != nil {
		t.Error(err)
	}
	for i, want := range []string{"devicecode", "token", "token"} {
		if got := f.got()[i].path; got != "/consumers/oauth2/v2.0/"+want {
			t.Errorf("request %d to %s", i, got)
		}
	}
}

func FuzzPaste(f *testing.F) {
	f.Add("http://localhost/?code=c&state=s#")
	f.Add("<http://localhost/?error=access_denied&error_description=AADSTS65004%3a+x%0d%0aTrace+ID%3a+y&state=s>")
	f.Add("\x1b[200~code=c&\r\nstate=s\x1b[201~")
	f.Add("?code=%zz;&=&&state=\xff")
	f.Fuzz(func(t *testing.T, pasted string) {
		got, err := parsePaste(pasted)
		if err != nil {
			if err != ErrNotAnAnswer || got != nil {
				t.Errorf("got %v, %v", got, err)
			}
			return
		}
		if (got.Get("code") == "") == (got.Get("error") == "") {
			t.Errorf("took %q for %v", pasted, got)
		}
		// How it is broken into lines, and what is around it, makes no difference.
		broken := "\n <" + strings.Join(strings.Split(pasted, ""), "\r\n") + ">\n"
		if strings.Contains(pasted, "\x1b") || len(broken) > maxPaste {
			return
		}
		if again, err := parsePaste(broken); err != nil || again.Encode() != got.Encode() {
			t.Errorf("%q broken into lines: %v, %v", pasted, again, err)
		}
		e := &Error{Op: "fuzz"}
		e.fromBrowser(got)
		if text := e.Error(); strings.ContainsAny(text, "\r\n\x1b") {
			t.Errorf("message %q", text)
		}
	})
}

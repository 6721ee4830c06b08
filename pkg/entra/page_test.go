package entra

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// The page loads nothing, and its style is the one that the policy allows.
func TestPage(t *testing.T) {
	w := httptest.NewRecorder()
	page{200, "done", "<Heading>", "<Account>", "<Text>", "<Next>", "<Code>"}.write(w)
	body := w.Body.String()
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(body)
	if style == nil {
		t.Fatal("no style")
	}
	sum := sha256.Sum256([]byte(style[1]))
	policy := w.Header().Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; ") || !strings.Contains(policy, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") {
		t.Errorf("policy %s", policy)
	}
	for _, no := range []string{"<script", "http:", "https:", "url(", "<Heading>", "<Account>", "<Text>", "<Next>", "<Code>", " src=", "<link", " style=", " on", "@import"} {
		if strings.Contains(body, no) {
			t.Errorf("page holds %q", no)
		}
	}
}

// Success, failure and refusal look different, and each says what to do next.
func TestPages(t *testing.T) {
	declined := &Error{kind: Declined, Numbers: []int{65004}}
	for _, tt := range []struct {
		name string
		page page
		want []string
	}{
		{"done", outcome(Identity{Username: "alice@contoso.com"}, nil), []string{`class="done"`, "Signed in<", "as alice@contoso.com", "go back to the terminal"}},
		{"done, nobody named", outcome(Identity{}, nil), []string{`class="done"`, "<h1>Signed in</h1>\n<p>"}},
		{"declined", outcome(Identity{}, declined), []string{`class="failed"`, "Not signed in", "declined", "begin again", "AADSTS65004"}},
		{"forbidden", outcome(Identity{}, &Error{kind: Forbidden}), []string{`class="failed"`, "does not allow", "who can allow it"}},
		{"down", outcome(Identity{}, &Error{}), []string{`class="failed"`, "could not be reached", "in a few minutes"}},
		{"other", outcome(Identity{}, errors.New("x")), []string{`class="failed"`, "did not work", "The terminal says more"}},
		{"refused", refusal(403, "Not for you."), []string{`class="refused"`, "Not for you.", "Nothing was changed"}},
	} {
		w := httptest.NewRecorder()
		tt.page.write(w)
		for _, want := range tt.want {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s: no %q in %s", tt.name, want, w.Body)
			}
		}
		if n := strings.Count(w.Body.String(), "<path"); n != 1 {
			t.Errorf("%s: %d marks", tt.name, n)
		}
	}
}

package entra

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/o365pw/o365pw/pkg/secret"
)

func TestPeek(t *testing.T) {
	exp := time.Date(2040, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		name, token string
		want        Claims
		ok          bool
	}{
		{"application", idToken(map[string]any{"aud": "https://outlook.office365.com", "tid": "t", "appid": "a", "oid": "o", "exp": exp.Unix(),
			"roles": []any{"IMAP.AccessAsApp", "POP.AccessAsApp", 5, "", "IMAP.AccessAsApp"}}),
			Claims{Audience: "https://outlook.office365.com", TenantID: "t", AppID: "a", ObjectID: "o", Roles: []string{"IMAP.AccessAsApp", "POP.AccessAsApp"}, Expires: exp}, true},
		{"person", idToken(map[string]any{"azp": "a", "upn": "alice@contoso.com", "scp": "IMAP.AccessAsUser.All SMTP.Send"}),
			Claims{AppID: "a", Username: "alice@contoso.com", Scopes: []string{"IMAP.AccessAsUser.All", "SMTP.Send"}}, true},
		{"several audiences", idToken(map[string]any{"aud": []string{"x", "y"}}), Claims{Audience: "x"}, true},
		{"odd members", idToken(map[string]any{"aud": 5, "roles": "x", "scp": []string{"y"}, "exp": "never", "oid": "a\x1b[31mb\nc"}), Claims{ObjectID: "a[31mb"}, true},
		{"opaque", "EwBwA8l6BAAUkj1NuJYtTVha+Mogk+HEiPbQo04AAQ", Claims{}, false},
		{"encrypted", "a.b.c.d.e", Claims{}, false},
		{"not JSON", "a.YWJj.c", Claims{}, false},
		{"empty", "", Claims{}, false},
	}
	for _, tt := range tests {
		got, ok := Peek(secret.New(tt.token))
		if diff := cmp.Diff(tt.want, got); diff != "" || ok != tt.ok {
			t.Errorf("%s: %v %s", tt.name, ok, diff)
		}
	}
}

func FuzzPeek(f *testing.F) {
	f.Add(idToken(map[string]any{"aud": "x", "roles": []string{"r"}, "scp": "a b", "exp": 1e300}))
	f.Add("a.bnVsbA.c")
	f.Add("EwBw")
	f.Fuzz(func(t *testing.T, token string) {
		c, ok := Peek(secret.New(token))
		texts := append([]string{c.Audience, c.TenantID, c.AppID, c.ObjectID, c.Username}, append(c.Roles, c.Scopes...)...)
		for _, s := range texts {
			if strings.ContainsAny(s, "\r\n\x1b\x00") || !utf8.ValidString(s) {
				t.Errorf("claim %q", s)
			}
		}
		if !ok && !cmp.Equal(c, Claims{}) {
			t.Errorf("claims %+v of no token", c)
		}
		if !c.Expires.IsZero() && (c.Expires.Year() < 1970 || c.Expires.Year() > 2243) {
			t.Errorf("expires %v", c.Expires)
		}
	})
}

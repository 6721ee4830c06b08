package apppassword

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

func TestPackRefuses(t *testing.T) {
	f := newFixture(t)
	rec := f.made(t, "x")
	revoked := rec
	revoked.Revoked = time.Now()
	if _, err := f.Pack(t.Context(), []Record{revoked}); why(err) != IsRevoked {
		t.Error(err)
	}
	delete(f.keychain.items, itemKey(rec.ID))
	if _, err := f.Pack(t.Context(), []Record{rec}); why(err) != IsLost {
		t.Error(err)
	}
}

// TestParseParcelFaults changes one thing of a good parcel at a time.
func TestParseParcelFaults(t *testing.T) {
	f := newFixture(t)
	rec := f.made(t, "x")
	p := f.packed(t, rec)
	first := func(change func(*Record)) func(*parcelFile) {
		return func(p *parcelFile) { change(&p.AppPasswords[0]) }
	}
	for name, change := range map[string]func(*parcelFile){
		"format":         func(p *parcelFile) { p.Format = "" },
		"version":        func(p *parcelFile) { p.Version = 0 },
		"newer":          func(p *parcelFile) { p.Version = 2 },
		"none":           func(p *parcelFile) { p.AppPasswords = nil },
		"twice":          func(p *parcelFile) { p.AppPasswords = append(p.AppPasswords, p.AppPasswords[0]) },
		"no secrets":     func(p *parcelFile) { p.Secrets = nil },
		"empty password": func(p *parcelFile) { p.Secrets[rec.ID] = secretsItem{Version: 1, Secret: "x"} },
		"short password": func(p *parcelFile) { p.Secrets[rec.ID] = secretsItem{Version: 1, Password: "abc", Secret: "x"} },
		"other letters": func(p *parcelFile) {
			p.Secrets[rec.ID] = secretsItem{Version: 1, Password: "ABCDEFGHIJKLMNOP", Secret: "x"}
		},
		"no backing":   func(p *parcelFile) { p.Secrets[rec.ID] = secretsItem{Version: 1, Password: "abcdefghijklmnop"} },
		"more secrets": func(p *parcelFile) { p.Secrets["x"] = p.Secrets[rec.ID] },
		"id":           first(func(r *Record) { r.ID = "../../x" }),
		"id in capitals": func(p *parcelFile) {
			r := &p.AppPasswords[0]
			r.ID = "A" + rec.ID[1:]
			p.Secrets = map[string]secretsItem{r.ID: p.Secrets[rec.ID]}
		},
		"client id":       first(func(r *Record) { r.ClientID = "" }),
		"name":            first(func(r *Record) { r.Name = "a\nb" }),
		"profile":         first(func(r *Record) { r.Profile = "../x" }),
		"cloud":           first(func(r *Record) { r.Cloud = "a b" }),
		"tenant":          first(func(r *Record) { r.Tenant = "x/y" }),
		"mailbox":         first(func(r *Record) { r.Mailboxes = []string{"alice"} }),
		"no mailbox":      first(func(r *Record) { r.Mailboxes = nil }),
		"protocol":        first(func(r *Record) { r.Allow = []string{"http"} }),
		"protocol twice":  first(func(r *Record) { r.Allow = []string{"imap", "imap"} }),
		"no protocol":     first(func(r *Record) { r.Allow = nil }),
		"backing":         first(func(r *Record) { r.Backing = "magic" }),
		"no longer decoy": first(func(r *Record) { r.Backing = BackingNone }),
		"decoy":           first(func(r *Record) { r.Decoy = true }),
		"from":            first(func(r *Record) { r.Allow, r.From = []string{"smtp"}, []string{"*"} }),
		"from nowhere":    first(func(r *Record) { r.From = []string{"@contoso.com"} }),
		"login name":      first(func(r *Record) { r.LoginName = "a b" }),
		"hint":            first(func(r *Record) { r.Hint = "a\x1b[0m" }),
		"made never":      first(func(r *Record) { r.Created = time.Time{} }),
		"revoked":         first(func(r *Record) { r.Revoked = time.Now() }),
		"foreign sign-in": first(func(r *Record) { r.SignIn = rec.ID }),
		"on no sign-in":   first(func(r *Record) { r.Backing = BackingUser; r.SignIn = rec.ID }),
		"certificate":     first(func(r *Record) { r.Certificate = "/etc/passwd" }),
		"no certificate":  first(func(r *Record) { r.Backing = BackingCertificate }),
		"algorithm":       first(func(r *Record) { r.CertificateAlg = "none" }),
		"cloud's table": func(p *parcelFile) {
			p.Clouds = map[string]string{"lab": "[clouds.lab]\nauthority = \"http://evil.example\"\n"}
		},
		"more than tables": func(p *parcelFile) {
			p.Clouds = map[string]string{"lab": f.Profile.Cloud.Table() + "[hooks]\non_decoy = \"rm\"\n"}
		},
		"certificate twice": func(p *parcelFile) { p.Certificates = []parcelCertificate{{Place: "x"}, {Place: "x"}} },
	} {
		_, err := rewrite(t, p, change)
		e, ok := errors.AsType[*ParcelError](err)
		if !ok || e.Newer != (name == "newer") {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), p.secrets[rec.ID].Password.Reveal()) {
			t.Errorf("%s: it quotes a password", name)
		}
	}
	for name, text := range map[string]string{"empty": "", "text": "hello", "list": "[]", "other JSON": `{"version": 1}`, "number": `{"format": 5}`} {
		if _, err := ParseParcel(secret.New(text)); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	text, err := p.Text()
	if err != nil {
		t.Fatal(err)
	}
	_, err = ParseParcel(secret.New(strings.Replace(text.Reveal(), `"name"`, `"readNothing":true,"name"`, 1)))
	if e, ok := errors.AsType[*ParcelError](err); !ok || !e.Newer {
		t.Errorf("a limit that is not known: %v", err)
	}
	if _, err := ParseParcel(secret.New(text.Reveal() + "{}")); err == nil {
		t.Error("two objects")
	}
}

// FuzzParseParcel holds what is taken to what is written again, and to names that
// are safe in paths and on a terminal.
func FuzzParseParcel(f *testing.F) {
	id := "11111111-2222-4333-8444-555555555555"
	const record = `{"id":%q,"name":"x","profile":"work","tenant":"contoso.com","cloud":"global","clientId":%q,"mailboxes":["a@b.c"],"allow":["imap"],"networks":[],"backing":%q,"hint":"","created":"2026-11-24T00:00:00Z","expires":"2027-11-24T00:00:00Z","keychain":""%s}`
	const whole = `{"format":"o365pw app passwords","version":1,"made":"2026-11-24T00:00:00Z","appPasswords":[%s],"secrets":{%q:{"v":1,"password":"abcdefghijklmnop","secret":%q}}%s}`
	f.Add([]byte(fmt.Sprintf(whole, fmt.Sprintf(record, id, id, "secret", ""), id, "s", "")))
	f.Add([]byte(fmt.Sprintf(whole, fmt.Sprintf(record, id, id, "none", `,"decoy":true`), id, "", `,"clouds":{"lab":"[clouds.lab]\nauthority = \"https://a.example\"\ngraph = \"https://b.example\"\n"}`)))
	f.Add([]byte(fmt.Sprintf(whole, fmt.Sprintf(record, id, id, "user", `,"signIn":"`+id+`"`), id, "", `,"signIns":[{"signIn":{"id":"`+id+`","tenant":"contoso.com","clientId":"`+id+`","cloud":"global","keychain":"","scopes":["x"],"since":"2026-11-24T00:00:00Z"},"refreshToken":"r"}]`)))
	f.Add([]byte(fmt.Sprintf(whole, fmt.Sprintf(record, id, id, "certificate", `,"certificateAlg":"PS256"`), id, "", `,"certificates":[{"place":"certificate/`+id+` ","pem":"p","digest":""}]`)))
	f.Add([]byte(`{"format":"o365pw app passwords","version":9}`))
	for _, good := range []string{"secret"} {
		if _, err := ParseParcel(secret.New(fmt.Sprintf(whole, fmt.Sprintf(record, id, id, good, ""), id, "s", ""))); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseParcel(secret.New(string(data)))
		if err != nil {
			if _, ok := errors.AsType[*ParcelError](err); !ok {
				t.Errorf("%T: %v", err, err)
			}
			return
		}
		for _, r := range p.Records {
			if r.Profile != filepath.Base(r.Profile) || CheckName(r.Name) != nil || !r.Revoked.IsZero() {
				t.Errorf("%+v", r)
			}
		}
		text, err := p.Text()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseParcel(text); err != nil {
			t.Errorf("written again it is refused: %v", err)
		}
	})
}

func mustNetworks(t *testing.T, values ...string) []netip.Prefix {
	t.Helper()
	nets, err := ParseNetworks(values)
	if err != nil {
		t.Fatal(err)
	}
	return nets
}

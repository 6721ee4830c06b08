package apppassword

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// oldRecord is a record as version 1 of the registry has always had it.
func oldRecord() Record {
	return Record{ID: "c0bbf6de-9c7d-4e1b-8d1a-e0f3918f3611", Name: "mutt", Profile: "work", Tenant: "contoso.onmicrosoft.com", Cloud: "global",
		ClientID: "00001111-aaaa-2222-bbbb-3333cccc4444", Mailboxes: []string{"alice@contoso.com"}, Allow: []string{"imap"},
		Networks: []netip.Prefix{}, Backing: BackingSecret, Hint: "abC", Keychain: "file", Verified: true,
		Created: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Expires: time.Date(2027, 5, 21, 12, 0, 0, 0, time.UTC)}
}

// An update of the program must not close sessions, as a changed revision
// would; each limit must.
func TestRevision(t *testing.T) {
	rec := oldRecord()
	const former = "8931c2bf03f65c0d" // computed by the version before there were limits
	if got := rec.Revision(); got != former {
		t.Errorf("the revision of a record without limits is %s, want %s", got, former)
	}
	seen := []string{former}
	for _, change := range []func(*Record){
		func(r *Record) { r.ReadOnly = true },
		func(r *Record) { r.From = []string{"@contoso.com"} },
		func(r *Record) { r.MaxPerHour = 5 },
		func(r *Record) { r.LoginName = "p" },
		func(r *Record) { r.Decoy = true },
		func(r *Record) { r.SignIn = "s" },
		func(r *Record) { r.Certificate = "/a.pem" },
		func(r *Record) { r.CertificateAlg = "RS256" },
	} {
		changed := rec
		change(&changed)
		if slices.Contains(seen, changed.Revision()) {
			t.Errorf("%+v has the revision of another", changed)
		}
		seen = append(seen, changed.Revision())
		b, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		var back Record
		if err := json.Unmarshal(b, &back); err != nil || back.Revision() != changed.Revision() {
			t.Errorf("%s came back as %+v, %v", b, back, err)
		}
	}
}

func TestLimitChecks(t *testing.T) {
	for _, v := range []string{"scan@contoso.com", "@contoso.com", "o'neil@Contoso.com", "@lab", "@xn--bcher-kva.example", "@bücher.example", "a@1and1.example"} {
		if err := CheckFrom(v); err != nil {
			t.Errorf("%q: %v", v, err)
		}
	}
	for _, v := range []string{"", "@", "contoso.com", "*@contoso.com,", "@*.contoso.com", "@contoso*", "a@b@c", "@.com", "@contoso.", "@-a.com", "a@b..c", "a b@c.d", "<a@b.c>", "a@[127.0.0.1]", "a@b\r\nRCPT TO:<x@y>"} {
		if _, ok := errors.AsType[*InvalidError](CheckFrom(v)); !ok {
			t.Errorf("the sender %q is taken", v)
		}
	}
	if got, err := ParseFrom([]string{"Scan@Contoso.COM, @Fabrikam.com", "scan@contoso.com", "@fabrikam.COM"}); err != nil || !slices.Equal(got, []string{"Scan@contoso.com", "@fabrikam.com"}) {
		t.Errorf("%q, %v", got, err)
	}
	for _, v := range []string{"a", "Printer_1", "hp.2-floor", strings.Repeat("x", 64)} {
		if err := CheckLoginName(v); err != nil {
			t.Errorf("%q: %v", v, err)
		}
	}
	for _, v := range []string{"", "a@b", "a b", "é", "a\x00", "a\"", strings.Repeat("x", 65)} {
		if _, ok := errors.AsType[*InvalidError](CheckLoginName(v)); !ok {
			t.Errorf("the login name %q is taken", v)
		}
	}
	for n, ok := range map[int]bool{-1: false, 0: false, 1: true, 10000: true, 10001: false} {
		if err := CheckMaxPerHour(n); (err == nil) != ok {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// What limits nothing is refused also where another program than the command
// line asks.
func TestRequestLimits(t *testing.T) {
	for name, change := range map[string]func(*Request){
		"sender without smtp": func(r *Request) { r.From = []string{"@contoso.com"} },
		"number without smtp": func(r *Request) { r.MaxPerHour = 1 },
		"negative number":     func(r *Request) { r.Allow, r.MaxPerHour = []string{"smtp"}, -1 },
		"bad sender":          func(r *Request) { r.Allow, r.From = []string{"smtp"}, []string{"contoso"} },
		"login of two":        func(r *Request) { r.Mailboxes, r.LoginName = []string{"a@b.c", "d@e.f"}, "p" },
		"bad login":           func(r *Request) { r.LoginName = "a@b" },
		"bad backing":         func(r *Request) { r.Backing = "passkey" },
		"no end":              func(r *Request) { r.Expires = time.Time{} },
		"decoy with past end": func(r *Request) { r.Decoy, r.Expires = true, time.Now().Add(-time.Hour) },
	} {
		req := Request{Name: "x", Mailboxes: []string{"alice@contoso.com"}, Allow: []string{"imap"}, Backing: BackingSecret, Expires: time.Now().Add(time.Hour)}
		change(&req)
		if _, ok := errors.AsType[*InvalidError](req.check(time.Now())); !ok {
			t.Errorf("%s is taken", name)
		}
	}
	// The same mailbox twice is one.
	req := Request{Name: "x", Mailboxes: []string{"a@b.c", "A@b.c"}, LoginName: "p", Allow: []string{"imap"}, Backing: BackingSecret, Expires: time.Now().Add(time.Hour)}
	if err := req.check(time.Now()); err != nil {
		t.Error(err)
	}
}

func TestVerifyLoginName(t *testing.T) {
	f := newFixture(t)
	req := f.request("x")
	req.LoginName = "Printer"
	c, err := f.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	other, err := f.Create(t.Context(), f.request("y"))
	if err != nil {
		t.Fatal(err)
	}
	v := f.verifier()
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"printer", "PRINTER", "alice@contoso.com"} {
		rec, mailbox, err := v.Verify(t.Context(), user, c.Password, "imap", home)
		if err != nil || mailbox != "alice@contoso.com" || rec.LoginName != "Printer" {
			t.Errorf("%q: %q, %v", user, mailbox, err)
		}
	}
	for _, user := range []string{"print", "", "printer@contoso.com"} {
		_, _, err := v.Verify(t.Context(), user, c.Password, "imap", home)
		if re, ok := errors.AsType[*RefusedError](err); !ok || re.Reason != MailboxNotAllowed || re.Record.ID != c.Record.ID {
			t.Errorf("%q: %v", user, err)
		}
	}
	if _, _, err := v.Verify(t.Context(), "printer", other.Password, "imap", home); reason(t, err) != MailboxNotAllowed {
		t.Errorf("the login name of another: %v", err)
	}
	// While the keychain is locked, a login name is nobody's fault either.
	f.keychain.failing(func(op, key string) error { return &secret.UnavailableError{Keychain: "memory", Reason: secret.Locked} })
	v = f.verifier()
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Verify(t.Context(), "printer", c.Password, "imap", home); reason(t, err) != NotAvailable {
		t.Errorf("locked: %v", err)
	}
}

// A password typed as the user name is known for one, and no error quotes it.
func TestVerifyKnowsPasswordsTypedAsUser(t *testing.T) {
	f := newFixture(t)
	c, err := f.Create(t.Context(), f.request("x"))
	if err != nil {
		t.Fatal(err)
	}
	v := f.verifier()
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{c.Password.Reveal(), Grouped(c.Password).Reveal(), strings.ToUpper(c.Password.Reveal())} {
		if !v.IsPassword(user) {
			t.Errorf("%q is not known for a password", user)
		}
		_, _, err := v.Verify(t.Context(), user, c.Password, "imap", home)
		if reason(t, err) != MailboxNotAllowed || strings.Contains(err.Error(), user) {
			t.Errorf("%v", err)
		}
	}
	for _, user := range []string{"", " ", "alice@contoso.com", "abcdefghijklmnop", c.Password.Reveal()[1:]} {
		if v.IsPassword(user) {
			t.Errorf("%q is taken for a password", user)
		}
	}
}

func TestRecords(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"b", "C", "a"} {
		if _, err := f.Create(t.Context(), f.request(name)); err != nil {
			t.Fatal(err)
		}
	}
	v := f.verifier()
	if got := v.Records(); len(got) != 0 {
		t.Errorf("before Load: %v", got)
	}
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	var names []string
	recs := v.Records()
	for _, r := range recs {
		names = append(names, r.Name)
	}
	if !slices.Equal(names, []string{"a", "b", "C"}) {
		t.Errorf("%q", names)
	}
	recs[0].Name = "changed"
	if v.Records()[0].Name != "a" {
		t.Error("the caller's copy is the verifier's own")
	}
}

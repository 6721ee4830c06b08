package apppassword

import (
	"encoding/pem"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
)

// TestImportCertificate holds app passwords on a certificate to one whose key came
// with them, or that is here already.
func TestImportCertificate(t *testing.T) {
	f := newFixture(t)
	f.Profile.Backing = BackingCertificate
	f.asserting(t)
	one, two := certificateOf(t, "one"), certificateOf(t, "two")
	write := func(c entra.Certificate) string {
		name := filepath.Join(t.TempDir(), "mail.pem")
		if err := os.WriteFile(name, []byte(c.PEM().Reveal()), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	f.Profile.Certificate = write(one)
	rec := f.made(t, "in a file")
	p := f.packed(t, rec)
	if text, err := p.Text(); err != nil || strings.Contains(text.Reveal(), "PRIVATE KEY") || len(f.warned) == 0 {
		t.Errorf("the key travels, or nobody was told: %v %v", err, f.warned)
	}
	o := newOther(t, f)
	if a := o.takes(t, p); why(a.Err) != NoCertificate {
		t.Errorf("without: %v", a.Err)
	}
	o.file = write(two)
	if a := o.takes(t, p); why(a.Err) != NoCertificate {
		t.Errorf("with another: %v", a.Err)
	}
	// Who knows the certificate alone does not know the key.
	forged := rewritten(t, p, func(p *parcelFile) { p.Certificates[0].Digest = one.Thumbprint() })
	o.file = write(one)
	if a := o.takes(t, forged); why(a.Err) != NoCertificate {
		t.Errorf("forged: %v", a.Err)
	}
	o.agreed(t, 0)
	a := o.takes(t, p)
	if a.Err != nil || a.Record.Certificate != o.file {
		t.Errorf("%+v", a)
	}
	if _, err := o.serving(t).Token(t.Context(), rec.ID); err != nil {
		t.Error(err)
	}
	if a := o.takes(t, p); a.Err != nil || !a.Here {
		t.Errorf("again: %+v", a)
	}

	// In the keychain: it comes along, and never in the place of another.
	if err := StoreCertificate(t.Context(), f.keychain, f.Profile.ClientID, one); err != nil {
		t.Fatal(err)
	}
	f.Profile.Certificate = ""
	p = f.packed(t, f.made(t, "in the keychain"))
	o = newOther(t, f)
	if err := StoreCertificate(t.Context(), o.keychain, f.Profile.ClientID, two); err != nil {
		t.Fatal(err)
	}
	if a := o.takes(t, p); why(a.Err) != OtherCertificate {
		t.Errorf("another is there: %v", a.Err)
	}
	if c, err := LoadCertificate(t.Context(), o.keychain, f.Profile.ClientID, ""); err != nil || c.Thumbprint() != two.Thumbprint() {
		t.Errorf("it was replaced: %v", err)
	}
	// One that Entra does not know would be added by a later setup.
	o = newOther(t, f)
	foreign := rewritten(t, p, func(p *parcelFile) { p.Certificates[0].PEM = two.PEM().Reveal() })
	if a := o.takes(t, foreign); why(a.Err) != CertificateRefused {
		t.Errorf("a certificate that Entra does not know: %v", a.Err)
	}
	if len(o.keychain.items) != 0 {
		t.Errorf("the keychain has %v", slices.Collect(maps.Keys(o.keychain.items)))
	}
	bad := rewritten(t, p, func(p *parcelFile) {
		p.Certificates[0].PEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: one.DER()}))
	})
	o = newOther(t, f)
	if a := o.takes(t, bad); a.Err == nil {
		t.Error("a certificate without its key")
	}
	o.agreed(t, 0)
	if a := o.takes(t, p); a.Err != nil {
		t.Error(a.Err)
	}
	o.agreed(t, 1)
}

// TestImportSignIn: of two tokens of one sign-in the newer one stays, and a person
// who signs in there goes on with what has come.
func TestImportSignIn(t *testing.T) {
	f := newFixture(t)
	f.Profile.Backing = BackingUser
	f.signIn(t)
	first := f.packed(t, f.made(t, "first"))
	if si := first.signIns[f.state(t).SignIns[0].ID]; len(si.Profiles) != 0 || si.Keychain != "" || si.refresh.IsZero() {
		t.Errorf("%+v travels", si.SignIn)
	}
	o := newOther(t, f)
	if a := o.takes(t, first); a.Err != nil {
		t.Fatal(a.Err)
	}
	key := "mail-sign-in/" + f.state(t).SignIns[0].ID
	held := o.keychain.items[key]
	// Another one on the same sign-in leaves it as it is.
	second := f.packed(t, f.made(t, "second"))
	if a := o.takes(t, second); a.Err != nil || !o.keychain.items[key].Equal(held) {
		t.Errorf("%v, or another token", a.Err)
	}
	o.agreed(t, 2)
	// Whoever knows no more of it than its id gets nothing that stands on it.
	stranger := rewritten(t, f.packed(t, f.made(t, "third")), func(p *parcelFile) { p.SignIns[0].Refresh = "made up" })
	if a := o.takes(t, stranger); why(a.Err) != SignInEnded {
		t.Errorf("a password on a sign-in that its maker does not have: %v", a.Err)
	}
	o.agreed(t, 2)
	lost := itemKey(second.Records[0].ID)
	item := o.keychain.items[lost]
	delete(o.keychain.items, lost)
	stranger = rewritten(t, second, func(p *parcelFile) {
		p.SignIns[0].Refresh = "made up"
		p.Secrets[second.Records[0].ID] = secretsItem{Version: 1, Password: "abcdefghijklmnop"}
	})
	if a := o.takes(t, stranger); why(a.Err) != SignInEnded || len(o.keychain.items[lost].Reveal()) != 0 {
		t.Errorf("another password for one that the keychain has lost: %v", a.Err)
	}
	o.keychain.items[lost] = item
	// It ends there, and the person signs in here: the new one goes there.
	err := o.Importer.Registry.Update(t.Context(), func(s *State) error { s.SignIns[0].Ended, s.SignIns[0].Why = time.Now(), "over"; return nil })
	if err != nil {
		t.Fatal(err)
	}
	f.signIn(t)
	if a := o.takes(t, f.packed(t, f.state(t).AppPasswords[1])); a.Err != nil || a.Here || o.keychain.items[key].Equal(held) {
		t.Errorf("%+v, or the former token", a)
	}
	s, err := o.Importer.Registry.Load()
	if err != nil || len(s.SignIns) != 1 || !s.SignIns[0].Ended.IsZero() {
		t.Errorf("%+v %v", s.SignIns, err)
	}
	if a := o.takes(t, first); a.Err != nil || !a.Here {
		t.Errorf("an older one: %+v", a)
	}
	// A sign-in that Entra does not take is not kept, and nobody is somebody
	// because a parcel says so.
	o2 := newOther(t, f)
	forged := rewritten(t, first, func(p *parcelFile) { p.SignIns[0].Refresh = "made up" })
	if a := o2.takes(t, forged); why(a.Err) != SignInEnded {
		t.Errorf("a made-up token: %v", a.Err)
	}
	o2.agreed(t, 0)
	lie := rewritten(t, first, func(p *parcelFile) {
		p.SignIns[0].SignIn.ObjectID, p.SignIns[0].SignIn.Username = "somebody", "bob@contoso.com"
	})
	if a := o2.takes(t, lie); a.Err != nil {
		t.Fatal(a.Err)
	}
	if s2, err := o2.Importer.Registry.Load(); err != nil || s2.SignIns[0].Username != "alice@contoso.com" || s2.SignIns[0].ObjectID == "somebody" {
		t.Errorf("%+v %v", s2.SignIns, err)
	}
	// Nobody signed in there has it: the person does, and the id stays.
	there := &Manager{Profile: f.Profile, Entra: f.Entra, Registry: o.Importer.Registry, Keychains: o.Importer.Keychains}
	there.Profile.Keychain = "there"
	if _, ok, err := there.SignInOf(); ok || err != nil {
		t.Errorf("the profile there has taken up the sign-in: %v", err)
	}
	si, err := there.KeepSignIn(t.Context(), f.person(t))
	if err != nil || "mail-sign-in/"+si.ID != key {
		t.Errorf("%+v %v", si, err)
	}
	o.agreed(t, 2)

	// A sign-in that is gone cannot be packed.
	if _, err := f.ForgetSignIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = f.Pack(t.Context(), f.state(t).AppPasswords)
	if _, ok := errors.AsType[*SignInError](err); !ok {
		t.Error(err)
	}
}

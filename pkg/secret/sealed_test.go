package secret

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf16"

	"filippo.io/age"
	"filippo.io/age/armor"
)

func newTestIdentity(t *testing.T) Identity {
	t.Helper()
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func seal1(t *testing.T, text string, to ...Recipient) []byte {
	t.Helper()
	b, err := Seal(New(text), to...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func faultOf(err error) SealFault {
	if e, ok := errors.AsType[*SealedError](err); ok {
		return e.Fault
	}
	return ""
}

func utf16Text(order binary.AppendByteOrder, s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune("\uFEFF" + s)) {
		b = order.AppendUint16(b, u)
	}
	return b
}

// TestSealOpen seals to several, and opens with each alone, whatever has become
// of the line ends and the encoding on the way.
func TestSealOpen(t *testing.T) {
	one, two, third := newTestIdentity(t), newTestIdentity(t), newTestIdentity(t)
	text := strings.Repeat("the text ", 20_000)
	sealed := seal1(t, text, one.Recipient(), two.Recipient())
	if bytes.Contains(sealed, []byte("the text")) || !bytes.HasPrefix(sealed, []byte(armor.Header)) {
		t.Fatalf("%.200s", sealed)
	}
	binaryForm, err := io.ReadAll(armor.NewReader(bytes.NewReader(sealed)))
	if err != nil {
		t.Fatal(err)
	}
	crlf := strings.ReplaceAll(string(sealed), "\n", "\r\n")
	for name, form := range map[string][]byte{
		"armored": sealed, "binary": binaryForm, "CRLF": []byte(crlf), "BOM": append([]byte("\uFEFF"), sealed...), "blank lines": []byte("\n \n" + string(sealed) + "\n\n"),
		"UTF-16 LE": utf16Text(binary.LittleEndian, crlf), "UTF-16 BE": utf16Text(binary.BigEndian, string(sealed)),
	} {
		for _, id := range []Identity{one, two} {
			if got, err := Open(form, id); err != nil || got.Reveal() != text {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got, err := Open(form, third); faultOf(err) != SealOther || !got.IsZero() {
			t.Errorf("%s: somebody else: %v", name, err)
		}
		if _, err := Open(form, Identity{}); faultOf(err) != SealOther {
			t.Errorf("%s: nobody: %v", name, err)
		}
	}
	// Kept and read again, it is the same.
	kept, err := ParseIdentity(one.Text())
	if err != nil || kept.Recipient().String() != one.Recipient().String() {
		t.Errorf("%v %v", kept.Recipient(), err)
	}
	if got, err := Open(sealed, kept); err != nil || got.Reveal() != text {
		t.Error(err)
	}
}

// TestOpenFaults gives files that must not open, and nothing of them.
func TestOpenFaults(t *testing.T) {
	id := newTestIdentity(t)
	sealed := seal1(t, strings.Repeat("x", 100_000), id.Recipient())
	for cut := 1; cut < len(sealed)-40; cut += 997 {
		if got, err := Open(sealed[:len(sealed)-40-cut], id); err == nil || !got.IsZero() {
			t.Fatalf("opens without its last %d bytes", cut)
		}
		changed := bytes.Clone(sealed)
		if changed[cut] = 'A'; changed[cut] == sealed[cut] {
			changed[cut] = 'B'
		}
		if got, err := Open(changed, id); err == nil || !got.IsZero() {
			t.Fatalf("opens with byte %d changed", cut)
		}
	}
	withPassphrase := func() []byte {
		r, err := age.NewScryptRecipient("a passphrase")
		if err != nil {
			t.Fatal(err)
		}
		r.SetWorkFactor(2)
		var out bytes.Buffer
		a := armor.NewWriter(&out)
		w, err := age.Encrypt(a, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Close(), a.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}()
	for _, tt := range []struct {
		name string
		data []byte
		want SealFault
	}{
		{"nothing", nil, SealForeign}, {"text", []byte("hello"), SealForeign}, {"JSON", []byte(`{"version": 1}`), SealForeign},
		{"PGP", []byte("-----BEGIN PGP MESSAGE-----\n"), SealForeign}, {"odd UTF-16", []byte("\xff\xfea"), SealForeign},
		{"head alone", []byte(armor.Header + "\n"), SealDamaged}, {"binary head alone", []byte(sealedForm), SealDamaged},
		{"half", sealed[:len(sealed)/2], SealDamaged}, {"something behind", append(bytes.Clone(sealed), "more"...), SealDamaged},
		{"passphrase", withPassphrase, SealPassphrase}, {"big", make([]byte, MaxSealed+1), SealTooBig},
	} {
		if got, err := Open(tt.data, id); faultOf(err) != tt.want || !got.IsZero() {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := Seal(New(strings.Repeat("x", MaxSealed)), id.Recipient()); faultOf(err) != SealTooBig {
		t.Errorf("too long a text: %v", err)
	}
}

func TestParseRecipient(t *testing.T) {
	id := newTestIdentity(t)
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	pq, err := ParseRecipient(" " + hybrid.Recipient().String() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Seal(New("x"), pq, id.Recipient()); !isFault(err, FaultMixed) {
		t.Errorf("mixed: %v", err)
	}
	pqID, err := ParseIdentity(New("# made\r\n" + hybrid.String() + "\r\n"))
	if err != nil || pqID.Recipient().String() != pq.String() {
		t.Fatal(err)
	}
	if got, err := Open(seal1(t, "x", pq), pqID); err != nil || got.Reveal() != "x" {
		t.Error(err)
	}
	good := id.Recipient().String()
	for s, want := range map[string]RecipientFault{
		good: "", good[:len(good)-1]: FaultNoRecipient, strings.ToUpper(good): FaultNoRecipient, good + " " + good: FaultNoRecipient, "": FaultNoRecipient, "age1": FaultNoRecipient,
		"age1pq1qqqq": FaultNoRecipient, "alice@contoso.com": FaultNoRecipient,
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice": FaultSSHKey,
		id.Text().Reveal(): FaultSecretKey, strings.ToLower(id.Text().Reveal()): FaultSecretKey, hybrid.String(): FaultSecretKey,
		"age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4xvn639sqhr95ejj8vu3hyfumptt": FaultPlugin,
	} {
		_, err := ParseRecipient(s)
		if want == "" != (err == nil) || want != "" && !isFault(err, want) {
			t.Errorf("%.20s: %v, not %q", s, err, want)
		}
		if err != nil && len(s) > 20 && strings.Contains(err.Error(), s[10:]) {
			t.Errorf("the error quotes: %v", err)
		}
	}
}

func isFault(err error, f RecipientFault) bool {
	e, ok := errors.AsType[*RecipientError](err)
	return ok && e.Fault == f
}

func TestParseIdentityFaults(t *testing.T) {
	id := newTestIdentity(t)
	sealed := seal1(t, id.Text().Reveal(), id.Recipient())
	for _, s := range []string{"", "hello", "# only a comment\n", id.Recipient().String(), id.Text().Reveal()[:40], id.Text().Reveal() + "\nhunter2hunter2", string(sealed)} {
		_, err := ParseIdentity(New(s))
		if err == nil || strings.Contains(err.Error(), "hunter2") || len(s) > 50 && strings.Contains(err.Error(), s[20:50]) {
			t.Errorf("%.20q: %v", s, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	id, err := NewIdentity()
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := Seal(New("the text"), id.Recipient())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:len(sealed)/2])
	f.Add([]byte("\xff\xfe-\x00"))
	f.Add([]byte(sealedForm + "-> X25519 a\nb\n--- c\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Open(data, id)
		if err == nil && got.Reveal() != "the text" {
			t.Errorf("%q opens as %q", data, got.Reveal())
		}
		if err != nil && (faultOf(err) == "" || !got.IsZero()) {
			t.Errorf("%v", err)
		}
	})
}

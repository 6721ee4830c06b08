package secret

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// MaxSealed bounds what Seal takes and makes, and what Open reads, in bytes.
const MaxSealed = 16 << 20

// sealedForm is the first line of an age file that is not armored.
const sealedForm = "age-encryption.org/v1\n"

// Recipient is whom a text can be sealed to: a public key of age (age1…). Those
// of plug-ins and SSH keys are none.
type Recipient struct {
	text string
	to   age.Recipient
}

// String is the recipient as it is written.
func (r Recipient) String() string { return r.text }

// RecipientFault says what was given in place of a recipient.
type RecipientFault string

// The faults. A secret key may have been seen by whoever sees what was typed.
const (
	FaultSecretKey   RecipientFault = "it is a secret key of age, not a recipient"
	FaultSSHKey      RecipientFault = "it is an SSH key, and only keys of age are taken"
	FaultPlugin      RecipientFault = "it is a recipient of a plug-in of age, and only age's own are taken"
	FaultNoRecipient RecipientFault = "it is no recipient of age"
	FaultMixed       RecipientFault = "recipients with and without protection from quantum computers cannot be mixed"
)

// RecipientError tells why something is no recipient. It never quotes it, since
// that may be a secret.
type RecipientError struct{ Fault RecipientFault }

// Error says what was given, and how a recipient looks.
func (e *RecipientError) Error() string {
	if e.Fault == FaultMixed {
		return string(e.Fault)
	}
	return string(e.Fault) + "; one begins with age1"
}

// ParseRecipient reads a recipient: X25519 (age1…), or age's hybrid with
// ML-KEM-768 (age1pq1…). Its error is a [*RecipientError].
func ParseRecipient(s string) (Recipient, error) {
	s = strings.TrimSpace(s)
	fail := func(f RecipientFault) (Recipient, error) { return Recipient{}, &RecipientError{Fault: f} }
	switch lower := strings.ToLower(s); {
	case strings.Contains(lower, "age-secret-key-"):
		return fail(FaultSecretKey)
	case strings.HasPrefix(lower, "ssh-"), strings.HasPrefix(lower, "ecdsa-"), strings.HasPrefix(lower, "sk-"):
		return fail(FaultSSHKey)
	}
	// The errors of age quote what they were given.
	if to, err := age.ParseHybridRecipient(s); err == nil {
		return Recipient{to.String(), to}, nil
	}
	if to, err := age.ParseX25519Recipient(s); err == nil {
		return Recipient{to.String(), to}, nil
	}
	// age1NAME1… is what plug-ins have: the last 1 ends the name (BIP 173).
	if rest, ok := strings.CutPrefix(s, "age1"); ok && !strings.ContainsAny(s, " ,;\t\n") && strings.Contains(rest, "1") && !strings.HasPrefix(rest, "pq1") {
		return fail(FaultPlugin)
	}
	return fail(FaultNoRecipient)
}

// Identity opens what was sealed to its recipient. The zero value opens nothing.
type Identity struct {
	text Text
	ids  []age.Identity
}

// NewIdentity makes an identity of X25519.
func NewIdentity() (Identity, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return Identity{}, fmt.Errorf("make an age identity: %w", err)
	}
	return Identity{New(id.String()), []age.Identity{id}}, nil
}

// ParseIdentity reads what age-keygen writes: one or more secret keys, one a
// line, with comments. Its error never quotes.
func ParseIdentity(text Text) (Identity, error) {
	s := strings.TrimPrefix(strings.ReplaceAll(text.Reveal(), "\r\n", "\n"), "\uFEFF")
	if isSealed([]byte(s)) {
		return Identity{}, errors.New("the identity is encrypted itself; decrypt it first (age -d)")
	}
	ids, err := age.ParseIdentities(strings.NewReader(s))
	if err != nil {
		return Identity{}, errors.New("there is no identity of age in it (AGE-SECRET-KEY-1…), or something beside it")
	}
	return Identity{New(s), ids}, nil
}

// Text is the identity as age writes it, for a keychain.
func (i Identity) Text() Text { return i.text }

// Recipient is whom to seal to for the identity to open it: of several, for the
// first.
func (i Identity) Recipient() Recipient {
	for _, id := range i.ids {
		switch id := id.(type) {
		case *age.X25519Identity:
			return Recipient{id.Recipient().String(), id.Recipient()}
		case *age.HybridIdentity:
			return Recipient{id.Recipient().String(), id.Recipient()}
		}
	}
	return Recipient{}
}

// Seal encrypts text to each of the recipients: an armored age file, which each of
// them opens alone, also with the age command. Errors: a [*RecipientError] where
// recipients cannot be mixed, a [*SealedError] where the text is too long.
func Seal(text Text, to ...Recipient) ([]byte, error) {
	if len(text.Reveal()) > MaxSealed/2 { // armored it is a third longer
		return nil, &SealedError{Fault: SealTooBig}
	}
	var recipients []age.Recipient
	for _, r := range to {
		if r.to == nil {
			return nil, &RecipientError{Fault: FaultNoRecipient}
		}
		recipients = append(recipients, r.to)
	}
	var out bytes.Buffer
	a := armor.NewWriter(&out)
	w, err := age.Encrypt(a, recipients...)
	if err != nil && strings.Contains(err.Error(), "mix") {
		return nil, &RecipientError{Fault: FaultMixed}
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if _, err := io.WriteString(w, text.Reveal()); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if err := errors.Join(w.Close(), a.Close()); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out.Bytes(), nil
}

// SealFault says why a file does not open.
type SealFault string

// The faults.
const (
	SealForeign    SealFault = "it is no age file"
	SealOther      SealFault = "it is encrypted to somebody else"
	SealPassphrase SealFault = "it is encrypted with a passphrase, not to a recipient"
	SealDamaged    SealFault = "it is damaged, or its end is missing"
	SealTooBig     SealFault = "it is too big"
)

// SealedError tells why a file does not open, or cannot be made. It quotes
// nothing of it.
type SealedError struct{ Fault SealFault }

// Error gives the fault.
func (e *SealedError) Error() string { return string(e.Fault) }

// CheckSealed tells by the first lines whether sealed may open, as a
// [*SealedError]; nil if it may.
func CheckSealed(sealed []byte) error {
	switch {
	case len(sealed) > MaxSealed:
		return &SealedError{Fault: SealTooBig}
	case !isSealed(plainText(sealed)):
		return &SealedError{Fault: SealForeign}
	}
	return nil
}

// Open gives the text of an age file, armored or not, that was sealed to the
// identity. Nothing of it is given unless all of it is sound. That the text is
// whole says nothing of who has sealed it: everybody who knows the recipient can.
// Its error is a [*SealedError].
func Open(sealed []byte, with Identity) (Text, error) {
	if err := CheckSealed(sealed); err != nil {
		return Text{}, err
	}
	fail := func(f SealFault) (Text, error) { return Text{}, &SealedError{Fault: f} }
	data := plainText(sealed)
	var src io.Reader = bytes.NewReader(data)
	if !bytes.HasPrefix(data, []byte(sealedForm)) {
		src = armor.NewReader(src)
	}
	ids := with.ids
	if len(ids) == 0 {
		return fail(SealOther)
	}
	r, err := age.Decrypt(src, ids...)
	if e, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		if len(e.StanzaTypes) == 1 && e.StanzaTypes[0] == "scrypt" {
			return fail(SealPassphrase)
		}
		return fail(SealOther)
	}
	if err != nil {
		return fail(SealDamaged)
	}
	text, err := io.ReadAll(io.LimitReader(r, MaxSealed+1))
	switch {
	case err != nil:
		return fail(SealDamaged)
	case len(text) > MaxSealed:
		return fail(SealTooBig)
	}
	return New(string(text)), nil
}

// isSealed looks at the first line.
func isSealed(data []byte) bool {
	return bytes.HasPrefix(data, []byte(sealedForm)) || bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte(armor.Header))
}

// plainText undoes what Windows does to a file on its way: PowerShell 5 writes
// redirected output in UTF-16, and editors put a byte order mark first.
func plainText(data []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		order = binary.BigEndian
	default:
		return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	}
	units := make([]uint16, 0, len(data)/2)
	for data = data[2:]; len(data) > 1; data = data[2:] {
		units = append(units, order.Uint16(data))
	}
	return []byte(string(utf16.Decode(units)))
}

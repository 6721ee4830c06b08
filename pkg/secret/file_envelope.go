package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

const envelopeVersion = 1

// envelope is the file as it lies on the disk.
type envelope struct {
	Version  int    `json:"version"`
	Identity string `json:"identity"`
	Items    string `json:"items"`
}

// errVersion is returned where a newer program wrote the file.
var errVersion = errors.New("the file has a newer format than this program knows")

func (e envelope) encode() ([]byte, error) {
	data, err := json.MarshalIndent(e, "", "  ")
	return append(data, '\n'), err
}

func decodeEnvelope(data []byte) (envelope, error) {
	// The version first: a newer format may have other fields.
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return envelope{}, fmt.Errorf("it is not JSON: %w", err)
	}
	if version.Version > envelopeVersion {
		return envelope{}, fmt.Errorf("%w: version %d", errVersion, version.Version)
	}
	var e envelope
	if err := decodeStrictly(data, &e); err != nil {
		return envelope{}, fmt.Errorf("it is not a keychain: %w", err)
	}
	if e.Version != envelopeVersion || e.Identity == "" || e.Items == "" {
		return envelope{}, errors.New("it is not a keychain: version, identity or items are missing")
	}
	return e, nil
}

// decodeStrictly decodes one JSON object and nothing beside it.
func decodeStrictly(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the JSON object")
	}
	return nil
}

// errPassphrase is returned where the passphrase does not open the identity.
var errPassphrase = errors.New("wrong passphrase")

func sealIdentity(identity *age.X25519Identity, passphrase Text, workFactor int) (string, error) {
	recipient, err := age.NewScryptRecipient(passphrase.Reveal())
	if err != nil {
		return "", err
	}
	recipient.SetWorkFactor(workFactor)
	return seal([]byte(identity.String()+"\n"), recipient)
}

// openIdentity returns the identity in block, or errPassphrase.
func openIdentity(block string, passphrase Text) (*age.X25519Identity, error) {
	scrypt, err := age.NewScryptIdentity(passphrase.Reveal())
	if err != nil {
		return nil, err
	}
	scrypt.SetMaxWorkFactor(maxWorkFactor)
	data, err := unseal(block, passphraseOnly{scrypt})
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, errPassphrase
	}
	if err != nil {
		return nil, fmt.Errorf("its identity cannot be read: %w", err)
	}
	// The error of ParseX25519Identity is not passed on: it may quote.
	identity, err := age.ParseX25519Identity(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, errors.New("its identity is none of age's X25519")
	}
	return identity, nil
}

// passphraseOnly keeps a file that is not encrypted to a passphrase at all
// from looking like one with another passphrase.
type passphraseOnly struct{ *age.ScryptIdentity }

func (p passphraseOnly) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) != 1 || stanzas[0].Type != "scrypt" {
		return nil, errors.New("it is not encrypted to a passphrase")
	}
	return p.ScryptIdentity.Unwrap(stanzas)
}

func sealItems(items map[string]string, identity *age.X25519Identity) (string, error) {
	data, err := json.Marshal(items)
	if err != nil {
		return "", errors.New("the items cannot be encoded")
	}
	return seal(data, identity.Recipient())
}

// openItems returns the items in block. The recipient of identity is secret
// too, so nobody without the passphrase can have made them.
func openItems(block string, identity *age.X25519Identity) (map[string]string, error) {
	data, err := unseal(block, identity)
	if err != nil {
		return nil, fmt.Errorf("its items cannot be read: %w", err)
	}
	// Errors of the decoder are not passed on: they may quote a value.
	var items map[string]string
	if err := decodeStrictly(data, &items); err != nil || items == nil {
		return nil, errors.New("its items are not a JSON object of strings")
	}
	return items, nil
}

func seal(data []byte, to age.Recipient) (string, error) {
	var out strings.Builder
	a := armor.NewWriter(&out)
	w, err := age.Encrypt(a, to)
	if err != nil {
		return "", err
	}
	if _, err := w.Write(data); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	if err := a.Close(); err != nil {
		return "", err
	}
	return out.String(), nil
}

func unseal(block string, with age.Identity) ([]byte, error) {
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(block)), with)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

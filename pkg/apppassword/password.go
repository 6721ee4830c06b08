package apppassword

import (
	"crypto/rand"
	"strings"

	"github.com/o365pw/o365pw/pkg/secret"
)

const (
	passwordLength = 16 // 16 of 26 letters are 75 random bits
	groupLength    = 4
)

// Generate makes a new app password: 16 lower-case letters, each equally
// likely. Letters alone, because people type them on printers.
func Generate() secret.Text {
	// The largest multiple of 26 below 256: bytes above it would favour the
	// first letters of the alphabet.
	const limit = 256 - 256%26
	out := make([]byte, 0, passwordLength)
	var buf [2 * passwordLength]byte
	for {
		rand.Read(buf[:]) // never fails: crypto/rand ends the program instead
		for _, b := range buf {
			if b >= limit {
				continue
			}
			if out = append(out, 'a'+b%26); len(out) == passwordLength {
				return secret.New(string(out))
			}
		}
	}
}

// Grouped is password as people read it best: in groups of four.
func Grouped(password secret.Text) secret.Text {
	var b strings.Builder
	for i, r := range password.Reveal() {
		if i > 0 && i%groupLength == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return secret.New(b.String())
}

// Normalise takes typed as a person may type it: white space and dashes are
// ignored, and so is the shift that phones put on the first letter.
func Normalise(typed secret.Text) secret.Text {
	return secret.New(strings.ToLower(strings.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '-', '\u00a0', '\u2010', '\u2011', '\u2013':
			return -1
		}
		return r
	}, typed.Reveal())))
}

package apppassword

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/secret"
)

const (
	parcelFormat  = "o365pw app passwords"
	parcelVersion = 1

	// maxParcel is how many app passwords one parcel may hold.
	maxParcel = 10_000
)

// Parcel is app passwords on their way to another machine: their records, and all
// that is secret of them. It is made by [Manager.Pack] or [ParseParcel], and is to
// leave the program sealed only.
type Parcel struct {
	Made    time.Time
	Records []Record
	// Clouds are those that the records name and that are not built in, by name,
	// as they are written in a configuration ([config.Cloud.Table]). They are for
	// people to read: no secret is sent to an address because a parcel says so.
	Clouds map[string]string

	secrets      map[string]secrets     // by id of the keychain item
	signIns      map[string]movedSignIn // by id
	certificates map[string]movedCertificate
}

// movedSignIn is a person's sign-in that app passwords of the parcel stand on.
type movedSignIn struct {
	SignIn
	refresh secret.Text
}

// movedCertificate is a certificate that app passwords of the parcel stand on. Of
// one in a PEM file the digest alone travels: the machine that it goes to has to
// have the same one, and the digest is of the key too, so that nobody has an app
// password made there who does not hold that.
type movedCertificate struct {
	pem    secret.Text // certificate and key; empty: they are in a file
	digest string
}

// certificatePlace is where the machine that a parcel comes from has the record's
// certificate.
func certificatePlace(rec Record) string { return certificateKey(rec.ClientID) + " " + rec.Certificate }

// parcelFile is a parcel's wire form. Its strings are revealed only on the way into
// and out of a sealed file.
type parcelFile struct {
	Format       string                 `json:"format"`
	Version      int                    `json:"version"`
	Made         time.Time              `json:"made"`
	AppPasswords []Record               `json:"appPasswords"`
	Secrets      map[string]secretsItem `json:"secrets"`
	SignIns      []parcelSignIn         `json:"signIns,omitempty"`
	Certificates []parcelCertificate    `json:"certificates,omitempty"`
	Clouds       map[string]string      `json:"clouds,omitempty"`
}

type parcelSignIn struct {
	SignIn  SignIn `json:"signIn"`
	Refresh string `json:"refreshToken"`
}

type parcelCertificate struct {
	Place  string `json:"place"`
	PEM    string `json:"pem,omitempty"`
	Digest string `json:"digest"`
}

// Text is the parcel as it is sealed: JSON, with a version.
func (p Parcel) Text() (secret.Text, error) {
	f := parcelFile{Format: parcelFormat, Version: parcelVersion, Made: p.Made, AppPasswords: p.Records, Secrets: map[string]secretsItem{}, Clouds: p.Clouds}
	for id, s := range p.secrets {
		f.Secrets[id] = secretsItem{Version: 1, Password: s.Password.Reveal(), Secret: s.Backing.Reveal()}
	}
	for _, id := range slices.Sorted(maps.Keys(p.signIns)) {
		f.SignIns = append(f.SignIns, parcelSignIn{p.signIns[id].SignIn, p.signIns[id].refresh.Reveal()})
	}
	for _, place := range slices.Sorted(maps.Keys(p.certificates)) {
		c := p.certificates[place]
		f.Certificates = append(f.Certificates, parcelCertificate{place, c.pem.Reveal(), c.digest})
	}
	b, err := json.Marshal(f)
	if err != nil {
		return secret.Text{}, fmt.Errorf("pack the app passwords: %w", err)
	}
	return secret.New(string(b)), nil
}

// ParcelError tells that what was opened is no parcel that this version can take.
// Nothing was changed, and nothing of it is quoted but what is not secret.
type ParcelError struct {
	Problem string
	Newer   bool // a newer version of this program has made it
}

// Error says what is wrong with it.
func (e *ParcelError) Error() string { return "the file of app passwords " + e.Problem }

// ParseParcel reads what [Parcel.Text] made, strictly: whoever knows this machine's
// recipient can have made it. A parcel in which one thing is wrong is refused
// whole. Its error is a [*ParcelError].
func ParseParcel(text secret.Text) (Parcel, error) {
	fail := func(format string, args ...any) (Parcel, error) {
		return Parcel{}, &ParcelError{Problem: fmt.Sprintf(format, args...)}
	}
	data := []byte(text.Reveal())
	// The version first: a newer form may have other fields. Errors of the
	// decoder are not passed on: they may quote.
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if json.Unmarshal(data, &head) != nil || head.Format != parcelFormat {
		return fail("holds something else: o365pw export has not made it")
	}
	if head.Version > parcelVersion {
		return Parcel{}, &ParcelError{Problem: fmt.Sprintf("was made by a newer o365pw (version %d of the form; this one knows %d)", head.Version, parcelVersion), Newer: true}
	}
	var f parcelFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(&f)
	if err != nil && strings.Contains(err.Error(), "unknown field") {
		return Parcel{}, &ParcelError{Problem: "has what this version does not know, such as limits: a newer o365pw has made it", Newer: true}
	}
	if err != nil || f.Version != parcelVersion {
		return fail("cannot be understood")
	}
	if _, err := d.Token(); err != io.EOF {
		return fail("has something behind its end")
	}
	p := Parcel{Made: f.Made, Records: f.AppPasswords, secrets: map[string]secrets{}, signIns: map[string]movedSignIn{}, certificates: map[string]movedCertificate{}, Clouds: map[string]string{}}
	for id, it := range f.Secrets {
		p.secrets[id] = secrets{Password: secret.New(it.Password), Backing: secret.New(it.Secret)}
	}
	for _, s := range f.SignIns {
		p.signIns[s.SignIn.ID] = movedSignIn{s.SignIn, secret.New(s.Refresh)}
	}
	for _, c := range f.Certificates {
		p.certificates[c.Place] = movedCertificate{secret.New(c.PEM), c.Digest}
	}
	for name, table := range f.Clouds {
		cloud, err := config.ParseTable(name, table)
		if err != nil {
			return fail("has a cloud that cannot be one: %q", shorten(name))
		}
		p.Clouds[name] = cloud.Table()
	}
	if len(f.SignIns) != len(p.signIns) || len(f.Certificates) != len(p.certificates) {
		return fail("has the same sign-in or certificate twice")
	}
	if err := p.check(); err != nil {
		return fail("%v", err)
	}
	return p, nil
}

// check refuses what this program would never have packed.
func (p Parcel) check() error {
	if len(p.Records) == 0 || len(p.Records) > maxParcel {
		return fmt.Errorf("has %d app passwords, not 1 to %d", len(p.Records), maxParcel)
	}
	seen := map[string]bool{}
	items := 0
	for _, rec := range p.Records {
		for _, id := range rec.ids() {
			if seen[strings.ToLower(id)] {
				return errors.New("has the same app password twice")
			}
			seen[strings.ToLower(id)] = true
		}
		if err := checkRecord(rec); err != nil {
			return fmt.Errorf("has an app password that cannot be one: %w", err)
		}
		for _, id := range rec.ids() {
			items++
			s := p.secrets[id]
			if typed := s.Password.Reveal(); len(typed) != passwordLength || strings.Trim(typed, "abcdefghijklmnopqrstuvwxyz") != "" {
				return fmt.Errorf("lacks the password of %q", shorten(rec.Name))
			}
			if (rec.Backing == BackingSecret) == s.Backing.IsZero() || len(s.Backing.Reveal()) > 1024 {
				return fmt.Errorf("does not have what stands behind %q", shorten(rec.Name))
			}
		}
		if err := p.checkBehind(rec); err != nil {
			return err
		}
	}
	if items != len(p.secrets) {
		return errors.New("has secrets that belong to none of its app passwords")
	}
	return nil
}

// checkBehind holds a record to the sign-in or certificate that it stands on: each
// comes with it, so that a parcel lets nobody use those that are there already.
func (p Parcel) checkBehind(rec Record) error {
	switch rec.Backing {
	case BackingUser:
		si, ok := p.signIns[rec.SignIn]
		if !ok || si.refresh.IsZero() || len(si.refresh.Reveal()) > 32<<10 || si.Cloud != rec.Cloud {
			return fmt.Errorf("lacks the sign-in behind %q", shorten(rec.Name))
		}
		if err := checkSignIn(si.SignIn); err != nil {
			return fmt.Errorf("has a sign-in that cannot be one: %w", err)
		}
	case BackingCertificate:
		c, ok := p.certificates[certificatePlace(rec)]
		if !ok || (rec.Certificate == "") == c.pem.IsZero() || c.pem.IsZero() && len(c.digest) != 64 {
			return fmt.Errorf("lacks the certificate behind %q", shorten(rec.Name))
		}
	}
	return nil
}

// checkRecord holds a record to what create makes.
func checkRecord(rec Record) error {
	if !isItemID(rec.ID) || !isID(rec.ClientID) || rec.Previous != nil && !isItemID(rec.Previous.ID) {
		return errors.New("its id or that of its application is no GUID")
	}
	if err := CheckName(rec.Name); err != nil {
		return err
	}
	if !config.IsName(rec.Profile) || !config.IsName(rec.Cloud) || !config.IsTenant(rec.Tenant) {
		return fmt.Errorf("profile, cloud or tenant of %q have no such form", shorten(rec.Name))
	}
	if len(rec.Mailboxes) == 0 || len(rec.Mailboxes) > 1000 || len(rec.Networks) > 1000 || len(rec.From) > 1000 {
		return fmt.Errorf("%q has no mailbox, or too many", shorten(rec.Name))
	}
	req := Request{Name: rec.Name, Mailboxes: rec.Mailboxes, Allow: rec.Allow, Networks: rec.Networks, Expires: rec.Expires, Backing: rec.Backing,
		ReadOnly: rec.ReadOnly, From: rec.From, MaxPerHour: rec.MaxPerHour, LoginName: rec.LoginName, Decoy: rec.Decoy, Send: rec.Send}
	if rec.Decoy {
		req.Backing = BackingSecret
	}
	if err := req.check(time.Time{}); err != nil { // also one that has ended meanwhile
		return err
	}
	if !slices.Equal(req.Mailboxes, rec.Mailboxes) || !slices.Equal(req.Allow, rec.Allow) || !slices.Equal(req.From, rec.From) {
		return fmt.Errorf("%q has mailboxes, protocols or senders as create does not write them", shorten(rec.Name))
	}
	for _, n := range rec.Networks {
		if !n.IsValid() || n != n.Masked() || n.Addr().Is4In6() {
			return fmt.Errorf("%q has a network that is none", shorten(rec.Name))
		}
	}
	switch {
	case rec.Decoy != (rec.Backing == BackingNone), (rec.SignIn != "") != (rec.Backing == BackingUser),
		rec.Backing != BackingCertificate && (rec.Certificate != "" || rec.CertificateAlg != ""),
		!slices.Contains([]string{"", "PS256", "RS256"}, rec.CertificateAlg),
		len(rec.Hint) > 16, strings.ContainsFunc(rec.Hint, unprintable), len(rec.Certificate) > 4096, rec.Created.IsZero():
		return fmt.Errorf("%q contradicts itself", shorten(rec.Name))
	case rec.Previous != nil && (rec.Previous.Until.IsZero() || !rec.Previous.Ended.IsZero() || rec.Previous.Created.IsZero() || len(rec.Previous.Hint) > 16 || strings.ContainsFunc(rec.Previous.Hint, unprintable)):
		return fmt.Errorf("what %q had before its rotation cannot be", shorten(rec.Name))
	case !rec.Revoked.IsZero():
		return fmt.Errorf("%q is revoked", shorten(rec.Name))
	}
	return nil
}

func checkSignIn(si SignIn) error {
	switch {
	case !isItemID(si.ID), !isID(si.ClientID), !config.IsTenant(si.Tenant), !config.IsName(si.Cloud), si.Since.IsZero():
		return errors.New("an id, a name or the time has no such form")
	case len(si.Scopes) == 0 || len(si.Scopes) > 100:
		return errors.New("it allows nothing")
	}
	for _, s := range append(slices.Clone(si.Scopes), si.Username, si.ObjectID, si.Why) {
		if len(s) > 1024 || strings.ContainsFunc(s, unprintable) {
			return errors.New("a text in it is too long, or holds control characters")
		}
	}
	return nil
}

// isID holds for a GUID as it is written as a rule.
func isID(s string) bool { return config.IsGUID(s) }

// isItemID holds for one that names an item of the keychain: in lower case, as
// Entra and this program write them. There are keychains that do not tell cases
// apart, and two ids must not be one there.
func isItemID(s string) bool { return isID(s) && s == strings.ToLower(s) }

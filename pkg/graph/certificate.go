package graph

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1" // Entra names certificates by it
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"time"
)

// KeyCredential is a certificate of an application, or another key.
// https://learn.microsoft.com/graph/api/resources/keycredential
type KeyCredential struct {
	KeyID       string    // GUID, in lower case
	DisplayName string    // may be empty
	Thumbprint  string    // SHA-1 of the certificate in upper-case hex, as Entra shows it; empty where unknown
	Start, End  time.Time // UTC; zero where Graph has none
	Type        string    // AsymmetricX509Cert for certificates
	Usage       string    // Verify: programs sign in with it
}

const (
	certificateType  = "AsymmetricX509Cert"
	certificateUsage = "Verify"
)

// CertificateError says that EnsureCertificate has written nothing, because
// Graph does not show the public part of all certificates that the application
// has. Graph can only replace them all, so those would be in danger. An
// administrator has to add the certificate in the Entra admin center.
type CertificateError struct {
	AppID  string
	KeyIDs []string // the keys that Graph does not show
}

// Error names the keys.
func (e *CertificateError) Error() string {
	return fmt.Sprintf("Microsoft Graph does not show the key %s of application %s; adding a certificate could destroy it",
		strings.Join(e.KeyIDs, ", "), e.AppID)
}

// KeyCredentials reads the certificates and other keys of the application with
// the client id appID. It needs Application.Read.All. Graph allows 150 such
// reads a minute in a tenant. Errors are those of Application.
func (c *Client) KeyCredentials(ctx context.Context, appID string) ([]KeyCredential, error) {
	keys, err := c.keys(ctx, c.budget(), appID)
	if err != nil {
		return nil, err
	}
	list := make([]KeyCredential, 0, len(keys))
	for _, key := range keys {
		list = append(list, key.KeyCredential)
	}
	return list, nil
}

// EnsureCertificate gives the credential of the application with the client id
// appID for the certificate der (DER, RFC 5280), and adds it where there is
// none, under displayName (empty: the certificate's subject). added says that it
// was added here. Its life is the certificate's. It needs
// Application.ReadWrite.All.
//
// Graph can only replace all certificates of an application, so the others are
// sent along as they were read: after several reads that agree, right before the
// write, and again before each repeat. What somebody else adds between the last
// read and the write is lost all the same; nothing in Graph prevents that. The
// read afterwards shows whether it went the other way round.
//
// fresh says that the application was made moments ago, as in
// EnsureServicePrincipal. A call that was killed leaves the certificates as they
// were, or with this one; the same call again finds it by its thumbprint.
//
// Errors: a *CertificateError, when nothing could be written safely; an *Error
// when Graph refused (see PolicyLifetime for one that lives too long) or could
// not be reached; one that is Temporary may have added it all the same.
// https://learn.microsoft.com/graph/applications-how-to-add-certificate
func (c *Client) EnsureCertificate(ctx context.Context, appID string, der []byte, displayName string, fresh bool) (cred KeyCredential, added bool, err error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return KeyCredential{}, false, fmt.Errorf("read certificate: %w", err)
	}
	base, err := c.applicationURL(appID)
	if err != nil {
		return KeyCredential{}, false, err
	}
	entry, err := json.Marshal(map[string]string{
		"type": certificateType, "usage": certificateUsage, "key": base64.StdEncoding.EncodeToString(der),
		"displayName":   cmp.Or(displayName, cert.Subject.String()),
		"startDateTime": cert.NotBefore.UTC().Format(time.RFC3339), "endDateTime": cert.NotAfter.UTC().Format(time.RFC3339),
	})
	if err != nil {
		return KeyCredential{}, false, fmt.Errorf("encode certificate: %w", err)
	}

	b := c.budget()
	lost := false
	for try := 1; ; try++ {
		var keys []key
		if err := c.untilSpread(ctx, fresh, func() (err error) { keys, err = c.settledKeys(ctx, b, appID); return err }); err != nil {
			return KeyCredential{}, false, err
		}
		if i := slices.IndexFunc(keys, is(der)); i >= 0 {
			return keys[i].KeyCredential, lost, nil
		}
		entries := make([]json.RawMessage, 0, len(keys)+1)
		unknown := &CertificateError{AppID: appID}
		for _, k := range keys {
			entries = append(entries, k.raw)
			if len(k.key) == 0 {
				unknown.KeyIDs = append(unknown.KeyIDs, k.KeyID)
			}
		}
		if unknown.KeyIDs != nil {
			return KeyCredential{}, false, unknown
		}
		body, err := json.Marshal(map[string][]json.RawMessage{"keyCredentials": append(entries, entry)})
		if err != nil {
			return KeyCredential{}, false, fmt.Errorf("encode certificates: %w", err)
		}
		// Sent once and without waiting: what was read is stale after a wait.
		r := request{method: http.MethodPatch, url: base, body: body, once: true}
		_, err = c.send(ctx, &budget{}, r)
		if err == nil {
			return c.confirmKey(ctx, b, appID, der, r)
		}
		e, ok := errors.AsType[*Error](err)
		if ok {
			e.Waited = b.waited
		}
		if !ok || ctx.Err() != nil || try >= spreadTries || !e.IsThrottled() && !e.Ambiguous() && (!fresh || !e.notSpread()) {
			return KeyCredential{}, false, err
		}
		lost = lost || e.Ambiguous()
		wait := max(e.RetryAfter, c.pause(try-1))
		if b.allows(ctx, wait) {
			c.progress("Microsoft Graph has not taken the certificate; trying again in %s", max(time.Second, wait.Round(time.Second)))
		}
		if !b.wait(ctx, wait) {
			if ctx.Err() != nil {
				e.Err = ended(ctx)
			}
			return KeyCredential{}, false, err
		}
	}
}

// confirmKey reads until the certificate that Graph took with r shows.
func (c *Client) confirmKey(ctx context.Context, b *budget, appID string, der []byte, r request) (cred KeyCredential, added bool, err error) {
	there, err := c.appears(ctx, func() (bool, error) {
		keys, err := c.keys(ctx, b, appID)
		i := slices.IndexFunc(keys, is(der))
		if i >= 0 {
			cred = keys[i].KeyCredential
		}
		return i >= 0, err
	})
	if err == nil && !there {
		err = &Error{Method: r.method, URL: r.url, sent: true,
			Err: errors.New("the certificate was taken but does not show; somebody else may have changed the certificates at the same time")}
	}
	return cred, there, err
}

// key is a KeyCredential as it was read.
type key struct {
	KeyCredential
	key []byte          // for a certificate its DER; empty where Graph does not show it
	raw json.RawMessage // the whole of it, to be sent along
}

// is says whether programs can sign in by a key with the certificate: by the
// certificate itself where Graph shows it, else by the thumbprint.
func is(der []byte) func(key) bool {
	return func(k key) bool {
		if k.Type != certificateType || k.Usage != certificateUsage {
			return false
		}
		if len(k.key) > 0 {
			return bytes.Equal(k.key, der)
		}
		return k.Thumbprint == thumbprint(der)
	}
}

func thumbprint(der []byte) string {
	sum := sha1.Sum(der)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// settledKeys reads until several reads in a row give the same keys: one read
// may come from a replica that lags.
func (c *Client) settledKeys(ctx context.Context, b *budget, appID string) ([]key, error) {
	same, round := 0, 0
	var last []key
	for {
		keys, err := c.keys(ctx, b, appID)
		if err != nil {
			return nil, err
		}
		if same > 0 && slices.EqualFunc(keys, last, func(a, b key) bool { return bytes.Equal(a.raw, b.raw) }) {
			same++
		} else {
			same, last = 1, keys
			round++
		}
		if same == agree {
			return keys, nil
		}
		pause := c.pause(0) / 10
		if same == 1 && round > 1 {
			pause = c.pause(round - 2)
		}
		if round > lookUps {
			return nil, &Error{Method: http.MethodGet, URL: c.base() + "/applications", Err: errors.New("the certificates of the application keep changing")}
		}
		if !sleep(ctx, pause) {
			return nil, ended(ctx)
		}
	}
}

func (c *Client) keys(ctx context.Context, b *budget, appID string) ([]key, error) {
	base, err := c.applicationURL(appID)
	if err != nil {
		return nil, err
	}
	// Graph is documented to show the public part for this very selection.
	r := request{method: http.MethodGet, url: base + "?$select=keyCredentials"}
	resp, err := c.send(ctx, b, r)
	if err != nil {
		return nil, err
	}
	keys, err := decodeKeys(resp.body)
	if err != nil {
		return nil, r.malformed(resp, err)
	}
	return keys, nil
}

func decodeKeys(body []byte) ([]key, error) {
	var w struct {
		KeyCredentials *[]json.RawMessage `json:"keyCredentials"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return nil, err
	}
	if w.KeyCredentials == nil {
		return nil, errors.New("an application without keyCredentials")
	}
	keys := make([]key, 0, len(*w.KeyCredentials))
	for _, raw := range *w.KeyCredentials {
		k, err := decodeKey(raw)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	sort.SliceStable(keys, func(i, j int) bool { return keys[i].KeyID < keys[j].KeyID })
	return keys, nil
}

func decodeKey(raw json.RawMessage) (key, error) {
	var w struct {
		KeyID               string  `json:"keyId"`
		DisplayName         *string `json:"displayName"`
		CustomKeyIdentifier *string `json:"customKeyIdentifier"`
		Key                 *string `json:"key"`
		Type                *string `json:"type"`
		Usage               *string `json:"usage"`
		StartDateTime       *string `json:"startDateTime"`
		EndDateTime         *string `json:"endDateTime"`
	}
	if err := json.Unmarshal(raw, &w); err != nil {
		return key{}, err
	}
	if !isGUID(w.KeyID) {
		return key{}, errors.New("a key credential without keyId")
	}
	der, err := decodeBinary(deref(w.Key))
	if err != nil {
		return key{}, errors.New("a key credential whose key is not base64")
	}
	k := key{KeyCredential{KeyID: strings.ToLower(w.KeyID), DisplayName: deref(w.DisplayName), Type: deref(w.Type), Usage: deref(w.Usage)}, der, raw}
	if len(der) > 0 && k.Type == certificateType {
		k.Thumbprint = thumbprint(der)
	} else {
		k.Thumbprint = identifierThumbprint(deref(w.CustomKeyIdentifier))
	}
	var errStart, errEnd error
	k.Start, errStart = decodeTime(w.StartDateTime)
	k.End, errEnd = decodeTime(w.EndDateTime)
	return k, errors.Join(errStart, errEnd)
}

// decodeBinary decodes Edm.Binary, which services write in either alphabet.
func decodeBinary(s string) ([]byte, error) {
	s = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "="))
	return base64.RawStdEncoding.DecodeString(s)
}

// identifierThumbprint is the SHA-1 in a customKeyIdentifier, which holds it in
// binary or in hex, and is written now in base64, now plainly. Whoever makes a
// credential may put in something else: then it is empty.
func identifierThumbprint(s string) string {
	if id, err := hex.DecodeString(s); err == nil && len(id) == sha1.Size {
		return strings.ToUpper(s)
	}
	id, err := decodeBinary(s)
	if err != nil {
		return ""
	}
	if len(id) == sha1.Size {
		return strings.ToUpper(hex.EncodeToString(id))
	}
	if sum, err := hex.DecodeString(string(id)); err == nil && len(sum) == sha1.Size {
		return strings.ToUpper(string(id))
	}
	return ""
}

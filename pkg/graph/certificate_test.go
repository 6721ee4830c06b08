package graph

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
)

func newCertificate(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), NotAfter: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// held is a certificate as Graph gives it, with members that nobody here knows.
func held(der []byte) object {
	sum := sha1.Sum(der)
	return object{"keyId": uuid.NewString(), "displayName": nil, "type": "AsymmetricX509Cert", "usage": "Verify", "key": base64.StdEncoding.EncodeToString(der),
		"customKeyIdentifier": base64.StdEncoding.EncodeToString(sum[:]), "startDateTime": "2026-01-01T00:00:00Z", "endDateTime": nil, "@odata.unknown": []any{"kept", 1.5}}
}

func withKeys(t *testing.T, keys ...any) *tenant {
	f := newTenant(t)
	f.app = newApp(appName, time.Now())
	f.app["keyCredentials"] = append([]any{}, keys...)
	return f
}

func TestEnsureCertificate(t *testing.T) {
	mine, first, second, third := newCertificate(t, "mine"), newCertificate(t, "first"), newCertificate(t, "second"), newCertificate(t, "third")
	theirs := []any{held(first), held(second)}
	addThird := func(f *tenant) {
		f.app["keyCredentials"] = append(slices.Clone(f.app["keyCredentials"].([]any)), held(third))
	}
	without := func(w http.ResponseWriter, r *http.Request, work func() any) { // a replica that lags
		answer := work().(object)
		keys := answer["keyCredentials"].([]any)
		answer["keyCredentials"] = keys[:len(keys)-1]
		good(w, r, func() any { return answer })
	}
	for name, tt := range map[string]struct {
		prepare func(*tenant)
		fresh   bool
		added   bool
		writes  int
		keys    int
	}{
		"added":        {func(*tenant) {}, false, true, 1, 3},
		"the first":    {func(f *tenant) { f.app["keyCredentials"] = []any{} }, false, true, 1, 1},
		"there":        {func(f *tenant) { f.app["keyCredentials"] = append(slices.Clone(theirs), held(mine)) }, false, false, 0, 3},
		"answer lost":  {func(f *tenant) { f.fail("patch keys", lostAfter) }, false, true, 1, 3},
		"request lost": {func(f *tenant) { f.fail("patch keys", lostBefore) }, false, true, 2, 3},
		"lost, reads lag": {func(f *tenant) {
			f.fail("patch keys", lostAfter)
			f.fail("get keys", good, good, good, without, without, good)
		}, false, true, 1, 3},
		"shows late":     {func(f *tenant) { f.fail("get keys", good, good, good, without, without) }, false, true, 1, 3},
		"reads disagree": {func(f *tenant) { f.fail("get keys", without, without, good) }, false, true, 1, 3},
		"throttled":      {func(f *tenant) { f.fail("patch keys", status(429, "Retry-After", "60")) }, false, true, 2, 3},
		"replicates": {func(f *tenant) {
			f.fail("get keys", refuses(notFound))
			f.fail("patch keys", refuses(notFound), status(403))
		}, true, true, 3, 3},
		"503": {func(f *tenant) { f.fail("patch keys", status(503), status(503, "Retry-After", "20")) }, false, true, 3, 3},
		"another's, while it waits": {func(f *tenant) {
			f.fail("patch keys", func(w http.ResponseWriter, r *http.Request, _ func() any) {
				addThird(f)
				status(429, "Retry-After", "60")(w, r, nil)
			})
		}, false, true, 2, 4},
		"another's, while it reads": {func(f *tenant) {
			f.fail("get keys", good, func(w http.ResponseWriter, r *http.Request, work func() any) { addThird(f); good(w, r, work) })
		}, false, true, 1, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := withKeys(t, theirs...)
				tt.prepare(f)
				c := f.direct()
				cred, added, err := c.EnsureCertificate(t.Context(), clientID, mine, "o365pw", tt.fresh)
				if err != nil || added != tt.added || len(f.writes()) != tt.writes {
					t.Fatalf("%t %+v %v %v", added, cred, err, f.calls)
				}
				if !isGUID(cred.KeyID) || cred.KeyID != strings.ToLower(cred.KeyID) || cred.Thumbprint != thumbprint(mine) || cred.Type != "AsymmetricX509Cert" || cred.Usage != "Verify" {
					t.Errorf("%+v", cred)
				}
				keys := f.app["keyCredentials"].([]any)
				if len(keys) != tt.keys {
					t.Fatalf("%d keys", len(keys))
				}
				for _, k := range theirs { // unchanged, whatever they hold
					if tt.keys > 1 && !slices.ContainsFunc(keys, func(o any) bool { return maps.EqualFunc(o.(object), k.(object), sameJSON) }) {
						t.Errorf("lost or changed: %v", k)
					}
				}
				writes := len(f.writes())
				if again, added, err := c.EnsureCertificate(t.Context(), clientID, mine, "o365pw", false); err != nil || added || again != cred || len(f.writes()) != writes {
					t.Errorf("again: %t %+v %v", added, again, err)
				}
			})
		})
	}
}

func sameJSON(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

func TestEnsureCertificateWrites(t *testing.T) {
	mine := newCertificate(t, "mine")
	f := withKeys(t)
	cred, _, err := f.serve(t).EnsureCertificate(t.Context(), clientID, mine, "", false)
	want := object{"keyCredentials": []any{object{"type": "AsymmetricX509Cert", "usage": "Verify", "displayName": "CN=mine", "key": base64.StdEncoding.EncodeToString(mine),
		"startDateTime": "2026-01-02T03:04:05Z", "endDateTime": "2027-01-02T03:04:05Z"}}}
	var got object
	if json.Unmarshal([]byte(f.bodies[0]), &got) != nil || err != nil || !maps.EqualFunc(got, want, sameJSON) {
		t.Errorf("%v %v", err, f.bodies)
	}
	if cred.DisplayName != "CN=mine" || !cred.Start.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) || !cred.End.Equal(time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("%+v", cred)
	}
}

func TestEnsureCertificateFails(t *testing.T) {
	mine, other := newCertificate(t, "mine"), newCertificate(t, "other")
	hidden := held(other)
	hidden["key"] = nil
	t.Run("a key is not shown", func(t *testing.T) {
		f := withKeys(t, held(newCertificate(t, "x")), hidden)
		c := f.serve(t)
		_, _, err := c.EnsureCertificate(t.Context(), clientID, mine, "", false)
		if e, ok := err.(*CertificateError); !ok || !slices.Equal(e.KeyIDs, []string{hidden["keyId"].(string)}) || e.AppID != clientID || len(f.writes()) != 0 || !strings.Contains(e.Error(), e.KeyIDs[0]) {
			t.Errorf("%v", err)
		}
		// What is there already is found by its thumbprint all the same.
		if cred, added, err := c.EnsureCertificate(t.Context(), clientID, other, "", false); err != nil || added || cred.KeyID != hidden["keyId"] {
			t.Errorf("%t %+v %v", added, cred, err)
		}
	})
	t.Run("overwritten by somebody", func(t *testing.T) {
		f := withKeys(t, held(other))
		f.fail("patch keys", func(w http.ResponseWriter, r *http.Request, work func() any) {
			before := f.app["keyCredentials"]
			good(w, r, work)
			f.app["keyCredentials"] = before
		})
		cred, added, err := f.serve(t).EnsureCertificate(t.Context(), clientID, mine, "", false)
		if e, ok := err.(*Error); !ok || !e.Temporary() || added || cred.KeyID != "" || len(f.writes()) != 1 || !strings.Contains(err.Error(), "somebody else") {
			t.Errorf("%t %+v %v", added, cred, err)
		}
	})
	t.Run("no end of changes", func(t *testing.T) {
		f := withKeys(t)
		for range 30 {
			f.fail("get keys", func(w http.ResponseWriter, r *http.Request, work func() any) {
				f.app["keyCredentials"] = []any{held(other)}
				good(w, r, work)
			})
		}
		_, _, err := f.serve(t).EnsureCertificate(t.Context(), clientID, mine, "", false)
		if e, ok := err.(*Error); !ok || !e.Temporary() || len(f.writes()) != 0 {
			t.Errorf("%v", err)
		}
	})
	for name, tt := range map[string]struct {
		op     string
		fault  fault
		fresh  bool
		writes int
		check  func(*Error) bool
	}{
		"forbidden":        {"patch keys", status(403), false, 1, (*Error).IsForbidden},
		"forbidden, fresh": {"patch keys", status(403), true, spreadTries, (*Error).IsForbidden},
		"read forbidden":   {"get keys", status(403), true, 0, (*Error).IsForbidden},
		"no application":   {"get keys", refuses(notFound), false, 0, (*Error).IsNotFound},
		"too long a life": {"patch keys", func(w http.ResponseWriter, _ *http.Request, _ func() any) {
			w.WriteHeader(400)
			_, _ = w.Write([]byte(lifetimeRefusal))
		}, true, 1, (*Error).PolicyLifetime},
		"throttled": {"patch keys", status(429, "Retry-After", "300"), false, 1, (*Error).IsThrottled},
		"down":      {"patch keys", status(500), false, spreadTries, func(e *Error) bool { return e.Status == 500 && e.Waited > time.Minute }},
		"no keys":   {"get keys", answers("{}"), false, 0, (*Error).Temporary},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := withKeys(t, held(other))
				f.fail(tt.op, slices.Repeat([]fault{tt.fault}, 20)...)
				_, added, err := f.direct().EnsureCertificate(t.Context(), clientID, mine, "", tt.fresh)
				if e, ok := err.(*Error); !ok || added || !tt.check(e) || len(f.writes()) != tt.writes || len(f.app["keyCredentials"].([]any)) != 1 {
					t.Errorf("%t %v %v", added, err, f.calls)
				}
			})
		})
	}
	f := withKeys(t)
	c := f.serve(t)
	if _, _, err := c.EnsureCertificate(t.Context(), clientID, []byte("-----BEGIN CERTIFICATE-----"), "", false); err == nil || len(f.calls) != 0 {
		t.Errorf("%v", err)
	}
	if _, _, err := c.EnsureCertificate(t.Context(), "x", mine, "", false); err == nil || len(f.calls) != 0 {
		t.Errorf("%v", err)
	}
}

func TestKeyCredentials(t *testing.T) {
	der := newCertificate(t, "x")
	sum := sha1.Sum(der)
	plain := strings.ToUpper(hex.EncodeToString(sum[:]))
	for identifier, want := range map[string]string{
		plain: plain, strings.ToLower(plain): plain, // as Entra's pages have it
		base64.StdEncoding.EncodeToString(sum[:]): plain, base64.RawURLEncoding.EncodeToString(sum[:]): plain,
		base64.StdEncoding.EncodeToString([]byte(plain)): plain,
		"": "", "AAAA": "", "???": "", plain[:38]: "",
	} {
		k := held(der)
		k["key"], k["customKeyIdentifier"] = nil, identifier
		f := withKeys(t, k)
		list, err := f.serve(t).KeyCredentials(t.Context(), clientID)
		if err != nil || len(list) != 1 || list[0].Thumbprint != want || list[0].KeyID != k["keyId"] || list[0].Start.Year() != 2026 || !list[0].End.IsZero() {
			t.Errorf("%s: %+v %v", identifier, list, err)
		}
	}
	for member, value := range map[string]any{"keyId": "x", "key": "???", "startDateTime": "yesterday"} {
		k := held(der)
		k[member] = value
		if list, err := withKeys(t, k).serve(t).KeyCredentials(t.Context(), clientID); err == nil {
			t.Errorf("%s: %+v", member, list)
		}
	}
}

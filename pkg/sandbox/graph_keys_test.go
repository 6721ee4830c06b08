package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// testCertificate is a certificate with a key of its own.
func testCertificate(t testing.TB, life time.Duration) (*rsa.PrivateKey, []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "o365pw"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

func keyJSON(der []byte, more string) string {
	return `{"type":"AsymmetricX509Cert","usage":"Verify","displayName":"o365pw","key":"` + base64.StdEncoding.EncodeToString(der) + `"` + more + `}`
}

func TestKeyCredentials(t *testing.T) {
	s := start(t, &Server{})
	bearer := graphBearer(t, s)
	object, id := s.MailApp()
	self := "/applications/" + object
	_, first := testCertificate(t, 24*time.Hour)
	_, second := testCertificate(t, 48*time.Hour)
	patch := func(list string, status int) response {
		t.Helper()
		return must(t, s, bearer, "PATCH", self, `{"keyCredentials":[`+list+`]}`, status)
	}
	keys := func(query string) []any {
		t.Helper()
		list, _ := must(t, s, bearer, "GET", self+query, "", 200).body["keyCredentials"].([]any)
		return list
	}
	patch(keyJSON(first, ""), 204)
	shown := keys("?$select=keyCredentials")
	one, _ := shown[0].(map[string]any)
	if len(shown) != 1 || one["key"] != base64.StdEncoding.EncodeToString(first) || one["displayName"] != "o365pw" || len(one["customKeyIdentifier"].(string)) != 40 {
		t.Fatalf("selected: %v", shown)
	}
	if plain := keys("")[0].(map[string]any); plain["key"] != nil || plain["keyId"] != one["keyId"] {
		t.Errorf("not selected: %v", plain)
	}
	keep := fmt.Sprintf(`{"keyId":%q,"type":"AsymmetricX509Cert","usage":"Verify","key":null}`, one["keyId"])
	patch(keep+","+keyJSON(second, ""), 204)
	if len(keys("")) != 2 {
		t.Errorf("added: %v", keys(""))
	}
	// Given back whole, as it was read, it stays the same.
	patch(keep+","+fmt.Sprintf(`{"keyId":%q,"type":"AsymmetricX509Cert","usage":"Verify","displayName":"o365pw","startDateTime":%q,"endDateTime":%q}`,
		keys("")[1].(map[string]any)["keyId"], keys("")[1].(map[string]any)["startDateTime"], keys("")[1].(map[string]any)["endDateTime"]), 204)

	ecKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	ec, _ := x509.CreateCertificate(rand.Reader, template, template, &ecKey.PublicKey, ecKey)
	_, expired := testCertificate(t, -time.Second)
	for name, list := range map[string]string{
		"changed":         fmt.Sprintf(`{"keyId":%q,"displayName":"other"}`, one["keyId"]),
		"another key":     fmt.Sprintf(`{"keyId":%q,"key":%q}`, one["keyId"], base64.StdEncoding.EncodeToString(second)),
		"unknown, no key": `{"keyId":"7d5a3a2e-3f9d-4c51-8d3f-0d5a1d1c9a10","type":"AsymmetricX509Cert","usage":"Verify"}`,
		"twice":           keep + "," + keep,
		"PEM":             keyJSON(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: first}), ""),
		"base64url":       `{"type":"AsymmetricX509Cert","usage":"Verify","key":"` + base64.RawURLEncoding.EncodeToString(append(first, 0xff)) + `"}`,
		"ECDSA":           keyJSON(ec, ""),
		"expired":         keyJSON(expired, ""),
		"beyond its life": keyJSON(first, `,"endDateTime":"2199-01-01T00:00:00Z"`),
		"thumbprint":      keyJSON(first, `,"customKeyIdentifier":"AAAA"`),
		"usage":           `{"type":"AsymmetricX509Cert","usage":"Sign","key":"` + base64.StdEncoding.EncodeToString(first) + `"}`,
		"type":            `{"type":"Symmetric","usage":"Verify","key":"` + base64.StdEncoding.EncodeToString(first) + `"}`,
	} {
		if r := graphCall(t, s, bearer, "PATCH", self, `{"keyCredentials":[`+list+`]}`); r.status != 400 {
			t.Errorf("%s: %d %s", name, r.status, r.text)
		}
	}
	if len(keys("")) != 2 {
		t.Errorf("after refusals: %v", keys(""))
	}

	s.SetFaults(func(f *Faults) { f.PolicyForbidsSecrets, f.PolicyMaxCertificateLifetime = true, 36*time.Hour })
	_, short := testCertificate(t, time.Hour)
	_, long := testCertificate(t, 72*time.Hour)
	if r := patch(keep+","+keyJSON(long, ""), 400); graphCode(r) != "CredentialInvalidLifetimeAsPerAppPolicy" {
		t.Errorf("policy: %s", r.text)
	}
	patch(keyJSON(short, ""), 204) // secrets are forbidden, this is none
	if list := keys(""); len(list) != 1 || list[0].(map[string]any)["keyId"] == one["keyId"] {
		t.Errorf("replaced: %v", list)
	}

	keyID, err := s.AddCertificate(id, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: second}))
	if err != nil || len(keys("")) != 2 || !s.RemoveCertificate(id, keyID) || s.RemoveCertificate(id, keyID) || len(keys("")) != 1 {
		t.Errorf("AddCertificate: %v %v", err, keys(""))
	}
	if _, err := s.AddCertificate(id, first); err == nil {
		t.Error("AddCertificate takes DER")
	}
}

func TestCertificatePolicies(t *testing.T) {
	s := start(t, &Server{AdminRoles: []string{"Policy.Read.All"}})
	bearer := graphBearer(t, s)
	object, _ := s.MailApp()
	s.SetFaults(func(f *Faults) { f.PolicyMaxCertificateLifetime = 90 * 24 * time.Hour })
	if r := must(t, s, bearer, "GET", "/policies/defaultAppManagementPolicy", "", 200); !strings.Contains(r.text, `"keyCredentials":[{"maxLifetime":"P90D"`) {
		t.Errorf("default: %s", r.text)
	}
	if r := must(t, s, bearer, "GET", "/applications/"+object+"/appManagementPolicies", "", 200); len(r.body["value"].([]any)) != 0 {
		t.Errorf("of the application: %s", r.text)
	}
	s.SetFaults(func(f *Faults) { f.PolicyUnreadable = true })
	must(t, s, bearer, "GET", "/applications/"+object+"/appManagementPolicies", "", 403)
}

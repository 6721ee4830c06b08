package sandbox

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// assertionParts are what an assertion is made of, for tests to spoil.
type assertionParts struct {
	header, claims map[string]any
	key            *rsa.PrivateKey
}

func newAssertion(s *Server, id string, key *rsa.PrivateKey, der []byte) *assertionParts {
	sum := sha256.Sum256(der)
	now := s.now()
	return &assertionParts{
		header: map[string]any{"alg": "PS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])},
		claims: map[string]any{
			"aud": s.tokenURL(), "iss": id, "sub": id, "jti": uuid.NewString(),
			"nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		},
		key: key,
	}
}

func (a *assertionParts) sign(t *testing.T) string {
	t.Helper()
	return signJWT(a.header, a.claims, func(signed []byte) ([]byte, error) {
		hash := sha256.Sum256(signed)
		if a.header["alg"] == "PS256" {
			return rsa.SignPSS(rand.Reader, a.key, crypto.SHA256, hash[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
		return rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, hash[:])
	})
}

func assertionForm(id, assertion, resource string) url.Values {
	return url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id}, "client_assertion": {assertion},
		"client_assertion_type": {assertionType}, "scope": {resource + "/.default"},
	}
}

func TestCertificateAssertion(t *testing.T) {
	s := start(t, &Server{Now: fixed()})
	_, id := s.MailApp()
	key, der := testCertificate(t, 24*time.Hour)
	other, otherDER := testCertificate(t, 24*time.Hour)
	keyID, err := s.AddCertificate(id, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(der)
	x5t := base64.RawURLEncoding.EncodeToString(sum[:])

	for _, test := range []struct {
		name   string
		spoil  func(*assertionParts)
		number int
	}{
		{"PS256", func(*assertionParts) {}, 0},
		{"RS256", func(a *assertionParts) { a.header["alg"] = "RS256" }, 0},
		{"x5t", func(a *assertionParts) { delete(a.header, "x5t#S256"); a.header["x5t"] = x5t }, 0},
		{"both thumbprints", func(a *assertionParts) { a.header["x5t"] = x5t }, 0},
		{"audience in an array", func(a *assertionParts) { a.claims["aud"] = []string{s.tokenURL()} }, 700023},
		{"no thumbprint", func(a *assertionParts) { delete(a.header, "x5t#S256") }, 700027},
		{"thumbprints differ", func(a *assertionParts) { a.header["x5t"] = strings.ToLower(x5t) }, 700027},
		{"unknown certificate", func(a *assertionParts) {
			*a = *newAssertion(s, id, other, otherDER)
		}, 700027},
		{"wrong key", func(a *assertionParts) { a.key = other }, 700027},
		{"no algorithm", func(a *assertionParts) { a.header["alg"] = "none" }, 50027},
		{"RS384", func(a *assertionParts) { a.header["alg"] = "RS384" }, 50027},
		{"no type", func(a *assertionParts) { delete(a.header, "typ") }, 50027},
		{"issuer", func(a *assertionParts) { a.claims["iss"] = "x" }, 700021},
		{"subject", func(a *assertionParts) { a.claims["sub"] = s.dir.mail.objectID }, 700021},
		{"audience", func(a *assertionParts) { a.claims["aud"] = s.Authority() + "/" + s.Tenant + "/v2.0" }, 700023},
		{"no expiry", func(a *assertionParts) { delete(a.claims, "exp") }, 50027},
		{"no start", func(a *assertionParts) { delete(a.claims, "nbf") }, 50027},
		{"expiry is text", func(a *assertionParts) { a.claims["exp"] = "1" }, 50027},
		{"expired", func(a *assertionParts) { a.claims["exp"] = s.now().Unix() }, 700024},
		{"not yet", func(a *assertionParts) { a.claims["nbf"] = s.now().Add(2 * time.Second).Unix() }, 700024},
		{"too long", func(a *assertionParts) { a.claims["exp"] = s.now().Add(time.Hour).Unix() }, 700024},
		{"no id", func(a *assertionParts) { delete(a.claims, "jti") }, 50027},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAssertion(s, id, key, der)
			test.spoil(a)
			r := postForm(t, s.tokenURL(), assertionForm(id, a.sign(t), exchangeResource))
			if aadsts(r) != test.number || test.number == 0 && r.status != 200 || test.number != 0 && (r.status != 401 || r.body["error"] != "invalid_client") {
				t.Errorf("%d %s", r.status, r.text)
			}
		})
		s.FastForward(2 * time.Minute) // no loop
	}

	fresh := func() url.Values { return assertionForm(id, newAssertion(s, id, key, der).sign(t), exchangeResource) }
	form := fresh()
	if r := postForm(t, s.tokenURL(), form); r.status != 200 {
		t.Errorf("%d %s", r.status, r.text)
	} else if got := r0(s.token(r.body["access_token"].(string))); len(got.roles) != 3 {
		t.Errorf("roles: %v", got.roles)
	}
	if r := postForm(t, s.tokenURL(), form); aadsts(r) != 50013 {
		t.Errorf("a second use: %s", r.text)
	}
	for name, spoil := range map[string]func(url.Values){
		"secret too": func(f url.Values) { f.Set("client_secret", "x") },
		"no type":    func(f url.Values) { f.Del("client_assertion_type") },
		"other type": func(f url.Values) {
			f.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer")
		},
		"public client": func(f url.Values) { f.Set("client_id", s.LoginClientID()) },
		"no JWT":        func(f url.Values) { f.Set("client_assertion", "a.b") },
	} {
		f := maps.Clone(fresh())
		spoil(f)
		if r := postForm(t, s.tokenURL(), f); r.status < 400 || aadsts(r) == 0 {
			t.Errorf("%s: %d %s", name, r.status, r.text)
		}
	}

	// As with secrets, Entra hears of a certificate, and of its end, late.
	s.SetFaults(func(f *Faults) { f.ReplicationDelay = time.Minute })
	if !s.RemoveCertificate(id, keyID) {
		t.Fatal("no certificate")
	}
	if r := postForm(t, s.tokenURL(), fresh()); r.status != 200 {
		t.Errorf("removed just now: %s", r.text)
	}
	s.FastForward(time.Minute)
	if r := postForm(t, s.tokenURL(), fresh()); aadsts(r) != 700027 {
		t.Errorf("removed: %s", r.text)
	}
	if _, err := s.AddCertificate(id, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		t.Fatal(err)
	}
	s.FastForward(25 * time.Hour)
	if r := postForm(t, s.tokenURL(), fresh()); aadsts(r) != 700027 || !strings.Contains(r.text, "expired") {
		t.Errorf("expired certificate: %s", r.text)
	}
}

func TestFederation(t *testing.T) {
	s := start(t, &Server{Now: fixed(), OIDCSubject: "repo:contoso@1/mail@2:environment:production"})
	id, _ := s.AdminClient()
	use := func(assertion string) response {
		s.FastForward(2 * time.Second)
		return postForm(t, s.tokenURL(), assertionForm(id, assertion, graphResource))
	}
	fresh := func() string { return s.OIDCToken(s.OIDCSubject, exchangeAudience, 5*time.Minute) }
	if r := use(fresh()); aadsts(r) != 70021 || r.body["error"] != "invalid_request" {
		t.Errorf("nothing registered: %s", r.text)
	}
	object := s.dir.admin.objectID
	admin := delegated(t, s, "alice@contoso.com", setupScopes)
	path := "/applications/" + object + "/federatedIdentityCredentials"
	credential := func(name, issuer, subject, audiences string) string {
		return `{"name":"` + name + `","issuer":"` + issuer + `","subject":"` + subject + `","audiences":` + audiences + `}`
	}
	audience := `["` + exchangeAudience + `"]`
	must(t, s, admin, "POST", path, credential("elsewhere", "https://token.actions.githubusercontent.com", "x", audience), 201)
	if r := use(fresh()); aadsts(r) != 700211 || !strings.Contains(r.text, "'"+s.OIDCIssuer()+"'") {
		t.Errorf("issuer: %s", r.text)
	}
	must(t, s, admin, "POST", path, credential("old-subject", s.OIDCIssuer(), "repo:contoso/mail:environment:production", audience), 201)
	if r := use(fresh()); aadsts(r) != 700213 || !strings.Contains(r.text, "'repo:contoso@1/mail@2:environment:production'") {
		t.Errorf("subject: %s", r.text)
	}
	made := must(t, s, admin, "POST", path, credential("github", s.OIDCIssuer(), s.OIDCSubject, audience), 201)
	if r := use(s.OIDCToken(s.OIDCSubject, "https://github.com/contoso", time.Minute)); aadsts(r) != 700212 || !strings.Contains(r.text, "'https://github.com/contoso'") {
		t.Errorf("audience: %s", r.text)
	}
	good := fresh()
	for range 2 { // one assertion is good until it expires
		if r := use(good); r.status != 200 || len(r0(s.token(r.body["access_token"].(string))).roles) == 0 {
			t.Errorf("%d %s", r.status, r.text)
		}
	}
	s.FastForward(5 * time.Minute)
	if r := use(good); aadsts(r) != 700024 {
		t.Errorf("expired: %s", r.text)
	}
	parts := strings.Split(fresh(), ".")
	if r := use(parts[0] + "." + parts[1] + "." + strings.Split(good, ".")[2]); aadsts(r) != 50013 {
		t.Errorf("signature: %s", r.text)
	}
	if r := must(t, s, admin, "GET", path, "", 200); len(r.body["value"].([]any)) != 2 {
		t.Errorf("listed: %s", r.text)
	}
	for name, body := range map[string]string{
		"no audience":   credential("a-name", s.OIDCIssuer(), "x", `[]`),
		"two audiences": credential("a-name", s.OIDCIssuer(), "x", `["a","b"]`),
		"no subject":    credential("a-name", s.OIDCIssuer(), "", audience),
		"name":          credential("a name", s.OIDCIssuer(), "x", audience),
		"issuer":        credential("a-name", "issuer", "x", audience),
		"misspelt":      `{"Name":"x"}`,
	} {
		if r := graphCall(t, s, admin, "POST", path, body); r.status != 400 {
			t.Errorf("%s: %d %s", name, r.status, r.text)
		}
	}
	must(t, s, admin, "POST", path, credential("again", s.OIDCIssuer(), s.OIDCSubject, audience), 409)
	must(t, s, admin, "DELETE", path+"/"+made.body["id"].(string), "", 204)
	if r := use(fresh()); aadsts(r) != 700213 {
		t.Errorf("removed: %s", r.text)
	}
	if err := s.AddFederatedCredential(id, "github", s.OIDCIssuer(), s.OIDCSubject); err != nil {
		t.Fatal(err)
	}
	if r := use(fresh()); r.status != 200 {
		t.Errorf("AddFederatedCredential: %s", r.text)
	}
	if err := s.AddFederatedCredential(id, "github", s.OIDCIssuer(), "y"); err == nil {
		t.Error("a name twice")
	}
}

func TestManagedIdentity(t *testing.T) {
	s := start(t, &Server{})
	imds, endpoint, header := s.ManagedIdentity()
	id, _ := s.AdminClient()
	query := "&resource=" + url.QueryEscape(graphResource)
	vm, service := imds+"/metadata/identity/oauth2/token?api-version=2018-02-01", endpoint+"?api-version=2019-08-01"
	for name, r := range map[string]response{
		"IMDS":           send(t, "GET", vm+query, "", "", "Metadata", "true"),
		"IMDS by client": send(t, "GET", vm+query+"&client_id="+id, "", "", "Metadata", "true"),
		"App Service":    send(t, "GET", service+query, "", "", "X-IDENTITY-HEADER", header),
	} {
		token, _ := r.body["access_token"].(string)
		if r.status != 200 || r.body["expires_in"] != "3599" || r.body["resource"] != graphResource || r.body["client_id"] != id {
			t.Errorf("%s: %d %s", name, r.status, r.text)
			continue
		}
		must(t, s, token, "GET", "/applications?$select=id", "", 200)
	}
	for name, r := range map[string]response{
		"no header":     send(t, "GET", vm+query, "", ""),
		"forwarded":     send(t, "GET", vm+query, "", "", "Metadata", "true", "X-Forwarded-For", "10.0.0.1"),
		"scope":         send(t, "GET", vm+"&scope=x", "", "", "Metadata", "true"),
		"no resource":   send(t, "GET", vm, "", "", "Metadata", "true"),
		"no version":    send(t, "GET", strings.Split(vm, "?")[0]+"?resource=x", "", "", "Metadata", "true"),
		"other client":  send(t, "GET", vm+query+"&client_id=x", "", "", "Metadata", "true"),
		"not resource":  send(t, "GET", vm+"&resource=https://example.com", "", "", "Metadata", "true"),
		"wrong header":  send(t, "GET", service+query, "", "", "X-IDENTITY-HEADER", "x"),
		"version of VM": send(t, "GET", endpoint+"?api-version=2018-02-01"+query, "", "", "X-IDENTITY-HEADER", header),
	} {
		if r.status != 400 && r.status != 401 || r.body["error"] == nil {
			t.Errorf("%s: %d %s", name, r.status, r.text)
		}
	}
	if n := s.TokensIssued()["managed_identity"]; n != 3 {
		t.Errorf("issued %d", n)
	}
}

// Diagnosis reads the claims of an access token; nothing that was not issued
// is a token, however well it is signed.
func TestAccessTokensAreJWTs(t *testing.T) {
	s := start(t, &Server{})
	_, id := s.MailApp()
	_, secret := newPassword(t, s, graphBearer(t, s), "x")
	token := appToken(t, s, id, secret, exchangeResource)
	claims := verifyIDToken(t, s, token)
	if claims["aud"] != exchangeResource || claims["appid"] != id || claims["tid"] != s.Tenant || claims["oid"] != s.dir.mail.principalID ||
		claims["idtyp"] != "app" || len(claims["roles"].([]any)) != 3 || claims["scp"] != nil {
		t.Errorf("application: %v", claims)
	}
	bob := delegated(t, s, "bob@contoso.com", "User.Read Application.Read.All")
	if claims := verifyIDToken(t, s, bob); claims["upn"] != "bob@contoso.com" || claims["scp"] != "User.Read Application.Read.All" || claims["roles"] != nil || claims["idtyp"] != "user" {
		t.Errorf("person: %v", claims)
	}
	delete(claims, "roles")
	forged := s.signES256(claims)
	must(t, s, forged, "GET", "/me", "", 401)
	if roles := verifyIDToken(t, s, appToken(t, s, id, secret, graphResource))["roles"]; roles != nil {
		t.Errorf("roles of none: %v", roles)
	}
}

// FuzzAssertion gives anything as a client assertion. Nothing but a token of a
// trusted issuer, unchanged, is taken.
func FuzzAssertion(f *testing.F) {
	s := startFuzzed(f)
	_, id := s.MailApp()
	if err := s.AddFederatedCredential(id, "github", s.OIDCIssuer(), s.OIDCSubject); err != nil {
		f.Fatal(err)
	}
	key, der := testCertificate(f, time.Hour)
	if _, err := s.AddCertificate(id, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		f.Fatal(err)
	}
	good := s.OIDCToken(s.OIDCSubject, exchangeAudience, 1000*time.Hour)
	a := newAssertion(s, id, key, der)
	a.claims["aud"] = "elsewhere"
	signed := signJWT(a.header, a.claims, func(b []byte) ([]byte, error) {
		hash := sha256.Sum256(b)
		return rsa.SignPSS(rand.Reader, key, crypto.SHA256, hash[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	})
	for _, seed := range []string{good, signed, "", "..", "a.b.c", "e30.e30.AA", good + ".", "bnVsbA.bnVsbA.AA", strings.ToUpper(good)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s.mu.Lock()
		refusal := s.checkAssertionLocked(s.dir.mail, assertionForm(id, text, exchangeResource), s.tokenURL(), s.nowLocked())
		s.mu.Unlock()
		switch {
		case (refusal == nil) != (text == good):
			t.Errorf("%q: %v", text, refusal)
		case refusal != nil && (refusal.number == 0 || refusal.text == ""):
			t.Errorf("%q: %+v", text, refusal)
		}
	})
}

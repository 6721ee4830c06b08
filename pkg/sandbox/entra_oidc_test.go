package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestGitHubOIDC(t *testing.T) {
	s := start(t, &Server{Now: fixed()})
	address, token := s.GitHubOIDC()
	get := func(address, auth string) response { return send(t, "GET", address, "", "", "Authorization", auth) }
	claims := func(r response) jwtObject {
		t.Helper()
		text, _ := r.body["value"].(string)
		j, err := parseJWT(text)
		if r.status != 200 || err != nil || j.verify(&s.oidcKey().PublicKey) != nil {
			t.Fatalf("%d %s %v", r.status, r.text, err)
		}
		return j.claims
	}
	one := claims(get(address+"&audience="+url.QueryEscape(exchangeAudience), "bearer "+token))
	if expires, _ := one.date("exp"); one.audience() != exchangeAudience || one.text("sub") != "repo:contoso/mail:ref:refs/heads/main" ||
		one.text("iss") != s.OIDCIssuer() || !expires.Equal(s.now().Add(5*time.Minute).Truncate(time.Second)) {
		t.Errorf("claims %s", one)
	}
	if other := claims(get(address, "Bearer "+token)); other.audience() != oidcAudience || other.text("jti") == one.text("jti") {
		t.Errorf("claims %s", other)
	}
	for _, r := range []response{
		get(address, "Bearer x"), get(address, ""), get(strings.Split(address, "?")[0]+"?audience=x", "Bearer "+token), get(address+"&audience=", "Bearer "+token),
	} {
		if r.status != 400 && r.status != 401 {
			t.Errorf("%d %s", r.status, r.text)
		}
	}
	r := send(t, "GET", s.OIDCIssuer()+"/.well-known/openid-configuration", "", "")
	if r.body["issuer"] != s.OIDCIssuer() {
		t.Errorf("discovery: %s", r.text)
	}
	var keys struct{ Keys []struct{ N string } }
	json.Unmarshal([]byte(send(t, "GET", r.body["jwks_uri"].(string), "", "").text), &keys)
	if len(keys.Keys) != 1 || keys.Keys[0].N != base64.RawURLEncoding.EncodeToString(s.oidcKey().N.Bytes()) {
		t.Errorf("keys %+v", keys)
	}
}

func TestAzurePipelinesOIDC(t *testing.T) {
	s := start(t, &Server{Now: fixed()})
	uri, token, connection, subject := s.AzurePipelinesOIDC()
	post := func(query, auth string, header ...string) response {
		return send(t, "POST", uri+"?"+query, "", "", append(header, "Authorization", auth)...)
	}
	good := "api-version=7.1&serviceConnectionId=" + connection
	r := post(good, "Bearer "+token)
	text, _ := r.body["oidcToken"].(string)
	j, err := parseJWT(text)
	if r.status != 200 || err != nil || j.verify(&s.oidcKey().PublicKey) != nil {
		t.Fatalf("%d %s %v", r.status, r.text, err)
	}
	if expires, _ := j.claims.date("exp"); j.claims.audience() != exchangeAudience || j.claims.text("sub") != subject ||
		j.claims.text("iss") != s.OIDCIssuer() || !expires.Equal(s.now().Add(10*time.Minute).Truncate(time.Second)) {
		t.Errorf("claims %s", j.claims)
	}
	for name, tt := range map[string]struct {
		r      response
		status int
	}{
		"no token":           {post(good, "", "X-TFS-FedAuthRedirect", "Suppress"), 401},
		"wrong token":        {post(good, "Bearer x", "X-TFS-FedAuthRedirect", "Suppress"), 401},
		"redirect":           {post(good, "Bearer x"), 302},
		"no version":         {post("serviceConnectionId="+connection, "Bearer "+token), 400},
		"other version":      {post(strings.Replace(good, "7.1", "7.1-preview.1", 1), "Bearer "+token), 400},
		"no connection":      {post("api-version=7.1", "Bearer "+token), 400},
		"an audience":        {post(good+"&audience=x", "Bearer "+token), 400},
		"unknown connection": {post("api-version=7.1&serviceConnectionId="+s.Tenant, "Bearer "+token), 404},
		"a body":             {send(t, "POST", uri+"?"+good, "application/json", "{}", "Authorization", "Bearer "+token), 400},
		"GET":                {send(t, "GET", uri+"?"+good, "", "", "Authorization", "Bearer "+token), 405},
	} {
		if tt.r.status != tt.status {
			t.Errorf("%s: %d %s, want %d", name, tt.r.status, tt.r.text, tt.status)
		}
	}
}

package sandbox

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"
)

func (s *Server) issuer() string { return s.authority + "/" + s.Tenant + "/v2.0" }

func (s *Server) publicKey() (x, y []byte) {
	point, err := s.idKey.PublicKey.Bytes() // 0x04, X, Y
	if err != nil {
		panic(err)
	}
	return point[1:33], point[33:]
}

func (s *Server) keyID() string {
	x, _ := s.publicKey()
	sum := sha256.Sum256(x)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// serveKeys is the key set (RFC 7517) that the tokens of Entra are signed with.
func (s *Server) serveKeys(w http.ResponseWriter, r *http.Request) {
	x, y := s.publicKey()
	writeJSON(w, http.StatusOK, map[string]any{"keys": []map[string]string{{
		"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": s.keyID(),
		"x": base64.RawURLEncoding.EncodeToString(x), "y": base64.RawURLEncoding.EncodeToString(y),
	}}})
}

// serveDiscovery is OpenID Connect Discovery 1.0 section 4.
func (s *Server) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	in, refusal := s.realm(r)
	if refusal != nil {
		s.oauthError(w, r, refusal)
		return
	}
	base, issuer := s.authority+"/"+s.segment(in), s.issuer()
	switch in {
	case consumers:
		issuer = s.authority + "/" + consumerTenant + "/v2.0"
	case common, organizations: // as Entra has it: each token names its tenant
		issuer = s.authority + "/{tenantid}/v2.0"
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                issuer,
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"device_authorization_endpoint":         base + "/oauth2/v2.0/devicecode",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"response_types_supported":              []string{"code"},
		"response_modes_supported":              []string{"query"},
		"subject_types_supported":               []string{"pairwise"},
		"code_challenge_methods_supported":      []string{"S256"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic", "private_key_jwt"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
	})
}

// serveIntrospection is RFC 7662 for a real mail server (Dovecot) in the place
// of Exchange: one URL for each mailbox, since an app-only token names none.
// As with Exchange, a token lives until it expires, whatever becomes of the
// secret that it was got with.
func (s *Server) serveIntrospection(w http.ResponseWriter, r *http.Request) {
	form, refusal := readForm(r)
	if refusal != nil {
		s.oauthError(w, r, refusal)
		return
	}
	mailbox := r.PathValue("mailbox")
	t := s.token(form.Get("token"))
	if t == nil || !s.opens(t, mailbox, "") {
		writeJSON(w, http.StatusOK, map[string]any{"active": false})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"active": true, "username": mailbox, "aud": t.audience, "client_id": t.app.clientID,
		"token_type": "Bearer", "exp": t.expires.Unix(),
	})
}

// faultNames are the names of all faults in JSON.
func faultNames() []string {
	var names []string
	for f := range reflect.TypeFor[Faults]().Fields() {
		names = append(names, f.Tag.Get("json"))
	}
	return names
}

// serveFaults shows the faults (GET) or replaces all of them (PUT).
func (s *Server) serveFaults(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut {
		media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
		var f Faults
		switch {
		case media != "application/json":
			http.Error(w, "Content-Type must be application/json", http.StatusUnsupportedMediaType)
			return
		case err != nil:
			http.Error(w, "the body is too long or was cut off", http.StatusBadRequest)
			return
		}
		if err := json.Unmarshal(body, &f); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.SetFaults(func(now *Faults) { *now = f })
	}
	writeJSON(w, http.StatusOK, s.CurrentFaults())
}

// opens says whether Exchange takes the token for a mailbox: the audience that
// belongs to app-only tokens or to those of people, and the permission for the
// protocol ("": any of them).
func (s *Server) opens(t *accessToken, mailbox, protocol string) bool {
	has := func(names []string, suffixes ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool {
			p, suffix, _ := strings.Cut(n, ".")
			return (protocol == "" || p == protocol) && slices.Contains(suffixes, suffix)
		})
	}
	if t.person != nil {
		return t.audience == exchangeDelegated && sameFold(t.person.address, mailbox) &&
			has(t.scopes, "AccessAsUser.All", "Send")
	}
	return t.audience == exchangeResource && has(t.roles, "AccessAsApp", "SendAsApp")
}

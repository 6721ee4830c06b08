package sandbox

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"
)

// jwt is a signed JSON Web Token (RFC 7519, RFC 7515) taken apart. Its
// signature is not checked yet.
type jwt struct {
	header, claims jwtObject
	signed         string // what the signature is over
	signature      []byte
}

type jwtObject map[string]json.RawMessage

// text gives a member that is a string; empty if it is not there.
func (o jwtObject) text(name string) string {
	var s string
	if json.Unmarshal(o[name], &s) != nil {
		return ""
	}
	return s
}

// date gives a NumericDate in whole seconds.
func (o jwtObject) date(name string) (time.Time, bool) {
	var n *int64
	if json.Unmarshal(o[name], &n) != nil || n == nil || *n < 0 || *n > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(*n, 0), true
}

// audience gives aud where it is one string, or an array of one.
func (o jwtObject) audience() string {
	var list []string
	if json.Unmarshal(o["aud"], &list) == nil && len(list) == 1 {
		return list[0]
	}
	return o.text("aud")
}

var errMalformedJWT = errors.New("the token is not a signed JWT")

// parseJWT reads the compact form: three parts in base64url without padding,
// the first two of them objects.
func parseJWT(text string) (*jwt, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, errMalformedJWT
	}
	var decoded [3][]byte
	for i, part := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || len(b) == 0 || strings.ContainsAny(part, "\r\n") {
			return nil, errMalformedJWT
		}
		decoded[i] = b
	}
	t := &jwt{signed: parts[0] + "." + parts[1], signature: decoded[2]}
	for i, into := range []*jwtObject{&t.header, &t.claims} {
		if json.Unmarshal(decoded[i], into) != nil || *into == nil {
			return nil, errMalformedJWT
		}
	}
	return t, nil
}

// verify checks the signature by RS256 or PS256 (RFC 7518 sections 3.3 and
// 3.5), as the header says.
func (t *jwt) verify(key *rsa.PublicKey) error {
	hash := sha256.Sum256([]byte(t.signed))
	switch alg := t.header.text("alg"); alg {
	case "RS256":
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, hash[:], t.signature)
	case "PS256":
		return rsa.VerifyPSS(key, crypto.SHA256, hash[:], t.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	default:
		return fmt.Errorf("the algorithm %q is neither RS256 nor PS256", alg)
	}
}

// signJWT makes a token signed by sign, which gets what the signature is over.
func signJWT(header, claims any, sign func(signed []byte) ([]byte, error)) string {
	encode := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil { // strings, numbers and lists of them alone
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := encode(header) + "." + encode(claims)
	signature, err := sign([]byte(signed))
	if err != nil {
		panic(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// signES256 signs with the key of this Start, by ES256 where Entra uses RS256;
// see serveKeys.
func (s *Server) signES256(claims map[string]any) string {
	header := map[string]string{"typ": "JWT", "alg": "ES256", "kid": s.keyID()}
	return signJWT(header, claims, func(signed []byte) ([]byte, error) {
		hash := sha256.Sum256(signed)
		r, v, err := ecdsa.Sign(rand.Reader, s.idKey, hash[:])
		if err != nil {
			return nil, err
		}
		sig := make([]byte, 64) // RFC 7518 section 3.4
		r.FillBytes(sig[:32])
		v.FillBytes(sig[32:])
		return sig, nil
	})
}

// accessTokenText is an access token. Those for organisations are JWTs, which
// clients must not rely on but which diagnosis reads; those of personal
// accounts are opaque. Whatever it looks like, a token is known by its text.
func (s *Server) accessTokenText(t *accessToken, now time.Time) string {
	if t.person != nil && t.person.personal {
		return "EwB" + newToken(1497, 1997)
	}
	claims := map[string]any{
		"aud": t.audience, "iss": s.issuer(), "tid": s.Tenant, "appid": t.app.clientID, "app_displayname": t.app.displayName,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": t.expires.Unix(), "uti": randomText(22, tokenAlphabet), "ver": "1.0",
	}
	if t.person == nil {
		claims["idtyp"], claims["oid"], claims["sub"], claims["appidacr"] = "app", t.principalID, t.principalID, "1"
		if len(t.roles) > 0 {
			claims["roles"] = t.roles
		}
	} else {
		claims["idtyp"], claims["oid"], claims["sub"], claims["appidacr"] = "user", t.person.objectID, t.person.objectID, "0"
		claims["upn"], claims["unique_name"], claims["name"] = t.person.upn, t.person.upn, t.person.name
		claims["scp"] = strings.Join(t.scopes, " ")
	}
	// Real ones are long enough to break clients with fixed buffers.
	const around = 180 // the header and the signature
	body, err := json.Marshal(claims)
	if err != nil { // as in signJWT
		panic(err)
	}
	if missing := (1520+mathrand.IntN(440)-around)*3/4 - len(body); missing > 0 {
		claims["aio"] = randomText(missing, tokenAlphabet)
	}
	return s.signES256(claims)
}

// idToken makes an OpenID Connect ID token. email is there where the scope of
// that name was asked for, and for personal accounts.
func (s *Server) idToken(g *grant, now time.Time) string {
	tenant := s.Tenant
	if g.person.personal {
		tenant = consumerTenant
	}
	claims := map[string]any{
		"aud": g.app.clientID, "iss": s.authority + "/" + tenant + "/v2.0", "tid": tenant, "ver": "2.0",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(s.TokenLife).Unix(),
		"name": g.person.name, "preferred_username": g.person.upn,
		"oid": g.person.objectID, "sub": g.person.objectID,
	}
	if g.scope.email || g.person.personal {
		claims["email"] = g.person.address
	}
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	return s.signES256(claims)
}

// consumerTenant is the tenant of all personal accounts.
const consumerTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"

// OIDCToken makes a token as a workload has it from its platform (a file in
// Kubernetes, an answer in GitHub Actions): signed by the sandbox's issuer,
// see OIDCIssuer, good for the given time from now.
func (s *Server) OIDCToken(subject, audience string, life time.Duration) string {
	now, key := s.now(), s.oidcKey()
	header := map[string]string{"typ": "JWT", "alg": "RS256", "kid": oidcKeyID(&key.PublicKey)}
	claims := map[string]any{
		"iss": s.OIDCIssuer(), "sub": subject, "aud": audience, "jti": uuid.NewString(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(life).Unix(),
	}
	return signJWT(header, claims, func(signed []byte) ([]byte, error) {
		hash := sha256.Sum256(signed)
		return rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, hash[:])
	})
}

func oidcKeyID(key *rsa.PublicKey) string {
	sum := sha256.Sum256(key.N.Bytes())
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

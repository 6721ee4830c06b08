package apppassword

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/sandbox"
	"github.com/o365pw/o365pw/pkg/secret"
)

// serving is a verifier that has read the registry.
func (f *fixture) serving(t *testing.T) *Verifier {
	t.Helper()
	v := f.verifier()
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v
}

func (f *fixture) made(t *testing.T, name string) Record {
	t.Helper()
	c, err := f.Create(t.Context(), f.request(name))
	if err != nil {
		t.Fatal(err)
	}
	return c.Record
}

// Whatever Entra says of what several app passwords share, none of them was
// revoked.
func TestTokenReasonsOfEachBacking(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		rec := f.made(t, "x")
		for _, tc := range []struct {
			name  string
			fault func(*sandbox.Faults)
			want  Refused
		}{
			{"fine", func(*sandbox.Faults) {}, ""},
			{"down", func(f *sandbox.Faults) { f.EntraDown = true }, NotAvailable},
			{"429", func(f *sandbox.Faults) { f.EntraStatus = 429 }, NotAvailable},
			{"garbage", func(f *sandbox.Faults) { f.EntraGarbage = true }, NotAvailable},
			{"policy", func(f *sandbox.Faults) { f.ConditionalAccess = true }, TenantRefuses},
			{"disabled", func(f *sandbox.Faults) { f.AppDisabled = true }, TenantRefuses},
			{"no service principal", func(f *sandbox.Faults) { f.NoServicePrincipal = true }, TenantRefuses},
		} {
			f.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{}; tc.fault(f) })
			v := f.serving(t)
			_, err := v.Token(t.Context(), rec.ID)
			if got := reason(t, err); got != tc.want {
				t.Errorf("%s: token: %q, want %q (%v)", tc.name, got, tc.want, err)
			}
			if got := reason(t, v.Revalidate(t.Context(), rec.ID)); got != tc.want {
				t.Errorf("%s: revalidate: %q, want %q", tc.name, got, tc.want)
			}
		}
		if f.Profile.Backing == BackingUser && !f.state(t).SignIns[0].Ended.IsZero() {
			t.Error("the sign-in was marked as ended by what is none")
		}
		f.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} })
		f.keychain.failing(func(op, key string) error {
			if op == "get" && !strings.HasPrefix(key, "app-password/") {
				return &secret.UnavailableError{Keychain: "memory", Reason: secret.Locked}
			}
			return nil
		})
		want := NotAvailable
		if f.Profile.Backing == "" {
			want = "" // it has its secret already
		}
		v := f.serving(t)
		if _, err := v.Token(t.Context(), rec.ID); reason(t, err) != want {
			t.Errorf("locked: %v", err)
		}
	})
}

// The gateway learns of the end of a sign-in, says so, and of a new one, without
// being started anew.
func TestSignInAgain(t *testing.T) {
	f := newFixtureOf(t, BackingUser)
	rec := f.made(t, "x")
	v := f.serving(t)
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.RevokeRefreshTokens = true })
	if _, err := v.Token(t.Context(), rec.ID); reason(t, err) != SignInAgain {
		t.Fatalf("%v", err)
	}
	ended := f.state(t).SignIns[0]
	if ended.Ended.IsZero() || !strings.HasPrefix(ended.Why, "AADSTS50173") {
		t.Errorf("status would not know: %+v", ended)
	}
	if !v.stale() {
		t.Fatal("the registry has not changed")
	}
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Remembered, and not marked again.
	if _, err := v.Token(t.Context(), rec.ID); reason(t, err) != SignInAgain || v.stale() {
		t.Errorf("%v; the registry was written again: %v", err, v.stale())
	}
	f.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} })
	f.signIn(t)
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Token(t.Context(), rec.ID); err != nil {
		t.Errorf("after the new sign-in: %v", err)
	}
	// Forgotten here.
	if _, err := f.ForgetSignIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	v = f.serving(t)
	if _, err := v.Token(t.Context(), rec.ID); reason(t, err) != SignInAgain || !errors.Is(err, secret.ErrNotFound) {
		t.Errorf("signed out: %v", err)
	}
	if got := f.state(t).SignIns[0].Why; got != signedOut {
		t.Errorf("why: %s", got)
	}
	if err := f.Registry.Update(t.Context(), func(s *State) error { s.SignIns = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	v = f.serving(t)
	if _, err := v.Token(t.Context(), rec.ID); reason(t, err) != SignInAgain || !isSignInError(err) {
		t.Errorf("gone from the registry: %v", err)
	}
}

// A mark goes when the sign-in works again, as after consent was given anew.
func TestMarkOfASignInGoes(t *testing.T) {
	for code, want := range map[string]Refused{
		`{"error":"invalid_grant","suberror":"consent_required","error_codes":[65001],"error_description":"AADSTS65001: The user or administrator has not consented.\r\nTrace ID: 1"}`: SignInAgain,
		`{"error":"consent_required","error_description":"no consent"}`:                                                                                      SignInAgain,
		`{"error":"interaction_required","error_codes":[50079],"error_description":"AADSTS50079: enrol. Trace ID: 1 Timestamp: 2"}`:                          SignInAgain,
		`{"error":"invalid_grant","error_codes":[70043],"error_description":"AADSTS70043: The refresh token has expired due to sign-in frequency checks."}`:  SignInAgain,
		`{"error":"interaction_required","suberror":"message_only","error_codes":[53003],"error_description":"AADSTS53003: Blocked by Conditional Access."}`: TenantRefuses,
		`{"error":"invalid_grant","error_codes":[50057],"error_description":"AADSTS50057: The user account is disabled."}`:                                   TenantRefuses,
		`{"error":"invalid_grant","error_codes":[50196],"error_description":"AADSTS50196: a client request loop."}`:                                          NotAvailable,
		`{"error":"invalid_client","error_codes":[7000218],"error_description":"AADSTS7000218: The request body must contain: 'client_assertion'."}`:         TenantRefuses,
		`{"error":"invalid_client","error_codes":[7000215],"error_description":"AADSTS7000215: Invalid client secret provided."}`:                            TenantRefuses,
		`{"error":"temporarily_unavailable","error_codes":[90033],"error_description":"AADSTS90033: A transient error has occurred."}`:                       NotAvailable,
	} {
		f := newFixtureOf(t, BackingUser)
		rec := f.made(t, "x")
		good := f.authority
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, code)
		}))
		defer srv.Close()
		f.authority = srv.URL
		_, err := f.serving(t).Token(t.Context(), rec.ID)
		if reason(t, err) != want {
			t.Errorf("%s: %v", code, err)
		}
		now := f.state(t).SignIns[0]
		if now.Ended.IsZero() != (want != SignInAgain) || strings.Contains(now.Why, "Trace") {
			t.Errorf("%s: %+v", code, now)
		}
		f.authority = good
		if _, err := f.serving(t).Token(t.Context(), rec.ID); err != nil {
			t.Error(err)
		}
		if now := f.state(t).SignIns[0]; !now.Ended.IsZero() || now.Why != "" {
			t.Errorf("%s: it works again, and is marked: %+v", code, now)
		}
	}
}

// One refresh at a time for each sign-in, whatever the number of app passwords,
// gateways and commands on it: an Entra that ends a refresh token with its use
// shows each that was lost.
func TestSignInIsRefreshedOneAtATime(t *testing.T) {
	f := newFixtureOf(t, BackingUser)
	f.sandbox.RevokeRotatedRefreshTokens = true
	recs := []Record{f.made(t, "a"), f.made(t, "b")}
	var wg sync.WaitGroup
	for range 4 {
		v := f.serving(t)
		before := f.sandbox.TokensIssued()["refresh_token"]
		if v.CredentialKey(recs[0]) != v.CredentialKey(recs[1]) {
			t.Error("app passwords on one sign-in are revalidated apart")
		}
		for i := range 8 {
			wg.Go(func() {
				if _, err := v.Token(t.Context(), recs[i%2].ID); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := f.sandbox.TokensIssued()["refresh_token"] - before; n != 1 {
			t.Errorf("%d refreshes by one gateway", n)
		}
	}
	for range 4 {
		v := f.serving(t)
		wg.Go(func() {
			if _, err := v.Token(t.Context(), recs[0].ID); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := f.MailToken(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Revalidation, once a minute, does not rotate the refresh token.
func TestRevalidationSparesTheRefreshToken(t *testing.T) {
	f := newFixtureOf(t, BackingUser)
	rec := f.made(t, "x")
	v := f.serving(t)
	if _, err := v.Token(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	before := f.sandbox.TokensIssued()["refresh_token"]
	kept := f.keychain.items["mail-sign-in/"+rec.SignIn]
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.EntraDown = true })
	for range 5 {
		if err := v.Revalidate(t.Context(), rec.ID); err != nil {
			t.Error(err)
		}
	}
	f.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} })
	if n := f.sandbox.TokensIssued()["refresh_token"]; n != before || !f.keychain.items["mail-sign-in/"+rec.SignIn].Equal(kept) {
		t.Errorf("%d refreshes", n-before)
	}
	// Where the token is near its end it is replaced, and then the end of the
	// sign-in shows.
	v.Tokens = &entra.Cache{Margin: 2 * time.Hour}
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.RevokeRefreshTokens = true })
	if err := v.Revalidate(t.Context(), rec.ID); reason(t, err) != SignInAgain {
		t.Errorf("%v", err)
	}
}

func TestCertificateIsReadOnceAndWhenItChanges(t *testing.T) {
	for _, where := range []string{"keychain", "file"} {
		t.Run(where, func(t *testing.T) {
			f := newFixture(t)
			a := f.asserting(t)
			f.Profile.Backing = BackingCertificate
			store := func(name string) {
				t.Helper()
				if where == "keychain" {
					if err := StoreCertificate(t.Context(), f.keychain, f.Profile.ClientID, certificateOf(t, name)); err != nil {
						t.Fatal(err)
					}
					return
				}
				// Renamed over, as careful programs do: also a file of the same
				// size and time is another.
				tmp := f.Profile.Certificate + ".new"
				writeFile(t, tmp, certificateOf(t, name).PEM().Reveal())
				if err := os.Rename(tmp, f.Profile.Certificate); err != nil {
					t.Fatal(err)
				}
			}
			if where == "file" {
				f.Profile.Certificate = filepath.Join(t.TempDir(), "cert.pem")
			}
			store("one")
			recs := []Record{f.made(t, "x"), f.made(t, "y")}
			v := f.serving(t)
			asked := a.asked()
			for _, rec := range recs {
				if _, err := v.Token(t.Context(), rec.ID); err != nil {
					t.Fatal(err)
				}
			}
			if a.asked() != asked+1 || v.CredentialKey(recs[0]) != v.CredentialKey(recs[1]) {
				t.Errorf("%d requests for app passwords on one certificate", a.asked()-asked)
			}
			key := v.CredentialKey(recs[0])
			// Away for a moment, or half written: what is held stays in force.
			if where == "file" {
				writeFile(t, f.Profile.Certificate, "half")
			} else if err := f.keychain.Delete(t.Context(), certificateKey(f.Profile.ClientID)); err != nil {
				t.Fatal(err)
			}
			if err := v.Revalidate(t.Context(), recs[0].ID); err != nil {
				t.Error(err)
			}
			// Renewed: Entra takes the new one alone.
			store("two")
			a.add(certificateOf(t, "two"))
			v.age(recs[0])
			if err := v.Revalidate(t.Context(), recs[0].ID); err != nil {
				t.Errorf("the new certificate: %v", err)
			}
			if v.CredentialKey(recs[0]) == key {
				t.Error("its tokens are taken for those of the former one")
			}
			// Taken off the application: the app password was not revoked.
			a.add(certificateOf(t, "three"))
			err := v.Revalidate(t.Context(), recs[0].ID)
			if ce, ok := errors.AsType[*CertificateError](err); reason(t, err) != TenantRefuses || !ok || !ce.Expired.IsZero() {
				t.Errorf("unknown to Entra: %v", err)
			}
			if _, err := v.Token(t.Context(), recs[0].ID); reason(t, err) != TenantRefuses {
				t.Errorf("its token is still given out: %v", err)
			}
			// Back again, and past its end.
			a.add(certificateOf(t, "two"))
			v.Now = func() time.Time { return certificateOf(t, "two").NotAfter().Add(time.Second) }
			v.Tokens = &entra.Cache{}
			asked = a.asked()
			_, err = v.Token(t.Context(), recs[0].ID)
			if ce, ok := errors.AsType[*CertificateError](err); reason(t, err) != TenantRefuses || !ok || ce.Expired.IsZero() || a.asked() != asked {
				t.Errorf("expired: %v", err)
			}
		})
	}
}

// age makes the verifier's certificate one that was read some seconds ago.
func (v *Verifier) age(rec Record) {
	h := v.certificates.get(place(rec))
	h.read = time.Time{}
	v.certificates.put(place(rec), h)
}

// A certificate that Entra has never taken may not have arrived everywhere.
func TestYoungCertificateIsUnavailable(t *testing.T) {
	f := newFixtureOf(t, BackingCertificate)
	if err := StoreCertificate(t.Context(), f.keychain, f.Profile.ClientID, certificateOf(t, "two")); err != nil {
		t.Fatal(err)
	}
	req := f.request("x")
	req.NoWait = true
	c, err := f.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	v := f.serving(t)
	if _, err := v.Token(t.Context(), c.Record.ID); reason(t, err) != NotAvailable {
		t.Errorf("young: %v", err)
	}
	v = f.serving(t)
	v.Now = func() time.Time { return time.Now().Add(replication + time.Minute) }
	if _, err := v.Token(t.Context(), c.Record.ID); reason(t, err) != TenantRefuses {
		t.Errorf("old: %v", err)
	}
}

// A note that cannot be written costs no token.
func TestTokenWithoutItsNote(t *testing.T) {
	f := newFixtureOf(t, BackingUser)
	rec := f.made(t, "x")
	err := f.Registry.Update(t.Context(), func(s *State) error { s.SignIns[0].Ended = time.Now(); return nil })
	if err != nil {
		t.Fatal(err)
	}
	v := f.serving(t)
	v.Entra = func(config.Cloud, string) (*entra.Client, error) {
		writeFile(t, f.Registry.Path(), "{")
		return &entra.Client{Authority: f.authority, Tenant: f.sandbox.Tenant, MaxWait: -1}, nil
	}
	if _, err := v.Token(context.WithoutCancel(t.Context()), rec.ID); err != nil {
		t.Error(err)
	}
}

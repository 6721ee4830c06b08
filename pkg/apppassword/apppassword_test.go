package apppassword

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/sandbox"
	"github.com/o365pw/o365pw/pkg/secret"
)

// memory is a keychain that can fail.
type memory struct {
	mu    sync.Mutex
	items map[string]secret.Text
	fail  func(op, key string) error
}

func (m *memory) do(op, key string, f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.items == nil {
		m.items = map[string]secret.Text{}
	}
	if m.fail != nil {
		if err := m.fail(op, key); err != nil {
			return err
		}
	}
	return f()
}

func (m *memory) Get(_ context.Context, key string) (t secret.Text, err error) {
	err = m.do("get", key, func() error {
		v, ok := m.items[key]
		if t = v; !ok {
			return secret.ErrNotFound
		}
		return nil
	})
	return t, err
}

func (m *memory) Set(_ context.Context, key string, v secret.Text) error {
	return m.do("set", key, func() error { m.items[key] = v; return nil })
}

func (m *memory) Delete(_ context.Context, key string) error {
	return m.do("delete", key, func() error {
		if _, ok := m.items[key]; !ok {
			return secret.ErrNotFound
		}
		delete(m.items, key)
		return nil
	})
}

func (m *memory) String() string { return "memory" }

func (m *memory) failing(f func(op, key string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = f
}

// fixture is a Manager on a sandbox and a keychain of its own.
type fixture struct {
	*Manager
	sandbox   *sandbox.Server
	authority string
	keychain  *memory
	warned    []string

	items int // of the keychain besides those of app passwords
}

// newFixture has client secrets behind its app passwords.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	srv := &sandbox.Server{AutoSignIn: true, MoreMailApps: 1, AdminRoles: []string{"Application.ReadWrite.OwnedBy", "Policy.Read.All", "DelegatedPermissionGrant.ReadWrite.All"}}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	_, client := srv.MailApp()
	id, adminSecret := srv.AdminClient()
	f := &fixture{sandbox: srv, authority: srv.Authority(), keychain: &memory{}}
	token := f.adminToken(id, adminSecret)
	f.Manager = &Manager{
		Profile: config.Profile{Name: "work", Tenant: srv.Tenant, ClientID: client, Keychain: "file",
			Cloud: config.Cloud{Name: "lab", ExchangeResource: "https://outlook.office365.com", ExchangeDelegated: "https://outlook.office.com", GraphResource: "https://graph.microsoft.com"}},
		Graph: &graph.Client{BaseURL: srv.Graph(), Token: token, Pause: time.Millisecond, ConfirmWait: 5 * time.Second},
		Entra: &entra.Client{Authority: srv.Authority(), Tenant: srv.Tenant, MaxWait: -1}, Registry: Registry{Dir: t.TempDir()},
		Keychains: func(kind string) (secret.Keychain, error) {
			if kind != "file" {
				return nil, errors.New("no such keychain: " + kind)
			}
			return f.keychain, nil
		},
		Warn:     func(format string, args ...any) { f.warned = append(f.warned, format) },
		WaitStep: time.Millisecond, ReadPause: time.Millisecond,
	}
	f.Policies = f.Graph
	return f
}

// adminToken gets tokens for Graph by the secret of the administrator's client.
func (f *fixture) adminToken(id, adminSecret string) func(context.Context) (secret.Text, error) {
	e := &entra.Client{Authority: f.sandbox.Authority(), Tenant: f.sandbox.Tenant}
	var cache entra.Cache
	return func(ctx context.Context) (secret.Text, error) {
		tok, err := cache.Token(ctx, "admin", func(ctx context.Context) (entra.Token, error) {
			return e.ClientSecret(ctx, id, secret.New(adminSecret), "https://graph.microsoft.com/.default")
		})
		return tok.Access, err
	}
}

func (f *fixture) request(name string) Request {
	return Request{Name: name, Mailboxes: []string{"alice@contoso.com"}, Allow: []string{"imap"}, Expires: time.Now().Add(180 * 24 * time.Hour)}
}

// consistent holds Entra, keychain and registry against each other.
func (f *fixture) consistent(t *testing.T, want int) {
	t.Helper()
	s, err := f.Registry.Load()
	if err != nil {
		t.Fatal(err)
	}
	inEntra := 0
	if f.Profile.Backing == "" {
		inEntra = want
	}
	if got := len(f.sandbox.Credentials()); got != inEntra {
		t.Errorf("%d credentials in Entra, want %d", got, inEntra)
	}
	if len(s.AppPasswords) != want || len(s.Pending) != 0 {
		t.Errorf("registry: %d app passwords, %d notes, want %d and none", len(s.AppPasswords), len(s.Pending), want)
	}
	f.keychain.mu.Lock()
	defer f.keychain.mu.Unlock()
	if got := len(f.keychain.items) - f.items; got != want {
		t.Errorf("%d keychain items, want %d", got, want)
	}
}

func TestCreateUndoesWhatFails(t *testing.T) {
	ctx := t.Context()
	broken := errors.New("broken")
	for _, step := range []string{"probe", "keychain", "registry", "entra", "interrupt"} {
		eachBacking(t, step, func(t *testing.T, f *fixture) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			mine := func(op, key string) bool { return op == "set" && strings.HasPrefix(key, "app-password/") }
			good := []byte(nil)
			switch step {
			case "probe":
				f.keychain.failing(func(op, key string) error { return broken })
			case "keychain":
				f.keychain.failing(func(op, key string) error {
					if mine(op, key) {
						return broken
					}
					return nil
				})
			case "registry":
				// It cannot be written while the app password is put into it.
				f.keychain.failing(func(op, key string) error {
					switch {
					case mine(op, key):
						good, _ = os.ReadFile(f.Registry.Path())
						writeFile(t, f.Registry.Path(), "{")
					case op == "delete" && strings.HasPrefix(key, "app-password/"):
						writeFile(t, f.Registry.Path(), string(good))
					}
					return nil
				})
			case "interrupt":
				f.keychain.failing(func(op, key string) error {
					if mine(op, key) {
						cancel()
					}
					return nil
				})
			case "entra":
				f.sandbox.SetFaults(func(f *sandbox.Faults) { f.AppDisabled = true })
			}
			if _, err := f.Create(ctx, f.request("x")); err == nil {
				t.Fatal("it was created")
			}
			f.keychain.failing(nil)
			f.consistent(t, 0)
		})
	}
}

func TestCreateNamesWhatItCannotUndo(t *testing.T) {
	f := newFixture(t)
	f.keychain.failing(func(op, key string) error {
		if op == "set" && !strings.HasPrefix(key, "probe/") {
			f.sandbox.SetFaults(func(f *sandbox.Faults) { f.Forbidden = true })
			return errors.New("broken")
		}
		return nil
	})
	_, err := f.Create(t.Context(), f.request("x"))
	left, ok := errors.AsType[*LeftBehindError](err)
	if !ok || len(left.KeyIDs) != 1 || left.KeyIDs[0] != f.sandbox.Credentials()[0].KeyID || !strings.Contains(err.Error(), left.KeyIDs[0]) {
		t.Fatalf("the key id left behind is not named: %v", err)
	}
	notes, err := f.Interrupted()
	if err != nil || len(notes) != 1 {
		t.Fatalf("notes %v, %v", notes, err)
	}
	// The next create clears it away.
	f.keychain.failing(nil)
	f.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} })
	if _, err := f.Create(t.Context(), f.request("y")); err != nil {
		t.Fatal(err)
	}
	f.consistent(t, 1)
}

func TestCreateAtOnceFromSeveral(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		var wg sync.WaitGroup
		errs := make([]error, 6)
		for i := range errs {
			wg.Go(func() {
				name := "same"
				if i%2 == 0 {
					name = "own " + string(rune('a'+i))
				}
				_, errs[i] = f.Create(t.Context(), f.request(name))
			})
		}
		wg.Wait()
		taken := 0
		for _, err := range errs {
			if _, ok := errors.AsType[*NameTakenError](err); ok {
				taken++
			} else if err != nil {
				t.Error(err)
			}
		}
		if taken != 2 {
			t.Errorf("%d were refused the name, want 2", taken)
		}
		f.consistent(t, 4)
	})
}

func TestWaitForEntraEnds(t *testing.T) {
	f := newFixture(t)
	f.WaitLimit = 30 * time.Millisecond
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.EntraStatus = 500 })
	f.Graph.Token = func(context.Context) (secret.Text, error) { return secret.Text{}, errors.New("not asked") }
	ok, err := f.waitAccepted(t.Context(), f.newSecret(f.record(Request{}), secret.New("x")))
	if ok || err != nil || len(f.warned) == 0 {
		t.Errorf("accepted %v, %v, warned %v", ok, err, f.warned)
	}
}

// An Entra that takes the request and says nothing holds nobody longer than
// the limit.
func TestWaitForSilentEntraEnds(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that the end of the connection is noticed
		<-r.Context().Done()
	}))
	defer silent.Close()
	f := newFixture(t)
	f.WaitLimit = 50 * time.Millisecond
	f.Entra.Authority = silent.URL
	ok, err := f.waitAccepted(t.Context(), f.newSecret(f.record(Request{}), secret.New("x")))
	if ok || err != nil || len(f.warned) == 0 {
		t.Errorf("accepted %v, %v, warned %v", ok, err, f.warned)
	}
}

func TestRevokeGoesOnAfterEachFailure(t *testing.T) {
	eachBacking(t, "", func(t *testing.T, f *fixture) {
		ctx := t.Context()
		if _, err := f.Create(ctx, f.request("x")); err != nil {
			t.Fatal(err)
		}
		revoke := func() error {
			entries, err := f.List(ctx)
			if err != nil {
				return err
			}
			e, err := Match(entries, "X")
			if err != nil {
				return err
			}
			return f.Revoke(ctx, e)
		}
		if f.Profile.Backing == "" {
			f.sandbox.SetFaults(func(f *sandbox.Faults) { f.Forbidden = true })
			if err := revoke(); err == nil {
				t.Fatal("revoked although Graph refused")
			}
			f.consistent(t, 1)
			f.sandbox.SetFaults(func(f *sandbox.Faults) { *f = sandbox.Faults{} })
		}
		f.keychain.failing(func(op, key string) error {
			if op == "delete" {
				return errors.New("locked")
			}
			return nil
		})
		if _, ok := errors.AsType[*HalfRevokedError](revoke()); !ok {
			t.Fatal("no word of the keychain item that is left")
		}
		entries, err := f.Local()
		if err != nil || len(entries) != 1 || entries[0].Status != Revoked {
			t.Fatalf("entries %v, %v", entries, err)
		}
		f.keychain.failing(nil)
		if err := revoke(); err != nil {
			t.Fatal(err)
		}
		f.consistent(t, 0)
	})
}

func TestDamagedRegistryIsLeftAlone(t *testing.T) {
	for _, content := range []string{"", "{", "[]", `{"appPasswords":[]}`, `{"version":1,"appPasswords":[{"id":""}]}`, `{"version":1,"appPasswords":[{"id":"a"},{"id":"a"}]}`} {
		r := Registry{Dir: t.TempDir()}
		if err := os.WriteFile(r.Path(), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := r.Load()
		if _, ok := errors.AsType[*DamagedError](err); !ok {
			t.Errorf("%q: %v", content, err)
		}
		if err := r.Update(t.Context(), func(s *State) error { return nil }); err == nil {
			t.Errorf("%q was written over", content)
		}
		if b, _ := os.ReadFile(r.Path()); string(b) != content {
			t.Errorf("%q became %q", content, b)
		}
	}
	if _, err := (Registry{Dir: filepath.Join(t.TempDir(), "none")}).Load(); err != nil {
		t.Errorf("no registry: %v", err)
	}
}

func TestListIsPatientWithYoungRecords(t *testing.T) {
	f := newFixture(t)
	if _, err := f.Create(t.Context(), f.request("x")); err != nil {
		t.Fatal(err)
	}
	// A listing that lags shows the new credential only after a while.
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.ListLag = 300 * time.Millisecond })
	f.ReadPause = 200 * time.Millisecond
	entries, err := f.List(t.Context())
	if err != nil || len(entries) != 1 || entries[0].Status != Active {
		t.Errorf("%v, %v", entries, err)
	}
	f.sandbox.SetFaults(func(f *sandbox.Faults) { f.ListLag = 0 })
	f.sandbox.RemoveCredential(entries[0].ID)
	if entries, err = f.List(t.Context()); err != nil || entries[0].Status != Revoked {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestNextShorter(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct{ asked, limit, want time.Duration }{
		{180 * day, 90 * day, 90*day - time.Minute},
		{180 * day, 0, 90*day - time.Minute},
		{90*day - time.Minute, 90 * day, 60*day - time.Minute},
		{180 * day, 365 * day, 90*day - time.Minute},
		{day - time.Minute, 0, 0},
		{3 * day, 0, day - time.Minute},
	} {
		if got := nextShorter(c.asked, c.limit); got != c.want {
			t.Errorf("nextShorter(%v, %v) = %v, want %v", c.asked, c.limit, got, c.want)
		}
	}
}

func TestGenerate(t *testing.T) {
	count := map[rune]int{}
	seen := map[string]bool{}
	for range 4000 {
		p := Generate().Reveal()
		if len(p) != 16 || seen[p] || !Normalise(Grouped(secret.New(p))).Equal(secret.New(p)) {
			t.Fatalf("%q", p)
		}
		seen[p] = true
		for _, r := range p {
			count[r]++
		}
	}
	for r := 'a'; r <= 'z'; r++ {
		// 64,000 letters: 2,461 each, 49 standard deviation; ten of them are
		// beyond chance.
		if n := count[r]; n < 1970 || n > 2950 {
			t.Errorf("%c came %d times", r, n)
		}
	}
	if len(count) != 26 {
		t.Errorf("%d letters", len(count))
	}
}

func TestNormalise(t *testing.T) {
	for _, typed := range []string{"abcd efgh ijkl mnop", "abcdefghijklmnop", "Abcd-efgh-ijkl-mnop", " abcd  efgh\tijklmnop ", "abcd\u00a0efgh\u2011ijklmnop"} {
		if got := Normalise(secret.New(typed)).Reveal(); got != "abcdefghijklmnop" {
			t.Errorf("%q is %q", typed, got)
		}
	}
}

func TestChecks(t *testing.T) {
	for _, name := range []string{"a", "Outlook on Mac", "邮件", strings.Repeat("é", 120), `"quoted" 'it' \ /`} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", " ", "\t", "a\nb", "a\x00", "\x1b[31mred", "a\u2028b", "a\u202eb", " a", strings.Repeat("é", 121), "\xff"} {
		if _, ok := errors.AsType[*InvalidError](CheckName(name)); !ok {
			t.Errorf("the name %q is taken", name)
		}
	}
	for _, m := range []string{"alice@contoso.com", "a.b+c@x.example", "o'neil@contoso.com"} {
		if err := CheckMailbox(m); err != nil {
			t.Errorf("%q: %v", m, err)
		}
	}
	for _, m := range []string{"", "alice", "@contoso.com", "alice@", "a b@c.d", "Alice <a@b.c>", "<a@b.c>", "a@b.c, d@e.f", "a@b\r\nc", "\"a b\"@c.d", "a@b@c"} {
		if _, ok := errors.AsType[*InvalidError](CheckMailbox(m)); !ok {
			t.Errorf("the mailbox %q is taken", m)
		}
	}
	if got, err := ParseAllow([]string{"SMTP,imap", "imap"}); err != nil || !slices.Equal(got, []string{"imap", "smtp"}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ParseNetworks([]string{"192.168.1.9/24,10.0.0.1", "fd00::1/64"}); err != nil ||
		!slices.Equal(got, []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("fd00::/64")}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, n := range []string{"", "300.1.1.1", "10.0.0.0/33", "::ffff:10.0.0.1", "fe80::1%eth0", "contoso.com"} {
		if _, err := ParseNetworks([]string{n}); err == nil {
			t.Errorf("the network %q is taken", n)
		}
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

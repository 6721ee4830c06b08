package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/secret"
)

// loadConfig reads the configuration file; nil where there is none and none
// was named.
func (a *app) loadConfig() (*config.Config, error) {
	named := a.configPath != "" || a.Getenv("O365PW_CONFIG") != ""
	path, err := config.ConfigPath(a.configPath, a.Getenv)
	if err != nil && !named {
		return nil, nil // a CI runner without a home has no configuration
	}
	if err != nil {
		return nil, err
	}
	cfg, err := config.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		if named {
			return nil, &config.Error{Path: path, Problem: "there is no such file", Hint: "o365pw setup makes it; or check --config and O365PW_CONFIG", Err: err}
		}
		return nil, nil
	}
	return cfg, err
}

// session is a command's profile with everything that speaks for it.
type session struct {
	profile  config.Profile
	gateway  config.Gateway
	stateDir string // empty: there is none
	http     *http.Client
	entra    *entra.Client
	graph    *graph.Client
	keychain secret.Keychain
	source   *tokenSource
	manager  *apppassword.Manager
}

// open resolves the profile and wires what a command on it needs. It asks
// nobody anything yet: not the network, not the keychain.
func (a *app) open() (*session, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	p, err := config.Resolve(cfg, a.profile, a.Getenv)
	if err != nil {
		return nil, err
	}
	gw := config.DefaultGateway()
	if cfg != nil {
		gw = cfg.Gateway
	}
	return a.openProfile(p, gw)
}

// openProfile is open for a profile that need not be in the configuration.
func (a *app) openProfile(p config.Profile, gw config.Gateway) (*session, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	return a.openWith(p, gw, dir, a.keychains(dir))
}

// stateDir is the state folder; empty where there is none, which list and
// revoke do without.
func (a *app) stateDir() (string, error) {
	dir, err := config.StateDir(a.Getenv)
	if err != nil && a.Getenv("O365PW_STATE") == "" {
		return "", nil
	}
	return dir, err
}

func (a *app) openWith(p config.Profile, gw config.Gateway, stateDir string, keychains func(string) (secret.Keychain, error)) (s *session, err error) {
	s = &session{profile: p, gateway: gw, stateDir: stateDir}
	if s.keychain, err = keychains(p.Keychain); err != nil {
		return nil, err
	}
	if s.http, err = a.cloudHTTP(p.Cloud); err != nil {
		return nil, err
	}
	s.entra = a.entraClient(s.http, p.Cloud, p.Tenant)
	s.source = newTokenSource(a, s)
	s.graph = &graph.Client{
		BaseURL: p.Cloud.Graph, HTTP: s.http, UserAgent: userAgent(), Token: s.source.Token, Log: a.logger(),
		Progress: func(what string) { a.progress.set("%s", what) },
	}
	policies := &graph.Client{BaseURL: p.Cloud.Graph, HTTP: s.http, UserAgent: userAgent(), Token: s.source.PolicyToken, Log: a.logger()}
	reports := &graph.Client{BaseURL: p.Cloud.Graph, HTTP: s.http, UserAgent: userAgent(), Token: s.source.ReportToken, Log: a.logger(), Progress: s.graph.Progress}
	s.manager = &apppassword.Manager{
		Profile: p, Graph: s.graph, Policies: policies, Reports: reports, Entra: s.entra, Keychains: keychains, Registry: apppassword.Registry{Dir: s.stateDir},
		Now: a.Now, Progress: a.progress.set, Warn: a.warn,
		Ended: func(e apppassword.Ended) { a.audited(context.Background(), s.stateDir, endedEntry(e)) },
	}
	return s, nil
}

// needState refuses what keeps something where nothing can be kept.
func (s *session) needState() error {
	if s.stateDir == "" {
		return apppassword.ErrNoState
	}
	return nil
}

func (a *app) entraClient(h *http.Client, cloud config.Cloud, tenant string) *entra.Client {
	logged := &http.Client{Transport: loggedTransport{h.Transport, a.logger()}}
	return &entra.Client{HTTP: logged, Authority: cloud.Authority, Tenant: tenant, UserAgent: userAgent(), MaxWait: a.entraWait}
}

// loggedTransport logs what is asked of Entra, without queries, bodies and
// headers, which hold secrets. The Graph client logs for itself.
type loggedTransport struct {
	http.RoundTripper
	log *slog.Logger
}

// RoundTrip implements [http.RoundTripper].
func (t loggedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	args := []any{"method", r.Method, "url", r.URL.Scheme + "://" + r.URL.Host + r.URL.Path}
	if err != nil {
		t.log.Debug("entra", append(args, "error", err)...)
		return resp, err
	}
	t.log.Debug("entra", append(args, "status", resp.StatusCode)...)
	return resp, nil
}

// cloudHTTP is an HTTP client that trusts the cloud's own certificates beside
// the system's. It goes by HTTPS_PROXY and NO_PROXY as the gateway does for mail,
// and by SSL_CERT_FILE as Go does.
func (a *app) cloudHTTP(cloud config.Cloud) (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	// Releases are built without HTTP/2, which is half a megabyte and serves nobody
	// who asks eight things at once: other builds shall not differ from them.
	t.ForceAttemptHTTP2, t.Protocols = false, new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	proxy := gateway.ProxyFromEnvironment(a.Getenv)
	t.Proxy = func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }
	roots, err := cloudRoots(cloud)
	if err != nil {
		return nil, err
	}
	if roots != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: t}, nil
}

// cloudRoots are the system's certificates and the cloud's; nil stands for the
// system's alone.
func cloudRoots(cloud config.Cloud) (*x509.CertPool, error) {
	if cloud.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(cloud.CAFile)
	if err != nil {
		return nil, &config.Error{Key: "clouds." + cloud.Name + ".ca_file", Problem: err.Error(), Hint: "name a PEM file with the certificates to trust", Err: err}
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, &config.Error{Key: "clouds." + cloud.Name + ".ca_file", Problem: "there is no certificate in " + cloud.CAFile, Hint: "name a PEM file with the certificates to trust"}
	}
	return roots, nil
}

// keychains gives the keychain of a kind: the same one each time, since it
// remembers what it has opened. It is opened at first use.
func (a *app) keychains(stateDir string) func(kind string) (secret.Keychain, error) {
	system := &secret.System{}
	file := &secret.File{Path: filepath.Join(stateDir, "keychain.age"), Passphrase: a.passphrase, WorkFactor: a.ScryptWorkFactor}
	return func(kind string) (secret.Keychain, error) {
		switch kind {
		case "system":
			return system, nil
		case "file":
			if stateDir == "" {
				return nil, apppassword.ErrNoState
			}
			return file, nil
		}
		return nil, &usageError{problem: "the keychain " + quote(kind) + " is neither system nor file", hint: "O365PW_KEYCHAIN=file"}
	}
}

// passphraseCredential is the systemd credential with the passphrase of the
// file keychain. A file that holds it encrypted has the same name, which is
// encrypted with it.
const passphraseCredential = "o365pw.keychain-passphrase"

// passphrase of the file keychain: from the environment, a file, systemd, or a
// person.
func (a *app) passphrase(ctx context.Context, create bool) (secret.Text, error) {
	if p, given, err := a.givenPassphrase(); given || err != nil {
		return p, err
	}
	return a.askPassphrase(ctx, create)
}

// givenPassphrase is passphrase as far as no person is asked.
func (a *app) givenPassphrase() (_ secret.Text, given bool, _ error) {
	if p := a.Getenv("O365PW_KEYCHAIN_PASSPHRASE"); p != "" {
		return secret.New(p), true, nil
	}
	if file := a.Getenv("O365PW_KEYCHAIN_PASSPHRASE_FILE"); file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return secret.Text{}, true, err
		}
		if others, err := readableByOthers(file); err == nil && others {
			a.warn("others can read the passphrase in %s: %s", file, keepFromOthers(file))
		}
		return secret.New(strings.TrimRight(string(b), "\r\n")), true, nil
	}
	// systemd keeps this one from others, by more than its mode.
	if file := a.credentialFile(passphraseCredential); file != "" {
		b, err := os.ReadFile(file)
		return secret.New(strings.TrimRight(string(b), "\r\n")), true, err
	}
	return secret.Text{}, false, nil
}

// userAgent names program and version to Microsoft; nothing about the person.
func userAgent() string {
	return fmt.Sprintf("o365pw/%s (%s; %s)", version(), runtime.GOOS, runtime.GOARCH)
}

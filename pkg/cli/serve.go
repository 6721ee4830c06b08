package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/secret"
)

// tokenMargin is how much life a token has left when a session begins: Exchange
// ends IMAP sessions with the token they were opened with.
const tokenMargin = 30 * time.Minute

type serveOptions struct {
	imap string
}

func newServe(a *app) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway that mail programs sign in on",
		Long: `Runs the gateway until it is stopped. Mail programs connect to it, sign in with
an app password, and get their mailbox over IMAP.

One port takes TLS, STARTTLS and, from this machine only, clear text. The
certificate is made by a local authority whose file it names; mail programs that
use TLS must trust it. A reload (SIGHUP) reads configuration and certificate
again; SIGTERM or Ctrl-C ends the sessions and then the gateway.`,
		Example: `  o365pw serve
  o365pw serve --imap 127.0.0.1:2993`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runServe(cmd.Context(), o) },
	}
	cmd.Flags().StringVar(&o.imap, "imap", "", "address for IMAP, host:port (default: the configuration's, else 127.0.0.1:1993)")
	return cmd
}

func (a *app) runServe(ctx context.Context, o serveOptions) error {
	g, err := a.newGateway(ctx, o)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	a.announce(g)
	return g.run(ctx, hup)
}

// gatewayRun is one running gateway with what it was made of.
type gatewayRun struct {
	a         *app
	stateDir  string
	keychains func(kind string) (secret.Keychain, error)
	verifier  *apppassword.Verifier
	backend   *backend
	server    *gateway.Server
	control   gateway.Control
	controlLn net.Listener
	listeners map[gateway.Protocol]net.Listener
	names     []string // on its certificate
	caFile    string   // empty with a certificate of one's own
	log       *slog.Logger

	cfg atomic.Pointer[config.Config]
	tls atomic.Pointer[tls.Config] // of the certificate in use; a reload replaces it

	mu   sync.Mutex
	http map[string]*http.Client // by cloud, so that connections are used again
}

// newGateway makes everything ready to serve: after it only Serve itself can
// fail. What it opened is closed again on an error.
func (a *app) newGateway(ctx context.Context, o serveOptions) (_ *gatewayRun, err error) {
	g := &gatewayRun{a: a, log: a.gatewayLog()}
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	g.cfg.Store(cfg)
	keychain, err := g.ownKeychain()
	if err != nil {
		return nil, err
	}
	if g.stateDir, err = config.StateDir(a.Getenv); err != nil {
		return nil, err
	}
	g.control = controlOf(g.stateDir)
	if g.controlLn, err = g.control.Listen(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	settings := g.settings()
	if o.imap != "" {
		settings.IMAP = o.imap
	}
	if err := g.listen(settings); err != nil {
		return nil, err
	}
	g.keychains = a.keychains(g.stateDir)
	if err := g.certificate(ctx, settings, keychain); err != nil {
		return nil, err
	}
	g.verifier = &apppassword.Verifier{
		Registry:  apppassword.Registry{Dir: g.stateDir},
		Keychains: g.keychains,
		Clouds:    g.cloud,
		Entra:     g.entraClient,
		Tokens:    &entra.Cache{Margin: tokenMargin},
		Log:       g.log,
		Now:       a.Now,
	}
	if err := g.verifier.Load(ctx); err != nil {
		return nil, err
	}
	g.backend = &backend{verifier: g.verifier, clouds: g.cloud}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return g.tls.Load().GetCertificate(h)
	}}
	g.server = &gateway.Server{Backend: g.backend, TLS: tlsConfig, Revalidate: settings.Revalidate, Log: g.log}
	return g, nil
}

// controlOf is the socket by which commands ask the running gateway.
func controlOf(stateDir string) gateway.Control {
	return gateway.Control{Path: filepath.Join(stateDir, "gateway.sock")}
}

func (a *app) gatewayLog() *slog.Logger {
	level := slog.LevelInfo
	switch {
	case a.quiet:
		level = slog.LevelWarn
	case a.verbose:
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: level}))
}

func (g *gatewayRun) settings() config.Gateway {
	if cfg := g.cfg.Load(); cfg != nil {
		return cfg.Gateway
	}
	return config.DefaultGateway()
}

// cloud finds a record's cloud in the configuration as it is now.
func (g *gatewayRun) cloud(name string) (config.Cloud, error) {
	if cfg := g.cfg.Load(); cfg != nil {
		if c, ok := cfg.Clouds[name]; ok {
			return c, nil
		}
	}
	if c, ok := config.BuiltinCloud(name); ok {
		return c, nil
	}
	return config.Cloud{}, &config.Error{Key: "clouds." + name, Problem: "an app password belongs to this cloud, which the configuration does not have", Hint: "add it, and reload the gateway"}
}

func (g *gatewayRun) entraClient(cloud config.Cloud, tenant string) (*entra.Client, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.http[cloud.Name]
	if h == nil {
		var err error
		if h, err = g.a.cloudHTTP(cloud); err != nil {
			return nil, err
		}
		if g.http == nil {
			g.http = map[string]*http.Client{}
		}
		g.http[cloud.Name] = h
	}
	return g.a.entraClient(h, cloud, tenant), nil
}

// ownKeychain is the kind of keychain that holds the key of the local
// authority: that of the default profile. The gateway serves the app passwords
// of all profiles, so it does not need one to be the default.
func (g *gatewayRun) ownKeychain() (string, error) {
	p, err := config.Resolve(g.cfg.Load(), g.a.profile, g.a.Getenv)
	if cfg := g.cfg.Load(); err != nil && cfg != nil && len(cfg.Profiles) > 1 && g.a.profile == "" {
		return cmp.Or(g.a.Getenv("O365PW_KEYCHAIN"), config.DefaultKeychain), nil
	}
	return p.Keychain, err
}

func (g *gatewayRun) listen(settings config.Gateway) error {
	g.listeners = map[gateway.Protocol]net.Listener{}
	addrs := map[gateway.Protocol]string{gateway.IMAP: settings.IMAP, gateway.POP3: settings.POP3, gateway.SMTP: settings.SMTP}
	g.names = []string{"localhost", "127.0.0.1", "::1"}
	for _, p := range gateway.Protocols() {
		if addrs[p] == "" {
			continue
		}
		host, _, _ := net.SplitHostPort(addrs[p])
		network := "tcp"
		if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
			network = "tcp4" // 0.0.0.0 is not to mean [::] as well
		}
		ln, err := net.Listen(network, addrs[p])
		if err != nil {
			return fmt.Errorf("listen for %s on %s: %w", p, addrs[p], err)
		}
		g.listeners[p] = ln
		g.names = append(g.names, listenNames(host)...)
	}
	slices.Sort(g.names)
	g.names = slices.Compact(g.names)
	if len(g.listeners) == 0 {
		return &config.Error{Key: "gateway", Problem: "there is no protocol to listen for", Hint: "set imap = \"127.0.0.1:1993\" in [gateway]"}
	}
	return nil
}

// announce tells a person what runs and what to do next.
func (a *app) announce(g *gatewayRun) {
	if a.quiet {
		return
	}
	for p, ln := range g.listeners {
		a.tell("%s on %s", p, ln.Addr())
	}
	if g.caFile != "" {
		a.tell("the certificate is signed by %s: tell mail programs that use TLS to trust this file", g.caFile)
	}
	if entries, err := g.verifier.Registry.Load(); err == nil && len(entries.AppPasswords) == 0 {
		a.tell("there is no app password yet; make one with: o365pw create --name \"Outlook on Mac\"")
	} else {
		a.tell("settings for a mail program: o365pw show NAME; sessions: o365pw status; stop with Ctrl-C")
	}
}

// run serves until ctx ends.
func (g *gatewayRun) run(ctx context.Context, hup <-chan os.Signal) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { g.verifier.Watch(inner, g.server.Recheck) })
	wg.Go(func() {
		if err := g.control.Serve(inner, g.controlLn, g.status); err != nil {
			g.log.Error("the control socket has failed; status will say that the gateway does not run", "error", err)
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-inner.Done():
				return
			case <-hup:
				g.reload(inner)
			}
		}
	})
	err := g.server.Serve(ctx, g.listeners)
	cancel()
	wg.Wait()
	return err
}

func (g *gatewayRun) status() gateway.Status {
	st := g.server.Status()
	st.Version = version()
	return st
}

// reload reads configuration and certificate again. Sessions go on; a
// configuration that is wrong is logged and leaves the former one in force.
func (g *gatewayRun) reload(ctx context.Context) {
	cfg, err := g.a.loadConfig()
	if err != nil {
		g.log.Error("reload: the configuration is wrong; the former one stays in force", "error", err)
		return
	}
	old := g.cfg.Swap(cfg)
	keychain, err := g.ownKeychain()
	if err == nil {
		err = g.certificate(ctx, g.settings(), keychain)
	}
	if err != nil {
		g.cfg.Store(old)
		g.log.Error("reload: the former configuration stays in force", "error", err)
		return
	}
	g.backend.forget()
	g.mu.Lock()
	g.http = nil
	g.mu.Unlock()
	was := config.DefaultGateway()
	if old != nil {
		was = old.Gateway
	}
	if now := g.settings(); now.IMAP != was.IMAP || now.Revalidate != was.Revalidate {
		g.log.Warn("reload: a changed address or revalidate takes effect at the next start")
	}
	if err := g.verifier.Load(ctx); err != nil {
		g.log.Error("reload: the registry cannot be read; the app passwords read before stay in force", "error", err)
		return
	}
	g.server.Recheck()
	g.log.Info("reloaded")
}

// close gives up what newGateway had opened.
func (g *gatewayRun) close() {
	for _, ln := range g.listeners {
		ln.Close()
	}
	g.controlLn.Close()
}

package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/secret"
)

// tokenMargin is how much life a token has left when a session begins: Exchange
// ends IMAP sessions with the token they were opened with.
const tokenMargin = 30 * time.Minute

type serveOptions struct {
	listen map[gateway.Protocol]*listenFlag
	log    string
	stop   bool
}

// listenFlag is an address to listen on, instead of the configuration's.
type listenFlag struct {
	given bool
	addr  string // empty: not offered
}

// String, Set and Type make listenFlag a flag value.
func (l *listenFlag) String() string { return l.addr }

// Set takes host:port, and off or nothing for "not offered".
func (l *listenFlag) Set(s string) error {
	if s == "off" {
		s = ""
	}
	if s != "" {
		if problem, hint := config.CheckListen(s); problem != "" {
			return errors.New(problem + ", " + hint)
		}
	}
	l.given, l.addr = true, s
	return nil
}

// Type is shown in help.
func (l *listenFlag) Type() string { return "host:port" }

func newServe(a *app) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway that mail programs sign in on",
		Long: `Runs the gateway until it is stopped. Mail programs connect to it, sign in with
an app password, read their mailbox over IMAP or POP3, and send over SMTP.

Each protocol has one port, which takes TLS, STARTTLS and, from this machine
only, clear text. The certificate is made by a local authority whose file it
names; mail programs that use TLS must trust it.

A reload (SIGHUP) reads configuration and certificate again; sessions go on. A
certificate of your own whose files change is taken up by itself.
SIGTERM, Ctrl-C or "o365pw serve --stop" let messages that are under way arrive,
end the sessions and then the gateway. --stop waits for that.

The log goes to stderr, one line for each sign-in, refusal and end of a session:
as text on a terminal, as JSON (times in UTC, durations in seconds) elsewhere.`,
		Example: `  o365pw serve
  o365pw serve --imap 127.0.0.1:2993 --smtp 127.0.0.1:2587 --pop3 off
  o365pw serve --log json 2>> /var/log/o365pw.log
  o365pw serve --stop`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.stop {
				for _, other := range []string{"imap", "pop3", "smtp", "log"} {
					if cmd.Flags().Changed(other) {
						return &usageError{problem: "--stop ends the gateway that runs, so --" + other + " has no meaning beside it", hint: "o365pw serve --stop"}
					}
				}
				return a.runStop(cmd.Context())
			}
			return a.runServe(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	o.listen = map[gateway.Protocol]*listenFlag{}
	for _, p := range []struct {
		name         gateway.Protocol
		text, normal string
	}{
		{gateway.IMAP, "IMAP", config.DefaultGateway().IMAP}, {gateway.POP3, "POP3", config.DefaultGateway().POP3}, {gateway.SMTP, "SMTP", config.DefaultGateway().SMTP},
	} {
		o.listen[p.name] = &listenFlag{}
		f.Var(o.listen[p.name], string(p.name), "address for "+p.text+", or off (default: the configuration's, else "+p.normal+")")
	}
	f.StringVar(&o.log, "log", "", "format of the log: text or json (default: text on a terminal, else json)")
	f.BoolVar(&o.stop, "stop", false, "stop the running gateway, and wait until it has ended")
	return cmd
}

func (a *app) runServe(ctx context.Context, o serveOptions) error {
	if is, err := a.asService(ctx, o); is || err != nil {
		return err
	}
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
	a            *app
	stateDir     string
	keychains    func(kind string) (secret.Keychain, error)
	verifier     *apppassword.Verifier
	backend      *backend
	server       *gateway.Server
	control      gateway.Control
	controlLn    net.Listener
	passed       activated // by systemd; those that serve are among listeners
	listeners    map[gateway.Protocol]net.Listener
	metricsLn    net.Listener // nil: metrics are not offered
	autoconfigLn net.Listener // nil: mail programs are not told their settings
	names        []string     // on its certificate
	caFile       string       // empty with a certificate of one's own
	observer     *observer
	overlaps     *overlaps
	audit        *audit.Writer
	notify       *notifier
	draining     atomic.Bool
	log          *slog.Logger

	inForce config.Gateway // what the configuration said at the start
	cfg     atomic.Pointer[config.Config]
	tls     atomic.Pointer[tls.Config] // of the certificate in use; a reload replaces it

	legacy    map[gateway.Protocol]net.Listener                // for devices whose TLS is old
	legacyRSA atomic.Pointer[func() (*tls.Certificate, error)] // for those of them that know no ECDSA; nil: the certificate in use will do
	reloading sync.Mutex                                       // of configuration and certificate
	certMu    sync.Mutex                                       // guards caFile and madeOf
	madeOf    certificateFiles                                 // what the certificate in use was made of

	mu   sync.Mutex
	http map[string]*http.Client // by cloud, so that connections are used again
}

// newGateway makes everything ready to serve: after it only Serve itself can
// fail. What it opened is closed again on an error.
func (a *app) newGateway(ctx context.Context, o serveOptions) (_ *gatewayRun, err error) {
	log, err := a.gatewayLog(o.log)
	if err != nil {
		return nil, err
	}
	a.log = log // for --verbose, so that all lines have one format
	g := &gatewayRun{a: a, log: log}
	// First of all, so that nothing that is started inherits them.
	if g.passed, err = takeSockets(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
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
	g.inForce = g.settings()
	settings := o.override(g.inForce)
	if err := g.listen(ctx, settings); err != nil {
		return nil, err
	}
	if err := g.listenLegacy(settings); err != nil {
		return nil, err
	}
	if err := g.listenMetrics(settings.Metrics); err != nil {
		return nil, err
	}
	if err := g.listenAutoconfig(settings.Autoconfig); err != nil {
		return nil, err
	}
	g.keychains = a.keychains(g.stateDir)
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
	// It names the domains of the mailboxes, hence not before the registry is read.
	if err := g.certificate(ctx, settings, keychain); err != nil {
		return nil, err
	}
	g.backend = &backend{verifier: g.verifier, clouds: g.cloud, sending: g.sending}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return g.tls.Load().GetCertificate(h)
	}}
	g.observer = g.newObserver()
	g.notify = &notifier{status: g.oneLine, log: g.log}
	g.server = &gateway.Server{
		Backend: g.backend, TLS: tlsConfig, Legacy: gateway.Legacy{Listeners: g.legacy, TLS: g.legacyTLS()}, Revalidate: settings.Revalidate, Proxy: gateway.ProxyFromEnvironment(a.Getenv), Log: g.log, Observe: g.observer.observe,
		Graph: &submitter{verifier: g.verifier, clouds: g.cloud, http: g.httpClient}, GraphSize: graph.MaxMIME, Notes: filepath.Join(g.stateDir, "sending"),
	}
	return g, nil
}

// controlOf is the socket by which commands ask the running gateway.
func controlOf(stateDir string) gateway.Control {
	return gateway.Control{Path: filepath.Join(stateDir, "gateway.sock")}
}

// override puts the addresses of the flags in place of the configuration's.
func (o serveOptions) override(s config.Gateway) config.Gateway {
	for p, addr := range map[gateway.Protocol]*string{gateway.IMAP: &s.IMAP, gateway.POP3: &s.POP3, gateway.SMTP: &s.SMTP} {
		if l := o.listen[p]; l != nil && l.given {
			*addr = l.addr
			s.Unnamed = slices.DeleteFunc(slices.Clone(s.Unnamed), func(name string) bool { return name == string(p) })
		}
	}
	return s
}

var logFormats = []string{"text", "json"}

// gatewayLog is the log in a format of logFormats; empty: by what stderr is.
func (a *app) gatewayLog(format string) (*slog.Logger, error) {
	if format != "" && !slices.Contains(logFormats, format) {
		return nil, &usageError{problem: "--log " + quote(format) + " is none of " + strings.Join(logFormats, ", "), hint: "o365pw serve --log json"}
	}
	level := slog.LevelInfo
	switch {
	case a.quiet:
		level = slog.LevelWarn
	case a.verbose:
		level = slog.LevelDebug
	}
	if format == "text" || format == "" && isTerminal(a.Stderr) {
		return slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: level})), nil
	}
	return slog.New(slog.NewJSONHandler(a.Stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: forPrograms})), nil
}

// forPrograms writes times in UTC, and durations in seconds where slog would
// write nanoseconds.
func forPrograms(_ []string, attr slog.Attr) slog.Attr {
	switch attr.Value.Kind() {
	case slog.KindTime:
		return slog.Time(attr.Key, attr.Value.Time().UTC())
	case slog.KindDuration:
		return slog.Float64(attr.Key, attr.Value.Duration().Seconds())
	}
	return attr
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

// sending is how a profile sends, in the configuration as it is now.
func (g *gatewayRun) sending(profile string) string {
	if cfg := g.cfg.Load(); cfg != nil {
		return cfg.Profiles[profile].Send
	}
	return ""
}

func (g *gatewayRun) entraClient(cloud config.Cloud, tenant string) (*entra.Client, error) {
	h, err := g.httpClient(cloud)
	if err != nil {
		return nil, err
	}
	return g.a.entraClient(h, cloud, tenant), nil
}

// httpClient is the cloud's, so that connections are used again.
func (g *gatewayRun) httpClient(cloud config.Cloud) (*http.Client, error) {
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
	return h, nil
}

// ownKeychain is the kind of keychain that holds the key of the local
// authority: that of the default profile. The gateway serves the app passwords
// of all profiles, so it does not need one to be the default.
func (g *gatewayRun) ownKeychain() (string, error) {
	return g.a.authorityKeychain(g.cfg.Load())
}

// authorityKeychain is ownKeychain by a configuration, which may be nil.
func (a *app) authorityKeychain(cfg *config.Config) (string, error) {
	p, err := config.Resolve(cfg, a.profile, a.Getenv)
	if errors.Is(err, config.ErrNoDefault) {
		return cmp.Or(a.Getenv("O365PW_KEYCHAIN"), config.DefaultKeychain), nil
	}
	return p.Keychain, err
}

// close gives up what newGateway had opened.
func (g *gatewayRun) close() {
	g.passed.close()
	for _, ln := range g.listeners {
		ln.Close()
	}
	for _, ln := range g.legacy {
		ln.Close()
	}
	if g.metricsLn != nil {
		g.metricsLn.Close()
	}
	if g.autoconfigLn != nil {
		g.autoconfigLn.Close()
	}
	if g.controlLn != nil {
		g.controlLn.Close()
	}
}

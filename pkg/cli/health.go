package cli

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/gateway"
)

const (
	// healthKept is how long an answer of healthz holds: a probe every few
	// seconds must not become a sign-in every few seconds.
	healthKept = time.Minute
	// healthLimit bounds one look at all profiles.
	healthLimit = 45 * time.Second
	// healthChecks is how many profiles are looked at at once.
	healthChecks = 8
	// healthError is how many bytes of an error are shown.
	healthError = 600
)

// health proves that mail can be read: for each profile, a new access token
// and a sign-in at the mail server, with one of its app passwords.
type health struct {
	records func() []apppassword.Record
	check   func(ctx context.Context, rec apppassword.Record, p gateway.Protocol) error
	now     func() time.Time
	base    context.Context // of the checks, which go on when the one who asked has left
	log     *slog.Logger

	mu   sync.Mutex
	look *healthLook // the last one, or the one under way
}

// healthLook is one look at all profiles. Once done is closed, the rest is set.
type healthLook struct {
	done   chan struct{}
	began  time.Time
	report healthJSON
}

type healthJSON struct {
	SchemaVersion int             `json:"schemaVersion"`
	Status        string          `json:"status"` // ok or failing
	Profiles      []profileHealth `json:"profiles"`
}

type profileHealth struct {
	Profile  string    `json:"profile"`
	OK       bool      `json:"ok"`
	Protocol string    `json:"protocol"`
	Checked  time.Time `json:"checked"`
	Error    string    `json:"error"`
}

// ServeHTTP answers 200 where every profile works, else 503. With live=1 it
// only says that the process answers.
func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("live") == "1" {
		live(w, r)
		return
	}
	report, err := h.report(r.Context())
	if err != nil {
		return // whoever asked has left
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if report.Status != "ok" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(report)
}

func live(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }

// report gives the last answer while it holds, else a new one. Whoever asks
// meanwhile gets the same.
func (h *health) report(ctx context.Context) (healthJSON, error) {
	h.mu.Lock()
	look := h.look
	if look == nil || look.over() && time.Since(look.began) >= healthKept {
		look = &healthLook{done: make(chan struct{}), began: time.Now()}
		h.look = look
		go h.run(look)
	}
	h.mu.Unlock()
	select {
	case <-look.done:
		return look.report, nil
	case <-ctx.Done():
		return healthJSON{}, ctx.Err()
	}
}

func (l *healthLook) over() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

func (h *health) run(look *healthLook) {
	defer close(look.done)
	ctx, cancel := context.WithTimeout(h.base, healthLimit)
	defer cancel()
	targets := healthTargets(h.records(), h.now())
	results := make([]profileHealth, len(targets))
	slots := make(chan struct{}, healthChecks)
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			err := h.checkOne(ctx, t)
			results[i] = profileHealth{Profile: t.rec.Profile, OK: err == nil, Protocol: string(t.protocol), Checked: h.now().UTC().Truncate(time.Second)}
			if err != nil {
				text := printable(err.Error())
				results[i].Error = strings.ToValidUTF8(text[:min(len(text), healthError)], "")
				h.log.Warn("healthz: a profile does not work", "profile", t.rec.Profile, "protocol", string(t.protocol), "app_password", t.rec.Name, "cause", err)
			}
		})
	}
	wg.Wait()
	look.report = healthJSON{SchemaVersion: schemaVersion, Status: "ok", Profiles: results}
	if slices.ContainsFunc(results, func(p profileHealth) bool { return !p.OK }) {
		look.report.Status = "failing"
	}
}

// checkOne makes an error of a panic, which would end all sessions.
func (h *health) checkOne(ctx context.Context, t healthTarget) (err error) {
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("panic in healthz", "panic", p, "stack", string(debug.Stack()))
			err = errors.New("internal error")
		}
	}()
	return h.check(ctx, t.rec, t.protocol)
}

// healthTarget is the app password that a profile is tried with.
type healthTarget struct {
	rec      apppassword.Record
	protocol gateway.Protocol
}

// healthTargets picks one app password of each profile that has one in force:
// one for IMAP before one for POP3 before one for SMTP, and then the one that
// lasts longest. They come in the order of the profiles' names.
func healthTargets(records []apppassword.Record, now time.Time) []healthTarget {
	best := map[string]healthTarget{}
	for _, rec := range records {
		protocols := gateway.Protocols()
		i := slices.IndexFunc(protocols, func(p gateway.Protocol) bool { return slices.Contains(rec.Allow, string(p)) })
		if i < 0 || rec.Decoy || rec.LocalStatus(now) != apppassword.Active || len(rec.Mailboxes) == 0 {
			continue
		}
		t := healthTarget{rec, protocols[i]}
		if b, ok := best[rec.Profile]; !ok || t.before(b) {
			best[rec.Profile] = t
		}
	}
	list := []healthTarget{}
	for _, profile := range slices.Sorted(maps.Keys(best)) {
		list = append(list, best[profile])
	}
	return list
}

func (t healthTarget) before(o healthTarget) bool {
	if t.protocol != o.protocol {
		return t.protocol < o.protocol
	}
	if t.rec.Expires.IsZero() != o.rec.Expires.IsZero() {
		return t.rec.Expires.IsZero()
	}
	if c := t.rec.Expires.Compare(o.rec.Expires); c != 0 {
		return c > 0
	}
	return t.rec.ID < o.rec.ID
}

// probe is health's check against the real services: the credential is asked
// for a new token, whatever is cached, and the mailbox is opened with it.
func (g *gatewayRun) probe(ctx context.Context, rec apppassword.Record, p gateway.Protocol) error {
	grant, err := g.backend.grant(rec, rec.Mailboxes[0], p)
	if err != nil {
		return err
	}
	if err := g.backend.Revalidate(ctx, grant); err != nil {
		return err
	}
	return g.server.Check(ctx, p, grant)
}

// serveMetrics answers on the metrics address until ctx ends.
func (g *gatewayRun) serveMetrics(ctx context.Context) {
	h := &health{records: g.verifier.Records, check: g.probe, now: g.a.Now, base: ctx, log: g.log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", expositionType)
		_, _ = w.Write(g.observer.metrics.page())
	})
	mux.Handle("GET /healthz", h)
	mux.HandleFunc("GET /livez", live)
	srv := &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: healthLimit + 5*time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(g.metricsLn); !errors.Is(err, http.ErrServerClosed) {
		g.log.Error("metrics and healthz can no longer be asked for", "error", err)
	}
}

// listenMetrics opens the metrics address. It has no TLS and asks for no
// password, so that an address others can reach deserves a word.
func (g *gatewayRun) listenMetrics(addr string) error {
	if addr == "" {
		return nil
	}
	ln, err := net.Listen(networkOf(addr), addr)
	if err != nil {
		return newListenError("metrics", addr, err)
	}
	g.metricsLn = ln
	if !ln.Addr().(*net.TCPAddr).IP.IsLoopback() {
		g.a.tell("metrics on %s can be read by whoever reaches that address: it has no TLS and no password; names of app passwords are among them", ln.Addr())
	}
	return nil
}

package cli

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/graph"
)

// fleet is what list, revoke and prune work on: one profile, or with
// --all-profiles all of the configuration.
type fleet struct {
	apppassword.Fleet
	all      bool
	stateDir string
	failed   []error // of profiles that could not be opened
}

// openFleet is open for one profile or all. A profile that cannot be opened does
// not keep the others from being worked on.
func (a *app) openFleet(all bool) (*fleet, error) {
	var cfg *config.Config
	if all {
		var err error
		if cfg, err = a.allProfiles(); err != nil {
			return nil, err
		}
	}
	if cfg == nil {
		s, err := a.open()
		if err != nil {
			return nil, err
		}
		return &fleet{Fleet: apppassword.Fleet{Managers: []*apppassword.Manager{s.manager}}, all: all, stateDir: s.stateDir}, nil
	}
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	f := &fleet{all: true, stateDir: dir}
	keychains := a.keychains(dir) // one, so that nobody is asked for its passphrase twice
	throttles, caches := map[string]*graph.Throttle{}, map[string]*entra.Cache{}
	_, unattended := a.unattended()
	for _, name := range slices.Sorted(maps.Keys(cfg.Profiles)) {
		p, err := config.Resolve(cfg, name, a.Getenv)
		var s *session
		if err == nil {
			s, err = a.openWith(p, cfg.Gateway, dir, keychains)
		}
		if err != nil {
			f.failed = append(f.failed, &apppassword.ProfileError{Profile: name, Err: err})
			continue
		}
		tenant := strings.ToLower(p.Cloud.Graph + " " + p.Tenant)
		if throttles[tenant] == nil {
			throttles[tenant] = &graph.Throttle{}
		}
		s.graph.Throttle, s.manager.Reports.Throttle = throttles[tenant], throttles[tenant]
		if unattended { // they sign in as the same
			key := strings.Join([]string{p.Cloud.Authority, p.Cloud.GraphResource, cmp.Or(a.Getenv("AZURE_TENANT_ID"), p.Tenant)}, " ")
			if caches[key] == nil {
				caches[key] = s.source.cache
			}
			s.source.cache = caches[key]
		}
		f.Managers = append(f.Managers, s.manager)
	}
	if len(f.Managers) == 0 {
		return nil, a.failures(f.failed, len(f.failed), "opened")
	}
	return f, nil
}

// allProfiles is the configuration for --all-profiles; nil where it has no
// profile, and the environment is the only one.
func (a *app) allProfiles() (*config.Config, error) {
	const without = "leave --all-profiles out, or "
	if a.profile != "" {
		return nil, &usageError{problem: "--all-profiles and --profile exclude each other", hint: "leave one of them out"}
	}
	cfg, err := a.loadConfig()
	if err != nil || cfg == nil || len(cfg.Profiles) == 0 {
		return nil, err
	}
	for _, v := range []string{"O365PW_TENANT", "O365PW_CLIENT_ID"} {
		if a.Getenv(v) != "" {
			return nil, &usageError{problem: v + " is set: it would take the place of that of every profile", hint: without + "unset " + v}
		}
	}
	return cfg, nil
}

// listFleet reads all profiles. Where nothing at all could be read, that is an error;
// otherwise the failures of single profiles are told beside what the others
// have.
func (a *app) listFleet(ctx context.Context, f *fleet) (entries []apppassword.Entry, failed []error, err error) {
	entries, errs := f.List(ctx)
	failed = append(slices.Clone(f.failed), errs...)
	if len(failed) > 0 && (ctx.Err() != nil || len(f.Managers) == 1 && len(errs) > 0 || len(entries) == 0) {
		return nil, nil, a.failures(failed, len(f.Managers)+len(f.failed), "read")
	}
	return entries, failed, nil
}

// clearAway removes what commands that were interrupted have left: here belongs
// whatever is to be finished once somebody is at it. Its failure is no failure
// of the command that does it beside its own work. localOnly leaves out what
// Graph would have to be asked about.
func (a *app) clearAway(ctx context.Context, f *fleet, localOnly bool) {
	if ctx.Err() != nil {
		return
	}
	if err := f.Recover(ctx, localOnly); err != nil && !errors.Is(err, context.Canceled) {
		a.warn("%v", err)
	}
}

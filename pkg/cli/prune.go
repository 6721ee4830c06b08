package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
)

type pruneOptions struct {
	expired     bool
	unused      string
	orphans     bool
	allProfiles bool
	dryRun      bool
	yes         bool
}

func newPrune(a *app) *cobra.Command {
	var o pruneOptions
	cmd := &cobra.Command{
		Use:   "prune [NAME|ID...]",
		Short: "Remove app passwords that are of no more use",
		Long: `Removes app passwords of this machine as revoke does, one line each with the
reason. Without --expired, --unused and --orphans: those that have expired, and
those that were revoked elsewhere, which open nothing any more.

  --expired   those that have expired
  --unused D  active ones, made (or imported) longer than D ago, whose last use is
              longer ago than D or that were never used; the old password of a
              rotation counts, too. That is what the gateway of this
              machine knows: it says from when on, and where it knows of no use
              at all, nothing is taken for unused. Decoys never are
  --orphans   credentials of the application that this machine does not hold:
              made on another machine, or by hand. It lists them, and removes
              those that are named as arguments, no others

On a terminal it asks first. Elsewhere it needs --yes. What interrupted commands
have left is cleared away as well.`,
		Example: `  o365pw prune --dry-run
  o365pw prune --expired --yes
  o365pw prune --unused 90d
  o365pw prune --orphans
  o365pw prune --orphans 8d4e2c1a-5b1f-4d6e-9a53-0c7b6d1f2e3a --yes
  o365pw prune --all-profiles --dry-run -o json`,
		ValidArgsFunction: cobra.NoFileCompletions, // this machine does not know the names of orphans
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runPrune(cmd.Context(), args, o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.expired, "expired", false, "those that have expired")
	f.StringVar(&o.unused, "unused", "", "those not used for this time (90d, 26w)")
	f.BoolVar(&o.orphans, "orphans", false, "list credentials that this machine does not hold; remove those that are named")
	f.BoolVar(&o.allProfiles, "all-profiles", false, "of all profiles of the configuration")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be removed, and change nothing")
	f.BoolVar(&o.yes, "yes", false, "do not ask")
	return cmd
}

// The reasons to remove an app password.
const (
	hasExpired   = "expired"
	isRevoked    = "revoked"
	isUnused     = "unused"
	isAnOrphan   = "orphan"
	keptUnasked  = "kept" // the result of an orphan that was not named
	wouldBeTaken = "would-remove"
)

// prunable is an entry with why it may go.
type prunable struct {
	apppassword.Entry
	reason string
	why    string // in words
	kept   bool
}

func (a *app) runPrune(ctx context.Context, args []string, o pruneOptions) error {
	rules, err := a.pruneRules(o, args)
	if err != nil {
		return err
	}
	asks := !o.yes && !o.dryRun && !rules.onlyLists(args)
	if asks && !a.interactive() {
		return &usageError{problem: "there is no terminal to ask on", hint: "add --yes to remove without being asked, or --dry-run to see what would be"}
	}
	f, err := a.openFleet(o.allProfiles)
	if err != nil {
		return err
	}
	if rules.unused > 0 {
		if err := a.knowUses(f, &rules); err != nil {
			return err
		}
	}
	entries, failures, err := a.listFleet(ctx, f)
	if err != nil {
		return err
	}
	found := slices.DeleteFunc(rules.choose(entries), func(p prunable) bool {
		young := p.reason == isRevoked && !f.Gone(ctx, p.Entry)
		if young {
			a.note("%s is left: it is so new that Microsoft Graph may not show it yet", nameOrID(p.Entry))
		}
		return young
	})
	if rules.orphans {
		more, errs := chooseOrphans(entries, args)
		found, failures = append(found, more...), append(failures, errs...)
	}
	var chosen []apppassword.Entry
	for _, p := range found {
		if !p.kept {
			chosen = append(chosen, p.Entry)
		}
	}
	if len(chosen) > 0 && asks {
		ok, err := a.confirm(ctx, pruneQuestion(found, len(chosen)))
		if err != nil {
			return err
		}
		if !ok {
			return a.failures(append(failures, errors.New("nothing was removed")), 0, "removed")
		}
	}
	var outcome []error
	if !o.dryRun && len(chosen) > 0 {
		outcome = a.remove(ctx, f, chosen, "removed")
	}
	if !o.dryRun && !rules.onlyLists(args) {
		a.clearAway(ctx, f, false)
	}
	if err := a.printPruned(a.pruneResults(found, outcome), f.all); err != nil {
		return err
	}
	if kept := len(found) - len(chosen); kept > 0 {
		a.note("%s made elsewhere: to remove one, name it: o365pw prune --orphans ID --yes", plural(kept, "credential"))
	}
	return a.removeFailures(ctx, chosen, outcome, failures, "removed")
}

// pruneRules are what prune goes by.
type pruneRules struct {
	now      time.Time
	expired  bool
	revoked  bool
	unused   time.Duration // 0: does not matter
	orphans  bool
	usedFrom time.Time // from when on last uses are known
	used     map[string]apppassword.LastUse
}

func (a *app) pruneRules(o pruneOptions, args []string) (pruneRules, error) {
	r := pruneRules{now: a.Now(), expired: o.expired, orphans: o.orphans}
	if o.unused != "" {
		var err error
		if r.unused, err = config.ParseDuration(o.unused); err != nil {
			return r, &usageError{problem: "--unused: " + err.Error(), hint: "o365pw prune --unused 90d"}
		}
	}
	if !o.expired && r.unused == 0 && !o.orphans {
		r.expired, r.revoked = true, true
	}
	if len(args) > 0 && !o.orphans {
		return r, &usageError{problem: "names belong to --orphans alone", hint: "o365pw revoke " + asArgument(args[0])}
	}
	if slices.ContainsFunc(args, func(s string) bool { return strings.TrimSpace(s) == "" }) {
		return r, &usageError{problem: "which credential? give its name or id", hint: "o365pw prune --orphans"}
	}
	return r, nil
}

// onlyLists tells that nothing can be chosen.
func (r pruneRules) onlyLists(args []string) bool {
	return len(args) == 0 && !r.expired && !r.revoked && r.unused == 0
}

// knowUses finds out from when on last uses are known. A machine that knows of
// none must not take everything for unused: its app passwords may be in use at a
// gateway elsewhere.
func (a *app) knowUses(f *fleet, r *pruneRules) error {
	used, err := apppassword.Usage{Dir: f.stateDir}.Load()
	if r.usedFrom = used.KnownSince(); err != nil || r.usedFrom.IsZero() {
		return &usageError{problem: "no gateway of this machine has noted a use yet, so it is not known what is unused", hint: "run it on the gateway's machine: o365pw prune --unused 90d"}
	}
	r.used = used.LastUse
	a.note("uses are known from %s on, as far as the gateway of this machine has seen them", r.usedFrom.Local().Format("2 January 2006 15:04"))
	return nil
}

// choose picks the app passwords of this machine that the rules are about.
func (r pruneRules) choose(entries []apppassword.Entry) []prunable {
	var out []prunable
	for _, e := range entries {
		p := prunable{Entry: e}
		ended := !e.Expires.IsZero() && !e.Expires.After(r.now)
		longAgo := func(t time.Time) bool { return r.now.Sub(t) > r.unused }
		last := e.LastUse.Time
		if e.Previous != nil && r.used[e.Previous.ID].Time.After(last) { // the mail program may still have the old one
			last = r.used[e.Previous.ID].Time
		}
		switch {
		case e.Status == apppassword.RemoteOnly:
			continue
		case r.expired && ended:
			p.reason, p.why = hasExpired, "expired "+relative(e.Expires, r.now)
		case r.revoked && e.Status == apppassword.Revoked && e.Revoked.IsZero():
			p.reason, p.why = isRevoked, "revoked elsewhere"
		case r.revoked && e.Status == apppassword.Revoked:
			p.reason, p.why = isRevoked, "revoked "+relative(e.Revoked, r.now)+", and not cleared away"
		case r.unused == 0 || e.Status != apppassword.Active || e.Decoy || !longAgo(e.Created) || !longAgo(e.Arrived):
			continue
		case last.IsZero() && e.Arrived.IsZero():
			p.reason, p.why = isUnused, "never used, made "+relative(e.Created, r.now)
		case last.IsZero():
			p.reason, p.why = isUnused, "never used here, imported "+relative(e.Arrived, r.now)
		case longAgo(last):
			p.reason, p.why = isUnused, "last used "+relative(last, r.now)
		default:
			continue
		}
		out = append(out, p)
	}
	return out
}

// chooseOrphans picks the credentials that this machine does not hold: those
// that are named, or all, which are then kept.
func chooseOrphans(entries []apppassword.Entry, args []string) (out []prunable, errs []error) {
	orphans := slices.DeleteFunc(slices.Clone(entries), func(e apppassword.Entry) bool { return e.Status != apppassword.RemoteOnly })
	pick := func(e apppassword.Entry, kept bool) {
		if !slices.ContainsFunc(out, func(p prunable) bool { return p.ID == e.ID }) {
			out = append(out, prunable{Entry: e, reason: isAnOrphan, why: "not held on this machine", kept: kept})
		}
	}
	if len(args) == 0 {
		for _, e := range orphans {
			pick(e, true)
		}
	}
	for _, arg := range args {
		e, err := apppassword.Match(orphans, arg)
		if held, herr := apppassword.Match(entries, arg); err != nil && herr == nil {
			err = &usageError{problem: nameOrID(held) + " is held on this machine, and no orphan", hint: "o365pw revoke " + asArgument(arg)}
		}
		if _, several := errors.AsType[*apppassword.SeveralError](err); several {
			err = &usageError{problem: err.Error(), hint: "name one by its id"}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		pick(e, false)
	}
	return out, errs
}

func pruneQuestion(found []prunable, n int) string {
	var b strings.Builder
	listed := 0
	for _, p := range found {
		if p.kept {
			continue
		}
		if listed++; listed > listedToAsk {
			fmt.Fprintf(&b, "  and %s more\n", thousands(n-listedToAsk))
			break
		}
		fmt.Fprintf(&b, "  %s  %s  %s\n", printable(nameOrID(p.Entry)), p.ID, p.why)
	}
	if n == 1 {
		return b.String() + "Remove this app password?"
	}
	return b.String() + fmt.Sprintf("Remove these %s app passwords?", thousands(n))
}

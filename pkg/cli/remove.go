package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
)

// remove revokes entries for revoke and prune, and notes it in the audit log. The
// errors are in the order of chosen. did is what the person is told while it
// goes on: revoked, removed.
func (a *app) remove(ctx context.Context, f *fleet, chosen []apppassword.Entry, did string) []error {
	errs := make([]error, len(chosen))
	index := map[string]int{}
	for i, e := range chosen {
		index[e.ID] = i
	}
	removed := 0
	tell := func() {
		if len(chosen) > 1 {
			a.progress.set("%s %s of %s", did, thousands(removed), thousands(len(chosen)))
		}
	}
	if len(chosen) == 1 {
		a.progress.set("revoking %s", nameOrID(chosen[0]))
	}
	tell()
	f.Revoke(ctx, chosen, func(outcomes []apppassword.Outcome) {
		var log []audit.Entry
		for _, o := range outcomes {
			errs[index[o.Entry.ID]] = o.Err
			if o.Err == nil {
				removed++
			}
			if _, half := errors.AsType[*apppassword.HalfRevokedError](o.Err); o.Err == nil || half {
				log = append(log, auditEntry(audit.Revoked, o.Entry.Record))
			}
		}
		a.audited(ctx, f.stateDir, log...)
		tell()
	})
	return errs
}

// outcome is how a result tells what remove has said of an entry.
func (a *app) outcome(err error, did string) (result, problem, hint string) {
	if err == nil {
		return did, "", ""
	}
	if _, left := errors.AsType[*apppassword.NotTriedError](err); left {
		return "failed", "not tried: interrupted", ""
	}
	return "failed", err.Error(), a.advise(err).hint
}

// removeFailures is the error of what remove could not do: of one failure its
// own, of several exit code 1, unless nothing at all was done and all have
// failed alike. What was not tried is one failure. others are those that came
// before it was tried.
func (a *app) removeFailures(ctx context.Context, chosen []apppassword.Entry, errs, others []error, did string) error {
	failed, removed, notTried := others, 0, 0
	for i, err := range errs {
		switch _, left := errors.AsType[*apppassword.NotTriedError](err); {
		case err == nil:
			removed++
		case left:
			notTried++
		default:
			failed = append(failed, fmt.Errorf("%s %s: %w", strings.TrimSuffix(did, "d"), nameOrID(chosen[i]), err))
		}
	}
	if notTried > 0 {
		failed = append(failed, fmt.Errorf("not tried, since interrupted: %d of %d: %w", notTried, len(chosen), ctx.Err()))
	}
	if ctx.Err() != nil && len(chosen) > 0 {
		a.warn("%s of %s were %s, %s not tried; the same command again goes on", thousands(removed), thousands(len(chosen)), did, thousands(notTried))
	}
	err := a.failures(failed, len(others)+len(chosen), did)
	if all, ok := errors.AsType[*failedError](err); ok && removed > 0 {
		all.code = 1
	}
	return err
}

// thousands writes a number with commas: 1,000.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

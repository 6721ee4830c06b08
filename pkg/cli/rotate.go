package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/config"
)

type rotateOptions struct {
	overlap string
	now     bool
	finish  bool
	expires string
}

func newRotate(a *app) *cobra.Command {
	var o rotateOptions
	cmd := &cobra.Command{
		Use:   "rotate NAME|ID",
		Short: "Give an app password a new password",
		Long: `Gives an app password a new password and, where it has one of its own, a new
client secret, and prints the new password once. Entra has to accept the new
secret first; until then nothing is changed. Name, mailboxes and limits stay. It
lives as long as the one before did, from now on.

The old password stays good beside it until the mail program has been seen with
the new one, over each protocol that it has used the old one for (many keep one
password for reading and one for sending), or until the overlap is over. Then
the running gateway shuts it out, closes its sessions, and removes its client
secret, if it has a sign-in to Graph that needs no person; else the next create,
revoke or rotate does that, or --finish.

There are never more than two. Rotated again before anybody has used the new
password, that one goes, and the old one stays.

On a terminal a card with the settings is printed; in a pipe the password alone.
Killed at any point, it can be run again.`,
		Example: `  o365pw rotate "Outlook on Mac"
  o365pw rotate Scanner --overlap 7d
  o365pw rotate backup --now --expires 90d
  o365pw rotate ci -o json | jq -r .password
  o365pw rotate Scanner --finish              end the overlap now`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || strings.TrimSpace(args[0]) == "" {
				return &usageError{problem: "which app password? give its name or id", hint: "o365pw list"}
			}
			return nil
		},
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			changed := cmd.Flags().Changed
			switch {
			case o.finish && (o.now || changed("overlap") || changed("expires")):
				return &usageError{problem: "--finish makes no new password, so no other flag has a meaning beside it", hint: "o365pw rotate NAME --finish"}
			case o.now && changed("overlap"):
				return &usageError{problem: "--now is no overlap at all, so --overlap has no meaning beside it", hint: "leave one of them out"}
			case changed("expires") && strings.TrimSpace(o.expires) == "":
				return &usageError{problem: "--expires is empty", hint: "leave --expires out to let it live as long as before"}
			case o.finish:
				return a.runFinish(cmd.Context(), args[0])
			}
			return a.runRotate(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.overlap, "overlap", "24h", "how long the old password stays good at most (24h, 7d)")
	f.BoolVar(&o.now, "now", false, "shut the old password out, and remove it, before this ends")
	f.BoolVar(&o.finish, "finish", false, "make nothing new: end the overlap of the last rotation now")
	f.StringVar(&o.expires, "expires", "", "life (180d, 12h) or last day (2027-05-01) (default: as long as before)")
	return cmd
}

// request reads the flags. All of it is refused before anybody is asked anything.
func (o rotateOptions) request(now time.Time) (req apppassword.RotateRequest, err error) {
	// 0 in whatever unit is --now.
	if d, zero := time.ParseDuration(strings.TrimSpace(o.overlap)); !o.now && (zero != nil || d != 0) {
		if req.Overlap, err = config.ParseDuration(o.overlap); err != nil {
			return req, &usageError{problem: "--overlap: " + err.Error(), hint: "o365pw rotate NAME --overlap 24h"}
		}
	}
	if o.expires != "" {
		if req.Expires, err = config.ParseExpiry(o.expires, now); err != nil {
			return req, &usageError{problem: "--expires: " + err.Error(), hint: "o365pw rotate NAME --expires 180d"}
		}
	}
	return req, nil
}

func (a *app) runRotate(ctx context.Context, arg string, o rotateOptions) error {
	req, err := o.request(a.Now())
	if err != nil {
		return err
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	if err := s.needState(); err != nil {
		return err
	}
	rotated, err := s.manager.Rotate(ctx, arg, req)
	if err != nil {
		return fmt.Errorf("rotate %s: %w", quote(strings.TrimSpace(arg)), err)
	}
	rec := rotated.Record
	a.audited(ctx, s.stateDir, auditEntry(audit.Rotated, rec))
	after := "The old password is shut out."
	if rec.Previous != nil && !rec.Previous.Over(a.Now()) {
		after = "The old password ends by itself. To end it now: " + finishCommand(rec.Name)
	}
	if err := a.printNew(ctx, s, rotated.Created, after, nil); err != nil {
		return &unprintedError{name: rec.Name, rotated: true, err: err}
	}
	return rotated.Left
}

func (a *app) runFinish(ctx context.Context, arg string) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	if err := s.needState(); err != nil {
		return err
	}
	e, was, err := s.manager.FinishRotation(ctx, arg)
	if err != nil {
		return fmt.Errorf("finish the rotation of %s: %w", quote(strings.TrimSpace(arg)), err)
	}
	v := withPassword{SchemaVersion: schemaVersion, AppPassword: toJSON(e), Servers: s.servers(ctx, e.Record)}
	return a.printAppPassword(v, false, func() error {
		if was {
			a.note("the old password of %q is shut out and removed", e.Name)
		} else {
			a.note("%q has one password only; there is nothing to end", e.Name)
		}
		return nil
	})
}

// endedEntry is an old password that was shut out.
func endedEntry(e apppassword.Ended) audit.Entry {
	entry := auditEntry(audit.Retired, e.Record)
	entry.ID, entry.Reason = e.Record.Previous.ID, e.Why
	return entry
}

// warnUnfinished names what is left of old passwords that are shut out.
func (a *app) warnUnfinished(entries []apppassword.Entry) {
	for _, e := range entries {
		if e.Unfinished(a.Now()) {
			a.warn("the old password of %q is over, but not removed yet: %s", e.Name, finishCommand(e.Name))
		}
	}
}

func finishCommand(name string) string { return "o365pw rotate " + asArgument(name) + " --finish" }

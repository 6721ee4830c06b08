package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
	"github.com/o365pw/o365pw/pkg/xoauth2"
)

// viaGraph is what a token is for besides the protocols.
const viaGraph = "graph"

type tokenOptions struct {
	use     string
	xoauth2 bool
	mailbox string
}

func newToken(a *app) *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use:   "token [NAME|ID]",
		Short: "Print an access token for a mail program that speaks OAuth 2.0",
		Long: `Prints an access token for Exchange, got by what stands behind the app password,
for mail programs that sign in by XOAUTH2 themselves and run a command for the
token. With --xoauth2 it is the whole response of that mechanism, in base64, for
those that send what they are given. With --for graph it is one for Microsoft
Graph. Without a name it is that of the profile's only app password that may be
used so.

A token opens more than an app password does: with backing secret or certificate
every mailbox that Exchange lets the application open, over every protocol, and
from anywhere, until it ends, whatever is revoked meanwhile; with backing user
whatever the person has consented to. So app passwords that are read-only or
limited in networks, senders or number of messages give none: use connect for
them, which holds them to that. Each token that is printed is in the audit log.

A token is cached until half an hour before its end: in the system's keychain;
with the encrypted file in the memory of Linux' kernel, encrypted, if the
passphrase need not be typed.

docs/helpers.md has the lines to write for mutt, curl, msmtp, offlineimap and
others.`,
		Example: `  o365pw token mutt
  o365pw token mutt --for smtp --xoauth2
  o365pw token --mailbox shared@contoso.com --xoauth2
  o365pw token mutt -o json

  set imap_oauth_refresh_command="o365pw token mutt --for imap"   in muttrc`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runToken(cmd.Context(), strings.Join(args, ""), len(args) > 0, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.use, "for", "", "what it is for: imap, pop3, smtp or graph (default: the first that the app password allows)")
	f.BoolVar(&o.xoauth2, "xoauth2", false, "print the response of SASL XOAUTH2, in base64")
	f.StringVar(&o.mailbox, "mailbox", "", "which of its mailboxes, where it has several")
	return cmd
}

// tokenJSON is a token in JSON, YAML and CSV.
type tokenJSON struct {
	SchemaVersion int       `json:"schemaVersion"`
	Token         string    `json:"token"` // with --xoauth2 the response with it
	Expires       time.Time `json:"expires"`
	Mailbox       string    `json:"mailbox"` // empty: it has several, and none was named
	For           string    `json:"for"`     // imap, pop3, smtp, graph
}

func (a *app) runToken(ctx context.Context, arg string, named bool, o tokenOptions) error {
	if o.use != "" && !slices.Contains([]string{"imap", "pop3", "smtp", viaGraph}, o.use) {
		return &usageError{problem: "--for " + quote(o.use) + " is none of imap, pop3, smtp, graph", hint: "o365pw token --for imap"}
	}
	if o.use == viaGraph && o.xoauth2 {
		return &usageError{problem: "--xoauth2 is for mail servers, and Graph takes the token as it is", hint: "leave one of them out"}
	}
	s, err := a.openLocal()
	if err != nil {
		return err
	}
	e, err := s.tokenHolder(arg, named, o)
	if err != nil {
		return err
	}
	use := o.use
	if use == "" {
		use = e.Allow[0]
	}
	mailbox, err := s.mailboxOf(e.Record, o.mailbox)
	if err != nil && (o.xoauth2 || o.mailbox != "") {
		return err
	}
	t, err := a.issueToken(ctx, s, e.Record, use)
	if err != nil {
		return fmt.Errorf("app password %q: %w", e.Name, err)
	}
	text := t.Access
	if o.xoauth2 {
		raw, err := xoauth2.InitialResponse(mailbox, t.Access)
		if err != nil {
			return err
		}
		text = secret.New(base64.StdEncoding.EncodeToString(raw))
	}
	entry := auditEntry(audit.TokenIssued, e.Record)
	entry.Protocol = use
	a.audited(ctx, s.stateDir, entry) // before: none is seen without a trace
	if a.stdoutTTY() {
		a.note("whoever has this token has the mailbox until %s", t.Expires.Local().Format("15:04"))
	}
	return a.printToken(e.Name, tokenJSON{schemaVersion, a.revealed(text), t.Expires.UTC().Truncate(time.Second), mailbox, use})
}

func (a *app) printToken(name string, v tokenJSON) error {
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		return a.printCSV([]string{"token", "expires", "mailbox", "for"}, [][]string{{v.Token, date(&v.Expires), v.Mailbox, v.For}})
	case outputName:
		return a.printf("%s\n", printable(name))
	case outputTable:
		return a.printf("  %-8s %s\n  %-8s %s\n  %-8s %s\n  %-8s %s\n", "For", v.For, "Mailbox", printable(v.Mailbox),
			"Expires", v.Expires.Local().Format("2 January 2006 15:04")+" ("+relative(v.Expires, a.Now())+")", "Token", v.Token)
	}
	return a.printf("%s\n", v.Token)
}

// tokenHolder is the app password that is named, or the only one that will do.
func (s *session) tokenHolder(arg string, named bool, o tokenOptions) (apppassword.Entry, error) {
	if named {
		e, err := s.findLocal(arg)
		if err == nil {
			err = mayHaveToken(e.Record, o.use)
		}
		return e, err
	}
	entries, err := s.manager.Local()
	if err != nil {
		return apppassword.Entry{}, err
	}
	var able []apppassword.Entry
	var names []string
	for _, e := range entries {
		if _, err := s.mailboxOf(e.Record, o.mailbox); o.mailbox != "" && err != nil {
			continue
		}
		if e.Status == apppassword.Active && mayHaveToken(e.Record, o.use) == nil {
			able, names = append(able, e), append(names, asArgument(e.Name))
		}
	}
	switch len(able) {
	case 0:
		return apppassword.Entry{}, &failedError{code: notFound, msg: "no app password of the profile " + quote(s.profile.Name) + " gives such a token",
			hint: "o365pw list --local; make one: o365pw create"}
	case 1:
		return able[0], nil
	}
	return apppassword.Entry{}, &usageError{problem: "several app passwords give such a token", hint: "name one: o365pw token " + strings.Join(names, ", or ")}
}

// mayHaveToken refuses what a token could not be held to.
func mayHaveToken(rec apppassword.Record, use string) error {
	right := use
	if use == viaGraph {
		right = "smtp"
	}
	var limits []string
	for _, l := range []struct {
		has  bool
		name string
	}{
		{rec.ReadOnly, "read-only"}, {len(rec.Networks) > 0, "limited to networks"}, {len(rec.From) > 0, "limited to senders"},
		{rec.MaxPerHour > 0, "limited in messages an hour"},
	} {
		if l.has {
			limits = append(limits, l.name)
		}
	}
	switch {
	case rec.Decoy:
		return &apppassword.RefusedError{Reason: apppassword.DecoyUsed, Record: rec}
	case right != "" && !slices.Contains(rec.Allow, right):
		return &apppassword.RefusedError{Reason: apppassword.ProtocolNotAllowed, Record: rec, Err: fmt.Errorf("%s is none of %s", right, strings.Join(rec.Allow, ", "))}
	case len(limits) > 0:
		return &usageError{
			problem: fmt.Sprintf("the app password %q is %s, and a token would open all of the mailbox", rec.Name, strings.Join(limits, " and ")),
			hint:    "o365pw connect " + rec.Allow[0] + " " + asArgument(rec.Name) + " holds it to that; so does the gateway",
		}
	}
	return nil
}

// issueToken gives a token of what stands behind the app password, from the cache
// where one is good.
func (a *app) issueToken(ctx context.Context, s *session, rec apppassword.Record, use string) (entra.Token, error) {
	cache := apppassword.TokenCache{Registry: s.manager.Registry, Now: a.Now, Caches: func(kind string) (secret.Cache, error) {
		k, err := s.manager.Keychains(kind)
		return secret.Cache{Keychain: k, Passphrase: func() (secret.Text, error) {
			p, _, err := a.givenPassphrase()
			return p, err
		}}, err
	}}
	graph := use == viaGraph
	t, cached, err := cache.Token(ctx, rec.ID, graph, func(ctx context.Context) (entra.Token, error) {
		a.progress.set("getting a token")
		g, err := a.withoutListeners(ctx, s, rec)
		if err != nil {
			return entra.Token{}, err
		}
		t, err := g.verifier.Issue(ctx, rec.ID, graph)
		if err == nil {
			g.noteToken(ctx, rec, use)
		}
		return t, err
	})
	a.logger().Debug("token", "app_password", rec.Name, "for", use, "cached", cached, "error", err)
	return t, err
}

// noteToken notes a use, once for each token that is got: what gives tokens is in
// use, and prune --unused must not take it.
func (g *gatewayRun) noteToken(ctx context.Context, rec apppassword.Record, use string) {
	if use == viaGraph {
		use = "smtp" // which it stands in for
	}
	usage := g.usageRecorder()
	usage.NoteLast(rec.ID, apppassword.LastUse{Time: g.a.Now(), Protocol: use})
	ended, end := context.WithCancel(ctx)
	end()
	usage.Run(ended) // writes once
}

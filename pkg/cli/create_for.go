package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/clientconfig"
)

// preset is the scope that create gives an app password for a client.
type preset struct {
	client   *clientconfig.Client // nil: it is for no client in particular
	readOnly bool                 // no flag says whether it may change anything
}

// apply sets what the flags have left open. A decoy only looks like another.
func (p preset) apply(req *apppassword.Request) {
	if p.client == nil {
		return
	}
	scope := p.client.Scope
	if req.Allow == nil && len(scope.Allow) > 0 {
		req.Allow = slices.Clone(scope.Allow)
	}
	if req.Decoy {
		return
	}
	req.ReadOnly = req.ReadOnly || p.readOnly && scope.ReadOnly
}

// finish refuses what the client cannot work with, once it is known what is
// allowed, and limits what it sends.
func (p preset) finish(req *apppassword.Request) error {
	if p.client == nil {
		return nil
	}
	missing := p.client.Missing(func(protocol string) bool { return slices.Contains(req.Allow, protocol) })
	if len(missing) > 0 {
		return &usageError{problem: fmt.Sprintf("%s needs %s, and the app password would be for %s alone", p.client.Title, strings.Join(missing, " or "), strings.Join(req.Allow, ",")),
			hint: "--allow " + strings.Join(append(slices.Clone(req.Allow), missing[0]), ",") + "; or leave --for out"}
	}
	if p.client.Scope.OwnSender && len(req.From) == 0 && !req.Decoy && slices.Contains(req.Allow, "smtp") {
		req.From = slices.Clone(req.Mailboxes)
	}
	return nil
}

// printNew prints a new password, and the settings of the client that it is for.
// after ends its card.
func (a *app) printNew(ctx context.Context, s *session, created apppassword.Created, after string, client *clientconfig.Client) error {
	e := apppassword.Entry{Record: created.Record, Status: apppassword.Active}
	v := withPassword{SchemaVersion: schemaVersion, AppPassword: toJSON(e), Password: a.revealed(created.Password), Servers: s.servers(ctx, created.Record)}
	if len(v.Servers) == 0 {
		for _, p := range created.Record.Allow {
			a.warn("%s", notListening(p))
		}
	}
	command := ""
	people := a.output == outputTable || a.output == outputAuto && a.stdoutTTY()
	if client != nil {
		command = "o365pw settings " + asArgument(created.Record.Name) + " --for " + client.Name
		if people || a.output == outputJSON || a.output == outputYAML {
			var err error
			if v.Settings, err = a.settingsFor(ctx, s, created.Record, *client, ""); err != nil {
				a.warn("the app password is made; its settings for %s are not: %v", client.Title, err)
				a.note("the settings, once that is mended: %s", command)
			}
		}
	}
	err := a.printAppPassword(v, true, func() error { return a.printCard(e, v.Servers, apppassword.Grouped(created.Password), after) })
	switch {
	case err != nil || client == nil || people && v.Settings == nil:
		return err
	case people:
		if err := a.printf("\n"); err != nil {
			return err
		}
		err = a.printForProgram(*v.Settings)
		a.note("the settings again: %s", command)
		return err
	case v.Settings == nil:
		a.note("its settings: %s", command)
	}
	return nil
}

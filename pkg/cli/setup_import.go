package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/o365pw/o365pw/pkg/config"
)

// takeImport reads the file of --import, shows what is in it, and picks an
// account.
func (w *setup) takeImport(ctx context.Context, asked bool) error {
	if w.o.importFile == "" {
		return nil
	}
	all, err := config.Import(w.o.importFile)
	if err != nil {
		return err
	}
	var fit []config.Imported
	for _, i := range all {
		if i.Skipped != "" {
			w.note("left out: %s: %s", cmp.Or(i.Mailbox, "an account without an address"), i.Skipped)
			continue
		}
		fit = append(fit, i)
		w.note("found: %s (%s)", cmp.Or(i.Mailbox, i.Name), strings.Join(importedFacts(i), ", "))
		for _, n := range i.Notes {
			w.note("  %s", n)
		}
	}
	if len(fit) == 0 {
		return &usageError{problem: "there is no account in " + w.o.importFile + " that a profile could be made of", hint: "o365pw setup --mailbox alice@contoso.com"}
	}
	i, picked := 0, len(fit) == 1 && len(w.o.mailboxes) == 0
	if len(w.o.mailboxes) > 0 {
		i = slices.IndexFunc(fit, func(f config.Imported) bool { return strings.EqualFold(f.Mailbox, w.o.mailboxes[0]) })
		if picked = i >= 0; !picked {
			// One account without an address is whoever's it is said to be.
			if i = slices.IndexFunc(fit, func(f config.Imported) bool { return f.Mailbox == "" }); i < 0 {
				return &usageError{problem: w.o.mailboxes[0] + " is not among the accounts of " + w.o.importFile, hint: "--mailbox " + fit[0].Mailbox}
			}
			picked = true
		}
	}
	if !picked && !asked {
		return &usageError{problem: "there are several accounts in " + w.o.importFile, hint: "choose one: --mailbox " + fit[0].Mailbox}
	}
	if !picked {
		for n, f := range fit {
			fmt.Fprintf(w.Stderr, "  %d  %s\n", n+1, printable(cmp.Or(f.Mailbox, f.Name)))
		}
		err := w.ask(ctx, question{text: "Which account?", standard: "1", flag: "--mailbox", take: func(answer string) error {
			if n, err := strconv.Atoi(answer); err == nil && n >= 1 && n <= len(fit) {
				i = n - 1
				return nil
			}
			if i = slices.IndexFunc(fit, func(f config.Imported) bool { return strings.EqualFold(f.Mailbox, answer) }); i < 0 {
				return fmt.Errorf("%q is none of them: give a number from 1 to %d, or the address", answer, len(fit))
			}
			return nil
		}})
		if err != nil {
			return err
		}
	}
	w.imported = fit[i]
	if listens := importedListens(w.imported); listens != "" {
		w.note("it listens at %s; with these under [gateway] of the configuration, mail programs need a new password only", listens)
	}
	return nil
}

func importedFacts(i config.Imported) []string {
	facts := []string{"backing " + i.Backing, "allow " + strings.Join(i.Allow, ",")}
	if i.Tenant != "" {
		facts = append(facts, "tenant "+i.Tenant)
	}
	if i.ClientID != "" {
		facts = append(facts, "client id "+i.ClientID)
	}
	if i.Cloud != config.DefaultCloud {
		facts = append(facts, "cloud "+i.Cloud)
	}
	return facts
}

func importedListens(i config.Imported) string {
	var all []string
	for _, l := range []struct{ protocol, addr string }{{"imap", i.IMAP}, {"pop3", i.POP3}, {"smtp", i.SMTP}} {
		if l.addr != "" {
			all = append(all, l.protocol+" = "+quote(l.addr))
		}
	}
	return strings.Join(all, ", ")
}

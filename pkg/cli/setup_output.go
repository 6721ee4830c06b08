package cli

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// setupJSON is what setup prints with --output.
type setupJSON struct {
	SchemaVersion      int               `json:"schemaVersion"`
	DryRun             bool              `json:"dryRun"`
	Changed            bool              `json:"changed"` // by this run; with dryRun: something would be
	Profile            string            `json:"profile"`
	Config             string            `json:"config"` // path of the configuration
	Tenant             string            `json:"tenant"`
	Cloud              string            `json:"cloud"`
	ClientID           string            `json:"clientId"` // empty: the application is not there yet
	Mailboxes          []string          `json:"mailboxes"`
	Allow              []string          `json:"allow"`
	Backing            string            `json:"backing"`
	SignedInAs         string            `json:"signedInAs"`
	Application        *setupApplication `json:"application"`
	ServicePrincipalID string            `json:"servicePrincipalId"`
	Roles              []string          `json:"roles"`
	Certificate        *setupCertificate `json:"certificate"`
	Steps              []*setupStep      `json:"steps"`
	PowerShell         []string          `json:"powershell"`
	Ready              *bool             `json:"ready"` // whether Exchange opens the mailboxes; null: not tried
}

type setupApplication struct {
	ClientID    string `json:"clientId"`
	ObjectID    string `json:"objectId"`
	UniqueName  string `json:"uniqueName"`
	DisplayName string `json:"displayName"`
}

type setupCertificate struct {
	Thumbprint string     `json:"thumbprint"` // SHA-256
	Expires    *time.Time `json:"expires"`
}

// structuredOutput tells that the data is one object, not lines to run.
func (w *setup) structuredOutput() bool { return w.output != outputAuto && w.output != outputTable }

func (w *setup) result() setupJSON {
	p := w.profile
	v := setupJSON{
		SchemaVersion: schemaVersion, DryRun: w.o.dryRun, Changed: w.changes(), Profile: p.Name, Config: w.path, Tenant: p.Tenant, Cloud: p.CloudName,
		ClientID: p.ClientID, Mailboxes: orEmpty(w.mailboxes), Allow: orEmpty(p.Allow), Backing: p.Backing, SignedInAs: w.person,
		ServicePrincipalID: w.principal.ID, Roles: orEmpty(w.roles), Steps: w.steps, PowerShell: orEmpty(w.powershell()), Ready: w.ready,
	}
	if app := w.application; app.AppID != "" {
		v.Application = &setupApplication{app.AppID, app.ID, app.Registration.UniqueName, app.DisplayName}
	}
	if !w.certificate.IsZero() {
		v.Certificate = &setupCertificate{w.certificate.Thumbprint(), utc(w.certificate.NotAfter())}
	}
	return v
}

func (w *setup) printResult() error {
	v := w.result()
	switch w.output {
	case outputYAML:
		return w.printYAML(v)
	case outputName:
		return w.printf("%s\n", printable(v.Profile))
	case outputCSV:
		var objectID, uniqueName, thumbprint, ready string
		if v.Application != nil {
			objectID, uniqueName = v.Application.ObjectID, v.Application.UniqueName
		}
		if v.Certificate != nil {
			thumbprint = v.Certificate.Thumbprint
		}
		if v.Ready != nil {
			ready = strconv.FormatBool(*v.Ready)
		}
		return w.printCSV(
			[]string{"profile", "tenant", "cloud", "clientId", "objectId", "uniqueName", "servicePrincipalId", "mailboxes", "allow", "backing", "roles", "thumbprint", "config", "changed", "ready"},
			[][]string{{v.Profile, v.Tenant, v.Cloud, v.ClientID, objectID, uniqueName, v.ServicePrincipalID, strings.Join(v.Mailboxes, " "), strings.Join(v.Allow, " "),
				v.Backing, strings.Join(v.Roles, " "), thumbprint, v.Config, strconv.FormatBool(v.Changed), ready}})
	}
	return w.printJSON(v)
}

// printDryRun prints the plan as data.
func (w *setup) printDryRun() error {
	if w.structuredOutput() {
		return w.printResult()
	}
	return w.print([]byte(strings.Join(w.planLines(), "\n") + "\n"))
}

// showPlan tells what is about to be done.
func (w *setup) showPlan() {
	if !w.o.yes || !w.structured() && !w.quiet {
		w.progress.stop()
		fmt.Fprintln(w.Stderr, strings.Join(w.planLines(), "\n"))
	}
}

// planLines are the steps with their numbers, and what a person should know
// before saying yes.
func (w *setup) planLines() []string {
	p := w.profile
	whose := cmp.Or(strings.Join(w.mailboxes, ", "), "the mailbox of whoever signs in")
	lines := []string{fmt.Sprintf("%s: tenant %s, cloud %s, profile %s", whose, p.Tenant, p.CloudName, p.Name)}
	switch {
	case w.signer != nil && w.signer.env:
		lines = append(lines, "Signed in by the environment: "+w.person)
	case w.person != "":
		lines = append(lines, "Signed in as "+w.person+w.signedInWith())
	}
	for i, st := range w.steps {
		text := st.Text
		if st.Change == changeNone {
			text += ": nothing to do"
		}
		lines = append(lines, fmt.Sprintf("  %d. %s", i+1, text))
		if st.Name == "profile" {
			for _, l := range w.diff {
				lines = append(lines, "       "+l)
			}
		}
	}
	if !w.justMe {
		lines = append(lines, fmt.Sprintf("  %d. print the lines that an administrator of Exchange runs in PowerShell: Graph has no call for that", len(w.steps)+1),
			"Whoever holds a secret of this application opens every mailbox that Exchange opens for it: one mailbox, or a small group, for each application.")
	}
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return lines
}

// signedInWith names a client that is not the organisation's own, and why it is
// used.
func (w *setup) signedInWith() string {
	if w.signer == nil || w.signer.env || w.signer.held.AzureCLI || w.signer.held.ClientID != graphTools {
		return ""
	}
	return ` with "Microsoft Graph Command Line Tools", Microsoft's own client, since there is no application yet to sign in with; it goes into login_client_id, where one of your own may take its place`
}

// tick tells that a step is done.
func (w *setup) tick(what string) {
	if w.quiet || w.structured() {
		return
	}
	w.progress.stop()
	fmt.Fprintf(w.Stderr, "  ✓ %s\n", printable(what))
}

// block tells something of several lines, which under -o json goes with the
// error.
func (w *setup) block(lines []string) {
	if w.structured() {
		w.warn("%s", strings.Join(lines, "\n"))
		return
	}
	w.progress.stop()
	for _, l := range lines {
		fmt.Fprintln(w.Stderr, printable(l))
	}
}

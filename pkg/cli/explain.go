package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/explain"
)

func newExplain(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "explain [CODE|TEXT|-]",
		Short: "Say what an error means, whose move it is, and what mends it",
		Long: `Explains AADSTS numbers, error codes of Microsoft Graph, replies of Exchange,
what the gateway tells a mail program, and exit codes of o365pw. A whole message
may be pasted: JSON, a line of a log or of a mail protocol, the address that a
sign-in ended at. Without an argument, or with -, the text is read from standard
input. A text that begins with a dash goes behind --.

It asks nobody, and works without a configuration. Where there is a profile, its
client id, tenant and mailbox are put into the commands. The text itself is not
printed again; leave passwords and tokens out of it all the same.`,
		Example: `  o365pw explain AADSTS7000215
  o365pw explain Authorization_RequestDenied
  o365pw explain "NO AUTHENTICATE failed."
  o365pw explain 535 5.7.139 SmtpClientAuthentication is disabled for the Tenant
  o365pw explain -- "-ERR [SYS/PERM] the app password is right, but …"
  o365pw explain exit 5
  journalctl -u o365pw -n 20 | o365pw explain
  o365pw explain 53003 -o json`,
		ValidArgsFunction: completeExplained,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runExplain(cmd.Context(), args) },
	}
}

func completeExplained(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, x := range explain.All() {
		if strings.HasPrefix(strings.ToLower(x.Code), strings.ToLower(toComplete)) {
			out = append(out, cobra.CompletionWithDesc(x.Code, cmp.Or(x.Title, x.Cause)))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// explanationJSON is an explanation in JSON and YAML.
type explanationJSON struct {
	Code         string            `json:"code"`
	Kind         string            `json:"kind"` // entra, graph, exchange, gateway, exit
	Title        string            `json:"title"`
	Remedies     []remedyJSON      `json:"remedies"` // the likeliest first
	Source       string            `json:"source"`
	Confirmed    bool              `json:"confirmed"` // the source says so; otherwise it was seen
	Placeholders []placeholderJSON `json:"placeholders"`
}

type remedyJSON struct {
	Cause string `json:"cause"`
	Fix   string `json:"fix"`
	Mover string `json:"mover"` // you, administrator, Microsoft, o365pw, nobody
}

type placeholderJSON struct {
	Name  string `json:"name"`
	Where string `json:"where"`
}

func explanationToJSON(x explain.Explanation) explanationJSON {
	v := explanationJSON{Code: x.Code, Kind: string(x.Kind), Title: x.Title, Source: x.Source, Confirmed: x.Confirmed, Placeholders: []placeholderJSON{}}
	for _, r := range x.Remedies() {
		v.Remedies = append(v.Remedies, remedyJSON(r))
	}
	for _, p := range x.Placeholders() {
		v.Placeholders = append(v.Placeholders, placeholderJSON(p))
	}
	return v
}

func (a *app) runExplain(ctx context.Context, args []string) error {
	text, err := a.textToExplain(ctx, args)
	if err != nil {
		return err
	}
	found := explain.Find(text)
	unknown := explain.Unknown(text)
	if len(found) == 0 {
		return &failedError{code: notFound, msg: "nothing in this text is known here", hint: unknownHint(unknown)}
	}
	for _, n := range unknown {
		a.note("AADSTS%d is not known here; Microsoft's page on it: %s", n, errorPage(n))
	}
	values := a.profileValues()
	for i := range found {
		found[i] = found[i].Fill(values)
	}
	return a.printExplanations(found)
}

// textToExplain is the arguments, or else what standard input has.
func (a *app) textToExplain(ctx context.Context, args []string) (string, error) {
	text := strings.Join(args, " ")
	if len(args) == 0 || len(args) == 1 && args[0] == "-" {
		if len(args) == 0 && isTerminal(a.Stdin) {
			return "", nothingToExplain()
		}
		b, err := readAll(ctx, io.LimitReader(a.Stdin, explain.MaxText+1))
		if err != nil {
			return "", fmt.Errorf("read the text: %w", err)
		}
		if len(b) > explain.MaxText {
			a.warn("the text is longer than 1 MiB; only its beginning is looked at")
		}
		text = string(b)
	}
	if strings.TrimSpace(text) == "" {
		return "", nothingToExplain()
	}
	return text, nil
}

func nothingToExplain() error {
	return &usageError{problem: "there is nothing to explain", hint: "o365pw explain AADSTS50011; or paste a message: o365pw explain -"}
}

// readAll reads until the end, or until ctx ends. The reading goroutine then
// outlives it, as that of [readLine].
func readAll(ctx context.Context, r io.Reader) ([]byte, error) {
	type answer struct {
		b   []byte
		err error
	}
	c := make(chan answer, 1)
	go func() {
		b, err := io.ReadAll(r)
		c <- answer{b, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case got := <-c:
		return got.b, got.err
	}
}

func errorPage(n int) string {
	return "https://login.microsoftonline.com/error?code=" + strconv.Itoa(n)
}

// unknownHint is where to go on with a text in which nothing is known.
func unknownHint(numbers []int) string {
	if len(numbers) > 0 {
		return fmt.Sprintf("Microsoft's page on AADSTS%d: %s", numbers[0], errorPage(numbers[0]))
	}
	return "it takes AADSTS numbers, codes of Graph, replies of Exchange and of the gateway, and exit codes of o365pw: paste the whole message, or see: o365pw explain --help"
}

func (a *app) printExplanations(list []explain.Explanation) error {
	switch a.output {
	case outputJSON, outputYAML:
		v := struct {
			SchemaVersion int               `json:"schemaVersion"`
			Explanations  []explanationJSON `json:"explanations"`
		}{SchemaVersion: schemaVersion}
		for _, x := range list {
			v.Explanations = append(v.Explanations, explanationToJSON(x))
		}
		if a.output == outputYAML {
			return a.printYAML(v)
		}
		return a.printJSON(v)
	case outputCSV:
		var rows [][]string
		for _, x := range list {
			for i, r := range x.Remedies() {
				rows = append(rows, []string{x.Code, string(x.Kind), x.Title, strconv.Itoa(i + 1), r.Cause, r.Fix, r.Mover, x.Source, strconv.FormatBool(x.Confirmed)})
			}
		}
		return a.printCSV([]string{"code", "kind", "title", "order", "cause", "fix", "mover", "source", "confirmed"}, rows)
	case outputName:
		var b strings.Builder
		for _, x := range list {
			b.WriteString(x.Code + "\n")
		}
		return a.print([]byte(b.String()))
	}
	var parts []string
	for _, x := range list {
		parts = append(parts, a.explanationText(x))
	}
	return a.print([]byte(strings.Join(parts, "\n")))
}

var kindNames = map[explain.Kind]string{
	explain.OfEntra: "Entra", explain.OfGraph: "Microsoft Graph", explain.OfExchange: "Exchange", explain.OfGateway: "the gateway", explain.OfExit: "o365pw",
}

// explanationText is an explanation for a person. Lines are not broken: what
// is to be pasted stays whole.
func (a *app) explanationText(x explain.Explanation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)", a.paint(bold, x.Code), kindNames[x.Kind])
	if x.Title != "" {
		b.WriteString(": " + x.Title)
	}
	b.WriteString("\n")
	remedies := x.Remedies()
	if len(remedies) > 1 {
		b.WriteString("  What it can be, in the order to look:\n")
	}
	for i, r := range remedies {
		mark := "  "
		if len(remedies) > 1 {
			mark = fmt.Sprintf("  %d. ", i+1)
		}
		indent := strings.Repeat(" ", len(mark))
		fmt.Fprintf(&b, "%s%s\n%swhose move  %s\n%swhat to do  %s\n", mark, r.Cause, indent, whoseMove(r.Mover), indent, printable(r.Fix))
	}
	if open := x.Placeholders(); len(open) > 0 {
		b.WriteString("  To be filled in:\n")
		for _, p := range open {
			fmt.Fprintf(&b, "    %-13s  %s\n", p.Name, p.Where)
		}
	}
	switch {
	case x.Source == "" && x.Kind == explain.OfExchange:
		b.WriteString("  Not documented by Microsoft: this is what others have seen.\n")
	case x.Source != "" && !x.Confirmed && x.Kind != explain.OfGateway:
		fmt.Fprintf(&b, "  See %s\n  It does not say all of this: some is what others have seen.\n", x.Source)
	case x.Source != "":
		fmt.Fprintf(&b, "  See %s\n", x.Source)
	}
	return b.String()
}

func whoseMove(mover string) string {
	switch mover {
	case explain.You:
		return "yours"
	case explain.Administrator:
		return "an administrator's"
	case explain.Nobody:
		return "nobody's: it passes, or nothing is wrong"
	case explain.Ourselves:
		return "o365pw's, if the configuration is right"
	}
	return mover + "'s"
}

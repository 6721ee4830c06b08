package cli

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/sandbox"
)

// flagValue is what help calls a flag's value, and what a shell offers for it.
type flagValue struct {
	name     string
	complete cobra.CompletionFunc
}

// flagValues are the flags with a value, of all commands: a name means the same
// everywhere, but where "COMMAND FLAG" has an entry of its own. What a command
// registers for itself comes before it. completeNothing stands for free text.
func (a *app) flagValues() map[string]flagValue {
	signIns := oneOf(choice(string(forGraph), "managing app passwords"), choice(string(forMail), "opening your own mailbox"))
	protocols := listOf(choice("imap", "read and file mail"), choice("pop3", "fetch mail"), choice("smtp", "send mail"))
	address := func(normal string) flagValue {
		return flagValue{"host:port", oneOf(choice(normal, "the default"), choice("off", "not spoken"))}
	}
	free := flagValue{"host:port", completeNothing}
	gw := config.DefaultGateway()
	return map[string]flagValue{
		"allow":        {"protocols", protocols},
		"app":          {"name", completeNothing},
		"app-password": {"name", a.completeNames},
		"backing": {"kind", oneOf(
			choice(apppassword.BackingSecret, "an Entra client secret of its own"),
			choice(apppassword.BackingUser, "a person's sign-in"),
			choice(apppassword.BackingCertificate, "the application's certificate"))},
		"clear-after":     {"time", oneOf(choice("45s", "the default"), choice("2m", "two minutes"), choice("0", "never"))},
		"client-id":       {"guid", a.completeOfProfiles(func(p config.Profile) string { return p.ClientID })},
		"cloud":           {"name", a.completeClouds},
		"config":          {"file", completeFiles},
		"dns":             {"domain", completeNothing},
		"dir":             {"folder", completeFolders},
		"event":           {"events", listOf(eventNames()...)},
		"expires":         {"when", a.completeTime(1, "30d", "90d", "180d", "1y")},
		"expiring":        {"time", a.completeTime(1, "7d", "14d", "30d", "90d")},
		"fault":           {"name=value", completeFaults},
		"file":            {"file", completeFiles},
		"for":             {"what", signIns},
		"format":          {"form", oneOf(exportFormats...)},
		"from":            {"address", a.completeSenders},
		"head":            {"hash", completeNothing},
		"identity":        {"file", completeFiles},
		"import":          {"file", completeFiles},
		"lines":           {"number", completeNothing},
		"log":             {"format", oneOf(logFormats...)},
		"jq":              {"expression", completeNothing},
		"login-client-id": {"guid", a.completeOfProfiles(func(p config.Profile) string { return p.LoginClientID })},
		"login-name":      {"name", completeNothing},
		"mailbox":         {"address", a.completeMailboxes},
		"max-per-hour":    {"number", completeNothing},
		"name":            {"name", completeNothing},
		"network": {"network", oneOf(
			choice("127.0.0.1/32", "this machine alone"), choice("192.168.0.0/16", "private networks"),
			choice("10.0.0.0/8", "private networks"), choice("172.16.0.0/12", "private networks"))},
		"output": {"format", oneOf(
			choice(string(outputTable), "for people"), choice(string(outputJSON), "one object"), choice(string(outputYAML), "the same object"),
			choice(string(outputCSV), "comma-separated, with a header"), choice(string(outputName), "names alone"))},
		"overlap":         {"time", a.completeTime(1, "1h", "24h", "7d")},
		"passphrase-file": {"file", completeFiles},
		"profile":         {"name", a.completeProfiles},
		"program":         {"file", completeFiles},
		"report":          {"file", completeFiles},
		"send": {"way", oneOf(
			choice("auto", "SMTP, and Graph where that is switched off"), choice("smtp", "SMTP alone"), choice("graph", "Microsoft Graph"))},
		"since":    {"time", a.completeTime(-1, "1h", "24h", "7d", "30d")},
		"sort":     {"column", oneOf(sortKeys...)},
		"store":    {"places", listOf(storeKinds...)},
		"template": {"template", completeNothing},
		"tenant":   {"tenant", a.completeOfProfiles(func(p config.Profile) string { return p.Tenant })},
		"to":       {"recipient", completeNothing},
		"to-file":  {"file", completeFiles},
		"unused":   {"time", a.completeTime(-1, "30d", "90d", "180d")},
		"wait":     {"time", a.completeTime(1, "10m", "30m", "1h", "2h")},

		"revoke name":  {"name", a.completeNames},
		"create for":   {"client", completeClients},
		"settings for": {"client", completeClients},
		"token for":    {"what", oneOf(choice("imap", "to read and file mail"), choice("pop3", "to fetch mail"), choice("smtp", "to send mail"), choice("graph", "to send by Graph"))},

		"serve imap": address(gw.IMAP), "serve pop3": address(gw.POP3), "serve smtp": address(gw.SMTP),
		"sandbox authority": free, "sandbox graph": free, "sandbox imap": free, "sandbox pop3": free, "sandbox smtp": free,
	}
}

// completeFlags gives the flags of a command and of those below it what
// flagValues has for them. A test finds those that are missing there.
func completeFlags(cmd *cobra.Command, values map[string]flagValue) {
	give := func(f *pflag.Flag) {
		v, ok := values[cmd.Name()+" "+f.Name]
		if !ok {
			v, ok = values[f.Name]
		}
		if !ok || f.Value.Type() == "bool" {
			return
		}
		if _, own := cmd.GetFlagCompletionFunc(f.Name); !own {
			_ = cmd.RegisterFlagCompletionFunc(f.Name, v.complete)
		}
		if s, several := f.Value.(pflag.SliceValue); several {
			f.Value = namedList{named{f.Value, v.name}, s}
			f.DefValue = strings.Trim(f.DefValue, "[]") // pflag knows no empty list of another type
		} else {
			f.Value = named{f.Value, v.name}
		}
	}
	cmd.PersistentFlags().VisitAll(give)
	cmd.LocalNonPersistentFlags().VisitAll(give)
	for _, sub := range cmd.Commands() {
		completeFlags(sub, values)
	}
}

// named is a flag's value under the name that help gives it, where pflag would
// show a type of Go's.
type named struct {
	pflag.Value
	name string
}

// Type implements [pflag.Value].
func (n named) Type() string { return n.name }

// namedList is named for a flag that takes several.
type namedList struct {
	named
	pflag.SliceValue
}

// completeFaults offers the sandbox's faults.
func completeFaults(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	b, err := json.Marshal(sandbox.Faults{})
	faults := map[string]any{}
	if err != nil || json.Unmarshal(b, &faults) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		if _, yes := faults[name].(bool); yes {
			out = append(out, name+"=true")
		} else {
			out = append(out, name+"=")
		}
	}
	return begin(out, typed), noFiles | cobra.ShellCompDirectiveNoSpace
}

package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/config"
)

func newConfigShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show the configuration as it takes effect",
		Long: `Shows each setting as it takes effect, and where it is from: a line of the file,
a variable of the environment, a built-in cloud, or the default. With --profile
that profile and what it uses; without, all. The commands of hooks are not
shown, since people put passwords into commands; nothing else in a configuration
is secret.

On a terminal a table; in a pipe one line each, tab-separated, with a header.
-o name prints the names of the profiles.`,
		Example: `  o365pw config show
  o365pw config show --profile work
  o365pw config show -o json | jq '.settings[] | select(.from == "environment")'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runConfigShow() },
	}
}

// configShowJSON is what config show prints with --output.
type configShowJSON struct {
	SchemaVersion int             `json:"schemaVersion"`
	Path          string          `json:"path"`  // of the file; empty: there is none
	State         string          `json:"state"` // the state folder; empty: there is none
	Profile       string          `json:"profile"`
	Profiles      []string        `json:"profiles"`
	Settings      []configSetting `json:"settings"`
}

// configSetting is one key with its value.
type configSetting struct {
	Key      string `json:"key"`      // as in the file: profiles.work.tenant
	Value    any    `json:"value"`    // a string, or a list of strings
	From     string `json:"from"`     // file, environment, built-in, default
	Line     int    `json:"line"`     // in the file; 0: it is not there
	Variable string `json:"variable"` // of the environment; may be empty
}

// notShown stands for a command.
const notShown = "(a command, not shown)"

func (a *app) runConfigShow() error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	v := configShowJSON{SchemaVersion: schemaVersion}
	if v.State, err = config.StateDir(a.Getenv); err != nil && a.Getenv("O365PW_STATE") != "" {
		return err
	}
	effective, err := config.Resolve(cfg, a.profile, a.Getenv)
	if err == nil {
		v.Profile = effective.Name
	} else if cfg == nil || a.profile != "" {
		return err
	}
	profiles := []config.Profile{effective}
	if cfg == nil {
		cfg = &config.Config{Gateway: config.DefaultGateway()}
	} else if v.Path = cfg.Path; a.profile == "" {
		profiles = nil
		for _, name := range slices.Sorted(maps.Keys(cfg.Profiles)) {
			p, err := config.Resolve(cfg, name, a.Getenv)
			if err != nil {
				return err
			}
			profiles = append(profiles, p)
		}
		if len(profiles) == 0 && v.Profile != "" {
			profiles = append(profiles, effective) // the environment's
		}
	}
	s := settings{cfg: cfg, getenv: a.Getenv}
	s.add("", cfg.DefaultProfile, "default_profile")
	clouds := map[string]config.Cloud{}
	if a.profile == "" {
		maps.Copy(clouds, cfg.Clouds)
	}
	for _, p := range profiles {
		v.Profiles = append(v.Profiles, p.Name)
		s.profile(p)
		clouds[p.Cloud.Name] = p.Cloud
	}
	for _, name := range slices.Sorted(maps.Keys(clouds)) {
		s.cloud(clouds[name])
	}
	s.gateway(cfg.Gateway)
	s.hooks(cfg.Hooks)
	v.Settings = s.list
	return a.printConfigShow(v)
}

// settings collects what takes effect, in the order in which it is documented.
type settings struct {
	cfg    *config.Config
	getenv func(string) string
	list   []configSetting
}

// add notes a setting, unless it is empty and nobody has said so. A variable
// that is set has won.
func (s *settings) add(variable string, value any, key ...string) {
	c := configSetting{Key: strings.Join(key, "."), Value: value, From: "default"}
	switch {
	case variable != "" && s.getenv(variable) != "":
		c.From, c.Variable = "environment", variable
	case s.cfg.Written(key...):
		c.From, c.Line = "file", s.cfg.Line(key...)
	case value == "":
		return
	}
	s.list = append(s.list, c)
}

func (s *settings) profile(p config.Profile) {
	for _, k := range []struct {
		key, variable string
		value         any
	}{
		{"tenant", "O365PW_TENANT", p.Tenant}, {"client_id", "O365PW_CLIENT_ID", p.ClientID}, {"login_client_id", "", p.LoginClientID},
		{"mailbox", "", p.Mailbox}, {"backing", "", p.Backing}, {"certificate", "", p.Certificate}, {"assertion_algorithm", "", p.AssertionAlgorithm},
		{"allow", "", p.Allow}, {"expires", "", p.Expires}, {"cloud", "", p.CloudName}, {"keychain", "O365PW_KEYCHAIN", p.Keychain},
		{"send", "", p.Send},
	} {
		s.add(k.variable, k.value, "profiles", p.Name, k.key)
	}
}

func (s *settings) cloud(c config.Cloud) {
	first := len(s.list)
	for _, k := range []struct{ key, value string }{
		{"authority", c.Authority}, {"graph", c.Graph}, {"imap", c.IMAP.URL("imap")}, {"pop3", c.POP3.URL("pop3")}, {"smtp", c.SMTP.URL("smtp")},
		{"exchange_resource", c.ExchangeResource}, {"ca_file", c.CAFile},
	} {
		s.add("", k.value, "clouds", c.Name, k.key)
	}
	if _, ok := config.BuiltinCloud(c.Name); ok {
		for i := range s.list[first:] {
			s.list[first+i].From = "built-in"
		}
	}
}

func (s *settings) gateway(g config.Gateway) {
	revalidate := fmt.Sprintf("%ds", g.Revalidate/time.Second)
	for _, k := range []struct{ key, value string }{
		{"imap", g.IMAP}, {"pop3", g.POP3}, {"smtp", g.SMTP}, {"metrics", g.Metrics}, {"autoconfig", g.Autoconfig}, {"tls_cert", g.TLSCert}, {"tls_key", g.TLSKey}, {"revalidate", revalidate},
	} {
		s.add("", k.value, "gateway", k.key)
	}
	if len(g.AutoconfigDomains) > 0 {
		s.add("", g.AutoconfigDomains, "gateway", "autoconfig_domains")
	}
	for _, p := range slices.Sorted(maps.Keys(g.Legacy)) {
		s.add("", g.Legacy[p], "gateway", "legacy", p)
	}
}

func (s *settings) hooks(h config.Hooks) {
	for _, k := range []struct{ key, command string }{
		{"on_expiring", h.OnExpiring}, {"on_sign_in_required", h.OnSignInRequired}, {"on_refused", h.OnRefused}, {"on_decoy", h.OnDecoy},
	} {
		if k.command != "" {
			s.add("", notShown, "hooks", k.key)
		}
	}
}

// text is the value in one line.
func (c configSetting) text() string {
	if list, ok := c.Value.([]string); ok {
		return strings.Join(list, " ")
	}
	return fmt.Sprint(c.Value)
}

// from says for people where the value is from.
func (c configSetting) from() string {
	switch {
	case c.Variable != "":
		return c.Variable
	case c.Line > 0:
		return fmt.Sprintf("%s, line %d", c.From, c.Line)
	}
	return c.From
}

func (a *app) printConfigShow(v configShowJSON) error {
	v.Profiles, v.Settings = orEmpty(v.Profiles), orEmpty(v.Settings)
	var rows [][]string
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		for _, c := range v.Settings {
			rows = append(rows, []string{c.Key, c.text(), c.From, strconv.Itoa(c.Line), c.Variable})
		}
		return a.printCSV([]string{"key", "value", "from", "line", "variable"}, rows)
	case outputName:
		for _, name := range v.Profiles {
			if err := a.printf("%s\n", name); err != nil {
				return err
			}
		}
		return nil
	}
	header := []string{"KEY", "VALUE", "FROM"}
	for _, c := range v.Settings {
		rows = append(rows, []string{printable(c.Key), dash(c.text()), c.from()})
	}
	if a.output == outputAuto && !a.stdoutTTY() {
		var b strings.Builder
		for _, row := range append([][]string{header}, rows...) {
			b.WriteString(strings.Join(row, "\t") + "\n")
		}
		return a.print([]byte(b.String()))
	}
	return a.table(header, rows)
}

package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
)

func newConfigCheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the configuration file",
		Long: `Reads the configuration file strictly and tells of everything that is wrong with
it, with lines: unknown keys, values that cannot work, profiles that lack
something, and files it names that are not there or cannot be used. Asks nobody.

Exit code 0 where it is good, warnings or not; 2 where it is not.`,
		Example: `  o365pw config check
  o365pw config check --config /etc/o365pw/config.toml
  o365pw config check -o json | jq -r '.problems[].key'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: completeNothing,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runConfigCheck(cmd.Context()) },
	}
}

// configCheckJSON is what config check prints with --output.
type configCheckJSON struct {
	SchemaVersion int             `json:"schemaVersion"`
	Path          string          `json:"path"` // empty: there is no file, the environment alone
	OK            bool            `json:"ok"`
	Problems      []configProblem `json:"problems"`
}

type configProblem struct {
	Line     int    `json:"line"` // 0: of no line
	Key      string `json:"key"`  // or the name of a variable; may be empty
	Severity string `json:"severity"`
	Problem  string `json:"problem"`
	Hint     string `json:"hint"`
}

// How bad a problem is: nothing works on an error.
const (
	configFault   = "error"
	configWarning = "warning"
)

func (a *app) runConfigCheck(ctx context.Context) error {
	path, err := config.ConfigPath(a.configPath, a.Getenv)
	if err != nil {
		return err
	}
	v := configCheckJSON{SchemaVersion: schemaVersion, Path: path}
	c := configChecker{a: a, v: &v}
	cfg, faults := config.Check(path)
	if len(faults) > 0 && errors.Is(faults[0], fs.ErrNotExist) {
		// Without a file, the environment may be enough.
		if cfg, err = a.loadConfig(); err == nil {
			_, err = config.Resolve(cfg, a.profile, a.Getenv)
		}
		if err != nil {
			return err
		}
		v.Path, faults = "", nil
		a.note("there is no file %s; the environment is the configuration", path)
	}
	for _, e := range faults {
		c.add(configFault, e.Line, e.Key, e.Problem, e.Hint)
	}
	if cfg != nil {
		c.profiles(cfg)
		c.files(ctx, cfg)
	}
	if v.Path != "" {
		c.mode(path)
	}
	sort.SliceStable(v.Problems, func(i, j int) bool { return v.Problems[i].Line < v.Problems[j].Line })
	bad := 0
	for _, p := range v.Problems {
		if p.Severity == configFault {
			bad++
		}
	}
	v.OK = bad == 0
	if err := a.printConfigCheck(v); err != nil {
		return err
	}
	if bad > 0 {
		return &failedError{code: wrongUsage, msg: plural(bad, "problem") + " in " + path}
	}
	if v.Path != "" {
		if len(cfg.Profiles) == 0 {
			a.note("%s is good, but has no profile; one is written by: o365pw setup", path)
			return nil
		}
		a.note("%s is good: %s", path, plural(len(cfg.Profiles), "profile"))
	}
	return nil
}

// configChecker collects problems beyond those of the file's text.
type configChecker struct {
	a *app
	v *configCheckJSON
}

func (c configChecker) add(severity string, line int, key, problem, hint string) {
	p := configProblem{Line: line, Key: key, Severity: severity, Problem: problem, Hint: hint}
	if !slices.Contains(c.v.Problems, p) {
		c.v.Problems = append(c.v.Problems, p)
	}
}

// profiles resolves each as a command would, with the environment.
func (c configChecker) profiles(cfg *config.Config) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Profiles)) {
		_, err := config.Resolve(cfg, name, c.a.Getenv)
		if e, ok := errors.AsType[*config.Error](err); ok {
			c.add(configFault, e.Line, e.Key, e.Problem, e.Hint)
		}
	}
}

// files looks at what the configuration names.
func (c configChecker) files(ctx context.Context, cfg *config.Config) {
	add := func(severity, problem, hint string, key ...string) {
		c.add(severity, cfg.Line(key...), strings.Join(key, "."), problem, hint)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Clouds)) {
		_, err := cloudRoots(cfg.Clouds[name])
		if e, ok := errors.AsType[*config.Error](err); ok {
			add(configFault, e.Problem, e.Hint, "clouds", name, "ca_file")
		}
	}
	ended := func(until time.Time, key ...string) {
		if !c.a.Now().Before(until) {
			add(configWarning, "the certificate has expired on "+until.UTC().Format(time.DateOnly), "renew it", key...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Profiles)) {
		p := cfg.Profiles[name]
		if p.Certificate == "" {
			continue
		}
		cert, err := apppassword.LoadCertificate(ctx, nil, p.ClientID, p.Certificate)
		if err != nil {
			add(configFault, err.Error(), "name a PEM file with an RSA key and its certificate", "profiles", name, "certificate")
			continue
		}
		ended(cert.NotAfter(), "profiles", name, "certificate")
		c.private(p.Certificate, cfg.Line("profiles", name, "certificate"), "profiles."+name+".certificate")
	}
	if gw := cfg.Gateway; gw.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(gw.TLSCert, gw.TLSKey)
		if err != nil {
			add(configFault, err.Error(), "name a PEM file with a certificate and one with its key", "gateway", "tls_cert")
			return
		}
		ended(pair.Leaf.NotAfter, "gateway", "tls_cert")
		c.private(gw.TLSKey, cfg.Line("gateway", "tls_key"), "gateway.tls_key")
	}
}

// private warns of a key that others can read.
func (c configChecker) private(file string, line int, key string) {
	if fi, err := os.Stat(file); err == nil && runtime.GOOS != "windows" && fi.Mode().Perm()&0o077 != 0 {
		c.add(configWarning, line, key, "others can read the private key in "+file, "chmod 600 "+shellQuote(file))
	}
}

// mode warns of a file that others can change: it says where secrets are sent,
// and which commands are run. There is none in it, so that reading is no matter.
func (c configChecker) mode(path string) {
	if fi, err := os.Stat(path); err == nil && runtime.GOOS != "windows" && fi.Mode().Perm()&0o022 != 0 {
		c.add(configWarning, 0, "", "others can change the file, and with it where secrets are sent", "chmod go-w "+shellQuote(path))
	}
}

func (a *app) printConfigCheck(v configCheckJSON) error {
	v.Problems = orEmpty(v.Problems)
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		var rows [][]string
		for _, p := range v.Problems {
			rows = append(rows, []string{strconv.Itoa(p.Line), p.Key, p.Severity, p.Problem, p.Hint})
		}
		return a.printCSV([]string{"line", "key", "severity", "problem", "hint"}, rows)
	case outputName:
		for _, p := range v.Problems {
			if err := a.printf("%s\n", printable(cmp.Or(p.Key, v.Path))); err != nil {
				return err
			}
		}
		return nil
	}
	var b strings.Builder
	for _, p := range v.Problems {
		b.WriteString(v.Path)
		if p.Line > 0 {
			b.WriteString(":" + strconv.Itoa(p.Line))
		}
		b.WriteString(": ")
		if p.Severity == configWarning {
			b.WriteString("warning: ")
		}
		if p.Key != "" {
			b.WriteString(printable(p.Key) + ": ")
		}
		b.WriteString(printable(p.Problem) + "\n")
		if p.Hint != "" {
			b.WriteString("  hint: " + printable(p.Hint) + "\n")
		}
	}
	return a.print([]byte(b.String()))
}

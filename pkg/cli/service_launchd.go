package cli

import (
	"context"
	"encoding/xml"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/o365pw/o365pw/pkg/config"
)

const (
	launchdLabel = "io.github.o365pw"
	// launchdUser is a role account, as macOS gives its own services.
	launchdUser  = "_o365pw"
	launchdState = "/Library/Application Support/o365pw"
)

// launchd runs the gateway as a person's agent or as a daemon of the machine.
type launchd struct {
	a        *app
	system   bool
	plist    string // path of the property list
	domain   string // launchctl(1)
	stateDir string // of the machine's service its configuration is there, too
	log      string
}

func (a *app) launchd(system bool) (supervisor, error) {
	if system {
		dir := a.systemPath(launchdState)
		return &launchd{a, true, a.systemPath("/Library/LaunchDaemons/" + launchdLabel + ".plist"), "system", dir, filepath.Join(dir, "gateway.log")}, nil
	}
	home := a.Getenv("HOME")
	if !filepath.IsAbs(home) {
		return nil, &usageError{problem: "HOME is not an absolute path", hint: "set HOME"}
	}
	state, err := config.StateDir(a.Getenv)
	return &launchd{a, false, filepath.Join(home, "Library/LaunchAgents", launchdLabel+".plist"), "gui/" + strconv.Itoa(os.Getuid()), state, filepath.Join(home, "Library/Logs/o365pw.log")}, err
}

func (l *launchd) target() string { return l.domain + "/" + launchdLabel }

func (l *launchd) passphraseFile() string { return filepath.Join(l.stateDir, "keychain-passphrase") }

// identity reads the passphrase from a file that is the service's alone.
func (l *launchd) identity(context.Context) (serviceIdentity, error) {
	file := l.passphraseFile()
	if b, err := os.ReadFile(l.plist); err == nil {
		if m := regexp.MustCompile(`<key>O365PW_KEYCHAIN_PASSPHRASE_FILE</key>\s*<string>([^<]*)</string>`).FindSubmatch(b); m != nil {
			file = string(m[1])
		}
	}
	return serviceIdentity{user: launchdUser, environ: l.environ(file)}, nil
}

// environ is that of the machine's service.
func (l *launchd) environ(passphraseFile string) []string {
	return []string{
		"O365PW_CONFIG=" + filepath.Join(l.stateDir, "config.toml"), "O365PW_STATE=" + l.stateDir, "O365PW_KEYCHAIN=file",
		"O365PW_KEYCHAIN_PASSPHRASE_FILE=" + passphraseFile,
	}
}

func (l *launchd) install(ctx context.Context, o serviceOptions) (p servicePlan, err error) {
	given := o.passphraseFile
	if given != "" {
		if given, err = l.a.checkPassphraseFile(given); err != nil {
			return p, err
		}
	}
	var environ []string
	next := "o365pw service start"
	if l.system {
		if l.a.configPath != "" {
			return p, &usageError{problem: "the machine's service has its configuration in " + launchdState + "/config.toml", hint: "put the file there, and leave --config out"}
		}
		next = "sudo o365pw service start --system"
		p.first = append(p.first, l.user(), l.a.step("install", "-d", "-o", launchdUser, "-m", "0700", l.stateDir))
		if given == "" {
			given = l.passphraseFile()
			p.first = append(p.first, l.a.passphraseFile(given)...)
			p.first = append(p.first, l.a.step("chown", "-h", launchdUser, given))
		}
		environ = l.environ(given)
	} else if environ, err = l.a.serviceEnviron(given); err != nil {
		return p, err
	}
	p.files = []serviceFile{{path: l.plist, content: l.propertyList(o.program, environ)}}
	p.then = []serviceStep{l.a.step("launchctl", "enable", l.target())}
	if o.dryRun {
		return p, nil
	}
	if _, loaded := l.printed(ctx); loaded {
		p.next = []string{"the service still runs as it was; to take up what is new: " + strings.Replace(next, " start", " restart", 1)}
		return p, nil
	}
	if l.system {
		p.next = append(p.next, "set it up, as the service's user: sudo o365pw service run setup")
	}
	p.next = append(p.next, "start it: "+next)
	return p, nil
}

// user tells how to make the service's user, where it is missing: that is for
// the machine's owner.
func (l *launchd) user() serviceStep {
	return serviceStep{show: "id " + launchdUser, run: func(ctx context.Context) error {
		if _, err := l.a.ask(ctx, "id", launchdUser); err != nil {
			return &noServiceError{problem: "the service runs as the user " + launchdUser + ", whom there is not", hint: "sudo sysadminctl -addUser " + launchdUser + " -roleAccount -UID 450; or any other free id from 450 to 499"}
		}
		return nil
	}}
}

func (l *launchd) uninstall(context.Context) (p servicePlan, err error) {
	p.first = []serviceStep{{show: "launchctl bootout " + l.target(), run: l.stop}}
	p.files = []serviceFile{{path: l.plist}}
	p.next = []string{"configuration, state and keychain are still there"}
	return p, nil
}

// start loads the service, which starts it, or starts one that is loaded.
func (l *launchd) start(ctx context.Context) error {
	if _, loaded := l.printed(ctx); loaded {
		_, err := l.a.ask(ctx, "launchctl", "kickstart", l.target())
		return err
	}
	_, err := l.a.ask(ctx, "launchctl", "bootstrap", l.domain, l.plist)
	return err
}

// stop unloads the service: launchd would start it again if it only ended.
func (l *launchd) stop(ctx context.Context) error {
	if _, loaded := l.printed(ctx); !loaded {
		return nil
	}
	_, err := l.a.ask(ctx, "launchctl", "bootout", l.target())
	return err
}

// restart loads the property list anew.
func (l *launchd) restart(ctx context.Context) error {
	if err := l.stop(ctx); err != nil {
		return err
	}
	return l.start(ctx)
}

func (l *launchd) logs(ctx context.Context, o serviceOptions) error {
	args := []string{"tail", "-n", strconv.Itoa(o.lines)}
	if o.follow {
		args = append(args, "-F")
	}
	return l.a.show(ctx, append(args, l.log)...)
}

// printed is what launchctl tells of the service, where it is loaded.
func (l *launchd) printed(ctx context.Context) (string, bool) {
	out, err := l.a.ask(ctx, "launchctl", "print", l.target())
	return string(out), err == nil
}

var (
	launchdProperty = regexp.MustCompile(`(?m)^\t(state|pid|last exit code) = (.+)$`)
	launchdDisabled = regexp.MustCompile(`"` + regexp.QuoteMeta(launchdLabel) + `" => (true|disabled)`)
)

func (l *launchd) state(ctx context.Context) (serviceState, error) {
	st := serviceState{Supervisor: "launchd", Scope: map[bool]string{true: "system", false: "user"}[l.system], stateDir: l.stateDir}
	if _, err := os.Stat(l.plist); err == nil {
		st.Installed, st.Path = true, l.plist
		out, err := l.a.ask(ctx, "launchctl", "print-disabled", l.domain)
		st.Enabled = err == nil && !launchdDisabled.Match(out)
	}
	out, loaded := l.printed(ctx)
	if !loaded {
		st.State = "not loaded"
		return st, nil
	}
	v := map[string]string{}
	for _, m := range launchdProperty.FindAllStringSubmatch(out, -1) {
		v[m[1]] = m[2]
	}
	st.State = v["state"]
	st.Running = st.State == "running"
	if st.Running {
		st.PID, _ = strconv.Atoi(v["pid"])
	} else if code := v["last exit code"]; code != "" {
		st.State += ", last exit code " + code
	}
	return st, nil
}

// propertyList is for launchd (launchd.plist(5)).
func (l *launchd) propertyList(program string, environ []string) string {
	var b strings.Builder
	text := func(s string) string {
		var t strings.Builder
		_ = xml.EscapeText(&t, []byte(s)) // a Builder takes all
		return "<string>" + t.String() + "</string>\n"
	}
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- ` + serviceMark + ` -->
<plist version="1.0">
<dict>
	<key>Label</key>
	` + text(launchdLabel) + `	<key>ProgramArguments</key>
	<array>
		` + text(program) + `		` + text("serve") + `	</array>
`)
	if l.system {
		b.WriteString("\t<key>UserName</key>\n\t" + text(launchdUser))
	}
	if len(environ) > 0 {
		b.WriteString("\t<key>EnvironmentVariables</key>\n\t<dict>\n")
		for _, v := range environ {
			name, value, _ := strings.Cut(v, "=")
			b.WriteString("\t\t<key>" + name + "</key>\n\t\t" + text(value))
		}
		b.WriteString("\t</dict>\n")
	}
	// It starts again after a fault, not when it was told to end. ExitTimeOut
	// is the time a message that is being sent may take.
	b.WriteString(`	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<dict>
		<key>SuccessfulExit</key>
		<false/>
	</dict>
	<key>ThrottleInterval</key>
	<integer>10</integer>
	<key>ExitTimeOut</key>
	<integer>45</integer>
	<key>Umask</key>
	<integer>63</integer>
	<key>ProcessType</key>
	<string>Adaptive</string>
	<key>StandardErrorPath</key>
	` + text(l.log) + `</dict>
</plist>
`)
	return b.String()
}

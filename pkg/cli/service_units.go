package cli

import (
	_ "embed"
	"fmt"
	"net"
	"strings"
)

// The units that systemd runs the gateway by, as packages install them: the
// machine's, a person's, and the machine's user (sysusers.d(5)). The socket
// unit serves both.
var (
	//go:embed units/o365pw.service
	systemUnit string
	//go:embed units/o365pw-user.service
	userUnit string
	//go:embed units/o365pw.socket
	socketUnit string
	//go:embed units/o365pw.sysusers
	sysusersFile string
)

const (
	unitExec       = "ExecStart=/usr/bin/o365pw serve\n"
	unitPassphrase = "LoadCredentialEncrypted=" + passphraseCredential + "\n"
	unitListen     = "ListenStream="
)

// serviceUnit fills in what a service unit has to have of its own: the program,
// variables (NAME=VALUE), and the file with the keychain's passphrase, where
// systemd is to read it.
func serviceUnit(unit, program string, environ []string, passphraseFile string) (string, error) {
	if strings.ContainsAny(program, `"'\`) {
		return "", &usageError{problem: "systemd takes no program with a quote or a backslash in its path: " + program, hint: "o365pw service install --program PATH"}
	}
	word, err := unitWord(program)
	if err != nil {
		return "", err
	}
	lines := "ExecStart=" + word + " serve\n"
	for _, v := range environ {
		if word, err = unitWord(v); err != nil {
			return "", err
		}
		lines += "Environment=" + word + "\n"
	}
	unit = strings.Replace(unit, unitExec, lines, 1)
	if passphraseFile != "" {
		if err := unitPlain(passphraseFile); err != nil {
			return "", err
		}
		unit = strings.Replace(unit, unitPassphrase, "LoadCredential="+passphraseCredential+":"+strings.ReplaceAll(passphraseFile, "%", "%%")+"\n", 1)
	}
	return unit, nil
}

// socketUnitFor listens on the addresses; empty where systemd can listen on
// none of them.
func socketUnitFor(addrs []string) string {
	var listen strings.Builder
	for _, addr := range addrs {
		if s := listenStream(addr); s != "" {
			listen.WriteString(unitListen + s + "\n")
		}
	}
	if listen.Len() == 0 {
		return ""
	}
	var out strings.Builder
	for line := range strings.Lines(socketUnit) {
		if !strings.HasPrefix(line, unitListen) {
			out.WriteString(line)
		} else if listen.Len() > 0 {
			out.WriteString(listen.String())
			listen.Reset()
		}
	}
	return out.String()
}

// listenStream is an address of [gateway] as ListenStream= takes it: systemd
// knows no names, and "any port" would be another one at each start. Those are
// left to the gateway.
func listenStream(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	switch {
	case err != nil || port == "0":
		return ""
	case host == "":
		return port // as the gateway: every address, IPv6 and IPv4
	case host == "localhost":
		return "127.0.0.1:" + port
	case net.ParseIP(host) == nil:
		return ""
	}
	return net.JoinHostPort(host, port)
}

// unitWord writes s so that systemd takes it for one word and changes nothing
// in it (systemd.syntax(7), "Quoting"; systemd.unit(5), "Specifiers"). A "$"
// means nothing in Environment= and in the path of a program.
func unitWord(s string) (string, error) {
	if err := unitPlain(s); err != nil {
		return "", err
	}
	s = strings.ReplaceAll(s, "%", "%%")
	if !strings.ContainsAny(s, " \t\"'\\;") {
		return s, nil
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`, nil
}

// unitPlain refuses what cannot be in one line.
func unitPlain(s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return &usageError{problem: fmt.Sprintf("%q has characters that cannot be in a unit", s), hint: "choose a path without them"}
	}
	return nil
}

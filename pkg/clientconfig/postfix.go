package clientconfig

import (
	"errors"
	"fmt"
	"strings"
)

// postfix: postconf(5). Postfix runs no command for a password, so the script
// puts it into a map that root alone can read; Postfix itself reads the map
// before it gives root's rights up.
//
// What it sends has the mailbox as its sender: Exchange refuses others, such as
// root@host. A certificate is compared with names only, and the gateway's has
// the name localhost beside an address.
func postfix(a Account) (Config, error) {
	s := a.Servers["smtp"]
	relay := fmt.Sprintf("[%s]:%d", s.Host, s.Port)
	set := [][2]string{
		{"relayhost", relay},
		{"smtp_host_lookup", "native"}, // also names that are in /etc/hosts alone, such as localhost
		{"smtp_sasl_auth_enable", "yes"},
		{"smtp_sasl_security_options", "noanonymous"},
		{"smtp_sasl_tls_security_options", "noanonymous"},
		{"sender_canonical_classes", "envelope_sender, header_sender"},
		{"sender_canonical_maps", "static:" + a.Sender()},
		{"smtp_tls_wrappermode", map[bool]string{true: "yes", false: "no"}[s.Security == "tls"]},
	}
	switch {
	case s.Security == "none":
		set = append(set, [2]string{"smtp_tls_security_level", "none"})
	case !s.address():
		set = append(set, [2]string{"smtp_tls_security_level", "secure"}, [2]string{"smtp_tls_secure_cert_match", s.Host})
	case a.CAFile != "":
		set = append(set, [2]string{"smtp_tls_security_level", "secure"}, [2]string{"smtp_tls_secure_cert_match", "localhost"})
	default:
		return Config{}, errors.New("a certificate is compared with names only by Postfix, and the gateway listens on an address: let it listen on the name in its certificate, by smtp in [gateway]")
	}
	if s.Security != "none" && a.CAFile != "" {
		set = append(set, [2]string{"smtp_tls_CAfile", a.CAFile})
	}
	var names, settings strings.Builder
	for _, kv := range set {
		names.WriteString(kv[0] + " ")
		// A dollar sign is for another parameter.
		settings.WriteString("\t" + singleQuoted(kv[0]+" = "+strings.ReplaceAll(kv[1], "$", "$$")) + " \\\n")
	}
	script := `#!/bin/sh
# Has Postfix send through the gateway of o365pw, as ` + a.Sender() + `.
# Run it as the user whose keychain holds the app password, and again when that
# has a new password. "sh FILE undo" takes back what it has set.
# Debian: Postfix needs the package libsasl2-modules to sign in.
set -eu
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
folder=$(postconf -h config_directory)
before=$folder/o365pw_before
map=$folder/o365pw_password
set_here='` + names.String() + `smtp_sasl_password_maps'

if [ "${1-}" = undo ]; then
	if $sudo test -e "$before"; then
		for name in $set_here; do
			$sudo postconf -X "$name"
		done
		$sudo cat "$before" | while IFS= read -r line; do
			$sudo postconf -e "$line"
		done
		$sudo rm -f "$before" "$map"
		$sudo postfix reload || :
	fi
	exit
fi

password=$(` + a.PasswordCommand() + `)
# What was set before, once.
if ! $sudo test -e "$before"; then
	postconf -n | $sudo sh -c 'umask 077 && grep -E "^($2) =" >"$1.new" || :; mv "$1.new" "$1"' sh "$before" "$(echo "$set_here" | tr ' ' '|')"
fi
printf '%s %s:%s\n' ` + Shell(relay) + ` ` + Shell(a.User) + ` "$password" |
	$sudo sh -c 'umask 077 && cat >"$1.new" && mv "$1.new" "$1"' sh "$map"
$sudo postconf -e \
` + settings.String() + `	"smtp_sasl_password_maps = texthash:$map"
$sudo postfix reload || echo 'Postfix does not run; it will send this way when it does.'
`
	const file = "~/.config/o365pw/postfix.sh"
	return Config{
		Files: []File{{Path: file, Content: []byte(script)}},
		Steps: []string{
			"Run it: sh " + file,
			"Try it: echo test | /usr/sbin/sendmail " + Shell(a.Sender()),
			"What has not gone yet, and why: mailq",
			"To take it back: sh " + file + " undo",
		},
	}, nil
}

package clientconfig

import (
	"encoding/json"
	"strings"
)

// android is set up by a code that Thunderbird for Android and K-9 Mail scan, or
// by hand.
func android(a Account) (Config, error) {
	var c Config
	protocol, in, reads := a.receiving()
	smtp, sends := a.Servers["smtp"]
	if a.CAFile != "" {
		file := "bring " + a.CAFile + " to the phone"
		if !a.OwnCertificate {
			file = "run " + a.command("cert", "export", "--format", "der", "--file", "o365pw-ca.cer") + ", bring the file to the phone"
		}
		c.Steps = append(c.Steps, "Trust the gateway: "+file+", and install it under Settings > Security > Encryption & credentials > Install a certificate > CA certificate")
	}
	if reads && sends {
		data, err := exported(a, protocol, in, smtp)
		if err != nil {
			return Config{}, err
		}
		code, err := QR(data)
		if err != nil {
			return Config{}, err
		}
		c.Files = []File{code.file()}
		c.Steps = append(c.Steps, "Thunderbird or K-9 Mail: choose to import accounts from Thunderbird for desktop by a QR code, scan the code, and type the app password when asked for it")
	}
	c.Steps = append(c.Steps,
		"Gmail: Settings > Add account > Other, "+a.Address+", then "+map[string]string{"imap": "Personal (IMAP)", "pop3": "Personal (POP3)", "": "manual setup"}[protocol],
		"Samsung Email: Add account > Other, "+a.Address+", then Manual setup",
		"In both, type the app password as the password, and:")
	c.Steps = append(c.Steps, a.typed("SSL/TLS", "authentication by password")...)
	return c, nil
}

// exported is an account in the format of Thunderbird's "Export for Mobile"
// (version 1, in the repository of thunderbird-android,
// feature/migration/qrcode/qr-code-format.md), without a password.
func exported(a Account, protocol string, in, out Server) (string, error) {
	const cleartextPassword = 1
	server := func(kind int, s Server) []any {
		return []any{kind, s.Host, s.Port, map[string]int{"none": 0, "starttls": 2, "tls": 3}[s.Security], cleartextPassword, a.User}
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode([]any{
		1, []int{1, 1}, // of the format; of this code among all
		server(map[string]int{"imap": 0, "pop3": 1}[protocol], in),
		[]any{[]any{server(0, out), []string{a.Sender(), ""}}},
	})
	return strings.TrimSuffix(b.String(), "\n"), err
}

package clientconfig

import (
	"fmt"
	"strings"
)

// devices are printers, scanners, cameras and the like, by what they can do.
func devices() []Client {
	only := []string{"smtp"}
	send := Scope{Allow: only, OwnSender: true}
	device := func(name, title string, write func(Account) (Config, error)) Client {
		return Client{Name: name, Title: title, Does: "scans to mail", Device: name != "printer-plain", Protocols: only, Needs: only, Scope: send, Checked: ByProgram, Write: write}
	}
	return []Client{
		device("printer-plain", "A printer or scanner without TLS", printerPlain),
		device("printer-starttls", "A printer or scanner with STARTTLS", func(a Account) (Config, error) { return printer(a, "STARTTLS", "STARTTLS (also called TLS)") }),
		device("printer-tls", "A printer or scanner with SSL/TLS", func(a Account) (Config, error) { return printer(a, "SSL/TLS", "SSL/TLS (also called SMTPS or SSL)") }),
	}
}

// printer is what the menus of devices ask for. Nearly all of them take 16
// letters as a password; many take no long user name.
func printer(a Account, security, called string) (Config, error) {
	s := a.Servers["smtp"]
	if s.Security == "none" {
		return Config{}, fmt.Errorf("the gateway listens without TLS there: for a device that can do none, see printer-plain")
	}
	steps := []string{
		"SMTP server: " + s.Host,
		fmt.Sprintf("Port: %d", s.Port),
		"Security: " + called,
		"Authentication: on; LOGIN or PLAIN, where it asks (SMTP AUTH, not POP before SMTP)",
		"User name: " + a.User,
	}
	if strings.EqualFold(a.User, a.Address) {
		steps = append(steps, "If its field is too short for that: the app password can have a short user name, by create --login-name scan")
	}
	steps = append(steps,
		"Password: 16 letters, typed without spaces; they are shown by: "+a.PasswordCommand(),
		"Sender, From or reply address: "+a.Sender()+"; another one is refused")
	if a.CAFile != "" {
		file := a.CAFile
		if !a.OwnCertificate {
			file = "the file made by: " + a.command("cert", "export")
		}
		steps = append(steps,
			"Certificate, where it has a page to import one: "+file,
			"If it says that the certificate is not valid: set its clock; import the certificate; or switch the check off ("+
				"Verify server certificate), which lets who controls the network between see the password")
	}
	return Config{Steps: append(steps,
		"If "+security+" cannot be agreed on (protocol version, handshake failure): it knows only TLS 1.0 or 1.1. A listener for such devices is set by [gateway.legacy]; its port goes here",
		"Try it: send a test message from the device; what the gateway says of it is in its log, and in: "+a.command("doctor", "--", a.AppPassword))}, nil
}

// printerPlain: from another machine the gateway takes no password in clear,
// so a mail server beside it has to sign in.
func printerPlain(a Account) (Config, error) {
	return Config{Steps: []string{
		"A device without TLS cannot sign in over a network: everybody there could read the password, and the gateway refuses it. A mail server between them can sign in for it:",
		"1. On a machine in the device's network, install Postfix and have it send with this app password; the script for that is printed by: " + a.command("settings", "--for", "postfix", "--", a.AppPassword),
		"2. Let it take mail from the device alone, here 192.168.1.50, in place of a whole network: sudo postconf -e 'inet_interfaces = 127.0.0.1, 192.168.1.10' 'mynetworks = 127.0.0.0/8, 192.168.1.50/32' && sudo systemctl restart postfix",
		"3. On the device: SMTP server 192.168.1.10 (that machine), port 25, security off, authentication off",
		"4. Sender, From or reply address: " + a.Sender() + ", which Postfix would put there anyhow",
		"Do not open port 25 of that machine to other networks: who reaches it from the device's address sends as " + a.Sender(),
	}}, nil
}

package clientconfig

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// graphical are mail programs with windows, and those of phones.
func graphical() []Client {
	all := []string{"imap", "pop3", "smtp"}
	mail := Scope{Allow: []string{"imap", "smtp"}}
	return []Client{
		{Name: "thunderbird", Title: "Thunderbird", Does: "reads and sends", Protocols: all, Scope: mail, Checked: ByProgram, Write: thunderbird},
		{Name: "outlook", Title: "Outlook (classic)", Does: "reads and sends", Protocols: all, Scope: mail, Checked: ByFormat, Write: outlook},
		{Name: "apple-mail", Title: "Apple Mail", Does: "reads and sends", Protocols: all, Needs: []string{"smtp"}, Reads: true, Scope: mail, Checked: ByFormat, Write: appleMail},
		{Name: "iphone", Title: "iPhone", Does: "reads and sends", Device: true, Protocols: all, Needs: []string{"smtp"}, Reads: true, Scope: mail, Checked: ByFormat, Write: applePhone},
		{Name: "ipad", Title: "iPad", Does: "reads and sends", Device: true, Protocols: all, Needs: []string{"smtp"}, Reads: true, Scope: mail, Checked: ByFormat, Write: applePhone},
		{Name: "android", Title: "Android", Does: "reads and sends", Device: true, Protocols: all, Scope: mail, Checked: ByFormat, Write: android},
	}
}

// receiving is the server to read mail from; there is one where ok.
func (a Account) receiving() (protocol string, s Server, ok bool) {
	protocol, s = a.reading("imap", "pop3")
	return protocol, s, protocol != ""
}

// typed are the settings that a person types, a line for each server.
func (a Account) typed(security, password string) []string {
	var lines []string
	line := func(what, protocol string, s Server) {
		lines = append(lines, fmt.Sprintf("%s: %s, server %s, port %d, security %s, user name %s, %s", what, protocol, s.Host, s.Port, securityIn(s, security), a.User, password))
	}
	if p, s, ok := a.receiving(); ok {
		line("Incoming", strings.ToUpper(p), s)
	}
	if s, ok := a.Servers["smtp"]; ok {
		line("Outgoing", "SMTP", s)
	}
	return lines
}

// securityIn is how a program's dialog calls the security of a server; tls is
// its name for TLS from the first byte.
func securityIn(s Server, tls string) string {
	switch s.Security {
	case "tls":
		return tls
	case "starttls":
		return "STARTTLS"
	}
	return "none"
}

// roots are the certificates of CAFile, which holds one, or two while one
// authority takes over from another; none where there is no such file.
func (a Account) roots() ([]Root, error) {
	if a.CAFile == "" {
		return nil, nil
	}
	rest, err := os.ReadFile(a.CAFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NoAuthorityError{File: a.CAFile}
	} else if err != nil {
		return nil, fmt.Errorf("the certificate to trust: %w", err)
	}
	var roots []Root
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			roots = append(roots, Root{Name: "o365pw gateway", DER: block.Bytes})
		}
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("the certificate to trust: there is no PEM certificate in %s", a.CAFile)
	}
	return roots, nil
}

package clientconfig

import (
	"fmt"
	"strings"
)

// Autoconfig is the answer to a mail program that asks how to reach the
// mailboxes of a domain, in Mozilla's format, version 1.1
// (https://wiki.mozilla.org/Thunderbird:Autoconfiguration:ConfigFileFormat).
// user is the name to sign in with; %EMAILADDRESS% stands for the address that
// the person has typed.
func Autoconfig(domain, user string, servers map[string]Server) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?>
<clientConfig version="1.1">
  <emailProvider id="%[1]s">
    <domain>%[1]s</domain>
    <displayName>%[1]s</displayName>
    <displayShortName>%[1]s</displayShortName>
`, xmlText(domain))
	for _, p := range []string{"imap", "pop3", "smtp"} {
		s, ok := servers[p]
		if !ok {
			continue
		}
		element := "incomingServer"
		if p == "smtp" {
			element = "outgoingServer"
		}
		fmt.Fprintf(&b, `    <%[1]s type="%[2]s">
      <hostname>%[3]s</hostname>
      <port>%[4]d</port>
      <socketType>%[5]s</socketType>
      <authentication>password-cleartext</authentication>
      <username>%[6]s</username>
    </%[1]s>
`, element, p, xmlText(s.Host), s.Port, map[string]string{"tls": "SSL", "starttls": "STARTTLS"}[s.Security], xmlText(user))
	}
	b.WriteString("  </emailProvider>\n</clientConfig>\n")
	return []byte(b.String())
}

// thunderbird is set up by its own dialog, which finds the settings where the
// gateway answers autoconfiguration, or in a file of its program folder.
func thunderbird(a Account) (Config, error) {
	var c Config
	_, domain, _ := strings.Cut(a.Address, "@")
	_, smtp := a.Servers["smtp"]
	if _, _, ok := a.receiving(); ok && smtp {
		c.Files = []File{{Path: "isp/" + domain + ".xml", Content: Autoconfig(domain, a.User, a.Servers)}}
	}
	if a.CAFile != "" {
		c.Steps = append(c.Steps, "Trust the gateway: "+a.trustHere()+"; on another, in Thunderbird, Settings > Privacy & Security > Certificates > Manage Certificates > Authorities > Import, file "+a.CAFile+", and tick that it identifies websites")
	}
	c.Steps = append(c.Steps,
		"Add the account: Settings > Account Settings > Account Actions > Add Mail Account; type your name and "+a.Address+", and press Continue",
	)
	if len(c.Files) > 0 {
		c.Steps = append(c.Steps, "Where the gateway answers autoconfiguration, or the file is in Thunderbird's program folder, the settings are found: go on with the password")
	}
	c.Steps = append(c.Steps, "Else choose to configure manually, and type:")
	c.Steps = append(c.Steps, a.typed("SSL/TLS", "authentication Normal password")...)
	c.Steps = append(c.Steps, "Type the app password when asked for the password")
	return c, nil
}

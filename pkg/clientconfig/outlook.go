package clientconfig

import (
	"fmt"
	"path/filepath"
	"strings"
)

// outlook is set up by a profile file, or by hand in the dialog of the control
// panel: the one in Outlook itself asks Microsoft 365 first, and goes past the
// gateway.
func outlook(a Account) (Config, error) {
	var c Config
	protocol, in, ok := a.receiving()
	smtp, sends := a.Servers["smtp"]
	if a.CAFile != "" {
		c.Steps = append(c.Steps, "Trust the gateway: "+a.trustHere()+"; for another, copy "+a.CAFile+" to it, and run there: certutil -user -addstore Root "+filepath.Base(a.CAFile))
	}
	if ok && sends {
		c.Files = []File{{Path: "o365pw.prf", Content: prf(a, protocol, in, smtp)}}
		c.Steps = append(c.Steps, `With the file: close Outlook, and run: outlook.exe /importprf C:\PATH\o365pw.prf; type the app password when asked for it`)
	}
	c.Steps = append(c.Steps,
		"By hand: Control Panel > Mail (Microsoft Outlook) > Email Accounts > New > Manual setup > POP or IMAP",
		"Email Address: "+a.Sender()+"; Account Type: "+map[string]string{"imap": "IMAP", "pop3": "POP3", "": "any"}[protocol])
	if ok {
		c.Steps = append(c.Steps, "Incoming mail server: "+in.Host)
	}
	if sends {
		c.Steps = append(c.Steps, "Outgoing mail server (SMTP): "+smtp.Host)
	}
	c.Steps = append(c.Steps,
		"User Name: "+a.User+"; Password: the app password",
		"Require logon using Secure Password Authentication (SPA): off")
	if sends {
		c.Steps = append(c.Steps, "More Settings > Outgoing Server: tick My outgoing server (SMTP) requires authentication, and Use same settings as my incoming mail server")
	}
	if ok {
		c.Steps = append(c.Steps, fmt.Sprintf("More Settings > Advanced, Incoming server: port %d, encrypted connection %s", in.Port, securityIn(in, "SSL/TLS")))
	}
	if sends {
		c.Steps = append(c.Steps, fmt.Sprintf("More Settings > Advanced, Outgoing server: port %d, encrypted connection %s", smtp.Port, securityIn(smtp, "SSL/TLS")))
	}
	return c, nil
}

// prf is an Outlook profile file that adds one account to the default profile.
// Its last section says which property is behind each name, as the Office
// Customization Tool writes it. It has no password: Outlook asks.
func prf(a Account, protocol string, in, out Server) []byte {
	section, prefix := "IMAP_I_Mail", "IMAP"
	if protocol == "pop3" {
		section, prefix = "I_Mail", "POP3"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `[General]
Custom=1
ProfileName=Outlook
DefaultProfile=Yes
OverwriteProfile=Append
ModifyDefaultProfileIfPresent=TRUE

[Internet Account List]
Account1=%[1]s

[Account1]
UniqueService=No
AccountName=%[3]s
DisplayName=%[3]s
EmailAddress=%[11]s
%[2]sServer=%[5]s
%[2]sPort=%[6]d
%[2]sUseSSL=%[7]d
%[2]sUserName=%[4]s
%[2]sUseSPA=0
SMTPServer=%[8]s
SMTPPort=%[9]d
SMTPSecureConnection=%[10]d
SMTPUseAuth=1
SMTPAuthMethod=0
SMTPUseSPA=0

[%[1]s]
AccountType=%[2]s
AccountName=PT_UNICODE,0x0002
DisplayName=PT_UNICODE,0x000B
EmailAddress=PT_UNICODE,0x000C
%[2]sServer=PT_UNICODE,0x0100
%[2]sUserName=PT_UNICODE,0x0101
%[2]sPort=PT_LONG,0x0104
%[2]sUseSSL=PT_LONG,0x0105
%[2]sUseSPA=PT_LONG,0x0108
SMTPServer=PT_UNICODE,0x0200
SMTPPort=PT_LONG,0x0201
SMTPUseAuth=PT_LONG,0x0203
SMTPUseSPA=PT_LONG,0x0207
SMTPAuthMethod=PT_LONG,0x0208
SMTPSecureConnection=PT_LONG,0x020A
`, section, prefix, a.Address, a.User, in.Host, in.Port, map[string]int{"tls": 1}[in.Security],
		out.Host, out.Port, map[string]int{"tls": 1, "starttls": 2}[out.Security], a.Sender())
	return []byte(strings.ReplaceAll(b.String(), "\n", "\r\n"))
}

// Namespaces of Autodiscover ([MS-OXDSCLI] section 2.2.4).
const (
	AutodiscoverNS     = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"
	AutodiscoverSchema = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
)

// Autodiscover is the answer to an Outlook that asks for the settings of a mailbox,
// in the schema [AutodiscoverSchema].
func Autodiscover(address string, servers map[string]Server) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="%s">
  <Response xmlns="%s">
    <Account>
      <AccountType>email</AccountType>
      <Action>settings</Action>
`, AutodiscoverNS, AutodiscoverSchema)
	for _, p := range []string{"imap", "pop3", "smtp"} {
		s, ok := servers[p]
		if !ok {
			continue
		}
		fmt.Fprintf(&b, `      <Protocol>
        <Type>%s</Type>
        <Server>%s</Server>
        <Port>%d</Port>
        <LoginName>%s</LoginName>
        <DomainRequired>off</DomainRequired>
        <SPA>off</SPA>
        <SSL>on</SSL>
        <AuthRequired>on</AuthRequired>
`, strings.ToUpper(p), xmlText(s.Host), s.Port, xmlText(address))
		if p == "smtp" {
			b.WriteString("        <UsePOPAuth>on</UsePOPAuth>\n        <SMTPLast>off</SMTPLast>\n")
		}
		b.WriteString("      </Protocol>\n")
	}
	b.WriteString("    </Account>\n  </Response>\n</Autodiscover>\n")
	return []byte(b.String())
}

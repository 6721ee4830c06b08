package clientconfig

import (
	"fmt"
	"strings"
)

// ProfileType is the media type of a configuration profile.
const ProfileType = "application/x-apple-aspen-config"

// appleMail is a configuration profile that macOS installs.
func appleMail(a Account) (Config, error) {
	profile, err := a.profileFile()
	if err != nil {
		return Config{}, err
	}
	c := Config{Files: []File{profile}, Steps: []string{
		"Open the file on the Mac, then System Settings > General > Device Management (before macOS 15: Privacy & Security > Profiles), and install it",
		"Type the app password when asked for the password",
	}}
	if a.CAFile != "" {
		c.Steps = append(c.Steps, "If Mail cannot verify the server: open the o365pw certificate in Keychain Access, and set When using this certificate to Always Trust")
	}
	return c, nil
}

// applePhone is the same profile for a phone, which gets it from the gateway by
// a code, or as a file.
func applePhone(a Account) (Config, error) {
	profile, err := a.profileFile()
	if err != nil {
		return Config{}, err
	}
	var c Config
	if a.ProfilePage != "" {
		code, err := QR(a.ProfilePage)
		if err != nil {
			return Config{}, err
		}
		c.Files = append(c.Files, code.file())
		c.Steps = append(c.Steps, "Point the camera at the code, open the page in Safari, and allow the download: "+a.ProfilePage)
		if a.CAFile != "" {
			c.Steps = append(c.Steps, "Safari does not know the gateway's certificate yet: Show Details > visit this website; do so only in a network that you trust, since whoever is in between could give the device another authority to trust. Elsewhere bring the file to the device, by AirDrop for one")
		}
	} else {
		c.Steps = append(c.Steps, "Bring the file to the device, by AirDrop or as an attachment, and open it; for a code to scan in its place, set autoconfig in [gateway] to an address that the device reaches")
	}
	c.Files = append(c.Files, profile)
	c.Steps = append(c.Steps, "Settings > General > VPN & Device Management: install the downloaded profile, and type the app password when asked for the password")
	if a.CAFile != "" {
		c.Steps = append(c.Steps, "Settings > General > About > Certificate Trust Settings: turn on the o365pw certificate")
	}
	return c, nil
}

func (a Account) profileFile() (File, error) {
	roots, err := a.roots()
	if err != nil {
		return File{}, err
	}
	_, name, _ := strings.Cut(a.Address, "@")
	return File{Path: name + ".mobileconfig", Content: Profile(a, roots...)}, nil
}

// Profile is a configuration profile for Apple's devices with the account, and
// with the authorities to trust. The account has smtp, and imap or pop3. The
// device asks for the password when the profile is installed. A second profile for
// the same mailbox and user name takes the place of the first. Source:
// https://developer.apple.com/documentation/devicemanagement/mail.
func Profile(a Account, roots ...Root) []byte {
	seed := "mail profile\n" + strings.ToLower(a.Address) + "\n" + strings.ToLower(a.User)
	id, mail := stableUUID([]byte(seed)), stableUUID([]byte(seed+"\nmail"))
	protocol, in, _ := a.receiving()

	var b strings.Builder
	b.WriteString("<dict>\n" +
		plistString("PayloadType", "com.apple.mail.managed") +
		"<key>PayloadVersion</key><integer>1</integer>\n" +
		plistString("PayloadIdentifier", "o365pw.mail."+id+".account") +
		plistString("PayloadUUID", mail) +
		plistString("PayloadDisplayName", a.Address) +
		plistString("EmailAccountDescription", a.Address) +
		plistString("EmailAccountType", map[string]string{"imap": "EmailTypeIMAP", "pop3": "EmailTypePOP"}[protocol]) +
		plistString("EmailAddress", a.Sender()))
	for _, s := range []struct {
		direction string
		Server
	}{{"Incoming", in}, {"Outgoing", a.Servers["smtp"]}} {
		key := s.direction + "MailServer"
		b.WriteString(plistString(key+"Authentication", "EmailAuthPassword") + plistString(key+"HostName", s.Host))
		fmt.Fprintf(&b, "<key>%[1]sPortNumber</key><integer>%[2]d</integer>\n<key>%[1]sUseSSL</key><%[3]t/>\n", key, s.Port, s.Security != "none")
		b.WriteString(plistString(key+"Username", a.User))
	}
	b.WriteString("<key>OutgoingPasswordSameAsIncomingPassword</key><true/>\n</dict>\n")
	payloads := []string{b.String()}
	for _, r := range roots {
		payloads = append(payloads, RootPayload(r))
	}
	return AppleProfile("o365pw.mail."+id, "Mail for "+a.Address, id, payloads...)
}

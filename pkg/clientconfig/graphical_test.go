package clientconfig_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
	"howett.net/plist"

	"github.com/o365pw/o365pw/pkg/clientconfig"
)

// graphicalAccount is an account with all protocols and an authority to trust.
func graphicalAccount(t *testing.T) clientconfig.Account {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0x30, 0x00}}), 0o600); err != nil {
		t.Fatal(err)
	}
	return clientconfig.Account{
		AppPassword: "phone", Address: "alice@contoso.com", User: "alice@contoso.com", CAFile: ca, Program: []string{"o365pw"},
		Servers: map[string]clientconfig.Server{
			"imap": {Host: "mail.contoso.com", Port: 1993, Security: "tls"}, "pop3": {Host: "mail.contoso.com", Port: 1995, Security: "tls"},
			"smtp": {Host: "mail.contoso.com", Port: 1587, Security: "tls"},
		},
	}
}

func settingsOf(t *testing.T, name string, a clientconfig.Account) clientconfig.Config {
	t.Helper()
	c, ok := clientconfig.Find(name)
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	cfg, err := c.Settings(a)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return cfg
}

// fileOf is the content of the file whose name ends so.
func fileOf(t *testing.T, cfg clientconfig.Config, ending string) clientconfig.File {
	t.Helper()
	i := slices.IndexFunc(cfg.Files, func(f clientconfig.File) bool { return strings.HasSuffix(f.Path, ending) })
	if i < 0 {
		t.Fatalf("there is no file %s", ending)
	}
	return cfg.Files[i]
}

// mailKeys are the keys of Apple's payload Mail (com.apple.mail.managed) that can
// occur here, with the type of each; those that are required are so marked.
// https://developer.apple.com/documentation/devicemanagement/mail
var mailKeys = map[string]string{
	"EmailAccountDescription": "string", "EmailAccountName": "string", "EmailAccountType": "string required", "EmailAddress": "string",
	"IncomingMailServerAuthentication": "string required", "IncomingMailServerHostName": "string required", "IncomingMailServerPortNumber": "uint64",
	"IncomingMailServerUseSSL": "bool", "IncomingMailServerUsername": "string", "IncomingMailServerIMAPPathPrefix": "string",
	"OutgoingMailServerAuthentication": "string required", "OutgoingMailServerHostName": "string required", "OutgoingMailServerPortNumber": "uint64",
	"OutgoingMailServerUseSSL": "bool", "OutgoingMailServerUsername": "string", "OutgoingPasswordSameAsIncomingPassword": "bool",
}

// commonKeys are those of every payload.
// https://developer.apple.com/documentation/devicemanagement/configuring-multiple-devices-using-profiles
var commonKeys = map[string]string{
	"PayloadType": "string required", "PayloadVersion": "uint64 required", "PayloadIdentifier": "string required", "PayloadUUID": "string required",
	"PayloadDisplayName": "string", "PayloadDescription": "string", "PayloadOrganization": "string",
}

// checkKeys holds a dictionary to keys that there may be and must be.
func checkKeys(t *testing.T, what string, got map[string]any, allowed ...map[string]string) {
	t.Helper()
	types := map[string]string{}
	for _, keys := range allowed {
		for k, v := range keys {
			types[k], _, _ = strings.Cut(v, " ")
			if _, ok := got[k]; strings.HasSuffix(v, " required") && !ok {
				t.Errorf("%s has no %s", what, k)
			}
		}
	}
	for k, v := range got {
		if is := fmt.Sprintf("%T", v); types[k] != is {
			t.Errorf("%s: %s is a %s, want %q", what, k, is, types[k])
		}
	}
}

// TestProfile holds the profile to the keys that Apple publishes.
func TestProfile(t *testing.T) {
	a := graphicalAccount(t)
	content := fileOf(t, settingsOf(t, "apple-mail", a), ".mobileconfig").Content
	var top map[string]any
	if format, err := plist.Unmarshal(content, &top); err != nil || format != plist.XMLFormat {
		t.Fatalf("format %d: %v\n%s", format, err, content)
	}
	payloads, _ := top["PayloadContent"].([]any)
	if len(payloads) != 2 || top["PayloadType"] != "Configuration" {
		t.Fatalf("%v", top)
	}
	delete(top, "PayloadContent")
	checkKeys(t, "the profile", top, commonKeys)
	mail, root := payloads[0].(map[string]any), payloads[1].(map[string]any)
	checkKeys(t, "the mail payload", mail, commonKeys, mailKeys)
	checkKeys(t, "the root payload", root, commonKeys, map[string]string{"PayloadContent": "[]uint8 required", "PayloadCertificateFileName": "string"})
	for k, want := range map[string]any{
		"PayloadType": "com.apple.mail.managed", "EmailAccountType": "EmailTypeIMAP", "EmailAddress": "alice@contoso.com",
		"IncomingMailServerHostName": "mail.contoso.com", "IncomingMailServerPortNumber": uint64(1993), "IncomingMailServerUseSSL": true,
		"IncomingMailServerAuthentication": "EmailAuthPassword", "IncomingMailServerUsername": "alice@contoso.com",
		"OutgoingMailServerHostName": "mail.contoso.com", "OutgoingMailServerPortNumber": uint64(1587), "OutgoingMailServerUseSSL": true,
		"OutgoingMailServerAuthentication": "EmailAuthPassword", "OutgoingMailServerUsername": "alice@contoso.com",
		"OutgoingPasswordSameAsIncomingPassword": true,
	} {
		if mail[k] != want {
			t.Errorf("%s is %v, want %v", k, mail[k], want)
		}
	}
	if root["PayloadType"] != "com.apple.security.root" || !bytes.Equal(root["PayloadContent"].([]byte), []byte{0x30, 0x00}) {
		t.Errorf("%v", root)
	}

	// A second one for the mailbox replaces the first, whatever has changed.
	a.Servers["imap"] = clientconfig.Server{Host: "other.contoso.com", Port: 993, Security: "tls"}
	a.Address, a.CAFile, a.AppPassword = "Alice@contoso.com", "", "other"
	a.User = a.Address
	var second map[string]any
	if _, err := plist.Unmarshal(clientconfig.Profile(a), &second); err != nil {
		t.Fatal(err)
	}
	if second["PayloadIdentifier"] != top["PayloadIdentifier"] || second["PayloadUUID"] != top["PayloadUUID"] {
		t.Errorf("%v is beside %v", second["PayloadIdentifier"], top["PayloadIdentifier"])
	}
	a.Address = "bob@contoso.com"
	if _, err := plist.Unmarshal(clientconfig.Profile(a), &second); err != nil || second["PayloadIdentifier"] == top["PayloadIdentifier"] {
		t.Errorf("another mailbox has the same identifier (%v)", err)
	}
	// POP3 where there is no IMAP.
	delete(a.Servers, "imap")
	a.User = `<&"'` + "\x00"
	if _, err := plist.Unmarshal(clientconfig.Profile(a), &second); err != nil {
		t.Fatal(err)
	}
	mail = second["PayloadContent"].([]any)[0].(map[string]any)
	if mail["EmailAccountType"] != "EmailTypePOP" || mail["IncomingMailServerPortNumber"] != uint64(1995) || mail["IncomingMailServerUsername"] != `<&"'?` {
		t.Errorf("%v", mail)
	}
}

// decode reads a QR code with a decoder of others. Large codes, which it does not
// find in a picture, it is told to be alone in theirs.
func decode(t *testing.T, img image.Image) string {
	t.Helper()
	hints := map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_CHARACTER_SET: "UTF-8"}
	if img.Bounds().Dx() > 800 {
		hints[gozxing.DecodeHintType_PURE_BARCODE] = true
	}
	bitmap, err := gozxing.NewBinaryBitmapFromImage(img)
	if err != nil {
		t.Fatal(err)
	}
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, hints)
	if err != nil {
		t.Fatalf("the code cannot be read: %v", err)
	}
	return result.GetText()
}

// screen paints what a terminal shows of half blocks, on a background of its
// own, which shows wherever no colour is set.
func screen(t *testing.T, drawn []byte, background color.Gray) image.Image {
	t.Helper()
	const set, reset, px = "\x1b[38;5;16;48;5;231m", "\x1b[0m", 4
	lines := strings.Split(strings.TrimSuffix(string(drawn), "\n"), "\n")
	img := image.NewGray(image.Rect(0, 0, 120*px, (2*len(lines)+8)*px))
	for i := range img.Pix {
		img.Pix[i] = background.Y
	}
	for y, line := range lines {
		cells, begun := strings.CutPrefix(line, set)
		cells, ended := strings.CutSuffix(cells, reset)
		if !begun || !ended {
			t.Fatalf("line %q", line)
		}
		for x, r := range []rune(cells) {
			half, ok := map[rune][2]uint8{' ': {255, 255}, '▀': {0, 255}, '▄': {255, 0}, '█': {0, 0}}[r]
			if !ok {
				t.Fatalf("%q in %q", r, line)
			}
			for i := range px * 2 {
				for j := range px {
					img.SetGray((x+2)*px+j, (2*y+4)*px+i, color.Gray{Y: half[i/px]})
				}
			}
		}
	}
	return img
}

// TestQR reads codes of all sizes, from the picture and from the terminal.
func TestQR(t *testing.T) {
	for _, n := range []int{1, 17, 70, 170, 300, 1000, 2953} {
		text := strings.Repeat("https://ü.example/?&", n)[:n]
		if n == 17 {
			text = "ü" + text[:15]
		}
		q, err := clientconfig.QR(text)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(q.PNG()))
		if err != nil {
			t.Fatal(err)
		}
		if got := decode(t, img); got != text {
			t.Errorf("the picture of %d bytes says %q", n, got)
		}
		if n > 300 {
			continue // no terminal is as wide
		}
		for _, background := range []uint8{0, 255} {
			if got := decode(t, screen(t, q.Terminal(), color.Gray{Y: background})); got != text {
				t.Errorf("on a terminal of grey %d, %d bytes say %q", background, n, got)
			}
		}
	}
	if _, err := clientconfig.QR(strings.Repeat("a", 2954)); err == nil {
		t.Error("what is too long has a code")
	}
}

// TestPhones: the codes hold what a phone can use.
func TestPhones(t *testing.T) {
	a := graphicalAccount(t)
	read := func(f clientconfig.File) string {
		t.Helper()
		img, err := png.Decode(bytes.NewReader(f.Content))
		if err != nil || !f.Binary {
			t.Fatal(err)
		}
		text := decode(t, img)
		if drawn := decode(t, screen(t, f.Terminal, color.Gray{})); drawn != text {
			t.Errorf("the terminal says %q, the picture %q", drawn, text)
		}
		return text
	}

	// Thunderbird's format: qr-code-format.md of thunderbird-android, version 1.
	var got, want any
	if err := json.Unmarshal([]byte(read(fileOf(t, settingsOf(t, "android", a), ".png"))), &got); err != nil {
		t.Fatal(err)
	}
	published := `[1,[1,1],[0,"mail.contoso.com",1993,3,1,"alice@contoso.com"],[[[0,"mail.contoso.com",1587,3,1,"alice@contoso.com"],["alice@contoso.com",""]]]]`
	if err := json.Unmarshal([]byte(published), &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	readOnly := a
	readOnly.Servers = map[string]clientconfig.Server{"imap": a.Servers["imap"]}
	if cfg := settingsOf(t, "android", readOnly); len(cfg.Files) != 0 || len(cfg.Steps) == 0 {
		t.Errorf("without SMTP the format has no account: %v", cfg.Files)
	}

	if cfg := settingsOf(t, "iphone", a); len(cfg.Files) != 1 || !strings.HasSuffix(cfg.Files[0].Path, ".mobileconfig") || !strings.Contains(strings.Join(cfg.Steps, "\n"), "set autoconfig in [gateway]") {
		t.Errorf("without a page: %+v", cfg)
	}
	a.ProfilePage = "https://mail.contoso.com:8443/profile.mobileconfig?address=alice%40contoso.com"
	for _, name := range []string{"iphone", "ipad"} {
		cfg := settingsOf(t, name, a)
		if steps := strings.Join(cfg.Steps, "\n"); strings.Contains(steps, "visit this website") && !strings.Contains(steps, "only in a network that you trust") {
			t.Errorf("%s: to go past a warning is told without what that is worth:\n%s", name, steps)
		}
		if page := read(fileOf(t, cfg, ".png")); page != a.ProfilePage {
			t.Errorf("%s: the code holds %q", name, page)
		}
		if profile := fileOf(t, cfg, ".mobileconfig"); profile.Binary || !bytes.Contains(profile.Content, []byte("com.apple.mail.managed")) {
			t.Errorf("%s: %s", name, profile.Content)
		}
	}
}

// TestOutlook holds the profile file to its format: sections of key=value, the
// values of an account, and the property behind each. The numbers are those that
// the Office Customization Tool writes into section 7.
func TestOutlook(t *testing.T) {
	properties := map[string]string{
		"AccountName": "PT_UNICODE,0x0002", "DisplayName": "PT_UNICODE,0x000B", "EmailAddress": "PT_UNICODE,0x000C",
		"Server": "PT_UNICODE,0x0100", "UserName": "PT_UNICODE,0x0101", "Port": "PT_LONG,0x0104", "UseSSL": "PT_LONG,0x0105", "UseSPA": "PT_LONG,0x0108",
		"SMTPServer": "PT_UNICODE,0x0200", "SMTPPort": "PT_LONG,0x0201", "SMTPUseAuth": "PT_LONG,0x0203", "SMTPUseSPA": "PT_LONG,0x0207",
		"SMTPAuthMethod": "PT_LONG,0x0208", "SMTPSecureConnection": "PT_LONG,0x020A",
	}
	a := graphicalAccount(t)
	for _, p := range []struct{ protocol, section, prefix, port string }{{"imap", "IMAP_I_Mail", "IMAP", "1993"}, {"pop3", "I_Mail", "POP3", "1995"}} {
		content := string(fileOf(t, settingsOf(t, "outlook", a), ".prf").Content)
		if strings.Count(content, "\n") != strings.Count(content, "\r\n") {
			t.Error("its lines end otherwise than those of Windows")
		}
		sections, at := map[string]map[string]string{}, ""
		for line := range strings.Lines(content) {
			line = strings.TrimSpace(line)
			if name, ok := strings.CutPrefix(line, "["); ok {
				at = strings.TrimSuffix(name, "]")
				sections[at] = map[string]string{}
			} else if key, value, ok := strings.Cut(line, "="); ok {
				sections[at][key] = value
			}
		}
		if sections["Internet Account List"]["Account1"] != p.section || sections[p.section]["AccountType"] != p.prefix || sections["General"]["OverwriteProfile"] != "Append" {
			t.Fatalf("%v", sections)
		}
		for key := range sections["Account1"] {
			name := strings.TrimPrefix(key, p.prefix)
			if is := sections[p.section][key]; key != "UniqueService" && (is == "" || is != properties[name]) {
				t.Errorf("%s is property %q, want %q", key, is, properties[name])
			}
		}
		for key, want := range map[string]string{
			p.prefix + "Server": "mail.contoso.com", p.prefix + "Port": p.port, p.prefix + "UseSSL": "1", p.prefix + "UseSPA": "0", p.prefix + "UserName": "alice@contoso.com",
			"SMTPServer": "mail.contoso.com", "SMTPPort": "1587", "SMTPSecureConnection": "1", "SMTPUseAuth": "1", "SMTPUseSPA": "0", "EmailAddress": "alice@contoso.com",
		} {
			if sections["Account1"][key] != want {
				t.Errorf("%s is %q, want %q", key, sections["Account1"][key], want)
			}
		}
		delete(a.Servers, p.protocol)
	}
	steps := strings.Join(settingsOf(t, "outlook", graphicalAccount(t)).Steps, "\n")
	for _, want := range []string{"(SPA): off", "requires authentication", "port 1993, encrypted connection SSL/TLS", "port 1587, encrypted connection SSL/TLS", "IMAP"} {
		if !strings.Contains(steps, want) {
			t.Errorf("the steps do not say %q:\n%s", want, steps)
		}
	}
}

// clientConfig is Mozilla's format as published, with nothing else in it.
type clientConfig struct {
	XMLName  xml.Name `xml:"clientConfig"`
	Version  string   `xml:"version,attr"`
	Provider struct {
		ID        string           `xml:"id,attr"`
		Domain    []string         `xml:"domain"`
		Name      string           `xml:"displayName"`
		ShortName string           `xml:"displayShortName"`
		Incoming  []mozillaServer  `xml:"incomingServer"`
		Outgoing  []mozillaServer  `xml:"outgoingServer"`
		Other     []unknownElement `xml:",any"`
	} `xml:"emailProvider"`
	Other []unknownElement `xml:",any"`
}

type mozillaServer struct {
	Type       string           `xml:"type,attr"`
	Hostname   string           `xml:"hostname"`
	Port       int              `xml:"port"`
	SocketType string           `xml:"socketType"`
	Auth       []string         `xml:"authentication"`
	Username   string           `xml:"username"`
	Other      []unknownElement `xml:",any"`
}

type unknownElement struct{ XMLName xml.Name }

// TestAutoconfig holds the answer to Mozilla's format
// (https://wiki.mozilla.org/Thunderbird:Autoconfiguration:ConfigFileFormat).
func TestAutoconfig(t *testing.T) {
	a := graphicalAccount(t)
	for _, content := range [][]byte{
		fileOf(t, settingsOf(t, "thunderbird", a), "contoso.com.xml").Content,
		clientconfig.Autoconfig("contoso.com", "alice@contoso.com", a.Servers),
	} {
		var got clientConfig
		dec := xml.NewDecoder(bytes.NewReader(content))
		if err := dec.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if _, err := dec.Token(); err != io.EOF && err != nil {
			t.Error(err)
		}
		p := got.Provider
		if got.Version != "1.1" || p.ID != "contoso.com" || !slices.Equal(p.Domain, []string{"contoso.com"}) || p.Name == "" || len(p.ShortName) > 20 || len(got.Other)+len(p.Other) > 0 {
			t.Errorf("%+v", got)
		}
		server := func(kind string, port int) mozillaServer {
			return mozillaServer{Type: kind, Hostname: "mail.contoso.com", Port: port, SocketType: "SSL", Auth: []string{"password-cleartext"}, Username: "alice@contoso.com"}
		}
		if d := cmp.Diff([][]mozillaServer{{server("imap", 1993), server("pop3", 1995)}, {server("smtp", 1587)}}, [][]mozillaServer{p.Incoming, p.Outgoing}); d != "" {
			t.Error(d)
		}
	}
}

// TestGraphicalClients: each has something to do, nothing that is no text, no
// password, and settings for each scope that it can have.
func TestGraphicalClients(t *testing.T) {
	whole := graphicalAccount(t)
	odd := regexp.MustCompile(`%!|\x00|\n|\bserver ,`)
	for _, name := range []string{"thunderbird", "outlook", "apple-mail", "iphone", "ipad", "android"} {
		for _, protocols := range [][]string{{"imap", "smtp"}, {"pop3", "smtp"}, {"imap"}, {"smtp"}} {
			a := whole
			a.Servers = map[string]clientconfig.Server{}
			for _, p := range protocols {
				a.Servers[p] = whole.Servers[p]
			}
			c, _ := clientconfig.Find(name)
			cfg, err := c.Settings(a)
			if err != nil {
				if len(protocols) == 2 {
					t.Errorf("%s %v: %v", name, protocols, err)
				}
				continue
			}
			for _, s := range cfg.Steps {
				if odd.MatchString(s) {
					t.Errorf("%s %v: %q", name, protocols, s)
				}
			}
			if len(cfg.Steps) == 0 {
				t.Errorf("%s %v: no step", name, protocols)
			}
		}
	}
	whole.CAFile += ".gone"
	c, _ := clientconfig.Find("iphone")
	_, err := c.Settings(whole)
	if _, ok := errors.AsType[*clientconfig.NoAuthorityError](err); !ok {
		t.Errorf("without the certificate: %v", err)
	}
}

package clientconfig

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

// Root is the certificate of an authority that a device is to trust.
type Root struct {
	Name string // for people
	DER  []byte
}

// RootProfile is an Apple configuration profile (.mobileconfig) that has an
// iPhone, iPad or Mac trust the authorities, as a property list in XML. The same
// authorities give the same profile, so that one that is installed again takes
// the place of the first. Source:
// https://developer.apple.com/documentation/devicemanagement/toplevel and
// .../certificateroot.
func RootProfile(name string, roots ...Root) []byte {
	var payloads []string
	seed := []byte("root profile")
	for _, r := range roots {
		payloads = append(payloads, RootPayload(r))
		seed = append(seed, r.DER...)
	}
	return AppleProfile("o365pw.authority", name, stableUUID(seed), payloads...)
}

// RootPayload is the payload (com.apple.security.root) of an Apple profile that
// has a device trust the authority: a dictionary, for [AppleProfile].
func RootPayload(r Root) string {
	id := stableUUID(r.DER)
	return "<dict>\n" +
		plistString("PayloadType", "com.apple.security.root") +
		"<key>PayloadVersion</key><integer>1</integer>\n" +
		plistString("PayloadIdentifier", "o365pw.authority."+id) +
		plistString("PayloadUUID", id) +
		plistString("PayloadDisplayName", r.Name) +
		plistString("PayloadCertificateFileName", "o365pw-ca.cer") +
		"<key>PayloadContent</key><data>" + base64.StdEncoding.EncodeToString(r.DER) + "</data>\n" +
		"</dict>\n"
}

// AppleProfile is a configuration profile of these payloads. One with the same
// identifier takes the place of the one that is installed.
func AppleProfile(identifier, name, uuid string, payloads ...string) []byte {
	return fmt.Appendf(nil, `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
%s<key>PayloadVersion</key><integer>1</integer>
%s%s%s<key>PayloadContent</key>
<array>
%s</array>
</dict>
</plist>
`, plistString("PayloadType", "Configuration"), plistString("PayloadIdentifier", identifier), plistString("PayloadUUID", uuid),
		plistString("PayloadDisplayName", name), strings.Join(payloads, ""))
}

// plistString is a text in a dictionary of a property list.
func plistString(key, value string) string {
	return "<key>" + key + "</key><string>" + xmlText(value) + "</string>\n"
}

// xmlText writes a text between tags of XML, or in a value in double quotes. What
// XML cannot hold (section 2.2) becomes a question mark.
func xmlText(s string) string {
	var b bytes.Buffer
	for _, r := range strings.ToValidUTF8(s, "?") {
		switch {
		case r == '&':
			b.WriteString("&amp;")
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '"':
			b.WriteString("&quot;")
		case r < 0x20 && r != '\t' && r != '\n', r == 0xFFFE, r == 0xFFFF:
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// stableUUID is the same for the same data (RFC 9562 section 5.8, version 8).
func stableUUID(data []byte) string {
	h := sha256.Sum256(data)
	h[6] = h[6]&0x0f | 0x80
	h[8] = h[8]&0x3f | 0x80
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16]))
}

package clientconfig_test

import (
	"bytes"
	"regexp"
	"testing"

	"howett.net/plist"

	"github.com/o365pw/o365pw/pkg/clientconfig"
)

// TestRootProfile holds the profile to what Apple publishes of it, as a reader of
// property lists sees it.
func TestRootProfile(t *testing.T) {
	one, two := clientconfig.Root{Name: `o365pw <"laptop"> & co` + "\x01", DER: []byte{0x30, 0x03, 0, 0xff, 1}}, clientconfig.Root{Name: "next", DER: []byte{0x30, 0x00}}
	profile := clientconfig.RootProfile("o365pw", one, two)
	var got struct {
		PayloadType, PayloadIdentifier, PayloadUUID, PayloadDisplayName string
		PayloadVersion                                                  int
		PayloadContent                                                  []struct {
			PayloadType, PayloadIdentifier, PayloadUUID, PayloadDisplayName string
			PayloadVersion                                                  int
			PayloadContent                                                  []byte
		}
	}
	if format, err := plist.Unmarshal(profile, &got); err != nil || format != plist.XMLFormat {
		t.Fatalf("format %d: %v\n%s", format, err, profile)
	}
	uuid := regexp.MustCompile(`^[0-9A-F]{8}-[0-9A-F]{4}-8[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}$`)
	if got.PayloadType != "Configuration" || got.PayloadVersion != 1 || !uuid.MatchString(got.PayloadUUID) || got.PayloadIdentifier == "" || len(got.PayloadContent) != 2 {
		t.Fatalf("%+v", got)
	}
	seen := map[string]bool{got.PayloadUUID: true}
	for i, want := range []clientconfig.Root{one, two} {
		p := got.PayloadContent[i]
		if p.PayloadType != "com.apple.security.root" || p.PayloadVersion != 1 || !uuid.MatchString(p.PayloadUUID) || seen[p.PayloadUUID] || p.PayloadIdentifier == got.PayloadIdentifier {
			t.Errorf("%+v", p)
		}
		seen[p.PayloadUUID] = true
		if !bytes.Equal(p.PayloadContent, want.DER) {
			t.Errorf("the certificate is %x", p.PayloadContent)
		}
	}
	if name := got.PayloadContent[0].PayloadDisplayName; name != `o365pw <"laptop"> & co?` {
		t.Errorf("name %q", name)
	}
	if again := clientconfig.RootProfile("o365pw", one, two); !bytes.Equal(again, profile) {
		t.Error("the same authorities give another profile")
	}
	if other := clientconfig.RootProfile("o365pw", two); bytes.Contains(other, []byte(got.PayloadUUID)) {
		t.Error("other authorities give the same UUID")
	}
}

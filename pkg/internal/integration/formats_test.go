//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFormats has xmllint hold what the gateway tells mail programs, and what
// settings prints, to schemas that are written after the published descriptions.
func TestFormats(t *testing.T) {
	t.Parallel()
	l := newLab(t, options{messages: []message{}})
	page := freePorts(t, 1)[0]
	config, err := os.ReadFile(filepath.Join(l.dir, "config.toml"))
	must(t, err)
	l.file("config.toml", fmt.Appendf(config, "autoconfig = %q\n", page))
	l.create("all")
	l.o365pw("create", "imap", "--allow", "imap,smtp")
	l.o365pw("create", "pop3", "--allow", "pop3,smtp", "--mailbox", "a&b@contoso.com", "--no-wait")
	l.serve().await("settings for mail programs on " + page)

	valid := func(t *testing.T, schema, document string) {
		t.Helper()
		check := func(document string) result {
			return l.try(document, "xmllint", "--noout", "--nonet", "--relaxng", absolute(t, "testdata/formats/"+schema+".rng"), "-")
		}
		if r := check(document); r.code != 0 {
			t.Errorf("no %s: exit code %d\n%s\n%s", schema, r.code, r.stderr, document)
		}
		end := strings.LastIndex(document, "</")
		if end < 0 {
			t.Fatalf("no XML: %s", document)
		}
		if r := check(document[:end] + "<unknown/>" + document[end:]); r.code == 0 || !strings.Contains(r.stderr, "unknown") {
			t.Errorf("the schema of %s takes what is not in it: exit code %d\n%s", schema, r.code, r.stderr)
		}
	}
	web := func(t *testing.T, path string, args ...string) string {
		t.Helper()
		// By this name the gateway is reached from elsewhere.
		url := "https://autoconfig.contoso.com:" + port(page) + path
		r := l.try("", "curl", append([]string{"--silent", "--show-error", "--fail", "--cacert", l.ca, "--connect-to", "::" + page, url}, args...)...)
		if r.code != 0 {
			t.Fatalf("%s: exit code %d\n%s", url, r.code, r.stderr)
		}
		return r.stdout
	}
	ask := func(schema string) string {
		return l.file("ask.xml", fmt.Appendf(nil, `<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">
  <Request>
    <EMailAddress>alice@contoso.com</EMailAddress>
    <AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/%s</AcceptableResponseSchema>
  </Request>
</Autodiscover>
`, schema))
	}
	discover := func(t *testing.T, schema string) string {
		t.Helper()
		return web(t, "/Autodiscover/Autodiscover.xml", "--header", "Content-Type: text/xml", "--data-binary", "@"+ask(schema))
	}
	valid(t, "autoconfig", web(t, "/mail/config-v1.1.xml?emailaddress=alice@contoso.com"))
	valid(t, "autoconfig", web(t, "/.well-known/autoconfig/mail/config-v1.1.xml"))
	if got := discover(t, "outlook/responseschema/2006a"); strings.Count(got, "<Protocol>") != 3 {
		t.Errorf("Autodiscover answers\n%s", got)
	} else {
		valid(t, "autodiscover", got)
	}
	if got := discover(t, "mobilesync/responseschema/2006"); !strings.Contains(got, "<ErrorCode>601<") {
		t.Errorf("Autodiscover answers\n%s", got)
	} else {
		valid(t, "autodiscover", got)
	}
	valid(t, "mobileconfig", web(t, "/profile.mobileconfig?address=alice@contoso.com"))
	valid(t, "mobileconfig", l.o365pw("cert", "export", "--format", "mobileconfig"))
	for _, name := range []string{"imap", "pop3"} {
		valid(t, "autoconfig", l.o365pw("settings", name, "--for", "thunderbird"))
		valid(t, "mobileconfig", l.o365pw("settings", name, "--for", "apple-mail"))
	}
}

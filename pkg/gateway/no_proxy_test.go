package gateway

import (
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/http/httpproxy"
)

// FuzzNoProxy: what is excepted from the proxy is what net/http excepts.
func FuzzNoProxy(f *testing.F) {
	hosts := []string{
		"outlook.office365.com:993", "OUTLOOK.office365.com", "office365.com:993", "xoffice365.com:993", "localhost:993",
		"LOCALHOST:993", "127.0.0.9:993", "10.1.2.3:993", "192.0.2.1", "[::1]:993", "[2001:db8::1]:993", "[2001:db8::1%25eth0]:993", "[::ffff:10.1.2.3]:993",
	}
	for _, value := range []string{
		"", "*", ",,", " * ,x", "office365.com", ".office365.com", "*.office365.com", "*office365.com", "OFFICE365.COM:993, x", "office365.com:443",
		"outlook.office365.com", "10.0.0.0/8", "10.1.2.3", "10.1.2.3:993", "10.1.2.3:443", "::1", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:993",
		"2001:db8::/32", "::ffff:10.0.0.0/104", "0.0.0.0/0", ":993", "localhost", ".", "*.", "..", "*.:993", "com", "10.1.2.3/40", "/", "a,*,b",
		"2001:db8::1%eth0", "::ffff:10.1.2.3", "[office365.com]:993", ".10.1.2.3",
	} {
		for _, host := range hosts {
			f.Add(value, host)
		}
	}
	f.Fuzz(func(t *testing.T, value, host string) {
		u, err := url.Parse("https://" + host)
		if err != nil || u.Hostname() == "" || strings.ContainsAny(u.Hostname(), "[] ") { // nothing to connect to
			return
		}
		for _, text := range []string{value, host} { // its other rule: names that are not in ASCII
			if strings.ContainsFunc(text, func(r rune) bool { return r > 127 }) {
				return
			}
		}
		const via = "http://proxy.example:3128"
		theirs, err := (&httpproxy.Config{HTTPSProxy: via, NoProxy: value}).ProxyFunc()(u)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := ProxyFromEnvironment(func(key string) string {
			return map[string]string{"HTTPS_PROXY": via, "NO_PROXY": value}[key]
		})(u)
		if err != nil || (ours == nil) != (theirs == nil) {
			t.Errorf("NO_PROXY=%q, %s: %v (%v), net/http goes by %v", value, u.Host, ours, err, theirs)
		}
	})
}

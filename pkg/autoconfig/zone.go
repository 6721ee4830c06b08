package autoconfig

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/o365pw/o365pw/pkg/clientconfig"
)

// Zone are the lines for the zone of a domain (RFC 1035 section 5) by which mail
// programs find the gateway: SRV records (RFC 6186, RFC 8314 section 5.1), and
// the names that Thunderbird and Outlook look up. host is the gateway's name or
// address, port that of its autoconfiguration; of servers only the ports matter.
func Zone(domain, host, port string, servers map[string]clientconfig.Server) []byte {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-36s IN %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "; How mail programs find the o365pw gateway: lines for the zone of %s\n", domain)
	fmt.Fprintf(&b, "; Thunderbird asks https://autoconfig.%s/, on port 443\n", domain)
	autoconfig := "autoconfig." + domain
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Unmap().Is4():
		line(autoconfig+".", "A %s", ip.Unmap())
		host = autoconfig
	case err == nil:
		line(autoconfig+".", "AAAA %s", ip.WithZone(""))
		host = autoconfig
	case host == autoconfig: // the line is there, or the client would not have come by it
	case !strings.Contains(host, "."): // no name for others
		line(";"+autoconfig+".", "A (the gateway's address)")
		host = autoconfig
	default:
		line(autoconfig+".", "CNAME %s.", host)
	}
	// Each listener takes TLS from the first byte, and STARTTLS, on one port.
	b.WriteString("; Others (RFC 6186, RFC 8314)\n")
	for _, r := range []struct {
		service, protocol string
		priority          int
	}{
		{"_imaps", "imap", 0}, {"_imap", "imap", 10}, {"_pop3s", "pop3", 20}, {"_pop3", "pop3", 30},
		{"_submissions", "smtp", 0}, {"_submission", "smtp", 10},
	} {
		name := fmt.Sprintf("%s._tcp.%s.", r.service, domain)
		if s, ok := servers[r.protocol]; ok {
			line(name, "SRV %d 1 %d %s.", r.priority, s.Port, host)
		} else {
			line(name, "SRV 0 0 0 .") // RFC 6186 section 3.4: not offered
		}
	}
	fmt.Fprintf(&b, "; Outlook: with this line it no longer finds the mailboxes of %s at Microsoft 365\n; itself. It is for domains whose people all use the gateway.\n", domain)
	line(fmt.Sprintf(";_autodiscover._tcp.%s.", domain), "SRV 0 0 %s %s.", port, host)
	return []byte(b.String())
}

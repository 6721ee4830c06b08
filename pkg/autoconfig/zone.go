package autoconfig

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/o365pw/o365pw/pkg/clientconfig"
)

// Record is a DNS record (RFC 1035 section 3.2) by which mail programs find the
// gateway.
type Record struct {
	Name  string // whole, without the dot at its end
	Type  string // A, AAAA, CNAME, SRV
	Value string // as in a zone file
	For   string // who looks it up
	// Takes tells what is lost by the record; empty: nothing. It is for those who
	// have read that.
	Takes string
}

// Records are those of a domain: SRV records (RFC 6186, RFC 8314 section 5.1), and
// the names that Thunderbird and Outlook look up. host is the gateway's name or
// address; where it is none that others can use, autoconfig.DOMAIN has to be given its address.
// port is that of its autoconfiguration. Of servers only the ports matter.
func Records(domain, host, port string, servers map[string]clientconfig.Server) []Record {
	var list []Record
	own := "autoconfig." + domain
	name := Record{Name: own, For: "Thunderbird, which asks https://" + own + "/ on port 443"}
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Unmap().IsLoopback(): // nobody's address
	case err == nil && ip.Unmap().Is4():
		name.Type, name.Value = "A", ip.Unmap().String()
	case err == nil:
		name.Type, name.Value = "AAAA", ip.WithZone("").String()
	case host != own && strings.Contains(host, "."):
		name.Type, name.Value = "CNAME", host+"."
	}
	if name.Type != "" {
		list = append(list, name)
	}
	if name.Type != "CNAME" {
		host = own
	}
	// Each listener takes TLS from the first byte, and STARTTLS, on one port.
	for _, r := range []struct {
		service, protocol string
		priority          int
	}{
		{"_imaps", "imap", 0}, {"_imap", "imap", 10}, {"_pop3s", "pop3", 20}, {"_pop3", "pop3", 30},
		{"_submissions", "smtp", 0}, {"_submission", "smtp", 10},
	} {
		value := "0 0 0 ." // RFC 6186 section 3.4: not offered
		if s, ok := servers[r.protocol]; ok {
			value = fmt.Sprintf("%d 1 %d %s.", r.priority, s.Port, host)
		}
		list = append(list, Record{Name: r.service + "._tcp." + domain, Type: "SRV", Value: value, For: "other mail programs (RFC 6186, RFC 8314)"})
	}
	return append(list, Record{Name: "_autodiscover._tcp." + domain, Type: "SRV", Value: fmt.Sprintf("0 0 %s %s.", port, host), For: "Outlook",
		Takes: "with it Outlook no longer finds the mailboxes of " + domain + " at Microsoft 365 itself: for domains whose people all use the gateway"})
}

// Zone are the records as lines for the zone file. Those that take something are
// comments.
func Zone(records []Record) []byte {
	var b strings.Builder
	why := ""
	for _, r := range records {
		if r.For != why {
			why = r.For
			fmt.Fprintf(&b, "; for %s\n", why)
		}
		name := r.Name + "."
		if r.Takes != "" {
			fmt.Fprintf(&b, "; %s\n", r.Takes)
			name = ";" + name
		}
		fmt.Fprintf(&b, "%-36s IN %-5s %s\n", name, r.Type, r.Value)
	}
	return []byte(b.String())
}

package gateway

import (
	"net"
	"strings"
)

// exception is an entry of NO_PROXY: a network, an address, or a domain.
type exception struct {
	network *net.IPNet
	ip      net.IP
	domain  string // begins with a dot
	itself  bool   // the domain is meant too, not only what is below it
	port    string // empty: any
}

// exceptions reads the value of NO_PROXY, a list with commas, by the rules of
// net/http: 10.0.0.0/8 is a network, 10.0.0.1 an address, example.com a domain and
// all below it, .example.com and *.example.com only what is below it. All but
// networks may have a port, as in [2001:db8::1]:993. "*" is everything. An
// international name has to be written in ASCII (xn--), as that of a server is.
func exceptions(value string) (list []exception, everything bool) {
	for item := range strings.SplitSeq(strings.ToLower(value), ",") {
		item = strings.TrimSpace(item)
		if item == "*" {
			return nil, true
		}
		if _, network, err := net.ParseCIDR(item); err == nil {
			list = append(list, exception{network: network})
			continue
		}
		host, port, err := net.SplitHostPort(item)
		if err != nil {
			host, port = item, ""
		}
		if host == "" {
			continue
		}
		e := exception{ip: net.ParseIP(host), port: port}
		if strings.HasPrefix(host, "*.") {
			host = host[1:]
		}
		e.itself = host[0] != '.'
		e.domain = "." + strings.TrimPrefix(host, ".")
		list = append(list, e)
	}
	return list, false
}

// covers tells whether a server is excepted. ip is nil where host is a name, which
// is in lower case.
func (e exception) covers(host string, ip net.IP, port string) bool {
	switch {
	case e.port != "" && e.port != port:
		return false
	case e.network != nil:
		return ip != nil && e.network.Contains(ip)
	case e.ip != nil || ip != nil:
		return e.ip.Equal(ip)
	case e.itself:
		host = "." + host
	}
	return strings.HasSuffix(host, e.domain)
}

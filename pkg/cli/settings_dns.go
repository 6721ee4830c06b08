package cli

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/autoconfig"
	"github.com/o365pw/o365pw/pkg/clientconfig"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// dnsJSON are the DNS records of a mail domain.
type dnsJSON struct {
	SchemaVersion int             `json:"schemaVersion"`
	Domain        string          `json:"domain"`
	Records       []dnsRecordJSON `json:"records"`
}

type dnsRecordJSON struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Value string `json:"value"`
	For   string `json:"for"`
	Takes string `json:"takes,omitempty"`
}

// runDNS prints the records by which mail programs find the gateway of a domain.
func (a *app) runDNS(ctx context.Context, domain string) error {
	domain = strings.ToLower(domain)
	if !config.IsDomain(domain) {
		return &usageError{problem: quote(domain) + " is no mail domain", hint: "o365pw settings --dns contoso.com"}
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	listeners, page := s.listening(ctx)
	port := "443"
	host := s.outsideName(page)
	if page == "" {
		a.warn("the gateway tells mail programs no settings, so that only the SRV records are of use; in [gateway] of the configuration: autoconfig = \"0.0.0.0:8443\"")
	} else {
		_, port, _ = net.SplitHostPort(page)
	}
	servers := map[string]clientconfig.Server{}
	for p, addr := range listeners {
		h, sp, err := net.SplitHostPort(addr)
		n, _ := strconv.Atoi(sp)
		if err != nil {
			continue
		}
		if isLoopback(h) {
			a.warn("the gateway listens for %s on this machine alone", p)
		}
		if page == "" {
			host = s.outsideName(addr)
		}
		servers[string(p)] = clientconfig.Server{Host: h, Port: n, Security: "tls"}
	}
	records := autoconfig.Records(domain, host, port, servers)
	v := dnsJSON{SchemaVersion: schemaVersion, Domain: domain}
	var rows [][]string
	for _, r := range records {
		v.Records = append(v.Records, dnsRecordJSON(r))
		rows = append(rows, []string{r.Name, r.Type, r.Value, r.For, r.Takes})
	}
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		return a.printCSV([]string{"name", "type", "value", "for", "takes"}, rows)
	case outputName:
		for _, r := range records {
			if err := a.printf("%s\n", r.Name); err != nil {
				return err
			}
		}
		return nil
	}
	return a.print(autoconfig.Zone(records))
}

// listening are the addresses of the running gateway, else those that the
// configuration gives it; page is that of its autoconfiguration.
func (s *session) listening(ctx context.Context) (listeners map[gateway.Protocol]string, page string) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if st, err := controlOf(s.stateDir).Status(ctx); err == nil {
		return st.Listeners, st.Autoconfig
	}
	return map[gateway.Protocol]string{gateway.IMAP: s.gateway.IMAP, gateway.POP3: s.gateway.POP3, gateway.SMTP: s.gateway.SMTP}, s.gateway.Autoconfig
}

// outsideName is by what other machines reach a listener: a name in its
// certificate. A name without a dot means nothing to most of them; the certificate
// of the local authority is good for the address, too.
func (s *session) outsideName(listen string) string {
	host, _, _ := net.SplitHostPort(listen)
	name := clientHost(host)
	if s.gateway.TLSCert != "" {
		return s.ownCertificate().name(name)
	}
	if name == host || strings.Contains(name, ".") {
		return name
	}
	if address := outsideHost(); address != "0.0.0.0" {
		return address
	}
	return name
}

// profilePage is the address of the page with the profile of a mailbox for
// Apple's devices; empty where other machines do not reach it.
func (s *session) profilePage(ctx context.Context, address string) string {
	_, page := s.listening(ctx)
	host, port, err := net.SplitHostPort(page)
	if err != nil || isLoopback(host) {
		return ""
	}
	_, domain, _ := strings.Cut(strings.ToLower(address), "@")
	if given := s.gateway.AutoconfigDomains; len(given) > 0 && !slices.Contains(given, domain) {
		return ""
	}
	return fmt.Sprintf("https://%s/profile.mobileconfig?address=%s", net.JoinHostPort(s.outsideName(page), port), url.QueryEscape(address))
}

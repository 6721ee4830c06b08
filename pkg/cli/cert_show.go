package cli

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/internal/localca"
)

func newCertShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show the certificate that mail programs see, and the authority behind it",
		Long: `Shows the certificate that the running gateway shows, the local authority that
signs it, and the one that is to take over, with their fingerprints to compare
with what a device shows, and the trust stores of this machine that have them.

-o name prints the SHA-256 fingerprints alone.`,
		Example: `  o365pw cert show
  o365pw cert show --jq '.certificates[] | select(.role == "authority") | .sha256'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runCertShow(cmd.Context()) },
	}
}

// Roles of a certificate.
const (
	roleServer       = "server"       // mail programs see it
	roleIntermediate = "intermediate" // sent along with one's own
	roleAuthority    = "authority"    // the local one, in force
	roleNext         = "next"         // is to take over from it
)

type certShowJSON struct {
	SchemaVersion int               `json:"schemaVersion"`
	Own           bool              `json:"own"` // by tls_cert and tls_key
	Certificates  []certificateJSON `json:"certificates"`
}

type certificateJSON struct {
	Role      string     `json:"role"`
	Subject   string     `json:"subject"`
	Issuer    string     `json:"issuer"`
	Names     []string   `json:"names"` // DNS names and IP addresses
	SHA256    string     `json:"sha256"`
	SHA1      string     `json:"sha1"`
	ValidFrom *time.Time `json:"validFrom"`
	Expires   *time.Time `json:"expires"`
	TakesOver *time.Time `json:"takesOver"` // of next
	File      string     `json:"file"`      // empty: in memory alone
	UsedBy    []string   `json:"usedBy"`    // of server: addresses of the gateway
	TrustedBy []string   `json:"trustedBy"` // stores of this machine
}

// fingerprint is the SHA-256 of a certificate as devices show it.
func fingerprint(c *x509.Certificate) string { return colons(fmt.Sprintf("%X", sha256.Sum256(c.Raw))) }

func colons(hex string) string {
	var parts []string
	for pair := range slices.Chunk([]byte(hex), 2) {
		parts = append(parts, string(pair))
	}
	return strings.Join(parts, ":")
}

func describeCertificate(role, file string, c *x509.Certificate) certificateJSON {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return certificateJSON{
		Role: role, Subject: c.Subject.String(), Issuer: c.Issuer.String(), Names: orEmpty(names),
		SHA256: fingerprint(c), SHA1: colons(fmt.Sprintf("%X", sha1.Sum(c.Raw))),
		ValidFrom: utc(c.NotBefore), Expires: utc(c.NotAfter), File: file, UsedBy: []string{}, TrustedBy: []string{},
	}
}

// gatewayCertificates are the certificates that the gateway is made of, as they
// are on the disk: one's own with what is sent along, or the local authority with
// its successor. There may be none yet.
func gatewayCertificates(settings config.Gateway, stateDir string) (certs []*x509.Certificate, roles []string, file string, err error) {
	if settings.TLSCert == "" {
		au := &authority{dir: stateDir}
		certs, err = au.certificates()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, au.file(), nil
		}
		return certs, []string{roleAuthority, roleNext}, au.file(), err
	}
	b, err := os.ReadFile(settings.TLSCert)
	if err == nil {
		certs, err = localca.ParseCertificates(b)
	}
	if err != nil {
		return nil, nil, settings.TLSCert, &config.Error{Key: "gateway.tls_cert", Problem: err.Error(), Hint: "name a PEM file with the gateway's certificate in tls_cert", Err: err}
	}
	roles = append([]string{roleServer}, slices.Repeat([]string{roleIntermediate}, len(certs)-1)...)
	return certs, roles, settings.TLSCert, nil
}

func (a *app) runCertShow(ctx context.Context) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	settings := config.DefaultGateway()
	if cfg != nil {
		settings = cfg.Gateway
	}
	dir, err := config.StateDir(a.Getenv)
	if err != nil {
		return err
	}
	certs, roles, file, err := gatewayCertificates(settings, dir)
	if err != nil {
		return err
	}
	v := certShowJSON{SchemaVersion: schemaVersion, Own: settings.TLSCert != "", Certificates: []certificateJSON{}}
	leaf, usedBy := a.seenCertificate(ctx, dir)
	if leaf != nil && (len(certs) == 0 || !certs[0].Equal(leaf)) {
		c := describeCertificate(roleServer, "", leaf)
		c.UsedBy = usedBy
		v.Certificates = append(v.Certificates, c)
	}
	stores := a.trustStores(storeKinds)
	for i, cert := range certs {
		c := describeCertificate(roles[i], file, cert)
		switch {
		case leaf != nil && cert.Equal(leaf):
			c.UsedBy = usedBy
		case roles[i] == roleNext:
			c.TakesOver = utc(takesOver(certs[0]))
		}
		if roles[i] == roleAuthority || roles[i] == roleNext {
			for _, s := range stores {
				a.progress.set("asking %s", s.name)
				if has, err := s.has(ctx, cert); err == nil && has {
					c.TrustedBy = append(c.TrustedBy, s.name)
				}
			}
		}
		v.Certificates = append(v.Certificates, c)
	}
	return a.printCertShow(v, file)
}

// seenCertificate is the one that the running gateway shows, and the addresses
// that it is shown at; nil where none runs.
func (a *app) seenCertificate(ctx context.Context, stateDir string) (leaf *x509.Certificate, usedBy []string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	st, err := controlOf(stateDir).Status(ctx)
	if err != nil {
		return nil, nil
	}
	for _, p := range gateway.Protocols() {
		addr := st.Listeners[p]
		if addr == "" {
			continue
		}
		if leaf == nil {
			if leaf, _, err = shown(ctx, dialable(addr)); err != nil {
				leaf = nil
				continue
			}
		}
		usedBy = append(usedBy, string(p)+" on "+addr)
	}
	return leaf, usedBy
}

func (a *app) printCertShow(v certShowJSON, file string) error {
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		var rows [][]string
		for _, c := range v.Certificates {
			rows = append(rows, []string{c.Role, c.Subject, c.Issuer, strings.Join(c.Names, " "), c.SHA256, c.SHA1, date(c.ValidFrom), date(c.Expires), date(c.TakesOver), c.File,
				strings.Join(c.UsedBy, ", "), strings.Join(c.TrustedBy, ", ")})
		}
		return a.printCSV([]string{"role", "subject", "issuer", "names", "sha256", "sha1", "validFrom", "expires", "takesOver", "file", "usedBy", "trustedBy"}, rows)
	case outputName:
		for _, c := range v.Certificates {
			if err := a.printf("%s\n", c.SHA256); err != nil {
				return err
			}
		}
		return nil
	}
	var b strings.Builder
	for i, c := range v.Certificates {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(a.paint(bold, certificateTitles[c.Role]) + "\n")
		for _, row := range a.certificateRows(c) {
			if row[1] != "" {
				fmt.Fprintf(&b, "  %-10s %s\n", row[0], printable(row[1]))
			}
		}
	}
	if len(v.Certificates) == 0 {
		a.note("there is no certificate yet: o365pw serve makes one, or o365pw cert export, in %s", file)
	}
	return a.print([]byte(b.String()))
}

var certificateTitles = map[string]string{roleServer: "The certificate that mail programs see", roleIntermediate: "Sent along with it", roleAuthority: "The authority that signs it", roleNext: "The authority that is to take over"}

// certificateRows are what people read of a certificate: labels and values, of
// which the empty ones are left out.
func (a *app) certificateRows(c certificateJSON) [][2]string {
	issuer, over, trusted := c.Issuer, "", strings.Join(c.TrustedBy, ", ")
	if issuer == c.Subject {
		issuer = ""
	}
	if c.TakesOver != nil {
		over = a.day(*c.TakesOver) + "; at once: o365pw cert renew --now"
	}
	if trusted == "" && (c.Role == roleAuthority || c.Role == roleNext) {
		trusted = "no store of this machine; to change that: o365pw cert install"
	}
	return [][2]string{
		{"Subject", c.Subject}, {"Issuer", issuer}, {"Names", strings.Join(c.Names, ", ")}, {"SHA-256", c.SHA256}, {"SHA-1", c.SHA1},
		{"Good until", a.day(*c.Expires)}, {"Takes over", over}, {"File", c.File}, {"Shown by", strings.Join(c.UsedBy, ", ")}, {"Trusted by", trusted},
	}
}

// day is a time for people who plan by days.
func (a *app) day(t time.Time) string {
	return t.Local().Format("2 January 2006") + " (" + relative(t, a.Now()) + ")"
}

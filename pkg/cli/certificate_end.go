package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
)

// gatewayCertificate is how it stands with the gateway's certificate, by what is
// on the disk: one's own, or the local authority that makes it.
type gatewayCertificate struct {
	Own     bool       `json:"own"`  // by tls_cert and tls_key
	File    string     `json:"file"` // with the certificate, or that of the local authority
	Expires *time.Time `json:"expires"`
	Renewed bool       `json:"renewed"` // an authority is there to take over

	chain []*x509.Certificate // of one's own: the certificate, and what is sent along
}

// certificateOf gives nil where there is no certificate yet.
func certificateOf(settings config.Gateway, stateDir string) (*gatewayCertificate, error) {
	if stateDir == "" {
		return nil, nil
	}
	certs, _, file, err := gatewayCertificates(settings, stateDir)
	if err != nil || len(certs) == 0 {
		return nil, err
	}
	c := &gatewayCertificate{Own: settings.TLSCert != "", File: file, Expires: utc(certs[0].NotAfter)}
	if c.Own {
		c.chain = certs
	} else {
		c.Renewed = len(certs) > 1
	}
	return c, nil
}

// endsSoon tells of an end that is near, and what to do about it: the commands,
// one each. The problem is empty where it is far.
func (c *gatewayCertificate) endsSoon(now time.Time) (problem string, fix []string) {
	left := c.Expires.Sub(now)
	when := fmt.Sprintf("ends on %s (%s)", c.Expires.Format(time.DateOnly), relative(*c.Expires, now))
	if left <= 0 {
		when = "has ended on " + c.Expires.Format(time.DateOnly)
	}
	switch {
	case c.Own && left < certificateSoon:
		return "the gateway's certificate " + when, []string{"renew the certificate in " + c.File + ", which a running gateway takes up by itself"}
	case c.Own || left >= caRenewBefore:
		return "", nil
	case left <= 0 && !c.Renewed:
		return "the gateway's authority " + when, []string{"o365pw cert renew --now", "o365pw cert install", "o365pw cert export"}
	case c.Renewed:
		return "the gateway's authority " + when + ", and a new one takes over a day before", []string{"o365pw cert install", "o365pw cert export"}
	}
	return "the gateway's authority " + when, []string{"o365pw cert renew", "o365pw cert install", "o365pw cert export"}
}

// unknownIssuer is who has signed the last certificate of a chain of one's own,
// where neither the chain nor this machine has that one's certificate.
func (c *gatewayCertificate) unknownIssuer() string {
	if len(c.chain) == 0 {
		return ""
	}
	last := c.chain[len(c.chain)-1]
	if last.CheckSignatureFrom(last) == nil || last.Subject.String() == last.Issuer.String() {
		return "" // all that there is is sent
	}
	system, err := x509.SystemCertPool()
	if err != nil {
		return ""
	}
	sent := x509.NewCertPool()
	for _, cert := range c.chain[1:] {
		sent.AddCert(cert)
	}
	_, err = c.chain[0].Verify(x509.VerifyOptions{Roots: system, Intermediates: sent, CurrentTime: c.chain[0].NotBefore.Add(time.Second)})
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
		return ""
	}
	return last.Issuer.String()
}

// certificateEnd is when a certificate of the running gateway ends.
type certificateEnd struct {
	role string // server or authority
	at   time.Time
	id   string // fingerprint
}

// certificateEnds are those of the certificate that clients see, and of the local
// authority where it has signed that.
func (g *gatewayRun) certificateEnds() []certificateEnd {
	var list []certificateEnd
	if leaf := g.leaf(); leaf != nil {
		list = append(list, certificateEnd{roleServer, leaf.NotAfter, fingerprint(leaf)})
	}
	if g.settings().TLSCert == "" {
		if certs, err := (&authority{dir: g.stateDir}).certificates(); err == nil {
			list = append(list, certificateEnd{roleAuthority, certs[0].NotAfter, fingerprint(certs[0])})
		}
	}
	return list
}

// certificateDays are how many days before its end it is told.
func certificateDays(role string) []int {
	if role == roleAuthority {
		return []int{1, 7, 30, 90}
	}
	return expiryDays
}

// checkCertificates tells, in the log and by on_expiring, of certificates that
// come to one of their days. The gateway renews what it makes itself, and tells
// of the authority alone.
func (h *hooks) checkCertificates(now time.Time) {
	ends := h.certificates()
	for _, c := range ends {
		if c.role == roleServer && len(ends) > 1 {
			continue
		}
		left := int(math.Ceil(c.at.Sub(now).Hours() / 24))
		step := 0
		for _, days := range certificateDays(c.role) {
			if left <= days {
				step = days
				break
			}
		}
		if told, any := h.toldCertificates[c.id]; step == 0 || any && told <= step {
			continue
		}
		if h.toldCertificates == nil {
			h.toldCertificates = map[string]int{}
		}
		h.toldCertificates[c.id] = step
		e := certificateEvent(c, left, now)
		h.log.Warn("a certificate ends soon", "certificate", c.role, "days_left", left, "advice", e.Message)
		h.queue(onExpiring, hookRun{event: e})
	}
}

func certificateEvent(c certificateEnd, left int, now time.Time) hookEvent {
	v := hookEvent{SchemaVersion: schemaVersion, Event: "certificate-expiring", Time: now.UTC().Truncate(time.Second), ID: c.id, Expires: utc(c.at), DaysLeft: max(left, 0)}
	in := "ends in " + plural(left, "day")
	if left <= 0 {
		in = "has ended"
	}
	if c.role == roleAuthority {
		v.Message = "The local authority of the gateway " + in + ", and a new one takes over a day before. Your move: have the mail programs trust that one, too (o365pw cert install, o365pw cert export)."
		return v
	}
	v.Message = "The gateway's certificate " + in + ". Your move: renew it; a running gateway takes it up by itself."
	return v
}

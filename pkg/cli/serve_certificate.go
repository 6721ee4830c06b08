package cli

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/internal/localca"
	"github.com/o365pw/o365pw/pkg/secret"
)

// listenNames are the names by which clients reach a listener on host.
func listenNames(host string) []string {
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return []string{host}
	}
	var names []string
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return names
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			names = append(names, n.IP.String())
		}
	}
	return names
}

const (
	// certificatePoll is how often the gateway looks whether its certificate has
	// changed.
	certificatePoll = 2 * time.Second
	// certificateRetry is how often one that could not be used is tried again
	// although its files are the same: the keychain may have been locked.
	certificateRetry = time.Minute
	// authorityEvery is how often it looks whether the local authority is near
	// its end.
	authorityEvery = time.Hour
)

// certificate chooses the gateway's certificate: the configuration's, or one
// of the local authority, which is made at first use. The authority's key
// lives in the keychain; the certificate file holds nothing secret.
func (g *gatewayRun) certificate(ctx context.Context, settings config.Gateway, keychain string) error {
	if settings.TLSCert != "" {
		return g.ownCertificate(ctx, settings, keychain)
	}
	au := g.authority(keychain)
	ca, err := au.open(ctx)
	if err != nil {
		return fmt.Errorf("the gateway's certificate: %w", err)
	}
	c, err := localca.Config(func(time.Time) (tls.Certificate, error) { return ca.Leaf(g.leafNames(), g.a.Now()) })
	if err != nil {
		return fmt.Errorf("the gateway's certificate: %w", err)
	}
	g.useForOld(ca)
	g.use(c, au.file(), certificateFiles{cert: ca.Certificate.Raw})
	return nil
}

// ownCertificate is certificate for one that the configuration names.
func (g *gatewayRun) ownCertificate(ctx context.Context, settings config.Gateway, keychain string) error {
	files, err := g.certificateFiles(settings)
	var own tls.Certificate
	if err == nil {
		own, err = tls.X509KeyPair(files.cert, files.key)
	}
	if err != nil {
		return &config.Error{Key: "gateway.tls_cert", Problem: err.Error(), Hint: "name PEM files of a certificate and its key in tls_cert and tls_key, or leave both empty", Err: err}
	}
	if _, isRSA := own.PrivateKey.(*rsa.PrivateKey); isRSA || len(settings.Legacy) == 0 {
		g.legacyRSA.Store(nil)
	} else {
		ca, err := g.authority(keychain).open(ctx)
		if err != nil {
			return fmt.Errorf("the certificate for old devices: %w", err)
		}
		g.useForOld(ca)
	}
	g.use(&tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &own, nil }}, "", files)
	return nil
}

// use puts a certificate in force, for connections from now on.
func (g *gatewayRun) use(c *tls.Config, caFile string, files certificateFiles) {
	g.tls.Store(c)
	g.certMu.Lock()
	defer g.certMu.Unlock()
	g.caFile, g.madeOf = caFile, files
}

// useForOld has the authority certify an RSA key for old devices, once one asks.
func (g *gatewayRun) useForOld(ca *localca.CA) {
	get := localca.Certificates(func(time.Time) (tls.Certificate, error) { return ca.LeafRSA(g.names, g.a.Now()) })
	g.legacyRSA.Store(&get)
}

// authority is the one of this gateway's state folder.
func (g *gatewayRun) authority(keychain string) *authority {
	return g.a.authority(g.stateDir, func() (secret.Keychain, error) { return g.keychains(keychain) }, func(text string) { g.log.Warn(text) })
}

// certificateFiles is what a certificate is made of: the content of tls_cert and
// tls_key, or the certificate of the local authority that signs it.
type certificateFiles struct{ cert, key []byte }

func (f certificateFiles) equal(o certificateFiles) bool {
	return bytes.Equal(f.cert, o.cert) && bytes.Equal(f.key, o.key)
}

// certificateFiles reads what the certificate is to be made of, as it is now.
func (g *gatewayRun) certificateFiles(settings config.Gateway) (f certificateFiles, err error) {
	if settings.TLSCert == "" {
		certs, err := (&authority{dir: g.stateDir}).certificates()
		if err == nil {
			f.cert = certs[0].Raw
		}
		return f, err
	}
	if f.cert, err = os.ReadFile(settings.TLSCert); err != nil {
		return f, err
	}
	f.key, err = os.ReadFile(settings.TLSKey)
	return f, err
}

// watchCertificate takes up a certificate whose files have changed, until ctx
// ends. What cannot be used (a new certificate whose key has not come yet, files
// that cannot be read) leaves the former one in force, and is logged once. Links
// are followed each time, so that a link that is turned to another file counts
// as a change.
func (g *gatewayRun) watchCertificate(ctx context.Context) {
	tick := time.NewTicker(certificatePoll)
	defer tick.Stop()
	tended, tried := g.a.Now(), g.a.Now()
	var wrong certificateFiles // what could not be used when it was tried
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		settings, now := g.settings(), g.a.Now()
		if settings.TLSCert == "" && now.Sub(tended) >= authorityEvery {
			tended = now
			if err := g.tendAuthority(ctx); err != nil {
				g.log.Error("the local authority cannot be looked after", "error", err)
			}
		}
		files, err := g.certificateFiles(settings)
		if err == nil {
			g.certMu.Lock()
			same := files.equal(g.madeOf)
			g.certMu.Unlock()
			switch {
			case same:
				told = "" // what was wrong is over
				continue
			case told != "" && files.equal(wrong) && now.Sub(tried) < certificateRetry:
				continue
			}
			wrong, tried = files, now
			err = g.takeUp(ctx)
		}
		switch {
		case err == nil:
			told = ""
			g.log.Info("the gateway's certificate has changed, and is in use", "expires", g.leaf().NotAfter.UTC())
		case err.Error() != told && ctx.Err() == nil:
			told = err.Error()
			g.log.Error("the gateway's certificate has changed and cannot be used; the former one stays in use until it can", "error", err)
		}
	}
}

// takeUp loads the certificate anew. A reload does not come in between.
func (g *gatewayRun) takeUp(ctx context.Context) error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	keychain, err := g.ownKeychain()
	if err != nil {
		return err
	}
	return g.certificate(ctx, g.settings(), keychain)
}

// tendAuthority gives the local authority a successor when its time has come,
// and puts that in force; watchCertificate sees it then.
func (g *gatewayRun) tendAuthority(ctx context.Context) error {
	keychain, err := g.ownKeychain()
	if err != nil {
		return err
	}
	_, err = g.authority(keychain).open(ctx)
	return err
}

// leaf is the certificate that clients see.
func (g *gatewayRun) leaf() *x509.Certificate {
	c, err := g.tls.Load().GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		return nil
	}
	return c.Leaf
}

package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/internal/durable"
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

// caKeyItem is the keychain item with the local authority's private key.
const caKeyItem = "local-ca-key"

// certificate chooses the gateway's certificate: the configuration's, or one
// of the local authority, which is made at first use. The authority's key
// lives in the keychain; the certificate file holds nothing secret.
func (g *gatewayRun) certificate(ctx context.Context, settings config.Gateway, keychain string) error {
	if settings.TLSCert != "" {
		c, err := localca.Config(func(time.Time) (tls.Certificate, error) {
			return tls.LoadX509KeyPair(settings.TLSCert, settings.TLSKey)
		})
		if err != nil {
			return &config.Error{Key: "gateway.tls_cert", Problem: err.Error(), Hint: "name PEM files of a certificate and its key in tls_cert and tls_key, or leave both empty", Err: err}
		}
		g.tls.Store(c)
		g.caFile = ""
		return nil
	}
	k, err := g.keychains(keychain)
	if err != nil {
		return err
	}
	file := filepath.Join(g.stateDir, "ca.pem")
	ca, err := loadCA(ctx, file, k, g.a.Now())
	if errors.Is(err, fs.ErrNotExist) {
		ca, err = makeCA(ctx, file, k, g.a.Now())
	} else if errors.Is(err, secret.ErrNotFound) {
		g.log.Warn("the key of the local authority is gone from the keychain; a new authority is made, which the mail programs must be told to trust anew")
		ca, err = makeCA(ctx, file, k, g.a.Now())
	}
	if err != nil {
		return fmt.Errorf("the gateway's certificate: %w", err)
	}
	c, err := localca.Config(func(now time.Time) (tls.Certificate, error) { return ca.Leaf(g.leafNames(), now) })
	if err != nil {
		return fmt.Errorf("the gateway's certificate: %w", err)
	}
	g.tls.Store(c)
	g.caFile = file
	return nil
}

func loadCA(ctx context.Context, file string, k secret.Keychain, now time.Time) (*localca.CA, error) {
	cert, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := k.Get(ctx, caKeyItem)
	if err != nil {
		return nil, err
	}
	ca, err := localca.Load(cert, []byte(key.Reveal()), now)
	if err != nil {
		return nil, &config.Error{Problem: fmt.Sprintf("the local authority in %s cannot be used: %v", file, err), Err: err,
			Hint: "check the clock; or move the file away, and a new authority is made, which the mail programs must be told to trust anew"}
	}
	return ca, nil
}

// makeCA takes an old certificate away, then keeps the key, then the
// certificate: killed in between, the next start makes a new authority.
func makeCA(ctx context.Context, file string, k secret.Keychain, now time.Time) (*localca.CA, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	cert, key, err := localca.Create(host, now)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := k.Set(ctx, caKeyItem, secret.New(string(key))); err != nil {
		return nil, err
	}
	if err := durable.WriteFile(file, cert); err != nil {
		return nil, err
	}
	return localca.Load(cert, key, now)
}

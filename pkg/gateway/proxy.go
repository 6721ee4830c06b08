package gateway

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/proxy"
)

// Limits on a proxy.
const (
	// proxyTimeout is how long a proxy may take to connect to the upstream, the
	// sign-in at the proxy included.
	proxyTimeout = 20 * time.Second
	// proxyMaxHead holds an answer's status line and header fields. A refusal
	// may carry tokens for several schemes of authentication.
	proxyMaxHead = 64 << 10
	// proxyMaxInterim is how many interim answers may come before the one.
	proxyMaxInterim = 5
)

// ProxyFromEnvironment is a function for [Server.Proxy] that goes by
// HTTPS_PROXY and NO_PROXY, in upper or lower case, with the rules that net/http
// has for an https URL: this machine is never reached by a proxy. The
// environment is read once, by getenv. Where HTTPS_PROXY is no address of a
// proxy, the function fails for each URL that is for a proxy: to connect without
// one would go past what the network's owner has asked for.
func ProxyFromEnvironment(getenv func(string) string) func(*url.URL) (*url.URL, error) {
	given := cmp.Or(getenv("HTTPS_PROXY"), getenv("https_proxy"))
	via, err := url.Parse(given)
	if err != nil || via.Scheme == "" || via.Host == "" {
		via, err = url.Parse("http://" + given)
	}
	if err != nil || via.Hostname() == "" || strings.HasPrefix(via.Path, "//") {
		via = nil
	}
	excepted, everything := exceptions(cmp.Or(getenv("NO_PROXY"), getenv("no_proxy")))
	return func(u *url.URL) (*url.URL, error) {
		host, port := u.Hostname(), cmp.Or(u.Port(), "443")
		addr, _ := netip.ParseAddr(host)
		ip := net.IP(addr.AsSlice())
		if given == "" || everything || u.Scheme != "https" || host == "localhost" || ip.IsLoopback() ||
			slices.ContainsFunc(excepted, func(e exception) bool { return e.covers(strings.ToLower(host), ip, port) }) {
			return nil, nil
		}
		if via == nil {
			return nil, errNoProxyURL // the parser's error would quote it, with its password
		}
		return via, nil
	}
}

var errNoProxyURL = errors.New("its value is no address of a proxy, as http://proxy.example:3128 is")

// dialer connects to servers, by way of a proxy where there is one.
type dialer struct {
	dialTCP func(ctx context.Context, network, address string) (net.Conn, error)
	proxy   func(*url.URL) (*url.URL, error) // nil: none
	passed  func(Step)                       // told of each step that is done; may be nil
	gateway bool                             // the servers are gateways to be tried
}

func (s *Server) dialer() dialer { return dialer{dialTCP: s.Dial, proxy: s.Proxy} }

// connect makes a connection to u, without TLS.
func (d dialer) connect(ctx context.Context, u Upstream) (*upstream, error) {
	up := &upstream{address: u.Address, config: &tls.Config{}, passed: d.passed, gateway: d.gateway}
	up.at(StepConnect)
	host, _, err := net.SplitHostPort(u.Address)
	if err != nil {
		return nil, up.unavailable("address", err)
	}
	if u.TLS != nil {
		up.config = u.TLS.Clone()
	}
	up.config.ServerName = cmp.Or(up.config.ServerName, host)
	up.config.MinVersion = max(up.config.MinVersion, tls.VersionTLS12)
	if d.dialTCP == nil {
		d.dialTCP = new(net.Dialer).DialContext
	}

	var via *url.URL
	if d.proxy != nil {
		if via, err = d.proxy(&url.URL{Scheme: "https", Host: u.Address}); err != nil {
			up.step, up.proxy = StepProxy, "HTTPS_PROXY"
			return nil, up.unavailable("proxy", err)
		}
	}
	if via == nil {
		conn, err := d.dialTCP(ctx, "tcp", u.Address)
		if err != nil {
			return nil, up.unavailable("connect", err)
		}
		up.raw = newRawConn(conn)
	} else {
		up.step, up.proxy = StepProxy, via.Scheme+"://"+via.Host
		if err := d.tunnel(ctx, up, via); err != nil {
			if up.raw != nil {
				_ = up.raw.Close()
			}
			e := up.failed("proxy", err)
			if refused, ok := errors.AsType[*proxyRefusedError](err); ok {
				e.Fault = refused.fault()
			}
			e.Fix = cmp.Or(fixForProxy(err, via), "set HTTPS_PROXY to the proxy that leads there, or add "+host+" to NO_PROXY if none is needed")
			return nil, &Refusal{Reason: Unavailable, Err: e}
		}
	}
	up.conn, up.in = up.raw, bufio.NewReaderSize(up.raw, readBuffer)
	return up, nil
}

// tunnel connects to up by way of a proxy. up.raw is set as soon as there is
// something to close.
func (d dialer) tunnel(ctx context.Context, up *upstream, via *url.URL) error {
	ctx, cancel := context.WithTimeoutCause(ctx, proxyTimeout, fmt.Errorf("no answer within %s", proxyTimeout))
	defer cancel()
	port, ok := map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[via.Scheme]
	if !ok {
		return fmt.Errorf("proxies of the scheme %q are not spoken to", limited(via.Scheme, 20))
	}
	if strings.HasPrefix(via.Scheme, "socks") {
		return d.socks(ctx, up, via)
	}
	conn, err := d.dialTCP(ctx, "tcp", net.JoinHostPort(via.Hostname(), cmp.Or(via.Port(), port)))
	if err != nil {
		return err
	}
	up.raw = newRawConn(conn)
	if via.Scheme == "https" {
		config := &tls.Config{ServerName: via.Hostname(), RootCAs: up.config.RootCAs, MinVersion: tls.VersionTLS12}
		over := tls.Client(up.raw, config)
		if err := over.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("TLS handshake: %w", err)
		}
		up.raw = newRawConn(over)
	}
	stop := whenDone(ctx, up.interrupt)
	up.raw.first, err = connectTo(up.raw, via, up.address)
	if stop() {
		err = context.Cause(ctx)
	}
	return err
}

// connectTo asks a proxy for a tunnel (RFC 9110 section 9.3.6). What came right
// behind its answer is the server's, and returned: a server that speaks first
// may be as quick as its proxy.
func connectTo(conn io.ReadWriter, via *url.URL, address string) (first []byte, err error) {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{"User-Agent": {"o365pw"}}}
	if via.User != nil {
		password, _ := via.User.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(via.User.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	return proxyAnswer(conn)
}

// proxyAnswer reads a proxy's answer to CONNECT, and returns what it has read
// after that. Any other answer than a success is an error.
func proxyAnswer(r io.Reader) (first []byte, err error) {
	limit := &io.LimitedReader{R: r, N: proxyMaxHead}
	in := bufio.NewReaderSize(limit, readBuffer)
	for range proxyMaxInterim + 1 {
		resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
		_, network := errors.AsType[net.Error](err)
		switch {
		case err == nil && resp.ProtoMajor != 1:
			return nil, &unexpectedError{problem: "not an answer of an HTTP/1 proxy:", reply: quoted(resp.Proto, 20)}
		case err == nil && resp.StatusCode/100 == 2:
			first, _ = in.Peek(in.Buffered())
			return slices.Clone(first), nil
		case err == nil && resp.StatusCode/100 == 1 && resp.StatusCode != http.StatusSwitchingProtocols:
			continue // RFC 9110 section 15.2
		case err == nil:
			return nil, &proxyRefusedError{unexpectedError{problem: "it answers", reply: quoted(resp.Proto+" "+resp.Status, 200)}, resp.StatusCode, resp.Header.Values("Proxy-Authenticate")}
		case limit.N <= 0:
			return nil, fmt.Errorf("%w: an answer of more than %d bytes", errTooLong, proxyMaxHead)
		case network, errors.Is(err, net.ErrClosed):
			return nil, err
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, errors.New("it closed the connection")
		}
		return nil, &unexpectedError{problem: "not an answer of an HTTP proxy:", reply: quoted(err.Error(), 120)}
	}
	return nil, &unexpectedError{problem: "one interim answer too many"}
}

// proxyRefusedError is a proxy's answer that is none of success.
type proxyRefusedError struct {
	unexpectedError
	status int
	offers []string // of Proxy-Authenticate
}

// fault tells a proxy that does not want to from one that cannot.
func (e *proxyRefusedError) fault() Fault {
	if e.status/100 == 5 {
		return FaultUnreachable
	}
	return FaultRefused
}

func (e *proxyRefusedError) Unwrap() error { return &e.unexpectedError }

// fixForProxy is what mends a proxy's refusal; empty: unknown.
func fixForProxy(err error, via *url.URL) string {
	e, ok := errors.AsType[*proxyRefusedError](err)
	switch {
	case !ok:
		return ""
	case e.status == http.StatusProxyAuthRequired:
		var schemes []string
		basic := len(e.offers) == 0
		for _, offer := range e.offers {
			scheme, _, _ := strings.Cut(strings.TrimSpace(offer), " ")
			schemes = append(schemes, limited(scheme, 20))
			basic = basic || strings.EqualFold(scheme, "Basic")
		}
		switch {
		case !basic:
			return "the proxy wants a sign-in by " + limited(strings.Join(schemes, ", "), 80) + ", and only Basic is spoken here: its administrator lets this machine through without, or put a relay that signs in there into HTTPS_PROXY"
		case via.User != nil:
			return "the proxy does not accept the user name and password in HTTPS_PROXY; characters with a meaning in URLs are written there as %XX"
		}
		return "the proxy wants a user name and a password: HTTPS_PROXY=http://USER:PASSWORD@" + via.Host
	case e.status == http.StatusForbidden, e.status == http.StatusMethodNotAllowed:
		return "the proxy does not connect to this server and port: its administrator allows CONNECT to it, or NO_PROXY names the server if it can be reached without a proxy"
	}
	return ""
}

// socks connects by a SOCKS proxy (RFC 1928), which resolves the server's name.
func (d dialer) socks(ctx context.Context, up *upstream, via *url.URL) error {
	through, err := proxy.FromURL(via, forwarder(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := d.dialTCP(ctx, network, address)
		if err == nil {
			up.raw = newRawConn(conn) // rather than what wraps it: that cannot be half-closed
		}
		return conn, err
	}))
	if err != nil {
		return err
	}
	if _, err = through.(proxy.ContextDialer).DialContext(ctx, "tcp", up.address); err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// forwarder makes a dialer for package proxy of a function.
type forwarder func(ctx context.Context, network, address string) (net.Conn, error)

// Dial implements [proxy.Dialer].
func (f forwarder) Dial(network, address string) (net.Conn, error) {
	return f(context.Background(), network, address)
}

// DialContext implements [proxy.ContextDialer].
func (f forwarder) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

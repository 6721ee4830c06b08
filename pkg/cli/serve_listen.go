package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// listen opens what systemd has not opened already.
func (g *gatewayRun) listen(ctx context.Context, settings config.Gateway) (err error) {
	addrs := map[gateway.Protocol]string{gateway.IMAP: settings.IMAP, gateway.POP3: settings.POP3, gateway.SMTP: settings.SMTP}
	if g.listeners, err = g.passed.match(ctx, addrs); err != nil {
		return err
	}
	g.names = []string{"localhost", "127.0.0.1", "::1"}
	for _, p := range gateway.Protocols() {
		if addrs[p] == "" {
			continue
		}
		host, _, _ := net.SplitHostPort(addrs[p])
		if ln := g.listeners[p]; ln != nil {
			g.log.Info("systemd listens", "protocol", string(p), "address", ln.Addr().String())
			g.names = append(g.names, listenNames(host)...)
			continue
		}
		ln, err := net.Listen(networkOf(addrs[p]), addrs[p])
		if err != nil && slices.Contains(settings.Unnamed, string(p)) {
			// A configuration from before there was this protocol must not keep
			// the others from being served.
			g.a.tell("nothing listens for %s: %v; set %[1]s = … in [gateway], or %[1]s = \"\" to leave it out", p, newListenError(string(p), addrs[p], err).err)
			continue
		}
		if err != nil {
			return newListenError(string(p), addrs[p], err)
		}
		g.listeners[p] = ln
		g.names = append(g.names, listenNames(host)...)
	}
	slices.Sort(g.names)
	g.names = slices.Compact(g.names)
	if len(g.listeners) == 0 {
		return &config.Error{Key: "gateway", Problem: "there is no protocol to listen for", Hint: "set imap = \"127.0.0.1:1993\" in [gateway]"}
	}
	return nil
}

// listenError tells that an address cannot be listened on.
type listenError struct {
	what, addr string
	err        error // of the system
}

func newListenError(what, addr string, err error) *listenError {
	if se, ok := errors.AsType[*os.SyscallError](err); ok {
		err = se.Err
	}
	return &listenError{what, addr, err}
}

func (e *listenError) Error() string {
	return fmt.Sprintf("listen for %s on %s: %v", e.what, e.addr, e.err)
}
func (e *listenError) Unwrap() error { return e.err }

// networkOf keeps 0.0.0.0 from meaning [::] as well.
func networkOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		return "tcp4"
	}
	return "tcp"
}

// activated are the sockets that systemd listens on for this process
// (sd_listen_fds(3)). What runs in their place keeps them open, so that clients
// wait for the next gateway while one ends.
type activated []activatedSocket

type activatedSocket struct {
	name string // FileDescriptorName= of the socket unit
	ln   net.Listener
}

// takeSockets takes over what systemd has passed. Children do not inherit it:
// neither the descriptors nor the variables that tell of them.
func takeSockets() (activated, error) {
	var s activated
	for _, f := range activation.Files(true) {
		ln, err := net.FileListener(f)
		_ = f.Close() // the listener has a descriptor of its own
		if err != nil {
			s.close()
			return nil, &activationError{addr: f.Name(), problem: "it is no socket that listens: " + err.Error()}
		}
		s = append(s, activatedSocket{f.Name(), ln})
	}
	return s, nil
}

func (s activated) close() {
	for _, a := range s {
		a.ln.Close()
	}
}

// match gives each socket to the protocol whose address it has. One that is
// left over is an error: clients would be connected to it, and nobody answer.
// A socket that is called imap, pop3 or smtp serves no other protocol.
func (s activated) match(ctx context.Context, addrs map[gateway.Protocol]string) (map[gateway.Protocol]net.Listener, error) {
	taken := map[gateway.Protocol]net.Listener{}
next:
	for _, a := range s {
		named, isProtocol := addrs[gateway.Protocol(a.name)]
		for _, p := range gateway.Protocols() {
			if taken[p] == nil && addrs[p] != "" && (a.name == string(p) || !isProtocol) && listensOn(ctx, a.ln.Addr(), addrs[p], isProtocol) {
				taken[p] = a.ln
				continue next
			}
		}
		return nil, &activationError{addr: a.ln.Addr().String(), problem: "the configuration has " + cmp.Or(named, "no protocol for that address")}
	}
	return taken, nil
}

// listensOn tells whether a socket at addr is what the configuration means by
// host:port. Port 0 is any one where the socket says by its name what it is
// for.
func listensOn(ctx context.Context, addr net.Addr, want string, named bool) bool {
	have, ok := addr.(*net.TCPAddr)
	if !ok {
		return false
	}
	host, port, err := net.SplitHostPort(want)
	if err != nil {
		return false
	}
	if port != fmt.Sprint(have.Port) && (port != "0" || !named) {
		return false
	}
	if host == "" {
		return have.IP.IsUnspecified()
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return false
	}
	for _, ip := range ips {
		if ip.IP.Equal(have.IP) && ip.Zone == have.Zone {
			return true
		}
	}
	return false
}

// activationError tells that systemd listens where the configuration does not.
type activationError struct {
	addr, problem string
}

func (e *activationError) Error() string {
	return fmt.Sprintf("systemd has passed the socket %s, but %s", e.addr, e.problem)
}

// credentialFile is the path of a credential that systemd has passed to this
// service (systemd.exec(5), CREDENTIALS_DIRECTORY), or empty.
func (a *app) credentialFile(name string) string {
	dir := a.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return ""
	}
	path := dir + string(os.PathSeparator) + name
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

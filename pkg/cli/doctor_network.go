package cli

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// target is a server of the cloud's.
type target struct {
	id, title string
	url       *url.URL
	protocol  gateway.Protocol // empty: it speaks HTTP
}

// targets are the servers that the profile leads to.
func (d *doctor) targets() []target {
	if d.session == nil {
		return nil
	}
	c := d.session.profile.Cloud
	var list []target
	for _, t := range []struct{ id, title, url string }{
		{"entra", "Entra", c.Authority + "/" + d.session.profile.Tenant + "/v2.0/.well-known/openid-configuration"},
		{"graph", "Microsoft Graph", c.Graph + "/organization"},
	} {
		if u, err := url.Parse(t.url); err == nil {
			list = append(list, target{id: t.id, title: t.title, url: u})
		}
	}
	for _, t := range []struct {
		protocol gateway.Protocol
		at       config.Endpoint
	}{{gateway.IMAP, c.IMAP}, {gateway.POP3, c.POP3}, {gateway.SMTP, c.SMTP}} {
		if t.at.Host != "" {
			u := &url.URL{Scheme: "https", Host: net.JoinHostPort(t.at.Host, strconv.Itoa(t.at.Port))}
			list = append(list, target{"exchange-" + string(t.protocol), "Exchange " + strings.ToUpper(string(t.protocol)), u, t.protocol})
		}
	}
	return list
}

// networkChecks are how far everything can be reached. They come after the
// keychain, which may ask for a passphrase.
func (d *doctor) networkChecks() []check {
	var list []check
	targets := d.targets()
	if d.session == nil { // nobody is asked, and all that needs them is skipped
		targets = []target{{id: "entra", title: "Entra"}, {id: "graph", title: "Microsoft Graph"}}
	}
	for _, t := range targets {
		c := check{id: t.id, title: t.title, needs: []string{"configuration"}, after: []string{"keychain"}, limit: 2 * connectLimit}
		switch t.id {
		case "entra":
			c.run = func(ctx context.Context) result { return d.reachHTTP(ctx, t, &d.discovery) }
		case "graph":
			c.run = func(ctx context.Context) result { return d.reachHTTP(ctx, t, &d.graphReply) }
		default:
			c.run = func(ctx context.Context) result { return d.reachMail(ctx, t.protocol) }
		}
		list = append(list, c)
	}
	return append(list, check{id: "clock", title: "Clock", needs: []string{"configuration"}, after: []string{"entra", "graph"}, run: d.clock})
}

// answer is what an HTTP server has said.
type answer struct {
	status int
	body   []byte
	clock  time.Duration // by which the server's clock is ahead of this machine's
	dated  bool          // clock is known
}

// reachError is a server that cannot be reached, or something else in its
// place.
type reachError struct {
	host string
	err  error
}

func (e *reachError) Error() string {
	if issuer, ok := foreignIssuer(e.err); ok {
		return fmt.Sprintf("%s shows a certificate of %q, which is not trusted here: %v", e.host, issuer, e.err)
	}
	return fmt.Sprintf("%s: %v", e.host, e.err)
}

func (e *reachError) Unwrap() error { return e.err }

// foreignIssuer names who has signed a certificate that is not trusted.
func foreignIssuer(err error) (string, bool) {
	e, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(e.UnverifiedCertificates) == 0 {
		return "", false
	}
	return printable(e.UnverifiedCertificates[0].Issuer.String()), true
}

// inBetweenError tells that something else answers in a server's place.
type inBetweenError struct{ what string }

func (e *inBetweenError) Error() string {
	return e.what + " in place of its own answer: a sign-in page of this network, a proxy, or a wrong address"
}

// get asks once, without credentials, and follows nobody. An answer that is no
// JSON is nobody's here.
func (d *doctor) get(ctx context.Context, u string) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent())
	client := &http.Client{Transport: d.session.http.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	began := d.a.Now()
	resp, err := client.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // the address is told already
		}
		return nil, err
	}
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode}
	ended := d.a.Now()
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		a.clock, a.dated = date.Sub(began.Add(ended.Sub(began)/2)), true
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return a, &busyError{resp.StatusCode}
	}
	if !strings.HasSuffix(media, "json") || resp.StatusCode/100 == 3 {
		return a, &inBetweenError{fmt.Sprintf("it answers HTTP %d with %q", resp.StatusCode, media)}
	}
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil {
		return a, err
	}
	if !json.Valid(a.body) {
		return a, &inBetweenError{"it answers with something that is no JSON"}
	}
	return a, nil
}

// busyError is a server that has no time.
type busyError struct{ status int }

func (e *busyError) Error() string {
	return fmt.Sprintf("it answers %d %s", e.status, http.StatusText(e.status))
}

func (d *doctor) reachHTTP(ctx context.Context, t target, into **answer) result {
	a, err := d.get(ctx, t.url.String())
	*into = a
	if err != nil {
		return d.fail(&reachError{t.url.Host, err})
	}
	return passed("%s answers", t.url.Host)
}

// reachMail goes as far as there is a need for no token: connection, TLS,
// greeting.
func (d *doctor) reachMail(ctx context.Context, p gateway.Protocol) result {
	req, err := d.probe(p, "")
	if err != nil {
		return d.fail(err)
	}
	_, err = gateway.Probe(ctx, req)
	e, ok := errors.AsType[*gateway.ServerError](err)
	if ok && e.Step == gateway.StepAuth && e.Reply == "" && e.Fault == gateway.FaultRefused {
		return passed("%s answers, with a good certificate", req.Upstream.Address)
	}
	switch {
	case ok && e.Step == gateway.StepTLS:
		return d.fail(&reachError{e.Address, e.Err})
	case ok:
		return d.fail(e)
	}
	return d.fail(err)
}

// Clocks that differ by this are told of.
const (
	clockOff   = time.Minute
	clockWrong = 5 * time.Minute // Entra and TLS begin to refuse
)

// clock compares with what Entra and Graph have sent along as Date (RFC 9110
// section 6.6.1), which is in whole seconds.
func (d *doctor) clock(context.Context) result {
	for _, a := range []*answer{d.discovery, d.graphReply} {
		if a == nil || !a.dated {
			continue
		}
		off := a.clock.Abs().Round(time.Second)
		how := map[bool]string{true: "behind", false: "ahead of"}[a.clock > 0]
		if off <= clockOff {
			return passed("as Microsoft's, give or take %s", max(off, time.Second))
		}
		x, _ := explain.AADSTS(700024)
		r := d.explained(failed, x, "this machine's is %s %s Microsoft's", off, how)
		if off <= clockWrong {
			r.status, r.code = checkWarning, done
		}
		return r
	}
	return skipped("neither Entra nor Graph has told the time")
}

var tenantInIssuer = regexp.MustCompile(`/([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})/v2\.0$`)

// tenant reads what Entra says of the tenant (OpenID Connect Discovery 1.0).
func (d *doctor) tenant(ctx context.Context) result {
	p := d.session.profile
	err := discovered(d.discovery, p)
	if err == nil {
		var doc struct{ Issuer string }
		_ = json.Unmarshal(d.discovery.body, &doc)
		if m := tenantInIssuer.FindStringSubmatch(doc.Issuer); m != nil {
			d.tenantID = m[1]
			if !strings.EqualFold(p.Tenant, m[1]) {
				return passed("%s is %s", p.Tenant, m[1])
			}
		}
		return passed("Entra knows %s", p.Tenant)
	}
	var elsewhere []remedy
	if e, ok := errors.AsType[*entra.Error](err); ok && e.Number() == 90002 {
		elsewhere = d.otherCloud(ctx)
	}
	return d.fail(err, elsewhere...)
}

// discovered is the error that an answer to discovery stands for, if it does.
func discovered(a *answer, p config.Profile) error {
	if a.status == http.StatusOK {
		return nil
	}
	var said struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
		Numbers     []int  `json:"error_codes"`
		TraceID     string `json:"trace_id"`
		Correlation string `json:"correlation_id"`
	}
	_ = json.Unmarshal(a.body, &said) // what is missing stays empty
	return &entra.Error{Op: "look for the tenant " + p.Tenant, URL: p.Cloud.Authority, Status: a.status, Code: said.Code,
		Description: said.Description, Numbers: said.Numbers, TraceID: said.TraceID, CorrelationID: said.Correlation}
}

// otherCloud looks for the tenant in Microsoft's other clouds, where it is not
// found in one of them.
func (d *doctor) otherCloud(ctx context.Context) []remedy {
	p := d.session.profile
	if b, ok := config.BuiltinCloud(p.Cloud.Name); !ok || b.Authority != p.Cloud.Authority {
		return nil
	}
	for _, name := range []string{"global", "usgov", "china"} {
		c, _ := config.BuiltinCloud(name)
		if c.Authority == p.Cloud.Authority {
			continue
		}
		a, err := d.get(ctx, c.Authority+"/"+url.PathEscape(p.Tenant)+"/v2.0/.well-known/openid-configuration")
		if err == nil && a.status == http.StatusOK {
			return []remedy{yours("the tenant is in another cloud of Microsoft's", "write cloud = \""+name+"\" into the profile "+p.Name)}
		}
	}
	return nil
}

package graph

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

const (
	// maxAnswer bounds a good answer: an application may hold about a thousand
	// credentials of some 300 bytes, and a page a hundred applications.
	maxAnswer = 32 << 20
	// maxErrorAnswer bounds what is read of any other.
	maxErrorAnswer = 64 << 10
	// maxBackoff is the longest pause that is not asked for by Retry-After.
	maxBackoff = 16
	// How often a request is sent at most: where no answer comes, where the
	// server fails without saying when to come back, and in all.
	maxLost, maxFailed, maxSent = 3, 5, 100
)

// request is one call of Graph.
type request struct {
	method, url string
	body        []byte
	mime        []byte // a message, which is sent in base64 as text/plain; nil: body is sent
	prefer      string // the Prefer header (RFC 7240); empty: none
	// once forbids to send the request again unless Graph says that it did
	// nothing.
	once bool
}

// response is a good answer.
type response struct {
	status int
	header http.Header
	body   []byte
	// lost says that the request was sent before, and that the answer to that
	// was lost: the work may have been done then.
	lost bool
}

// budget is the time that one method call may spend on waiting for Graph to
// take requests again.
type budget struct{ left, waited time.Duration }

func (c *Client) budget() *budget { return &budget{left: cmp.Or(c.MaxWait, 2*time.Minute)} }

// allows says whether the budget and the deadline of ctx have room for d.
func (b *budget) allows(ctx context.Context, d time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return d <= b.left && (!ok || d < time.Until(deadline))
}

// wait waits for d where the budget allows it, and says whether it did and ctx
// has not ended.
func (b *budget) wait(ctx context.Context, d time.Duration) bool {
	if d = max(d, 0); !b.allows(ctx, d) {
		return false
	}
	b.left -= d
	b.waited += d
	return sleep(ctx, d) && ctx.Err() == nil
}

// send sends r until there is an answer that stands. Every error but that of
// Token is an *Error.
func (c *Client) send(ctx context.Context, b *budget, r request) (response, error) {
	var lost bool
	var lostCount, failedCount int
	for sent := 1; ; sent++ {
		if err := c.pass(ctx, b, r); err != nil {
			return response{lost: lost}, err
		}
		resp, err := c.sendOnce(ctx, r)
		resp.lost = lost
		if err == nil {
			return resp, nil
		}
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return resp, err
		}
		lost = lost || e.Ambiguous()
		resp.lost = lost
		e.Waited = b.waited

		var wait time.Duration
		backoff := c.pause(sent - 1)
		backoff = backoff/2 + rand.N(backoff/2+1)
		why := "does not answer"
		switch {
		case ctx.Err() != nil, sent >= maxSent:
			return resp, err
		case e.Status == http.StatusTooManyRequests:
			wait, why = cmp.Or(e.RetryAfter, backoff), "asks to wait"
			c.Throttle.note(e, wait)
		case r.once:
			return resp, err
		case e.Status == http.StatusServiceUnavailable && e.RetryAfter > 0,
			e.Status == http.StatusGatewayTimeout && e.RetryAfter > 0:
			wait, why = e.RetryAfter, "asks to wait"
		case e.Status >= 500:
			if failedCount++; failedCount >= maxFailed {
				return resp, err
			}
			wait, why = backoff, fmt.Sprintf("answers %d", e.Status)
		case e.Status == 0:
			if lostCount++; lostCount >= maxLost {
				return resp, err
			}
			wait = backoff
		default:
			return resp, err
		}
		if b.allows(ctx, wait) {
			c.progress("Microsoft Graph %s; trying again in %s", why, max(time.Second, wait.Round(time.Second)))
		}
		if !b.wait(ctx, wait) {
			if ctx.Err() != nil {
				// What ended is the caller's patience, not the service.
				e.Err = ended(ctx)
			}
			return resp, err
		}
		// Microsoft asks for a new connection after 503; one that broke is of
		// no more use either.
		if e.Status != http.StatusTooManyRequests {
			c.client().CloseIdleConnections()
		}
	}
}

// sendOnce sends r one time. The answer is good when its status is 2xx.
func (c *Client) sendOnce(ctx context.Context, r request) (resp response, err error) {
	e := &Error{Method: r.method, URL: withoutQuery(r.url), ClientRequestID: uuid.NewString()}
	begin := time.Now()
	defer func() {
		if c.Log == nil {
			return
		}
		attrs := []slog.Attr{slog.String("method", e.Method), slog.String("url", e.URL), slog.Int("status", e.Status),
			slog.String("clientRequestId", e.ClientRequestID), slog.Duration("took", time.Since(begin))}
		if e.RequestID != "" {
			attrs = append(attrs, slog.String("requestId", e.RequestID))
		}
		if err != nil {
			attrs = append(attrs, slog.String("error", err.Error()))
		}
		c.Log.LogAttrs(ctx, slog.LevelDebug, "graph", attrs...)
	}()

	if c.Token == nil {
		return resp, errors.New("no access token for Microsoft Graph")
	}
	token, err := c.Token(ctx)
	if err != nil {
		return resp, fmt.Errorf("get access token for Microsoft Graph: %w", err)
	}

	var trace connTrace
	limit := cmp.Or(c.Timeout, 30*time.Second) + mimeTimeout(r.mime)
	rctx, cancel := context.WithTimeoutCause(trace.watch(ctx), limit, fmt.Errorf("no answer within %s: %w", limit, context.DeadlineExceeded))
	defer cancel()
	var content io.Reader = bytes.NewReader(r.body)
	if r.mime != nil {
		content = &base64Reader{rest: r.mime} // without GetBody, so that nothing can send it again
	}
	req, err := http.NewRequestWithContext(rctx, r.method, r.url, content)
	if err != nil {
		e.Err = errors.New("not a URL")
		return resp, e
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", cmp.Or(c.UserAgent, "o365pw"))
	req.Header.Set("client-request-id", e.ClientRequestID)
	switch {
	case r.mime != nil:
		req.Header.Set("Content-Type", "text/plain")
		req.ContentLength = int64(base64.StdEncoding.EncodedLen(len(r.mime)))
	case r.body != nil:
		req.Header.Set("Content-Type", "application/json")
	}
	if r.prefer != "" {
		req.Header.Set("Prefer", r.prefer)
	}

	if rctx.Err() != nil {
		e.Err = ended(rctx)
		return resp, e // surely not sent
	}
	answer, err := c.client().Do(req)
	if err != nil {
		e.sent = trace.maybeSent(err)
		e.Err = transportError(rctx, err)
		return resp, e
	}
	defer answer.Body.Close()
	e.sent, e.Status = true, answer.StatusCode
	good := answer.StatusCode/100 == 2
	bound := int64(maxErrorAnswer)
	if good {
		bound = maxAnswer
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, bound+1))
	if !good {
		// What is missing of the body changes nothing about the status.
		e.decode(answer.Header, body, time.Now())
		return resp, e
	}
	e.RequestID = clean(answer.Header.Get("request-id"))
	switch {
	case e.Status == http.StatusAccepted:
		// That is all there is to know, whether or not the rest came.
	case err != nil:
		// As if nothing had come: the request may be repeated where that is
		// safe.
		e.Status, e.Err = 0, fmt.Errorf("read answer: %w", transportError(rctx, err))
		return resp, e
	case int64(len(body)) > bound:
		e.Err = fmt.Errorf("the answer is longer than %d bytes", bound)
		return resp, e
	}
	return response{status: answer.StatusCode, header: answer.Header, body: body}, nil
}

// client is HTTP without redirects: Graph has none, and the token must not
// follow one.
func (c *Client) client() *http.Client {
	hc := http.Client{}
	if c.HTTP != nil {
		hc = *c.HTTP
	}
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &hc
}

// malformed is the error for a good status with a body that makes no sense.
func (r request) malformed(resp response, cause error) *Error {
	return &Error{Method: r.method, URL: withoutQuery(r.url), Status: http.StatusOK,
		RequestID: clean(resp.header.Get("request-id")), Err: fmt.Errorf("malformed answer: %w", cause), sent: true}
}

// pause is the n-th of the growing pauses, counted from 0.
func (c *Client) pause(n int) time.Duration {
	return cmp.Or(c.Pause, time.Second) * time.Duration(min(1<<min(n, 10), maxBackoff))
}

func (c *Client) progress(format string, args ...any) {
	if c.Progress != nil {
		c.Progress(fmt.Sprintf(format, args...))
	}
}

// sleep waits for d and says whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connTrace watches how far a request gets. The transport may call it after Do
// has returned.
type connTrace struct{ wanted, wrote atomic.Bool }

func (t *connTrace) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { t.wanted.Store(true) },
		WroteHeaders: func() { t.wrote.Store(true) },
	})
}

// maybeSent says whether any of the request may have left this machine. Without
// a sign that it cannot have, it may.
func (t *connTrace) maybeSent(err error) bool {
	if t.wrote.Load() {
		return true
	}
	if t.wanted.Load() {
		return false // there was no connection, or nothing was written to it
	}
	// A transport that does not report: a fake or a wrapper.
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return false
	}
	_, unresolved := errors.AsType[*net.DNSError](err)
	return !unresolved
}

// transportError takes off the URL, which Error has already and which may hold
// a query, and puts in why the context ended.
func transportError(ctx context.Context, err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	if ctx.Err() != nil {
		return ended(ctx)
	}
	return err
}

// ended is why ctx ended: always an error that is context.Canceled or
// context.DeadlineExceeded, also where the cause (a signal, say) is not.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

func withoutQuery(u string) string {
	u, _, _ = strings.Cut(u, "?")
	return u
}

package entra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
)

// maxAnswer bounds what is read of an answer. Real ones have some kilobytes.
const maxAnswer = 1 << 20

// maxRepeats is how often a request is repeated at most.
const maxRepeats = 3

// repeat says which failures of a request allow it to be sent again.
type repeat bool

const (
	safeToRepeat repeat = true  // changes nothing: also after a 5xx
	onlyUndone   repeat = false // after a 429 alone, which says that nothing was done
)

// token posts form to the token endpoint and decodes the answer, repeating as
// [Client.MaxWait] says.
func (c *Client) token(ctx context.Context, op string, form url.Values, again repeat) (Token, error) {
	return c.repeated(ctx, again, func() (Token, error) { return c.tokenOnce(ctx, op, form) })
}

// repeated calls once, pausing and repeating as [Client.MaxWait] says.
func (c *Client) repeated(ctx context.Context, again repeat, once func() (Token, error)) (Token, error) {
	left := cmp.Or(c.MaxWait, defaultMaxWait)
	for n := 0; ; n++ {
		t, err := once()
		e, failed := errors.AsType[*Error](err)
		if !failed || n == maxRepeats || !e.repeatable(again) {
			return t, err
		}
		if !e.pause(ctx, time.Second<<n, &left) {
			return t, err
		}
	}
}

// pause waits before a repeat: for as long as the answer asks for, else for
// backoff. It says whether it did. It does not where that is more than is left;
// when ctx ends meanwhile, that becomes the cause of e.
func (e *Error) pause(ctx context.Context, backoff time.Duration, left *time.Duration) bool {
	d := cmp.Or(e.RetryAfter, backoff)
	if d > *left {
		return false
	}
	d = min(jitter(d), *left)
	*left -= d
	if sleep(ctx, d) != nil {
		e.Err = ctx.Err()
		return false
	}
	return true
}

func (c *Client) tokenOnce(ctx context.Context, op string, form url.Values) (Token, error) {
	answer, err := c.exchange(ctx, op, tokenPath, form)
	if err != nil {
		return Token{}, err
	}
	t, err := decodeToken(answer.members, time.Now())
	if err != nil {
		return Token{}, answer.fail(err)
	}
	return t, nil
}

// repeatable reports whether the answer allows the same request again. Without
// an answer (Status 0) nobody knows what has happened to it.
func (e *Error) repeatable(again repeat) bool {
	switch e.Status {
	case http.StatusTooManyRequests:
		return true
	case http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return again == safeToRepeat
	}
	return false
}

// jitter lengthens a pause by up to a fifth, so that many clients throttled at
// the same moment do not come back at the same moment.
func jitter(d time.Duration) time.Duration {
	return d + rand.N(d/5+1)
}

// sleep waits for d, or returns the context's error when that ends before.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer is a successful one (2xx, a JSON object without an error member).
type answer struct {
	members members
	fail    func(error) *Error // an error about this answer
}

// exchange posts form to path in the tenant, once. The error is an *Error.
func (c *Client) exchange(ctx context.Context, op, path string, form url.Values) (answer, error) {
	target, err := c.endpoint(path)
	if err != nil {
		return answer{}, &Error{Op: op, Err: err, kind: Misconfigured}
	}
	if form.Get("client_id") == "" {
		return answer{}, &Error{Op: op, URL: target, Err: errors.New("the client id is missing"), kind: Misconfigured}
	}
	e := &Error{Op: op, URL: target, CorrelationID: uuid.NewString()}
	resp, body, err := c.post(ctx, target, e.CorrelationID, form)
	if resp != nil {
		e.answered(resp)
	}
	if err != nil {
		e.Err = err
		return answer{}, e
	}
	if e.Status >= 300 && e.Status < 400 {
		e.Err = redirected(resp)
		return answer{}, e
	}
	m, err := decodeObject(body)
	if err != nil {
		e.Err = err
		return answer{}, e
	}
	e.decode(m, mask(form))
	switch {
	case e.Code != "":
		return answer{}, e
	case e.Status < 200 || e.Status > 299:
		e.Err = errors.New("the answer names no error")
		return answer{}, e
	}
	return answer{m, func(err error) *Error { e.Err = err; return e }}, nil
}

// answered notes what the head of an answer says.
func (e *Error) answered(resp *http.Response) {
	e.Status = resp.StatusCode
	e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
}

// post sends form and reads the answer.
func (c *Client) post(ctx context.Context, target, requestID string, form url.Values) (resp *http.Response, body []byte, err error) {
	req, err := http.NewRequest(http.MethodPost, target, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", cmp.Or(c.UserAgent, defaultUserAgent))
	req.Header.Set("client-request-id", requestID)
	return send(ctx, c.HTTP, cmp.Or(c.Timeout, defaultTimeout), req)
}

// send sends req by h (nil is a client of its own) and reads the answer whole,
// within timeout. resp comes back, with its body closed, as soon as there was
// a status line.
func send(ctx context.Context, h *http.Client, timeout time.Duration, req *http.Request) (resp *http.Response, body []byte, err error) {
	rctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer func() {
		switch {
		case err == nil:
		case ctx.Err() != nil:
			// Whatever the transport makes of it, the caller's end is the cause.
			err = ctx.Err()
		case rctx.Err() != nil:
			err = fmt.Errorf("no answer within %v: %w", timeout, rctx.Err())
		}
	}()

	resp, err = noRedirects(h).Do(req.WithContext(rctx))
	if err != nil {
		// The address is in our own error already.
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return resp, nil, fmt.Errorf("read answer: %w", err)
	}
	if len(body) > maxAnswer {
		return resp, nil, errors.New("the answer is larger than 1 MB")
	}
	return resp, body, nil
}

// noRedirects is a copy of given that never follows a redirect: a 307 would
// carry the secrets in the body to wherever it points. Nor does it keep
// cookies.
func noRedirects(given *http.Client) *http.Client {
	var h http.Client
	if given != nil {
		h = *given
	}
	h.Jar = nil
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &h
}

func redirected(resp *http.Response) error {
	if to, err := resp.Location(); err == nil && to.Host != "" {
		return fmt.Errorf("redirected to %s, which is not followed (a proxy or a captive portal?)", line(to.Host))
	}
	return errors.New("redirected, which is not followed (a proxy or a captive portal?)")
}

// mask hides what was sent in secret, should an answer quote it.
func mask(form url.Values) *strings.Replacer {
	var pairs []string
	for _, name := range []string{"client_secret", "client_assertion", "refresh_token", "code", "code_verifier", "device_code"} {
		if s := form.Get(name); len(s) >= 4 {
			pairs = append(pairs, s, "[secret]", url.QueryEscape(s), "[secret]")
		}
	}
	return strings.NewReplacer(pairs...)
}

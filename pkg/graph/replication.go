package graph

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	// spreadTries is how often what is refused for a new object is tried. With
	// the growing pauses that is a minute, which is what Entra needs at most to
	// know a new object everywhere.
	spreadTries = 8
	// createTries is how often something is asked for whose answer is lost, with
	// look-ups in between.
	createTries = 2
)

// notSpread says that the refusal may come from a part of Entra that does not
// know an object made moments ago. For writes, Entra says 403 as well then, and
// 400 where the object is named in the body.
func (e *Error) notSpread() bool {
	switch e.Status {
	case http.StatusNotFound:
		return true
	case http.StatusForbidden:
		return e.Method != http.MethodGet
	case http.StatusBadRequest:
		return e.Method != http.MethodGet && (e.HasCode("Request_ResourceNotFound") || e.HasCode("NoBackingApplicationObject") ||
			e.says("does not reference a valid application object") || e.says("not a valid reference update"))
	}
	return false
}

// untilSpread calls f, and again for a minute while fresh is set and its error
// may come from replication alone.
func (c *Client) untilSpread(ctx context.Context, fresh bool, f func() error) error {
	for n := 0; ; n++ {
		err := f()
		e, ok := errors.AsType[*Error](err)
		if !ok || !fresh || !e.notSpread() || n+1 >= spreadTries {
			return err
		}
		if n > 0 {
			c.progress("waiting until what was just made has reached all of Microsoft Entra")
		}
		if !sleep(ctx, c.pause(n)) {
			e.Err = ended(ctx)
			return err
		}
	}
}

// create makes one thing, of which Entra allows one alone: post sends the
// request and decodes its answer, look reads whether the thing is there. Where
// Entra answers that it is there already, and where the answer was lost, look
// decides; the request is repeated only after several reads that show nothing,
// and a repeat of one that had worked meets the conflict.
//
// made says that the thing is this call's, or may be: its answer was lost.
// Errors are those of post, joined with that of look where it failed.
func (c *Client) create(ctx context.Context, b *budget, fresh bool, post func() error, look func() (bool, error)) (made bool, err error) {
	lost := false
	for try := 1; ; try++ {
		err := c.untilSpread(ctx, fresh, post)
		if err == nil {
			return true, nil
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || !e.IsConflict() && !e.Ambiguous() || ctx.Err() != nil {
			return false, err
		}
		lost = lost || e.Ambiguous()
		begin := time.Now()
		there, lookErr := c.appears(ctx, look)
		switch {
		case lookErr != nil:
			return false, fmt.Errorf("%w; looking whether it worked: %w", err, lookErr)
		case there:
			return lost, nil
		case e.IsConflict(), try >= createTries, !b.wait(ctx, e.RetryAfter-time.Since(begin)):
			return false, err
		}
	}
}

// appears calls look until it says true, at most lookUps times: reads lag
// writes. A look that fails for now does not end it.
func (c *Client) appears(ctx context.Context, look func() (bool, error)) (bool, error) {
	var failed error
	for n := range lookUps {
		if n > 0 && !sleep(ctx, c.pause(n-1)) {
			return false, ended(ctx)
		}
		var there bool
		if there, failed = look(); failed != nil {
			if e, ok := errors.AsType[*Error](failed); !ok || !e.Temporary() {
				return false, failed
			}
			continue
		}
		if there {
			return true, nil
		}
	}
	return false, failed
}

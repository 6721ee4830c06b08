package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// ErrNotRunning is wrapped by the errors of [Control] when no gateway serves
// the socket: there is none, or the one that made it was killed.
var ErrNotRunning = errors.New("the gateway is not running")

// NoSessionError is returned by [Control.CloseSession] when the gateway has no
// signed-in session of that number: it has ended, or there never was one.
type NoSessionError struct {
	ID uint64
}

// Error names the session.
func (e *NoSessionError) Error() string { return fmt.Sprintf("the gateway has no session %d", e.ID) }

// StillRunningError is returned by [Control.Stop] when the gateway has been told
// to stop and has not ended in time.
type StillRunningError struct {
	PID     int
	Waited  time.Duration
	Waiting int // how many sessions are still open
}

// Error names the process and what it waits for.
func (e *StillRunningError) Error() string {
	return fmt.Sprintf("the gateway (process %d) was told to stop and has not ended within %s; it has %d open sessions", e.PID, e.Waited, e.Waiting)
}

// OlderError is returned by [Control.Stop] when the gateway that runs is of a
// version that cannot be told to stop this way.
type OlderError struct {
	PID     int
	Version string
}

// Error names the process and its version.
func (e *OlderError) Error() string {
	return fmt.Sprintf("the gateway that runs (process %d, version %s) is an older one, which does not know how to be told to stop", e.PID, e.Version)
}

// Status asks the running gateway, for five seconds at most. The error wraps
// [ErrNotRunning] when there is none.
func (c Control) Status(ctx context.Context) (Status, error) {
	resp, err := c.ask(ctx, http.MethodGet, "/status", http.StatusOK)
	if err != nil {
		return Status{}, err
	}
	var status Status
	if err := json.Unmarshal(resp, &status); err != nil {
		return Status{}, fmt.Errorf("ask the gateway: %w", err)
	}
	return status, nil
}

// Stop tells the gateway to drain, as SIGTERM does, and returns when it has
// ended, with its process id. It waits for limit at most and returns a
// [*StillRunningError] then. The error is an [*OlderError] for a gateway that
// does not know this, and wraps [ErrNotRunning] when there is none to begin with.
func (c Control) Stop(ctx context.Context, limit time.Duration) (pid int, err error) {
	status, err := c.Status(ctx)
	if err != nil {
		return 0, err
	}
	_, err = c.ask(ctx, http.MethodPost, "/stop", http.StatusAccepted)
	if e, ok := errors.AsType[*statusError](err); ok && e.code == http.StatusNotFound {
		return status.PID, &OlderError{PID: status.PID, Version: status.Version}
	}
	if err != nil {
		return status.PID, err
	}
	deadline := time.After(limit)
	for {
		now, err := c.Status(ctx)
		// Another process: it has ended, and somebody has started the next.
		if errors.Is(err, ErrNotRunning) || err == nil && now.PID != status.PID {
			return status.PID, nil
		}
		if err == nil {
			status = now
		}
		select {
		case <-ctx.Done():
			return status.PID, ctx.Err()
		case <-deadline:
			return status.PID, &StillRunningError{PID: status.PID, Waited: limit, Waiting: len(status.Sessions)}
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// CloseSession ends a signed-in session, with a good-bye in the words of its
// protocol. The mail program may sign in again. It returns a [*NoSessionError]
// where there is none of that number, and an error that wraps [ErrNotRunning]
// where there is no gateway.
func (c Control) CloseSession(ctx context.Context, id uint64) error {
	_, err := c.ask(ctx, http.MethodPost, fmt.Sprintf("/sessions/%d/close", id), http.StatusNoContent)
	if e, ok := errors.AsType[*statusError](err); ok && e.code == http.StatusNotFound {
		return &NoSessionError{ID: id}
	}
	return err
}

// statusError is an answer that is not the expected one.
type statusError struct {
	socket, status string
	code           int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("ask the gateway on %s: HTTP status %s", e.socket, e.status)
}

// ForeignError tells that the gateway is another user's.
type ForeignError struct{ Socket string }

// Error names the control socket.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("the gateway's control socket %s belongs to another user", e.Socket)
}

// ask makes one request and returns the answer's body, if the answer has the
// status that is wanted.
func (c Control) ask(ctx context.Context, method, resource string, want int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	path, err := c.socket(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (no control socket for %s)", ErrNotRunning, c.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the gateway: %w", err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://gateway"+resource, nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w (nobody answers on %s)", ErrNotRunning, path)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, &ForeignError{Socket: path}
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err // whose address means nothing to people
	}
	if err != nil {
		return nil, fmt.Errorf("ask the gateway on %s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		return nil, &statusError{socket: path, status: resp.Status, code: resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("ask the gateway on %s: %w", path, err)
	}
	return body, nil
}

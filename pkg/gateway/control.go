package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

// ErrNotRunning is returned by [Control.Status] when no gateway serves the
// socket: there is none, or the one that made it was killed.
var ErrNotRunning = errors.New("the gateway is not running")

// AlreadyRunningError is returned by [Control.Listen] when another gateway
// uses the same state folder.
type AlreadyRunningError struct {
	Path string // of the control socket
	PID  int    // of the other gateway; 0 when it did not say
}

// Error names the socket and, where it is known, the process.
func (e *AlreadyRunningError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("another gateway is running with the control socket %s", e.Path)
	}
	return fmt.Sprintf("another gateway (process %d) is running with the control socket %s", e.PID, e.Path)
}

// Control is the socket by which a running gateway answers the same user's
// questions: HTTP over a unix-domain socket, GET /status for a [Status] in
// JSON. Nobody else can open it: it has mode 0600 and lies in a folder of mode
// 0700.
//
// A path too long for a socket address (some 100 bytes) is replaced by a short
// one in the folder for temporary files, which is made from it, so that
// gateway and client agree; both refuse that folder if somebody else made it.
type Control struct {
	Path string // of the socket, in the state folder
}

// maxSocketPath fits every system: macOS has 104 bytes with the last NUL,
// Linux 108.
const maxSocketPath = 103

// controlTimeout bounds one question and its answer.
const controlTimeout = 5 * time.Second

// Listen claims the state folder for this process and opens the socket,
// replacing one that a killed gateway left. It returns an
// [*AlreadyRunningError] while another gateway has the folder. Closing the
// listener gives the folder back.
func (c Control) Listen() (net.Listener, error) {
	unlock, ok, err := durable.TryLock(c.Path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if !ok {
		ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
		defer cancel()
		other, _ := c.Status(ctx) // for its process id, if it answers
		return nil, &AlreadyRunningError{Path: c.Path, PID: other.PID}
	}
	ln, err := c.listen()
	if err != nil {
		unlock()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &controlListener{Listener: ln, unlock: unlock}, nil
}

func (c Control) listen() (net.Listener, error) {
	path, err := c.socket(true)
	if err != nil {
		return nil, err
	}
	// The lock says that nobody serves what is there.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return listenPrivately(path)
}

// controlListener gives the lock back once it is closed.
type controlListener struct {
	net.Listener
	unlock func()
}

func (l *controlListener) Close() error {
	err := l.Listener.Close() // removes the socket
	l.unlock()
	return err
}

// socket is the path to listen on. With create, a folder of its own is made
// where it has to be.
func (c Control) socket(create bool) (string, error) {
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return "", err
	}
	if len(path) <= maxSocketPath {
		return path, nil
	}
	sum := sha256.Sum256([]byte(path))
	dir := filepath.Join(os.TempDir(), "o365pw-"+strconv.Itoa(os.Getuid()))
	short := filepath.Join(dir, hex.EncodeToString(sum[:8])+".sock")
	if len(short) > maxSocketPath {
		return "", fmt.Errorf("%s and %s are both too long for a socket: choose a shorter state folder", path, short)
	}
	if create {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	if err := checkPrivate(dir); err != nil {
		return "", err
	}
	return short, nil
}

// Serve answers questions on ln with what status returns, until ctx ends. It
// closes ln and returns nil then.
func (c Control) Serve(ctx context.Context, ln net.Listener, status func() Status) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status())
	})
	srv := &http.Server{Handler: mux, ReadTimeout: controlTimeout, WriteTimeout: controlTimeout, IdleTimeout: controlTimeout}
	stop := whenDone(ctx, func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(limit) != nil {
			_ = srv.Close()
		}
	})
	err := srv.Serve(ln)
	if ended := stop(); ended {
		return nil
	}
	_ = ln.Close()
	return fmt.Errorf("control socket: %w", err)
}

// Status asks the running gateway, for five seconds at most. The error wraps
// [ErrNotRunning] when there is none.
func (c Control) Status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	path, err := c.socket(false)
	if errors.Is(err, fs.ErrNotExist) {
		return Status{}, fmt.Errorf("%w (no control socket for %s)", ErrNotRunning, c.Path)
	}
	if err != nil {
		return Status{}, fmt.Errorf("ask the gateway: %w", err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gateway/status", nil)
	if err != nil {
		return Status{}, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return Status{}, fmt.Errorf("%w (nobody answers on %s)", ErrNotRunning, path)
	}
	if err != nil {
		return Status{}, fmt.Errorf("ask the gateway: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Status{}, fmt.Errorf("ask the gateway on %s: HTTP status %s", path, resp.Status)
	}
	var status Status
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(&status); err != nil {
		return Status{}, fmt.Errorf("ask the gateway on %s: %w", path, err)
	}
	return status, nil
}

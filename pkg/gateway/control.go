package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

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

// Control is the socket by which the same user asks a running gateway, and
// tells it what to do: HTTP over a unix-domain socket. GET /status answers with
// a [Status] in JSON, POST /stop with 202, POST /sessions/ID/close with 204, or
// 404 where there is no such session. Nobody else can open it: it has mode 0600
// and lies in a folder of mode 0700.
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

// handOver is how long a gateway that has closed its socket may take to give
// the folder back: "serve --stop" returns in between.
const handOver = time.Second

// Listen claims the state folder for this process and opens the socket,
// replacing one that a killed gateway left. It returns an
// [*AlreadyRunningError] while another gateway has the folder. Closing the
// listener gives the folder back.
func (c Control) Listen() (net.Listener, error) {
	unlock, err := c.claim()
	if err != nil {
		return nil, err
	}
	ln, err := c.listen()
	if err != nil {
		unlock()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &controlListener{Listener: ln, unlock: unlock}, nil
}

// claim takes the lock on the state folder.
func (c Control) claim() (unlock func(), err error) {
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		unlock, ok, err := durable.TryLock(c.Path + ".lock")
		if err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
		if ok {
			return unlock, nil
		}
		other, err := c.Status(context.Background()) // for its process id, if it answers
		if !errors.Is(err, ErrNotRunning) || time.Since(began) > handOver {
			return nil, &AlreadyRunningError{Path: c.Path, PID: other.PID}
		}
	}
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

// ControlHandler is what a running gateway does when it is asked. Its functions
// may be called at the same time.
type ControlHandler struct {
	Status       func() Status
	Stop         func()               // begins to drain, and returns at once
	CloseSession func(id uint64) bool // false: there is no such session
}

// Serve answers questions on ln until ctx ends. It closes ln and returns nil
// then. An error is that of accepting connections.
func (c Control) Serve(ctx context.Context, ln net.Listener, h ControlHandler) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(h.Status())
	})
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, r *http.Request) {
		// Whoever asks is to hear that it has been understood, whatever the end
		// of the process cuts short.
		w.WriteHeader(http.StatusAccepted)
		_ = http.NewResponseController(w).Flush()
		h.Stop()
	})
	mux.HandleFunc("POST /sessions/{id}/close", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
		if err != nil || !h.CloseSession(id) {
			http.Error(w, "no such session", http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
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

package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

const (
	// noteKept is how long it is remembered that the fate of a message is unknown.
	noteKept = 24 * time.Hour
	// maxNotes bounds those of a mailbox, which keeps no other one from sending.
	// There is one for each message that is being sent, and for each whose answer
	// was lost.
	maxNotes = 1000
)

// note is what is written before Graph is asked to send a message, and taken away
// once it is known what became of it and the client has been told. It outlives the
// process: a message that comes again is then looked for before it is sent again.
// It holds no address but the mailbox, and nothing of the message but its id.
type note struct {
	Version   int       `json:"v"`
	Mailbox   string    `json:"mailbox"`
	Digest    string    `json:"digest"`              // of envelope and message, as the client has sent them
	Envelope  string    `json:"envelope"`            // digest of the envelope alone
	Body      string    `json:"body"`                // and of what stands behind the header
	MessageID string    `json:"messageId,omitempty"` // that the message has, or was given
	Time      time.Time `json:"time"`                // when Graph was asked
	// Shared tells that another message with that id was sent shortly before, so
	// that a copy in Sent Items says nothing about this one.
	Shared bool `json:"shared,omitzero"`
	// Told is when the client was told that nobody can find out whether it was
	// sent; zero: it was not.
	Told time.Time `json:"told,omitzero"`
}

// journal is the folder with the notes: a file for each, named after mailbox and
// digest. One process has it, the gateway.
type journal struct {
	dir string

	mu       sync.Mutex
	accepted map[string]bool      // by file name: Graph has accepted it, and the client may not have heard of it
	recent   map[string]time.Time // by mailbox and Message-ID: when Graph has accepted one
	filed    map[string]time.Time // by mailbox: when a mail program has last put a message into it
}

func newNote(g Grant, l letter, id string, now time.Time) note {
	envelope := sha256.New()
	to := slices.Clone(l.to)
	for i := range to {
		to[i] = asciiLower(to[i])
	}
	slices.Sort(to)
	fmt.Fprintf(envelope, "%q %q", asciiLower(l.from), slices.Compact(to))
	n := note{Version: 1, Mailbox: strings.ToLower(g.Mailbox), Envelope: hex.EncodeToString(envelope.Sum(nil)), MessageID: id, Time: now.UTC()}
	whole := sha256.New()
	fmt.Fprintf(whole, "%s\x00%s\x00", n.Mailbox, n.Envelope)
	whole.Write(l.message)
	n.Digest = hex.EncodeToString(whole.Sum(nil))
	_, body, _ := bytes.Cut(l.message, []byte("\r\n\r\n"))
	behind := sha256.Sum256(body)
	n.Body = hex.EncodeToString(behind[:])
	return n
}

func (n note) file() string { return n.Digest + ".json" }

// same says whether the two are of one message: the same bytes to the same
// recipients, or the same text with the same Message-ID to them, as some programs
// write a new Date or Received when they try again.
func (n note) same(m note) bool { return n.Digest == m.Digest || n.twin(m) && n.Body == m.Body }

// twin says whether the two have one Message-ID and one envelope: they are one
// message, unless somebody has changed it before the second try.
func (n note) twin(m note) bool {
	return n.MessageID != "" && n.MessageID == m.MessageID && n.Envelope == m.Envelope
}

// write keeps the note, for good when it returns.
func (j *journal) write(n note) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("note a message that is about to be sent: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(j.dir, n.file()), append(b, '\n')); err != nil {
		return fmt.Errorf("note a message that is about to be sent: %w", err)
	}
	return nil
}

// accept notes, in memory, that Graph has taken the message.
func (j *journal) accept(n note) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.accepted == nil {
		j.accepted, j.recent = map[string]bool{}, map[string]time.Time{}
	}
	j.accepted[n.file()] = true
	now := time.Now()
	for key, at := range j.recent {
		if now.Sub(at) > notSentAfter {
			delete(j.recent, key)
		}
	}
	j.recent[n.Mailbox+"\x00"+n.MessageID] = now
}

// isRecent says whether a message with that id has just been sent.
func (j *journal) isRecent(n note) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	at, ok := j.recent[n.Mailbox+"\x00"+n.MessageID]
	return ok && time.Since(at) <= notSentAfter
}

func (j *journal) isAccepted(n note) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.accepted[n.file()]
}

// forget takes the note away. Should the file outlast a crash, the message is
// looked for once more than needed.
func (j *journal) forget(n note) error {
	j.mu.Lock()
	delete(j.accepted, n.file())
	j.mu.Unlock()
	return j.remove(n.file())
}

func (j *journal) remove(file string) error {
	if err := os.Remove(filepath.Join(j.dir, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// fileMargin is how long before Graph was asked a mail program may have begun to
// put its own copy of the message into the mailbox: over a slow line it takes a while.
const fileMargin = time.Minute

// noteFiled notes, in memory, that a mail program has put a message into the mailbox
// (IMAP APPEND).
func (j *journal) noteFiled(mailbox string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.filed == nil {
		j.filed = map[string]time.Time{}
	}
	j.filed[strings.ToLower(mailbox)] = time.Now()
}

// mayBeFiled says whether a copy in Sent Items may be the mail program's own: some
// file it before they send.
func (j *journal) mayBeFiled(n note) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.filed[n.Mailbox].After(n.Time.Add(-fileMargin))
}

// about are the notes on the message, those on its Message-ID to whomever
// included, and how many the mailbox has in all. Old ones are cleared away. One
// that cannot be read stops nobody's message but that whose digest its name is; bad
// tells of it, and of those that cannot be cleared away.
func (j *journal) about(n note, now time.Time) (found []note, all int, bad, err error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		m, err := j.read(e)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another session's, which has ended
		}
		// Of what lies in the future, the clock was set: it is kept until it
		// has passed.
		if now.Sub(m.Time) > noteKept {
			if err := j.remove(e.Name()); err != nil {
				bad = errors.Join(bad, err)
			}
			continue
		}
		switch {
		case e.Name() == n.file() && err != nil:
			return nil, 0, bad, err
		case err != nil:
			bad = errors.Join(bad, err)
		case m.Mailbox == n.Mailbox:
			all++
			if m.same(n) || m.MessageID != "" && m.MessageID == n.MessageID {
				found = append(found, m)
			}
		}
	}
	return found, all, bad, nil
}

// read reads a note. Of one that cannot be read it gives the time of the file.
func (j *journal) read(e fs.DirEntry) (note, error) {
	path := filepath.Join(j.dir, e.Name())
	b, err := os.ReadFile(path)
	var m note
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err == nil && (m.Version != 1 || m.file() != e.Name() || m.Time.IsZero()) {
		err = errors.New("it is none of this version")
	}
	if err == nil {
		return m, nil
	}
	info, ierr := e.Info()
	if ierr != nil {
		return note{}, ierr
	}
	return note{Time: info.ModTime()}, fmt.Errorf("the note %s of a message that may have been sent: %w", path, err)
}

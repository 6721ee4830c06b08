package cli

import (
	"cmp"
	"context"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
)

// auditLimit is how long a command waits to write what it has done.
const auditLimit = 5 * time.Second

func auditLogIn(stateDir string) *audit.Log {
	return &audit.Log{Path: filepath.Join(stateDir, audit.FileName)}
}

// audited writes to the audit log what a command has done, also when it is
// being interrupted. A log that cannot be written is told and fails nothing:
// the deed is done. A machine without a state folder has no log, and gets none.
func (a *app) audited(ctx context.Context, stateDir string, entries ...audit.Entry) {
	if stateDir == "" || len(entries) == 0 {
		return
	}
	if fi, err := os.Stat(stateDir); err != nil || !fi.IsDir() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditLimit)
	defer cancel()
	now, actor := a.Now(), a.actor()
	for i := range entries {
		entries[i].Time, entries[i].Actor = now, actor
	}
	if err := auditLogIn(stateDir).Append(ctx, entries...); err != nil {
		a.warn("the audit log could not be written: %v", err)
	}
}

// auditEntry is an event about an app password.
func auditEntry(event audit.Event, e apppassword.Record) audit.Entry {
	return audit.Entry{Event: event, AppPassword: e.Name, ID: e.ID, Profile: e.Profile, Mailbox: strings.Join(e.Mailboxes, " "), Protocol: strings.Join(e.Allow, " ")}
}

// actor is who runs this process. The system is asked first: a variable says
// whatever somebody set it to.
func (a *app) actor() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	if name := cmp.Or(a.Getenv("USER"), a.Getenv("LOGNAME"), a.Getenv("USERNAME")); name != "" {
		return name
	}
	if uid := os.Getuid(); uid >= 0 { // Windows has none
		return "uid " + strconv.Itoa(uid)
	}
	return ""
}

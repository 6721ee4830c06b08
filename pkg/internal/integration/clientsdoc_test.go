//go:build integration

package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/clients.md anew")

const clientsDoc = "../../../docs/clients.md"

const clientsIntro = `# Mail programs that are known to work

This table is made by the integration tests (` + "`TestClients`" + `), which run each
program against the gateway, with Dovecot in the place of Exchange. Each signed
in with an app password, then fetched a mailbox of awkward messages (8-bit, long
lines, dots, nested, some of 10 MB) or sent such messages, all compared byte by
byte; and each was given a wrong password, and said so. How to set them up is in
[mail-clients.md](mail-clients.md).

` + "`clear`" + ` is without TLS, from the same machine; ` + "`TLS`" + ` from the first byte.
— means that the program cannot do it.

`

// check compares the table of what has worked with docs/clients.md, or writes
// it. The versions of the programs may be others than there.
func (c *clientTable) check(t *testing.T) {
	t.Helper()
	if t.Failed() {
		return
	}
	if flag.Lookup("test.run").Value.String() != "" && !*update {
		t.Log("docs/clients.md is not looked at: not all clients may have run")
		return
	}
	doc := c.doc(t)
	if *update {
		must(t, os.WriteFile(clientsDoc, []byte(doc), 0o644))
		return
	}
	was, err := os.ReadFile(clientsDoc)
	must(t, err)
	if got, want := withoutVersions(doc), withoutVersions(string(was)); got != want {
		t.Errorf("docs/clients.md does not have what has worked; write it anew with -update:\n%s", doc)
	}
}

// doc is the text of docs/clients.md.
func (c *clientTable) doc(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	var notes []string
	mark := func(note string) string {
		if note == "" {
			return ""
		}
		if !slices.Contains(notes, note) {
			notes = append(notes, note)
		}
		return fmt.Sprintf(" [%d]", slices.Index(notes, note)+1)
	}
	b.WriteString(clientsIntro + "| program | version | protocol | clear | STARTTLS | TLS |\n|---|---|---|---|---|---|\n")
	for _, client := range clients {
		v := version(t, client)
		for _, u := range client.uses {
			fmt.Fprintf(&b, "| %s | %s | %s%s |", client.name, v, u.label(), mark(u.note))
			for _, way := range ways {
				if why := u.cannot[way]; why != "" {
					fmt.Fprintf(&b, " —%s |", mark(why))
				} else if c.cells[cell{client.name, u.title(), way}] {
					b.WriteString(" ok |")
				} else {
					t.Errorf("%s has not run: %s %s", client.name, u.title(), way)
				}
			}
			b.WriteByte('\n')
		}
	}
	b.WriteByte('\n')
	for i, note := range notes {
		fmt.Fprintf(&b, "%d. %s.\n", i+1, note)
	}
	return b.String()
}

// label is a use as people call it.
func (u use) label() string {
	name := map[string]string{"imap": "IMAP", "pop3": "POP3", "smtp": "SMTP"}[u.protocol]
	if u.mechanism != "" {
		name += ", " + u.mechanism
	}
	return name
}

var versionNumber = regexp.MustCompile(`\d+(\.\d+)+|\d{8}`)

// version asks a program for its version.
func version(t *testing.T, c client) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", c.version).CombinedOutput()
	v := versionNumber.FindString(string(out))
	if v == "" {
		t.Errorf("%s: no version: %v\n%s", c.version, err, out)
	}
	return v
}

// withoutVersions empties the table's second column.
func withoutVersions(doc string) string {
	return regexp.MustCompile(`(?m)^(\| [^|]+ \|) [^|]+ \|`).ReplaceAllString(doc, "$1 |")
}

package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/olekukonko/tablewriter"

	"github.com/o365pw/o365pw/pkg/apppassword"
)

// What never ends comes last where the end is what counts.
func TestSortByExpiry(t *testing.T) {
	entry := func(name string, days int) apppassword.Entry {
		e := apppassword.Entry{}
		if e.Name = name; days > 0 {
			e.Expires = time.Date(2026, 11, days, 0, 0, 0, 0, time.UTC)
		}
		return e
	}
	entries := []apppassword.Entry{entry("never", 0), entry("late", 20), entry("always", 0), entry("early", 3)}
	sortEntries(entries, "expires")
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	if got := strings.Join(names, " "); got != "early late always never" {
		t.Error(got)
	}
}

// A line that fits the terminal is not broken by spaces that nobody sees, also
// where the last cell is coloured; what does not fit is cut.
func TestTableFitsTerminal(t *testing.T) {
	const green, end = "\x1b[32m", "\x1b[0m"
	for _, width := range []int{60, 80, 120} {
		header := []string{"NAME", "MAILBOX", "ALLOW", "CREATED", "EXPIRES", "LAST USED", "STATUS", "ID"}
		rows := [][]string{
			{"Outlook on Mac", "alice@contoso.com", "imap,smtp", "just now", green + "in 20 days" + end, "never", green + "active" + end, strings.Repeat("8", 36)},
			{"laptop", "alice@contoso.com", "imap,smtp", "just now", "in 6 months", "never", green + "active" + end + ", old one ends in 24 hours", strings.Repeat("9", 36)},
			{"printer", "-", "-", "just now", "in 6 months", "-", "remote-only", strings.Repeat("a", 36)},
		}
		var out bytes.Buffer
		a := newApp(Env{Stdout: &out, Getenv: func(string) string { return "" }})
		if err := a.table(fit(header, rows, width)); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if got := tablewriter.DisplayWidth(line); got > width {
				t.Errorf("%d columns in %d: %q", got, width, line)
			}
			if plain := strings.ReplaceAll(line, end, ""); strings.HasSuffix(plain, " ") {
				t.Errorf("spaces at the end: %q", line)
			}
		}
	}
}

// Names of different length stand one below the other, and a question is about
// as many as there are.
func TestQuestionsAreAboutAll(t *testing.T) {
	entry := func(name, id string) apppassword.Entry {
		return apppassword.Entry{Record: apppassword.Record{Name: name, ID: id, Mailboxes: []string{"alice@contoso.com"}}, Status: apppassword.Active}
	}
	three := []apppassword.Entry{entry("mutt", "1"), entry("日本", "2"), entry("Outlook", "3")}
	const lines = "  \"mutt\"     1  alice@contoso.com\n" + "  \"日本\"     2  alice@contoso.com\n" + "  \"Outlook\"  3  alice@contoso.com\n"
	for _, tc := range []struct{ got, want string }{
		{revokeQuestion(three), lines + "Revoke these 3 app passwords?"},
		{forgetQuestion(three, "/tmp/a.age"), lines + "Write these 3 app passwords to /tmp/a.age, and take them off this machine?"},
		{forgetQuestion(three[:1], "/tmp/a.age"), "  \"mutt\"  1  alice@contoso.com\nWrite this app password to /tmp/a.age, and take it off this machine?"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s\nwant\n%s", tc.got, tc.want)
		}
	}
	many := make([]apppassword.Entry, listedToAsk+2)
	if got := revokeQuestion(many); !strings.Contains(got, "  and 2 more\nRevoke these 52 app passwords?") {
		t.Error(got)
	}
}

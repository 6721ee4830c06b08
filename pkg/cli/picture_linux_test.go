package cli_test

import (
	"flag"
	"fmt"
	"html"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var draw = flag.Bool("draw", false, "draw docs/terminal.svg anew")

// TestPicture runs what the README's picture shows, and holds the picture to
// what is really printed. With -draw it draws the picture anew:
//
//	go test ./pkg/cli -run TestPicture -draw
func TestPicture(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	imap, pop3, smtp := "127.0.0.1:1993", "127.0.0.1:1995", "127.0.0.1:1587"
	if !*draw { // those ports may be taken
		for _, addr := range []*string{&imap, &pop3, &smtp} {
			port, err := freePort()
			if err != nil {
				t.Fatal(err)
			}
			*addr = fmt.Sprintf("127.0.0.1:%d", port)
		}
	}
	m.configure(fmt.Sprintf("\n[gateway]\nimap = %q\npop3 = %q\nsmtp = %q\n", imap, pop3, smtp))
	m.serving()

	var shown screen
	run := func(args ...string) string {
		t.Helper()
		quoted := make([]string, len(args))
		for i, arg := range args {
			if quoted[i] = arg; strings.Contains(arg, " ") {
				quoted[i] = strconv.Quote(arg)
			}
		}
		shown.write("\x1b[32m$\x1b[0m \x1b[1mo365pw " + strings.Join(quoted, " ") + "\x1b[0m\r\n")
		term := m.onTerminal([]string{"TERM=xterm", "NO_COLOR="}, args...)
		if err := unix.IoctlSetWinsize(int(term.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 100}); err != nil {
			t.Fatal(err)
		}
		if len(args) == 2 && args[0] == "revoke" {
			term.expect(`\[y/N\]`)
			term.send("y\n")
		}
		code, out := term.wait()
		if code != 0 {
			t.Fatalf("%v: exit code %d\n%s", args, code, out)
		}
		shown.write(out + "\r\n")
		return out
	}
	m.onTerminal([]string{"NO_COLOR=1"}, "create", "Scanner 2nd floor", "--allow", "smtp", "--from", "alice@contoso.com").wait()
	card := run("create", "--name", "Outlook on Mac", "--allow", "imap,smtp")
	password := regexp.MustCompile(`[a-z]{4} [a-z]{4} [a-z]{4} [a-z]{4}`).FindString(card)
	conn, answer := signIn(t, imap, `"`+password+`"`)
	if !strings.Contains(answer, "x OK") {
		t.Fatalf("the app password does not sign in: %s", answer)
	}
	run("list")
	run("sessions")
	run("revoke", "Outlook on Mac")
	_, _ = io.Copy(io.Discard, conn) // until the gateway has closed it
	run("sessions")

	picture := filepath.Join("..", "..", "docs", "terminal.svg")
	now := shown.svg()
	if *draw {
		if err := os.WriteFile(picture, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := lasting(now), lasting(string(b)); got != want {
		t.Errorf("docs/terminal.svg shows what is printed no longer; draw it anew: go test ./pkg/cli -run TestPicture -draw\nit would be:\n%s\nit is:\n%s", got, want)
	}
}

// lasting is the text of a picture without what differs from run to run.
func lasting(svg string) string {
	for _, change := range [][2]string{
		{`<[^>]*>`, ""},
		{`[a-z]{4} [a-z]{4} [a-z]{4} [a-z]{4}`, "PASSWORD"},
		{`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`, "GUID"},
		{`\d+ [A-Z][a-z]+ \d{4}`, "DATE"},
		{`\bport \d+|:\d{4,5}\b`, "PORT"},
		{`(just now|in seconds|\d+ (seconds?|minutes?) ago|\d+(ms|s)\b)`, "TIME"},
		{` +`, " "},
	} {
		svg = regexp.MustCompile(change[0]).ReplaceAllString(svg, change[1])
	}
	return svg
}

// screen is as much of a terminal as the program makes use of.
type screen struct {
	lines [][]cell
	col   int
	style string
}

type cell struct {
	r     rune
	style string
}

var escape = regexp.MustCompile(`^\x1b\[([0-9;?]*)([A-Za-z])`)

func (s *screen) write(text string) {
	if s.lines == nil {
		s.lines = make([][]cell, 1)
	}
	for text != "" {
		if m := escape.FindStringSubmatch(text); m != nil {
			text = text[len(m[0]):]
			line := &s.lines[len(s.lines)-1]
			switch {
			case m[2] == "m":
				s.style = m[1]
			case m[2] == "K" && m[1] == "2":
				*line = nil
			case m[2] == "K" && s.col < len(*line):
				*line = (*line)[:s.col]
			}
			continue
		}
		r := []rune(text)[0]
		text = text[len(string(r)):]
		switch r {
		case '\r':
			s.col = 0
		case '\n':
			s.lines, s.col = append(s.lines, nil), 0
		default:
			line := &s.lines[len(s.lines)-1]
			for len(*line) <= s.col {
				*line = append(*line, cell{r: ' '})
			}
			(*line)[s.col] = cell{r, s.style}
			s.col++
		}
	}
}

// svg draws the screen in colours that are legible on light and dark pages.
func (s *screen) svg() string {
	const advance, height, margin = 8.43, 19, 18
	colours := map[string]string{"1": `font-weight="bold" fill="#ffffff"`, "2": `fill="#8b949e"`, "31": `fill="#ff7b72"`, "32": `fill="#7ee787"`, "33": `fill="#e3b341"`}
	columns := 0
	for _, line := range s.lines {
		columns = max(columns, len(line))
	}
	lines := s.lines
	for i := range lines {
		for len(lines[i]) > 0 && lines[i][len(lines[i])-1].r == ' ' {
			lines[i] = lines[i][:len(lines[i])-1]
		}
	}
	for len(lines) > 0 && len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	width, total := int(float64(columns)*advance)+2*margin, len(lines)*height+2*margin
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\">\n", width, total, width, total)
	b.WriteString("<title>o365pw at a terminal: an app password is made, listed, used and revoked</title>\n")
	b.WriteString("<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0d1117\"/>\n")
	b.WriteString("<g font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"14\" fill=\"#d1d7e0\">\n")
	for i, line := range lines {
		if len(line) == 0 {
			continue
		}
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" xml:space=\"preserve\" textLength=\"%.0f\">", margin, margin+(i+1)*height-5, float64(len(line))*advance)
		for j := 0; j < len(line); {
			end := j
			for end < len(line) && line[end].style == line[j].style {
				end++
			}
			var run strings.Builder
			for _, c := range line[j:end] {
				run.WriteRune(c.r)
			}
			if colour := colours[line[j].style]; colour != "" {
				fmt.Fprintf(&b, "<tspan %s>%s</tspan>", colour, html.EscapeString(run.String()))
			} else {
				b.WriteString(html.EscapeString(run.String()))
			}
			j = end
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}

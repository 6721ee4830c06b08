package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/o365pw/o365pw/pkg/explain"
)

// findings are what doctor prints, in JSON and YAML.
type findings struct {
	SchemaVersion int           `json:"schemaVersion"`
	Checks        []findingJSON `json:"checks"`
	Summary       struct {
		OK       int `json:"ok"`
		Warnings int `json:"warnings"`
		Failed   int `json:"failed"`
		Skipped  int `json:"skipped"`
	} `json:"summary"`
	Message string `json:"administratorMessage"` // empty: the move is not an administrator's

	ids []string // by which Microsoft finds requests
}

// findingJSON is how one check has ended.
type findingJSON struct {
	ID     string       `json:"id"`
	Title  string       `json:"title"`
	Status checkStatus  `json:"status"`
	Detail string       `json:"detail"`
	Cause  string       `json:"cause"` // the likeliest
	Mover  string       `json:"mover"` // you, administrator, Microsoft, o365pw, nobody; empty where nothing is to be done
	Fix    []string     `json:"fix"`
	More   []findingFix `json:"more"` // further causes, in the order to look
	Code   int          `json:"code"` // as the exit code
}

type findingFix struct {
	Cause string   `json:"cause"`
	Mover string   `json:"mover"`
	Fix   []string `json:"fix"`
}

func (d *doctor) findings(checks []check, results []result) findings {
	f := findings{SchemaVersion: schemaVersion}
	for i, r := range results {
		one := findingJSON{ID: checks[i].id, Title: printable(checks[i].title), Status: r.status, Detail: printable(r.detail), Code: int(r.code), Fix: []string{}, More: []findingFix{}}
		for j, m := range r.remedies {
			fix := findingFix{Cause: printable(m.cause), Mover: m.mover, Fix: []string{}}
			for _, line := range m.fix {
				fix.Fix = append(fix.Fix, printable(line))
			}
			if j == 0 {
				one.Cause, one.Mover, one.Fix = fix.Cause, fix.Mover, fix.Fix
			} else {
				one.More = append(one.More, fix)
			}
		}
		f.Checks = append(f.Checks, one)
		f.ids = append(f.ids, r.ids...)
		switch r.status {
		case checkOK:
			f.Summary.OK++
		case checkWarning:
			f.Summary.Warnings++
		case checkFailed:
			f.Summary.Failed++
		case checkSkipped:
			f.Summary.Skipped++
		}
	}
	return f
}

func (a *app) printFindings(f findings) error {
	switch a.output {
	case outputJSON:
		return a.printJSON(f)
	case outputYAML:
		return a.printYAML(f)
	case outputCSV:
		var rows [][]string
		for _, c := range f.Checks {
			rows = append(rows, []string{c.ID, c.Title, string(c.Status), c.Detail, c.Cause, c.Mover, strings.Join(c.Fix, "; "), strconv.Itoa(c.Code)})
		}
		return a.printCSV([]string{"id", "title", "status", "detail", "cause", "mover", "fix", "code"}, rows)
	case outputName:
		var b strings.Builder
		for _, c := range f.Checks {
			if c.Status == checkFailed {
				b.WriteString(c.ID + "\n")
			}
		}
		return a.print([]byte(b.String()))
	}
	return a.print([]byte(findingsText(f, a.paint)))
}

var checkMarks = map[checkStatus]struct{ word, colour string }{
	checkOK: {"ok", green}, checkWarning: {"warn", yellow}, checkFailed: {"FAIL", red}, checkSkipped: {"skip", faint},
}

// findingsText is for people. Lines are not broken: what is to be pasted stays
// whole.
func findingsText(f findings, paint func(sgr, text string) string) string {
	var b strings.Builder
	wide := 0
	for _, c := range f.Checks {
		wide = max(wide, len([]rune(c.Title)))
	}
	for _, c := range f.Checks {
		mark := checkMarks[c.Status]
		fmt.Fprintf(&b, "%s  %s%s  %s\n", paint(mark.colour, fmt.Sprintf("%-4s", mark.word)), c.Title, strings.Repeat(" ", wide-len([]rune(c.Title))), c.Detail)
		if c.Cause != "" || len(c.Fix) > 0 {
			remedies := append([]findingFix{{c.Cause, c.Mover, c.Fix}}, c.More...)
			for i, m := range remedies {
				remedyText(&b, m, i+1, len(remedies))
			}
		}
	}
	fmt.Fprintf(&b, "\n%d ok, %s, %d failed, %d skipped\n", f.Summary.OK, plural(f.Summary.Warnings, "warning"), f.Summary.Failed, f.Summary.Skipped)
	if f.Message != "" {
		fmt.Fprintf(&b, "\n%s\n\n%s", paint(bold, "For the administrator, to be passed on as it is:"), f.Message)
	}
	return b.String()
}

// remedyText is one of several remedies, or the only one.
func remedyText(b *strings.Builder, m findingFix, at, of int) {
	mark := "      "
	if of > 1 {
		mark = fmt.Sprintf("   %d. ", at)
	}
	const indent = "      "
	if m.Cause != "" {
		fmt.Fprintf(b, "%scause: %s\n", mark, m.Cause)
		mark = indent
	}
	if m.Mover != "" && m.Mover != explain.You {
		fmt.Fprintf(b, "%swhose move: %s\n", mark, whoseMove(m.Mover))
		mark = indent
	}
	for i, line := range m.Fix {
		if i == 0 {
			line = "to mend it: " + line
		} else {
			line = "            " + line
		}
		fmt.Fprintf(b, "%s%s\n", mark, line)
		mark = indent
	}
}

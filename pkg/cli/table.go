package cli

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/olekukonko/tablewriter"
	"golang.org/x/term"
)

// table lays rows out for a terminal: no borders, columns by their widest
// cell, also where letters are two columns wide.
func (a *app) table(header []string, rows [][]string) error {
	var b bytes.Buffer
	t := tablewriter.NewWriter(&b)
	t.SetAutoFormatHeaders(false)
	t.SetAutoWrapText(false)
	t.SetHeaderAlignment(tablewriter.ALIGN_LEFT)
	t.SetAlignment(tablewriter.ALIGN_LEFT)
	t.SetBorder(false)
	t.SetHeaderLine(false)
	t.SetColumnSeparator("")
	t.SetTablePadding("  ")
	t.SetNoWhiteSpace(true)
	t.SetHeader(header)
	t.AppendBulk(rows)
	t.Render()
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		out.WriteString(trimCells(line) + "\n")
	}
	return a.print([]byte(out.String()))
}

// trimCells takes away the padding behind the last cell, which makes a terminal
// break a line that fits it. Behind a coloured cell the padding has the end of
// the colour behind it.
func trimCells(line string) string {
	const end = "\x1b[0m"
	line = strings.TrimRight(line, " \n")
	for {
		rest, coloured := strings.CutSuffix(line, end)
		if trimmed := strings.TrimRight(rest, " "); coloured && trimmed != rest {
			line = trimmed
			if !strings.HasSuffix(line, end) {
				line += end
			}
			continue
		}
		return line
	}
}

// gap is the room between two columns.
const gap = 2

// width is that of the terminal; where there is none, tables may be as wide as
// they like.
func (a *app) width() int {
	if f, ok := a.Stdout.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return math.MaxInt
}

func columnWidth(header []string, rows [][]string, col int) int {
	w := tablewriter.DisplayWidth(header[col])
	for _, r := range rows {
		w = max(w, tablewriter.DisplayWidth(r[col]))
	}
	return w
}

func tableWidth(header []string, rows [][]string) int {
	w := -gap
	for col := range header {
		w += columnWidth(header, rows, col) + gap
	}
	return w
}

// narrow makes a table fit a width, as far as needed: columns are dropped, then
// the texts of others cut, in the order given.
func narrow(header []string, rows [][]string, width int, drop, cut []string) ([]string, [][]string) {
	for _, name := range drop {
		if i := slices.Index(header, name); tableWidth(header, rows) > width && i >= 0 {
			header = slices.Delete(slices.Clone(header), i, i+1)
			for r := range rows {
				rows[r] = slices.Delete(slices.Clone(rows[r]), i, i+1)
			}
		}
	}
	for _, least := range []int{16, 10} { // what is left of a text
		for _, name := range cut {
			if over := tableWidth(header, rows) - width; over > 0 {
				col := slices.Index(header, name)
				room := max(columnWidth(header, rows, col)-over, least)
				for r := range rows {
					rows[r][col] = shortened(rows[r][col], room)
				}
			}
		}
	}
	return header, rows
}

// shortened cuts text to a width, with an ellipsis.
func shortened(text string, room int) string {
	if tablewriter.DisplayWidth(text) <= room {
		return text
	}
	return runewidth.Truncate(text, room, "…")
}

// relative writes a time as people speak of it: "in 3 months", "2 days ago".
func relative(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := t.Sub(now)
	past := d < 0
	if past {
		d = -d
	}
	var s string
	const (
		day   = 24 * time.Hour
		month = 30*day + 10*time.Hour
		year  = 365*day + 6*time.Hour
	)
	if d < time.Minute {
		if past {
			return "just now"
		}
		return "in seconds"
	}
	switch {
	case d.Round(time.Minute) < time.Hour:
		s = count(d, time.Minute, "minute")
	case d.Round(time.Hour) < 2*day:
		s = count(d, time.Hour, "hour")
	case d.Round(day) < 60*day:
		s = count(d, day, "day")
	case d.Round(month) < 24*month:
		s = count(d, month, "month")
	default:
		s = count(d, year, "year")
	}
	if past {
		return s + " ago"
	}
	return "in " + s
}

func count(d, unit time.Duration, name string) string { return plural(int((d+unit/2)/unit), name) }

func plural(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

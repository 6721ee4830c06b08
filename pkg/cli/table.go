package cli

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// table lays rows out for a terminal: no borders, columns by their widest
// cell, also where letters are two columns wide.
func (a *app) table(header []string, rows [][]string) error {
	var b bytes.Buffer
	t := tablewriter.NewTable(&b,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Borders:  tw.BorderNone,
			Settings: tw.Settings{Separators: tw.SeparatorsNone, Lines: tw.LinesNone},
		})),
		tablewriter.WithHeaderAlignment(tw.AlignLeft),
		tablewriter.WithRowAlignment(tw.AlignLeft),
		tablewriter.WithRowAutoWrap(tw.WrapNone),
		tablewriter.WithHeaderAutoWrap(tw.WrapNone),
		tablewriter.WithPadding(tw.Padding{Left: "", Right: "  ", Overwrite: true}),
	)
	t.Header(header)
	if err := t.Bulk(rows); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	if err := t.Render(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return a.print([]byte(out.String()))
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
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		if past {
			return "just now"
		}
		return "in seconds"
	case d < time.Hour:
		s = plural(int(d/time.Minute), "minute")
	case d < 2*day:
		s = plural(int(d/time.Hour), "hour")
	case d < 60*day:
		s = plural(int(d/day), "day")
	case d < 730*day:
		s = plural(int(d/(30*day+10*time.Hour)), "month")
	default:
		s = plural(int(d/(365*day+6*time.Hour)), "year")
	}
	if past {
		return s + " ago"
	}
	return "in " + s
}

func plural(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

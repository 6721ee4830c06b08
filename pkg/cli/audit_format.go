package cli

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/audit"
)

// entryFormat gives what prints one entry of the audit log, and what ends the
// output. Only the table, --jq and --template keep the entries: the log may be larger than memory.
func (a *app) entryFormat(out *bufio.Writer) (add func(audit.Entry) error, end func() error) {
	if a.filter != nil {
		return a.entriesFiltered()
	}
	switch a.output {
	case outputJSON:
		return entriesJSON(out)
	case outputYAML:
		return entriesYAML(out)
	case outputCSV:
		return entriesCSV(out)
	case outputName:
		return entriesNames(out)
	case outputAuto:
		if !a.stdoutTTY() {
			return entriesTabbed(out)
		}
	}
	return a.entriesTable()
}

func nothing() error { return nil }

// entriesJSON prints the same as printJSON, entry by entry.
func entriesJSON(out *bufio.Writer) (func(audit.Entry) error, func() error) {
	fmt.Fprintf(out, "{\n  \"schemaVersion\": %d,\n  \"entries\": [", schemaVersion)
	n := 0
	add := func(e audit.Entry) error {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("    ", "  ")
		if err := enc.Encode(e); err != nil {
			return fmt.Errorf("print JSON: %w", err)
		}
		if n++; n > 1 {
			out.WriteByte(',')
		}
		_, err := fmt.Fprintf(out, "\n    %s", bytes.TrimSpace(b.Bytes()))
		return err
	}
	return add, func() error {
		if n > 0 {
			out.WriteString("\n  ")
		}
		_, err := out.WriteString("]\n}\n")
		return err
	}
}

// entriesFiltered keeps the entries, since --jq and --template work on all of
// them at once.
func (a *app) entriesFiltered() (func(audit.Entry) error, func() error) {
	v := struct {
		SchemaVersion int           `json:"schemaVersion"`
		Entries       []audit.Entry `json:"entries"`
	}{schemaVersion, []audit.Entry{}}
	add := func(e audit.Entry) error {
		v.Entries = append(v.Entries, e)
		return nil
	}
	return add, func() error { return a.printJSON(v) }
}

// entriesYAML prints the same as printYAML, entry by entry.
func entriesYAML(out *bufio.Writer) (func(audit.Entry) error, func() error) {
	fmt.Fprintf(out, "schemaVersion: %d\nentries:", schemaVersion)
	n := 0
	add := func(e audit.Entry) error {
		b, err := toYAML([]audit.Entry{e})
		if err != nil {
			return err
		}
		if n++; n == 1 {
			out.WriteByte('\n')
		}
		for line := range bytes.Lines(b) {
			out.WriteString("    ")
			_, err = out.Write(line)
		}
		return err
	}
	return add, func() error {
		if n > 0 {
			return nil
		}
		_, err := out.WriteString(" []\n")
		return err
	}
}

func entriesCSV(out *bufio.Writer) (func(audit.Entry) error, func() error) {
	w := csv.NewWriter(out)
	header := w.Write([]string{"seq", "time", "event", "appPassword", "id", "profile", "mailbox", "protocol", "address", "user", "reason", "actor", "count", "prev"})
	add := func(e audit.Entry) error {
		return w.Write(append(append([]string{strconv.FormatUint(e.Seq, 10)}, entryCells(e)...), e.Prev))
	}
	return add, func() error {
		w.Flush()
		if header != nil {
			return header
		}
		return w.Error()
	}
}

// entryCells are an entry's fields without the chain's.
func entryCells(e audit.Entry) []string {
	count := ""
	if e.Count != 0 {
		count = strconv.Itoa(e.Count)
	}
	return []string{e.Time.UTC().Format(time.RFC3339Nano), string(e.Event), e.AppPassword, e.ID, e.Profile, e.Mailbox, e.Protocol, e.Address, e.User, e.Reason, e.Actor, count}
}

// entriesTabbed is for scripts: full values, times in RFC 3339.
func entriesTabbed(out *bufio.Writer) (func(audit.Entry) error, func() error) {
	out.WriteString("TIME\tEVENT\tNAME\tID\tPROFILE\tMAILBOX\tPROTOCOL\tADDRESS\tUSER\tREASON\tACTOR\tCOUNT\n")
	return func(e audit.Entry) error {
		cells := entryCells(e)
		for i := range cells {
			cells[i] = printable(cells[i])
		}
		_, err := out.WriteString(strings.Join(cells, "\t") + "\n")
		return err
	}, nothing
}

func entriesNames(out *bufio.Writer) (func(audit.Entry) error, func() error) {
	seen := map[string]bool{}
	return func(e audit.Entry) error {
		if e.AppPassword == "" || seen[e.AppPassword] {
			return nil
		}
		seen[e.AppPassword] = true
		_, err := out.WriteString(printable(e.AppPassword) + "\n")
		return err
	}, nothing
}

// entriesTable is for people: local times, and what does not fit is cut.
func (a *app) entriesTable() (func(audit.Entry) error, func() error) {
	var rows [][]string
	add := func(e audit.Entry) error {
		event := string(e.Event)
		switch e.Event {
		case audit.Refused, audit.DecoyUsed, audit.Lost:
			event = a.paint(red, event)
		case audit.Repaired:
			event = a.paint(yellow, event)
		}
		rows = append(rows, []string{e.Time.Local().Format(time.DateTime), event, dash(e.AppPassword), dash(e.Mailbox), dash(e.Protocol), dash(e.Address), dash(e.Actor), dash(entryDetails(e))})
		return nil
	}
	return add, func() error {
		if len(rows) == 0 {
			return nil
		}
		header := []string{"TIME", "EVENT", "NAME", "MAILBOX", "PROTOCOL", "ADDRESS", "BY", "DETAILS"}
		return a.table(narrow(header, rows, a.width(), []string{"PROTOCOL", "BY", "MAILBOX"}, []string{"DETAILS", "NAME"}))
	}
}

func entryDetails(e audit.Entry) string {
	var parts []string
	if e.User != "" {
		parts = append(parts, "as "+quote(e.User))
	}
	if e.Reason != "" {
		parts = append(parts, e.Reason)
	}
	if e.Count != 0 {
		parts = append(parts, plural(e.Count, "event"))
	}
	return strings.Join(parts, ": ")
}

package cli

import (
	"strings"
	"time"
)

// prunedJSON is what became of one app password, in JSON and YAML.
type prunedJSON struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Profile  string     `json:"profile"`
	Reason   string     `json:"reason"` // expired, revoked, unused, orphan
	Why      string     `json:"why"`    // the reason in words, for people
	Created  *time.Time `json:"created"`
	Expires  *time.Time `json:"expires"`
	LastUsed *time.Time `json:"lastUsed"`
	Result   string     `json:"result"` // removed, would-remove, kept (an orphan that was not named), failed
	Error    string     `json:"error,omitempty"`
	Hint     string     `json:"hint,omitempty"`
}

// pruneResults puts together what was found and what became of it. outcome is in
// the order of those that are not kept; nil: nothing was tried.
func (a *app) pruneResults(found []prunable, outcome []error) []prunedJSON {
	results := []prunedJSON{}
	for _, p := range found {
		r := prunedJSON{
			ID: p.ID, Name: p.Name, Profile: p.Profile, Reason: p.reason, Why: p.why,
			Created: utc(p.Created), Expires: utc(p.Expires), LastUsed: utc(p.LastUse.Time), Result: wouldBeTaken,
		}
		switch {
		case p.kept:
			r.Result = keptUnasked
		case outcome != nil:
			r.Result, r.Error, r.Hint = a.outcome(outcome[0], "removed")
			outcome = outcome[1:]
		}
		results = append(results, r)
	}
	return results
}

func (a *app) printPruned(results []prunedJSON, withProfile bool) error {
	header := []string{"NAME", "WHY", "RESULT", "ID"}
	if withProfile {
		header = append(header, "PROFILE")
	}
	row := func(r prunedJSON) []string {
		row := []string{printable(r.Name), r.Why, r.Result, r.ID}
		if withProfile {
			row = append(row, printable(r.Profile))
		}
		return row
	}
	switch a.output {
	case outputJSON, outputYAML:
		v := struct {
			SchemaVersion int          `json:"schemaVersion"`
			Results       []prunedJSON `json:"results"`
		}{schemaVersion, results}
		if a.output == outputYAML {
			return a.printYAML(v)
		}
		return a.printJSON(v)
	case outputCSV:
		var rows [][]string
		for _, r := range results {
			rows = append(rows, []string{r.ID, r.Name, r.Profile, r.Reason, r.Why, date(r.Created), date(r.Expires), date(r.LastUsed), r.Result, r.Error})
		}
		return a.printCSV([]string{"id", "name", "profile", "reason", "why", "created", "expires", "lastUsed", "result", "error"}, rows)
	case outputName:
		for _, r := range results {
			if r.Result == "removed" || r.Result == wouldBeTaken {
				if err := a.printf("%s\n", printable(r.Name)); err != nil {
					return err
				}
			}
		}
		return nil
	case outputAuto:
		if a.stdoutTTY() {
			break
		}
		lines := []string{strings.Join(header, "\t")}
		for _, r := range results {
			lines = append(lines, strings.Join(row(r), "\t"))
		}
		return a.printf("%s\n", strings.Join(lines, "\n"))
	}
	if len(results) == 0 {
		a.note("there is nothing to remove")
		return nil
	}
	var rows [][]string
	for _, r := range results {
		cells := row(r)
		cells[0] = dash(cells[0])
		rows = append(rows, cells)
	}
	return a.table(narrow(header, rows, a.width(), []string{"ID"}, []string{"WHY", "NAME"}))
}

package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
)

// schemaVersion is in every JSON object. It changes when a field changes its
// meaning or goes away; new fields do not change it.
const schemaVersion = 1

// output is the value of --output.
type output string

const (
	outputAuto  output = "" // the command's own: people's on a terminal, bare in a pipe
	outputTable output = "table"
	outputJSON  output = "json"
	outputYAML  output = "yaml"
	outputCSV   output = "csv"
	outputName  output = "name"
)

var outputNames = []string{string(outputTable), string(outputJSON), string(outputYAML), string(outputCSV), string(outputName)}

// String, Set and Type make output a flag value.
func (o *output) String() string { return string(*o) }

// Set refuses what is no format.
func (o *output) Set(s string) error {
	if !slices.Contains(outputNames, s) {
		return fmt.Errorf("%q is none of %s", s, strings.Join(outputNames, ", "))
	}
	*o = output(s)
	return nil
}

// Type is shown in help.
func (o *output) Type() string { return "format" }

// appPasswordJSON is an app password in JSON, YAML and CSV.
type appPasswordJSON struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Profile   string         `json:"profile"`
	Mailboxes []string       `json:"mailboxes"`
	Allow     []string       `json:"allow"`
	Networks  []netip.Prefix `json:"networks"`
	Backing   string         `json:"backing"`
	Hint      string         `json:"hint"`
	Created   *time.Time     `json:"created"`
	Expires   *time.Time     `json:"expires"`
	LastUsed  *time.Time     `json:"lastUsed"`
	Status    string         `json:"status"`

	ReadOnly         bool     `json:"readOnly"`
	From             []string `json:"from"`
	MaxPerHour       int      `json:"maxPerHour"` // 0: no limit
	LoginName        string   `json:"loginName"`
	Decoy            bool     `json:"decoy"`
	LastUsedProtocol string   `json:"lastUsedProtocol"` // empty: never used
	LastUsedAddress  string   `json:"lastUsedAddress"`

	// RemoteLastUsed is the last sign-in with what stands behind it, as Graph's
	// report has it: absent where that is unknown, and without --remote-use.
	RemoteLastUsed *time.Time `json:"remoteLastUsed,omitempty"`

	// Previous is what a rotation has replaced, as long as something of it is
	// left; absent: nothing is.
	Previous *previousJSON `json:"previous,omitempty"`
}

type previousJSON struct {
	ID    string     `json:"id"`
	Until *time.Time `json:"until"` // its password is good until then
	Ended *time.Time `json:"ended"` // when it was shut out; what is left of it is to be removed
}

func toPrevious(e apppassword.Entry) *previousJSON {
	if e.Previous == nil || e.PreviousGone {
		return nil
	}
	return &previousJSON{ID: e.Previous.ID, Until: utc(e.Previous.Until), Ended: utc(e.Previous.Ended)}
}

func toJSON(e apppassword.Entry) appPasswordJSON {
	return appPasswordJSON{
		ID: e.ID, Name: e.Name, Profile: e.Profile,
		Mailboxes: orEmpty(e.Mailboxes), Allow: orEmpty(e.Allow), Networks: orEmpty(e.Networks),
		Backing: e.Backing, Hint: e.Hint, Created: utc(e.Created), Expires: utc(e.Expires), Status: string(e.Status),
		ReadOnly: e.ReadOnly, From: orEmpty(e.From), MaxPerHour: e.MaxPerHour, LoginName: e.LoginName, Decoy: e.Decoy,
		LastUsed: utc(e.LastUse.Time), LastUsedProtocol: e.LastUse.Protocol, LastUsedAddress: e.LastUse.Address,
		RemoteLastUsed: utc(e.RemoteUse),
		Previous:       toPrevious(e),
	}
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

// withPassword is what create and show print. Password is absent without
// --password.
type withPassword struct {
	SchemaVersion int                   `json:"schemaVersion"`
	AppPassword   appPasswordJSON       `json:"appPassword"`
	Password      string                `json:"password,omitempty"`
	Servers       map[string]serverJSON `json:"servers"`
	Settings      *clientSettings       `json:"settings,omitempty"` // of create --for
}

type serverJSON struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Security string `json:"security"` // none, starttls, tls
}

// printJSON prints the object of a command, or what --jq or --template makes of
// it.
func (a *app) printJSON(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	if a.filter != nil {
		return a.printFiltered(b.Bytes())
	}
	return a.print(b.Bytes())
}

// csvHeader names the columns of csvRow. Columns are only ever added at the
// end, behind the password of those commands that print it.
func csvHeader(password bool) []string {
	header := []string{"id", "name", "profile", "mailboxes", "allow", "networks", "backing", "hint", "created", "expires", "lastUsed", "status"}
	if password {
		header = append(header, "password")
	}
	return append(header, "readOnly", "from", "maxPerHour", "loginName", "decoy", "lastUsedProtocol", "lastUsedAddress")
}

// csvRow is an app password, with its password where the header names one.
func csvRow(v withPassword, password bool) []string {
	p := v.AppPassword
	var nets []string
	for _, n := range p.Networks {
		nets = append(nets, n.String())
	}
	row := []string{p.ID, p.Name, p.Profile, strings.Join(p.Mailboxes, " "), strings.Join(p.Allow, " "), strings.Join(nets, " "),
		p.Backing, p.Hint, date(p.Created), date(p.Expires), date(p.LastUsed), p.Status}
	if password {
		row = append(row, v.Password)
	}
	return append(row, strconv.FormatBool(p.ReadOnly), strings.Join(p.From, " "), strconv.Itoa(p.MaxPerHour), p.LoginName,
		strconv.FormatBool(p.Decoy), p.LastUsedProtocol, p.LastUsedAddress)
}

// date is a time in RFC 3339; empty where there is none.
func date(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339)
}

func (a *app) printCSV(header []string, rows [][]string) error {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	if err := w.Write(header); err != nil {
		return fmt.Errorf("print CSV: %w", err)
	}
	if err := w.WriteAll(rows); err != nil {
		return fmt.Errorf("print CSV: %w", err)
	}
	return a.print(b.Bytes())
}

func (a *app) printf(format string, args ...any) error {
	return a.print(fmt.Appendf(nil, format, args...))
}

// print writes data to stdout. A reader that has gone is an error: the data
// did not arrive.
func (a *app) print(b []byte) error {
	a.progress.stop()
	if _, err := a.Stdout.Write(b); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

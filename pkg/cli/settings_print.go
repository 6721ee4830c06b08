package cli

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/clientconfig"
	"github.com/o365pw/o365pw/pkg/internal/durable"
)

// settingsJSON is what settings prints.
type settingsJSON struct {
	SchemaVersion int             `json:"schemaVersion"`
	AppPassword   appPasswordJSON `json:"appPassword"`
	clientSettings
}

// clientSettings are how a client is set up.
type clientSettings struct {
	Client string         `json:"client"`
	Files  []settingsFile `json:"files"`
	Steps  []string       `json:"steps"`
}

type settingsFile struct {
	Path     string `json:"path"`
	Content  string `json:"content"`
	Encoding string `json:"encoding,omitempty"` // base64; absent: the content is text

	data     []byte
	terminal []byte // what a terminal shows in its place
}

func toSettingsFile(f clientconfig.File) settingsFile {
	out := settingsFile{Path: f.Path, Content: string(f.Content), data: f.Content, terminal: f.Terminal}
	if f.Binary {
		out.Content, out.Encoding = base64.StdEncoding.EncodeToString(f.Content), "base64"
	}
	return out
}

// printSettings prints settings; those that are in files already are only
// named.
func (a *app) printSettings(v settingsJSON, written bool) error {
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		var rows [][]string
		for _, f := range v.Files {
			rows = append(rows, []string{"file", f.Path, f.Encoding, f.Content})
		}
		for _, s := range v.Steps {
			rows = append(rows, []string{"step", "", "", s})
		}
		return a.printCSV([]string{"kind", "path", "encoding", "content"}, rows)
	case outputName:
		for _, f := range v.Files {
			if err := a.printf("%s\n", printable(f.Path)); err != nil {
				return err
			}
		}
		return nil
	}
	if written {
		a.noteSteps(v.Steps)
		return nil
	}
	return a.printForProgram(v.clientSettings)
}

// printForProgram prints what the program reads: byte for byte in a pipe.
func (a *app) printForProgram(s clientSettings) error {
	people := a.stdoutTTY() || a.output == outputTable
	switch {
	case len(s.Files) == 0:
		for _, step := range s.Steps {
			if err := a.printf("%s\n", printable(step)); err != nil {
				return err
			}
		}
		return nil
	case len(s.Files) > 1 && !people:
		return &usageError{problem: fmt.Sprintf("the settings are %d files, and a pipe takes one", len(s.Files)), hint: "write them to a folder: --dir DIR; or: -o json"}
	}
	for i, f := range s.Files {
		switch {
		case f.terminal != nil && a.stdoutTTY():
			if err := a.print(f.terminal); err != nil {
				return err
			}
			a.note("as a picture: --file %s", f.Path)
			continue
		case f.Encoding != "" && people:
			a.note("%s is no text: write it with --file, or print it into a pipe", f.Path)
			continue
		case len(s.Files) > 1:
			if err := a.printf("%s%s\n", strings.Repeat("\n", min(i, 1)), a.paint(bold, "# "+printable(f.Path))); err != nil {
				return err
			}
		}
		out := f.data
		if a.stdoutTTY() {
			out = []byte(forTerminal(string(out)).(string))
		}
		if err := a.print(out); err != nil {
			return err
		}
	}
	for _, f := range s.Files {
		if f.terminal == nil || !a.stdoutTTY() {
			a.note("it goes to %s", f.Path)
		}
	}
	a.noteSteps(s.Steps)
	return nil
}

func (a *app) noteSteps(steps []string) {
	for _, step := range steps {
		a.note("%s", step)
	}
}

// writeSettings writes files, by path, none over another of a person's. All are
// looked at before the first is written.
func (a *app) writeSettings(files map[string][]byte) error {
	paths := slices.Sorted(maps.Keys(files))
	for _, path := range paths {
		was, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !bytes.Equal(was, files[path]):
			return &usageError{problem: path + " is there already, with other content", hint: "name another file, or move that one away; or print the settings and put them in by hand: leave --file and --dir out"}
		}
	}
	for _, path := range paths {
		if err := durable.WriteFile(path, files[path]); err != nil {
			return err
		}
		a.note("wrote %s", path)
	}
	return nil
}

// clientJSON is a client that there are settings for.
type clientJSON struct {
	Name      string   `json:"name"`
	Title     string   `json:"title"`
	Does      string   `json:"does"`
	Protocols []string `json:"protocols"`
	Checked   string   `json:"checked"` // program, format
}

// printClients prints the clients.
func (a *app) printClients() error {
	v := struct {
		SchemaVersion int          `json:"schemaVersion"`
		Clients       []clientJSON `json:"clients"`
	}{SchemaVersion: schemaVersion}
	header := []string{"name", "title", "does", "protocols", "checked"}
	var rows [][]string
	for _, c := range clientconfig.Clients() {
		v.Clients = append(v.Clients, clientJSON{c.Name, c.Title, c.Does, c.Protocols, string(c.Checked)})
		rows = append(rows, []string{c.Name, c.Title, c.Does, strings.Join(c.Protocols, " "), string(c.Checked)})
	}
	switch a.output {
	case outputJSON:
		return a.printJSON(v)
	case outputYAML:
		return a.printYAML(v)
	case outputCSV:
		return a.printCSV(header, rows)
	case outputName:
		for _, c := range v.Clients {
			if err := a.printf("%s\n", c.Name); err != nil {
				return err
			}
		}
		return nil
	}
	for i, h := range header {
		header[i] = strings.ToUpper(h)
	}
	if a.output == outputAuto && !a.stdoutTTY() {
		for _, row := range slices.Concat([][]string{header}, rows) {
			if err := a.printf("%s\n", strings.Join(row, "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	header, rows = narrow(header, rows, a.width(), []string{"PROTOCOLS", "CHECKED"}, []string{"DOES", "TITLE"})
	return a.table(header, rows)
}

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/o365pw/o365pw/pkg/internal/durable"
)

// serviceMark is in each file that install has written, so that it knows them
// again.
const serviceMark = `Made by "o365pw service install", which replaces it when it is run again.`

// servicePlan is what install or uninstall does, in this order. All of it can
// be done again.
type servicePlan struct {
	first  []serviceStep
	files  []serviceFile // to write; uninstall: to remove
	then   []serviceStep
	unused []string // files of an earlier install, to remove
	next   []string // what to tell the person
}

// serviceFile is a file with serviceMark in it.
type serviceFile struct {
	path    string
	content string
	same    string // a file of a package: where it has the same content, no other is needed
}

// serviceStep is a command to run, or something like one.
type serviceStep struct {
	show string // as a person would type it
	run  func(ctx context.Context) error
}

// planJSON is what --dry-run prints.
type planJSON struct {
	SchemaVersion int            `json:"schemaVersion"`
	Before        []string       `json:"before"`
	Files         []planFileJSON `json:"files"`
	Remove        []string       `json:"remove"`
	After         []string       `json:"after"`
}

type planFileJSON struct {
	Path    string `json:"path"`
	Content string `json:"content"`
}

func (a *app) runServiceInstall(ctx context.Context, o serviceOptions) error {
	s, err := a.supervisor(o, !o.dryRun)
	if err != nil {
		return err
	}
	if o.program, err = servedProgram(o.program); err != nil {
		return err
	}
	p, err := s.install(ctx, o)
	if err != nil {
		return err
	}
	p.files = slices.DeleteFunc(p.files, func(f serviceFile) bool {
		b, err := os.ReadFile(f.same)
		packaged := f.same != "" && err == nil && string(b) == withoutMark(f.content)
		if packaged {
			p.unused = append(p.unused, f.path)
		}
		return packaged
	})
	p.unused = slices.DeleteFunc(p.unused, func(path string) bool { ours, err := isOurs(path); return err != nil || !ours })
	if o.dryRun {
		return a.printPlan(p, true)
	}
	for _, f := range p.files { // before anything is changed
		switch ours, err := isOurs(f.path); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !ours:
			return &noServiceError{problem: f.path + " is there, and was not written by o365pw service install", hint: "move it away, and run this again: mv " + shellQuote(f.path) + " " + shellQuote(f.path+".old")}
		}
	}
	if err := a.takeSteps(ctx, p.first); err != nil {
		return err
	}
	for _, path := range p.unused {
		if err := os.Remove(path); err != nil {
			return err
		}
		a.note("removed %s", path)
	}
	for _, f := range p.files {
		if b, err := os.ReadFile(f.path); err == nil && string(b) == f.content {
			continue
		}
		if err := durable.WriteFile(f.path, []byte(f.content)); err != nil {
			return err
		}
		if err := os.Chmod(f.path, 0o644); err != nil { // there is nothing secret in it
			return err
		}
		a.note("wrote %s", f.path)
	}
	if err := a.takeSteps(ctx, p.then); err != nil {
		return err
	}
	for _, line := range p.next {
		a.note("%s", line)
	}
	return nil
}

func (a *app) runServiceUninstall(ctx context.Context, o serviceOptions) error {
	s, err := a.supervisor(o, !o.dryRun)
	if err != nil {
		return err
	}
	p, err := s.uninstall(ctx)
	if err != nil {
		return err
	}
	p.files = slices.DeleteFunc(p.files, func(f serviceFile) bool { ours, err := isOurs(f.path); return err != nil || !ours })
	if o.dryRun {
		return a.printPlan(p, false)
	}
	if len(p.files) == 0 && runtime.GOOS != "windows" {
		return &noServiceError{problem: "there is no service here that o365pw service install has made", hint: "o365pw service status"}
	}
	if err := a.takeSteps(ctx, p.first); err != nil {
		return err
	}
	for _, f := range p.files {
		if err := os.Remove(f.path); err != nil {
			return err
		}
		a.note("removed %s", f.path)
	}
	if err := a.takeSteps(ctx, p.then); err != nil {
		return err
	}
	for _, line := range p.next {
		a.note("%s", line)
	}
	return nil
}

func (a *app) takeSteps(ctx context.Context, steps []serviceStep) error {
	for _, st := range steps {
		a.progress.set("%s", st.show)
		if err := st.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// isOurs tells whether install has written the file.
func isOurs(path string) (bool, error) {
	b, err := os.ReadFile(path)
	return bytes.Contains(b, []byte(serviceMark)), err
}

// marked puts the mark above a unit.
func marked(unit string) string { return "# " + serviceMark + "\n" + unit }

func withoutMark(content string) string { return strings.TrimPrefix(content, "# "+serviceMark+"\n") }

// printPlan is --dry-run: files as "systemctl cat" shows them.
func (a *app) printPlan(p servicePlan, write bool) error {
	out := planJSON{schemaVersion, []string{}, []planFileJSON{}, orEmpty(p.unused), []string{}}
	var text strings.Builder
	for _, st := range p.first {
		out.Before = append(out.Before, st.show)
		fmt.Fprintf(&text, "# run: %s\n", st.show)
	}
	for _, f := range p.files {
		if !write {
			out.Remove = append(out.Remove, f.path)
			continue
		}
		out.Files = append(out.Files, planFileJSON{f.path, f.content})
		fmt.Fprintf(&text, "# %s\n%s\n", f.path, f.content)
	}
	for _, path := range out.Remove {
		fmt.Fprintf(&text, "# remove: %s\n", path)
	}
	for _, st := range p.then {
		out.After = append(out.After, st.show)
		fmt.Fprintf(&text, "# run: %s\n", st.show)
	}
	switch a.output {
	case outputJSON:
		return a.printJSON(out)
	case outputYAML:
		return a.printYAML(out)
	case outputCSV:
		return a.printCSV([]string{"action", "what"}, out.rows())
	case outputName:
		for _, f := range p.files {
			if err := a.printf("%s\n", f.path); err != nil {
				return err
			}
		}
		return nil
	}
	return a.print([]byte(text.String()))
}

// rows are the plan's, in the order in which it is carried out.
func (p planJSON) rows() (rows [][]string) {
	for _, line := range p.Before {
		rows = append(rows, []string{"run", line})
	}
	for _, f := range p.Files {
		rows = append(rows, []string{"write", f.Path})
	}
	for _, path := range p.Remove {
		rows = append(rows, []string{"remove", path})
	}
	for _, line := range p.After {
		rows = append(rows, []string{"run", line})
	}
	return rows
}

// servedProgram is the program that the service is to run. Of this one, the
// path that people call it by is taken: it stays the same when an update puts
// another program behind it.
func servedProgram(given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	if called, err := exec.LookPath("o365pw"); err == nil && filepath.IsAbs(called) {
		one, err1 := os.Stat(exe)
		other, err2 := os.Stat(called)
		if err1 == nil && err2 == nil && os.SameFile(one, other) {
			return called, nil
		}
	}
	return exe, nil
}

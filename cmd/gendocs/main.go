// Command gendocs writes the reference of the command line from the command
// tree: docs/cli/*.md, and, where a folder is named for them, the man pages and
// the completion scripts that packages hold.
//
//	go run ./cmd/gendocs
//	go run ./cmd/gendocs -man dist/man -completions dist/completions
//
// What it writes depends on the tree alone, so that it can be compared. Man pages
// have no date but that of SOURCE_DATE_EPOCH
// (https://reproducible-builds.org/specs/source-date-epoch/), where it is set.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/cli"
)

func main() {
	docs := flag.String("docs", filepath.Join("docs", "cli"), "folder for the Markdown pages; other .md files there are removed")
	man := flag.String("man", "", "folder for the man pages (default: none are written)")
	completions := flag.String("completions", "", "folder for the completion scripts (default: none are written)")
	flag.Parse()
	if err := run(*docs, *man, *completions, os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

func run(docs, man, completions, epoch string) error {
	root := cli.Tree()
	old, err := filepath.Glob(filepath.Join(docs, "*.md"))
	if err != nil {
		return err
	}
	for _, file := range old { // of commands that are no more
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	if err := writeAll(docs, markdownPages(root)); err != nil {
		return err
	}
	if man != "" {
		date := ""
		if epoch != "" {
			seconds, err := strconv.ParseInt(epoch, 10, 64)
			if err != nil {
				return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
			}
			date = time.Unix(seconds, 0).UTC().Format(time.DateOnly)
		}
		if err := writeAll(man, manPages(root, date)); err != nil {
			return err
		}
	}
	if completions == "" {
		return nil
	}
	scripts := map[string]string{}
	for shell, file := range map[string]string{"bash": "o365pw.bash", "zsh": "_o365pw", "fish": "o365pw.fish", "powershell": "o365pw.ps1"} {
		script, err := cli.CompletionScript(root, shell)
		if err != nil {
			return err
		}
		scripts[file] = string(script)
	}
	return writeAll(completions, scripts)
}

func writeAll(dir string, files map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pages calls page for every command and topic, parents first.
func pages(c *cobra.Command, page func(c *cobra.Command)) {
	page(c)
	for _, sub := range shown(c) {
		pages(sub, page)
	}
}

// shown are the commands and topics below c that have a page.
func shown(c *cobra.Command) []*cobra.Command {
	var out []*cobra.Command
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() || isTopic(sub) || sub.Name() == "help" { // for cobra, help is no command like others
			out = append(out, sub)
		}
	}
	return out
}

func isTopic(c *cobra.Command) bool { return c.IsAdditionalHelpTopicCommand() }

// topics are the help topics.
func topics(root *cobra.Command) []*cobra.Command {
	var out []*cobra.Command
	for _, c := range shown(root) {
		if isTopic(c) {
			out = append(out, c)
		}
	}
	return out
}

// related are the pages to read beside that of c.
func related(c *cobra.Command) []*cobra.Command {
	var out []*cobra.Command
	if c.HasParent() {
		out = append(out, c.Parent())
	}
	if !c.HasParent() {
		return append(out, topics(c)...)
	}
	if isTopic(c) {
		for _, t := range topics(c.Root()) {
			if t != c {
				out = append(out, t)
			}
		}
		return out
	}
	return append(out, shown(c)...)
}

// fileName is a command's path with dashes: o365pw-audit-verify.
func fileName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

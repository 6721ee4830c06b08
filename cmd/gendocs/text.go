package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// block is a part of a help text: a paragraph, or lines to be kept as they are.
type block struct {
	text     string // a paragraph on one line, or lines without their common indent
	verbatim bool
}

// blocks splits a help text. Lines that are indented are kept as they are.
func blocks(text string) []block {
	var out []block
	var lines []string
	verbatim := false
	flush := func() {
		for len(lines) > 0 && lines[len(lines)-1] == "" {
			lines = lines[:len(lines)-1]
		}
		if len(lines) > 0 {
			if verbatim {
				out = append(out, block{dedent(lines), true})
			} else {
				out = append(out, block{strings.Join(lines, " "), false})
			}
		}
		lines, verbatim = nil, false
	}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, " ")
		indented := strings.HasPrefix(line, " ")
		switch {
		case line == "" && verbatim: // what follows may belong to it
			lines = append(lines, "")
			continue
		case line == "":
			flush()
			continue
		case indented != verbatim:
			flush()
			verbatim = indented
		}
		lines = append(lines, line)
	}
	flush()
	return out
}

// dedent takes the common indent away.
func dedent(lines []string) string {
	indent := -1
	for _, l := range lines {
		if n := len(l) - len(strings.TrimLeft(l, " ")); l != "" && (indent < 0 || n < indent) {
			indent = n
		}
	}
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		if l != "" {
			b.WriteString(l[indent:])
		}
	}
	return b.String()
}

// description is the long help without the exit codes, which have a section of
// their own.
func description(c *cobra.Command) string {
	text, _, _ := strings.Cut(c.Long, "\n\nExit codes: ")
	return text
}

// example are the examples without their indent.
func example(c *cobra.Command) string {
	return dedent(strings.Split(strings.Trim(c.Example, "\n"), "\n"))
}

// option is a flag as it is documented.
type option struct {
	short, long string // -o, --output; short may be empty
	value       string // name of its value; empty for switches
	optional    bool   // the value may be left out
	usage       string
}

// options are the flags of a set but for --help.
func options(set *pflag.FlagSet) []option {
	var out []option
	set.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		o := option{long: "--" + f.Name, usage: f.Usage}
		if f.Shorthand != "" {
			o.short = "-" + f.Shorthand
		}
		if f.Value.Type() != "bool" {
			o.value = f.Value.Type()
			o.optional = f.NoOptDefVal != ""
		}
		if v := f.DefValue; v != "" && v != "false" && v != "0" {
			o.usage += " (default: " + v + ")"
		}
		out = append(out, o)
	})
	return out
}

// synopsis are the ways to call a command.
func synopsis(c *cobra.Command) []string {
	var out []string
	if !c.HasParent() {
		return []string{c.Name() + " COMMAND [flags]"}
	}
	if c.Runnable() {
		out = append(out, strings.TrimSuffix(c.UseLine(), " [flags]")+" [flags]")
	}
	for _, sub := range shown(c) {
		out = append(out, strings.TrimSuffix(sub.UseLine(), " [flags]")+" [flags]")
	}
	return out
}

// group is a list of commands under a title.
type group struct {
	title    string
	commands []*cobra.Command
}

// groups are the commands of root as its help has them, the topics last.
func groups(root *cobra.Command) []group {
	var out []group
	for _, g := range root.Groups() {
		out = append(out, group{title: strings.TrimSuffix(g.Title, ":")})
		for _, c := range shown(root) {
			if c.GroupID == g.ID {
				out[len(out)-1].commands = append(out[len(out)-1].commands, c)
			}
		}
	}
	return append(out, group{"Topics", topics(root)})
}

package main

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/cli"
)

// manPages are the pages in the man macros (man(7)): section 1 for commands, 7
// for topics. date is YYYY-MM-DD or empty.
func manPages(root *cobra.Command, date string) map[string]string {
	out := map[string]string{}
	pages(root, func(c *cobra.Command) {
		out[fileName(c)+"."+section(c)] = manPage(c, date)
	})
	return out
}

func section(c *cobra.Command) string {
	if isTopic(c) {
		return "7"
	}
	return "1"
}

func manPage(c *cobra.Command, date string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".\\\" Written by cmd/gendocs from the command tree.\n")
	fmt.Fprintf(&b, ".TH \"%s\" \"%s\" \"%s\" \"o365pw\" \"o365pw manual\"\n", roff(strings.ToUpper(fileName(c))), section(c), date)
	b.WriteString(".nh\n.ad l\n") // neither hyphens nor wide blanks
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(fileName(c)), roff(lowerFirst(c.Short)))
	if !isTopic(c) {
		b.WriteString(".SH SYNOPSIS\n")
		for i, line := range synopsis(c) {
			if i > 0 {
				b.WriteString(".br\n")
			}
			b.WriteString(manSynopsis(line) + "\n")
		}
	}
	b.WriteString(".SH DESCRIPTION\n")
	manBlocks(&b, description(c))
	if !isTopic(c) {
		manOptions(&b, "OPTIONS", options(c.LocalFlags()))
		manOptions(&b, "OPTIONS OF EVERY COMMAND", options(c.InheritedFlags()))
		manCommands(&b, c)
		if c.Example != "" {
			b.WriteString(".SH EXAMPLES\n")
			manVerbatim(&b, example(c), true)
		}
		b.WriteString(".SH EXIT STATUS\n")
		for _, code := range cli.ExitCodes() {
			fmt.Fprintf(&b, ".TP\n\\fB%d\\fR\n%s\n", code.Code, roff(code.Meaning))
		}
		b.WriteString(".SH ENVIRONMENT\nSee\n.BR o365pw\\-environment (7).\n")
	}
	var refs []string
	for _, r := range related(c) {
		refs = append(refs, fmt.Sprintf(".BR %s (%s)", roff(fileName(r)), section(r)))
	}
	b.WriteString(".SH SEE ALSO\n" + strings.Join(refs, ",\n") + "\n")
	return b.String()
}

func manBlocks(b *strings.Builder, text string) {
	for i, bl := range blocks(text) {
		switch {
		case bl.verbatim:
			manVerbatim(b, bl.text, i == 0)
			continue
		case i > 0:
			b.WriteString(".PP\n")
		}
		b.WriteString(roff(bl.text) + "\n")
	}
}

// manVerbatim keeps lines as they are; first is below a heading.
func manVerbatim(b *strings.Builder, text string, first bool) {
	if !first {
		b.WriteString(".PP\n")
	}
	b.WriteString(".RS 4\n.nf\n")
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" {
			b.WriteString(".sp\n")
			continue
		}
		b.WriteString(roff(line) + "\n")
	}
	b.WriteString(".fi\n.RE\n")
}

func manOptions(b *strings.Builder, title string, list []option) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	for _, o := range list {
		b.WriteString(".TP\n")
		if o.short != "" {
			fmt.Fprintf(b, "\\fB%s\\fR, ", roff(o.short))
		}
		fmt.Fprintf(b, "\\fB%s\\fR", roff(o.long))
		switch {
		case o.optional:
			fmt.Fprintf(b, "[=\\fI%s\\fR]", roff(o.value))
		case o.value != "":
			fmt.Fprintf(b, " \\fI%s\\fR", roff(o.value))
		}
		fmt.Fprintf(b, "\n%s\n", roff(o.usage))
	}
}

func manCommands(b *strings.Builder, c *cobra.Command) {
	list := func(cmds []*cobra.Command) {
		for _, sub := range cmds {
			fmt.Fprintf(b, ".TP\n.BR %s (%s)\n%s\n", roff(fileName(sub)), section(sub), roff(lowerFirst(sub.Short)))
		}
	}
	switch {
	case !c.HasParent():
		b.WriteString(".SH COMMANDS\n")
		for _, g := range groups(c) {
			fmt.Fprintf(b, ".SS %s\n", roff(g.title))
			list(g.commands)
		}
	case len(shown(c)) > 0:
		b.WriteString(".SH COMMANDS\n")
		list(shown(c))
	}
}

// manSynopsis sets what is to be typed in bold, and what stands for something
// (NAME, [flags]) in italics.
func manSynopsis(line string) string {
	words := strings.Fields(line)
	for i, w := range words {
		switch core := strings.Trim(w, "[].|"); {
		case core == "flags" || strings.ToUpper(core) == core:
			words[i] = strings.Replace(roff(w), roff(core), "\\fI"+roff(core)+"\\fR", 1)
		default:
			words[i] = "\\fB" + roff(w) + "\\fR"
		}
	}
	return strings.Join(words, " ")
}

// roff writes text so that it is shown, and can be copied, as it is.
var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

func roff(text string) string {
	text = roffEscapes.Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

// lowerFirst begins a short help as man pages do; acronyms and names stay.
func lowerFirst(s string) string {
	r := []rune(s)
	if len(r) < 2 || unicode.IsUpper(r[1]) || strings.HasPrefix(s, "Microsoft") {
		return s
	}
	r[0] = unicode.ToLower(r[0])
	return string(r)
}

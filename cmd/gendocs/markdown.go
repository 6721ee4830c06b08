package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/cli"
)

// markdownPages are the pages for docs/cli. The root's is README.md, which
// lists the others.
func markdownPages(root *cobra.Command) map[string]string {
	out := map[string]string{}
	pages(root, func(c *cobra.Command) { out[markdownFile(c)] = markdownPage(c) })
	return out
}

// markdownFile is the page of a command: audit-verify.md.
func markdownFile(c *cobra.Command) string {
	if !c.HasParent() {
		return "README.md"
	}
	return strings.TrimPrefix(fileName(c), fileName(c.Root())+"-") + ".md"
}

func markdownPage(c *cobra.Command) string {
	var b strings.Builder
	b.WriteString("<!-- Written by cmd/gendocs from the command tree: go run ./cmd/gendocs -->\n\n")
	title := c.CommandPath()
	if isTopic(c) {
		title = c.Short
	}
	fmt.Fprintf(&b, "# %s\n\n", title)
	if !isTopic(c) {
		fmt.Fprintf(&b, "%s.\n\n```\n%s\n```\n\n", markdownText(c.Short), strings.Join(synopsis(c), "\n"))
	}
	for _, bl := range blocks(description(c)) {
		if bl.verbatim {
			fmt.Fprintf(&b, "```text\n%s\n```\n\n", bl.text)
		} else {
			b.WriteString(markdownText(bl.text) + "\n\n")
		}
	}
	if !c.HasParent() {
		for _, g := range groups(c) {
			fmt.Fprintf(&b, "## %s\n\n", g.title)
			markdownCommands(&b, g.commands)
		}
	} else if !isTopic(c) && len(shown(c)) > 0 {
		b.WriteString("## Commands\n\n")
		markdownCommands(&b, shown(c))
	}
	if isTopic(c) {
		fmt.Fprintf(&b, "The same on a terminal: `o365pw help %s`. All commands: [README](README.md).\n", c.Name())
		return b.String()
	}
	own := options(c.LocalFlags())
	if !c.HasParent() {
		b.WriteString("## Options of every command\n\n")
		markdownOptions(&b, own)
	} else {
		b.WriteString("## Options\n\n")
		if len(own) > 0 {
			markdownOptions(&b, own)
		}
		b.WriteString("Besides, the [options of every command](README.md#options-of-every-command).\n\n")
	}
	if c.Example != "" {
		fmt.Fprintf(&b, "## Examples\n\n```sh\n%s\n```\n\n", example(c))
	}
	b.WriteString("## Exit codes\n\n")
	for _, code := range cli.ExitCodes() {
		fmt.Fprintf(&b, "- %d: %s\n", code.Code, code.Meaning)
	}
	b.WriteString("\n[What to do about each](exit-codes.md)")
	if c.HasParent() {
		for _, r := range related(c) {
			fmt.Fprintf(&b, " · [`%s`](%s)", r.CommandPath(), markdownFile(r))
		}
	}
	b.WriteString("\n")
	return b.String()
}

func markdownCommands(b *strings.Builder, cmds []*cobra.Command) {
	b.WriteString("| | |\n|---|---|\n")
	for _, c := range cmds {
		fmt.Fprintf(b, "| [`%s`](%s) | %s |\n", strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" "), markdownFile(c), markdownCell(c.Short))
	}
	b.WriteByte('\n')
}

func markdownOptions(b *strings.Builder, list []option) {
	b.WriteString("| option | meaning |\n|---|---|\n")
	for _, o := range list {
		name := o.long
		switch {
		case o.optional:
			name += "[=" + o.value + "]"
		case o.value != "":
			name += " " + o.value
		}
		if o.short != "" {
			name = o.short + ", " + name
		}
		fmt.Fprintf(b, "| `%s` | %s |\n", name, markdownCell(o.usage))
	}
	b.WriteByte('\n')
}

func markdownCell(text string) string { return strings.ReplaceAll(markdownText(text), "|", `\|`) }

// asCode are the parts of a plain text that Markdown shows as code: what is
// typed, variables, and values in angle or square brackets.
var asCode = regexp.MustCompile(`"o365pw [^"]*"|(^|[\s(])(--?[a-z][a-z0-9-]*( (json|name))?|\$?[A-Z][A-Z0-9]*_[A-Z0-9_]+(=[A-Za-z]+)?|\[[a-z]+\.[A-Z]+\])`)

// markdownSpecials are what Markdown would take for its own.
var markdownSpecials = regexp.MustCompile("[\\\\`*_<>\\[\\]#~]")

// markdownText writes a paragraph of plain text.
func markdownText(text string) string {
	escape := func(s string) string { return markdownSpecials.ReplaceAllString(s, `\$0`) }
	var b strings.Builder
	at := 0
	for _, m := range asCode.FindAllStringSubmatchIndex(text, -1) {
		begin, end := m[0], m[1]
		if m[2] >= 0 {
			begin = m[4] // without the blank before it
		}
		b.WriteString(escape(text[at:begin]))
		b.WriteString("`" + strings.Trim(text[begin:end], `"`) + "`")
		at = end
	}
	b.WriteString(escape(text[at:]))
	return b.String()
}

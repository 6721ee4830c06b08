// Package transcript plays written conversations against a program that stands
// between a client and an upstream server. It plays both of those ends, so
// that a file shows all four directions as they are on the wire.
//
// A file begins with "key: value" lines, for the test that plays it, up to the
// first empty line. Then each line is a step; lines that begin with # and empty
// lines are comments. The steps happen in the order of the file.
//
//	C: text       the client sends the text and CRLF
//	C= "text"*N   the client sends exactly the Go string, N times if given, in one write
//	S: pattern    the client receives a line that matches and ends by CRLF
//	C! tls        the client begins TLS
//	C! close      the client closes
//	C! wait 1m    the client waits
//	S! eof        the client finds the connection ended, with nothing before it
//
//	UC: pattern   the upstream receives a line
//	US: text, US= "text", UC! eof, US! tls, US! close, US! wait    likewise
//
// "..." in a pattern stands for any text. The first step of the upstream, and
// the first after "US! close" or "UC! eof", takes a new connection.
package transcript

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Script is a parsed file.
type Script struct {
	Name   string
	Header map[string]string
	Steps  []Step
}

// Step is one line of a script.
type Step struct {
	Line     int
	Upstream bool // happens at the upstream's end rather than the client's
	Action   Action
	Text     string         // what is sent
	Pattern  *regexp.Regexp // what is expected
	Wait     time.Duration
}

// Action is what a step does.
type Action int

// The actions.
const (
	Send Action = iota + 1
	Expect
	ExpectEOF
	StartTLS
	Close
	Wait
)

// Parse reads a script. Errors name the file and the line.
func Parse(name string, data []byte) (*Script, error) {
	s := &Script{Name: name, Header: map[string]string{}}
	inHeader, n := true, 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		if line == "" {
			inHeader = false
			continue
		}
		if inHeader {
			key, value, ok := strings.Cut(line, ": ")
			if !ok {
				return nil, fmt.Errorf("%s:%d: %q is not a header line", name, n, line)
			}
			s.Header[key] = value
			continue
		}
		step, err := parseStep(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		step.Line = n
		s.Steps = append(s.Steps, step)
	}
	return s, nil
}

func parseStep(line string) (Step, error) {
	head, rest, _ := strings.Cut(line, " ")
	head, upstream := strings.CutPrefix(head, "U")
	// The upstream is the server of its conversation: it sends what S says.
	if upstream {
		head = strings.NewReplacer("C", "S", "S", "C").Replace(head)
	}
	step := Step{Upstream: upstream}
	switch head {
	case "C:":
		step.Action, step.Text = Send, rest+"\r\n"
	case "C=":
		text, err := unquote(rest)
		if err != nil {
			return step, err
		}
		step.Action, step.Text = Send, text
	case "S:":
		step.Action, step.Pattern = Expect, pattern(rest)
	case "S!":
		if rest != "eof" {
			return step, fmt.Errorf("%q cannot be expected", rest)
		}
		step.Action = ExpectEOF
	case "C!":
		return action(step, rest)
	default:
		return step, fmt.Errorf("%q does not begin as a step does", line)
	}
	return step, nil
}

func action(step Step, text string) (Step, error) {
	verb, arg, _ := strings.Cut(text, " ")
	switch verb {
	case "tls":
		step.Action = StartTLS
	case "close":
		step.Action = Close
	case "wait":
		wait, err := time.ParseDuration(arg)
		if err != nil {
			return step, err
		}
		step.Action, step.Wait = Wait, wait
	default:
		return step, fmt.Errorf("%q is not an action", verb)
	}
	return step, nil
}

// unquote reads a Go string, and how often it is meant.
func unquote(text string) (string, error) {
	quoted, err := strconv.QuotedPrefix(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", text, err)
	}
	one, err := strconv.Unquote(quoted)
	if err != nil {
		return "", fmt.Errorf("%s: %w", text, err)
	}
	times, ok := strings.CutPrefix(text[len(quoted):], "*")
	if !ok {
		return one, nil
	}
	n, err := strconv.Atoi(times)
	if err != nil {
		return "", fmt.Errorf("%s: %w", text, err)
	}
	return strings.Repeat(one, n), nil
}

func pattern(text string) *regexp.Regexp {
	return regexp.MustCompile(`^(?s:` + strings.ReplaceAll(regexp.QuoteMeta(text), `\.\.\.`, `.*`) + `)$`)
}

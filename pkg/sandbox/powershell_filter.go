package sandbox

import (
	"fmt"
	"strings"
)

// recipientFilter says whether a mailbox is one of a management scope's.
type recipientFilter func(*mailbox) bool

// filterParser reads a RecipientRestrictionFilter (OPATH):
//
//	filter = term *("-or" term)
//	term   = "(" filter ")" / property "-eq" "'" address "'"
//
// The properties are PrimarySmtpAddress and EmailAddresses; of the latter, a
// value may begin with "smtp:". Both compare without regard to case.
type filterParser struct{ rest string }

func parseRecipientFilter(text string) (recipientFilter, error) {
	p := &filterParser{text}
	f, err := p.filter()
	if err == nil && p.next() != "" {
		err = p.unexpected()
	}
	if err != nil {
		return nil, refusef("Cannot parse the filter \"%s\": %v", printable(text), err)
	}
	return f, nil
}

// next gives the next word without taking it: a parenthesis, a quoted text, or
// what is up to one of these or a space; "" at the end.
func (p *filterParser) next() string {
	p.rest = strings.TrimLeft(p.rest, " ")
	switch {
	case p.rest == "":
		return ""
	case p.rest[0] == '(' || p.rest[0] == ')':
		return p.rest[:1]
	case p.rest[0] == '\'':
		for i := 1; i < len(p.rest); i++ {
			if p.rest[i] != '\'' {
				continue
			}
			if i+1 == len(p.rest) || p.rest[i+1] != '\'' {
				return p.rest[:i+1]
			}
			i++
		}
		return p.rest // without its end
	}
	if i := strings.IndexAny(p.rest, " ()'"); i >= 0 {
		return p.rest[:i]
	}
	return p.rest
}

// take takes the next word if it is this one.
func (p *filterParser) take(word string) bool {
	next := p.next()
	if !sameFold(next, word) {
		return false
	}
	p.rest = p.rest[len(next):]
	return true
}

func (p *filterParser) unexpected() error {
	if next := p.next(); next != "" {
		return fmt.Errorf("unexpected \"%s\"", printable(next))
	}
	return fmt.Errorf("it ends too early")
}

func (p *filterParser) filter() (recipientFilter, error) {
	f, err := p.term()
	for err == nil && p.take("-or") {
		left := f
		var right recipientFilter
		if right, err = p.term(); err == nil {
			f = func(m *mailbox) bool { return left(m) || right(m) }
		}
	}
	return f, err
}

func (p *filterParser) term() (recipientFilter, error) {
	if p.take("(") {
		f, err := p.filter()
		if err == nil && !p.take(")") {
			err = p.unexpected()
		}
		return f, err
	}
	list := p.take("EmailAddresses")
	if !list && !p.take("PrimarySmtpAddress") || !p.take("-eq") {
		return nil, p.unexpected()
	}
	word := p.next()
	if word == "" || word[0] != '\'' || strings.Count(word, "'")%2 != 0 {
		return nil, p.unexpected()
	}
	p.rest = p.rest[len(word):]
	address := strings.ReplaceAll(word[1:len(word)-1], "''", "'")
	if list && len(address) > len("smtp:") && sameFold(address[:len("smtp:")], "smtp:") {
		address = address[len("smtp:"):]
	}
	return func(m *mailbox) bool { return sameFold(m.Address, address) }, nil
}

// Package sendmail is what sendmail(1) does with its arguments and a message,
// and the submission of the message over SMTP. It keeps no queue: a message is
// sent at once or not at all, and the caller is told.
package sendmail

import (
	"errors"
	"fmt"
	"strings"
)

// Options are what the arguments of sendmail(1) say.
type Options struct {
	AppPassword string   // -a: the name of the app password to send with
	Sender      string   // -f, -r: of the envelope; empty: that of the message
	NullSender  bool     // -f "" or -f "<>": MAIL FROM:<>, for what must not be answered
	Name        string   // -F: for a From field that is missing
	FromMessage bool     // -t: send to the recipients in the message, too
	IgnoreDots  bool     // -i, -oi: a line with a lone dot is text
	Verbose     bool     // -v
	Recipients  []string // as they were given
}

// ErrNothing is returned by [ParseArgs] for -q, which sends what is queued:
// nothing ever is.
var ErrNothing = errors.New("nothing is queued")

// Those of the options of other sendmails that have a value, which may follow
// as an argument of its own. What they ask for has no meaning here. Sources:
// sendmail(1) of Postfix, Exim and Sendmail.
const (
	valued = "ABCFLNOMRVXafhopr"
	within = "deDq" // with a value that follows at once, if any
	plain  = "GIUcimntvxE"
)

// ParseArgs reads the arguments of sendmail(1). Options and recipients may be
// mixed; behind "--" there are recipients alone. Arguments that begin with "--"
// are handed to long, with those that follow; it returns how many it has used.
func ParseArgs(args []string, long func(args []string) (int, error)) (Options, error) {
	var o Options
	for len(args) > 0 {
		arg := args[0]
		switch {
		case arg == "--":
			o.Recipients = append(o.Recipients, args[1:]...)
			return o, nil
		case strings.HasPrefix(arg, "--"):
			n, err := long(args)
			if err != nil {
				return o, err
			}
			args = args[n:]
		case len(arg) > 1 && arg[0] == '-':
			n, err := o.cluster(arg[1:], args[1:])
			if err != nil {
				return o, err
			}
			args = args[1+n:]
		default:
			o.Recipients = append(o.Recipients, arg)
			args = args[1:]
		}
	}
	return o, nil
}

// cluster reads the options of one argument, as getopt(3) does. It returns how
// many of the arguments behind it are values.
func (o *Options) cluster(letters string, rest []string) (used int, err error) {
	for i, c := range letters {
		value := letters[i+len(string(c)):]
		switch {
		case c == 'b' && (value == "m" || value == ""):
			return 0, nil // to send mail, which is what is done anyhow
		case c == 'b':
			return 0, fmt.Errorf("-b%s: this sendmail sends messages, and does nothing else", value)
		case c == 'q':
			return 0, ErrNothing
		case strings.ContainsRune(within, c):
			return 0, nil
		case strings.ContainsRune(valued, c):
			if value == "" {
				if len(rest) == 0 {
					return 0, fmt.Errorf("-%c takes a value", c)
				}
				value, used = rest[0], 1
			}
			o.set(c, value)
			return used, nil
		case !strings.ContainsRune(plain, c):
			return 0, fmt.Errorf("there is no option -%c", c)
		case c == 'i':
			o.IgnoreDots = true
		case c == 't':
			o.FromMessage = true
		case c == 'v':
			o.Verbose = true
		}
	}
	return 0, nil
}

func (o *Options) set(option rune, value string) {
	switch option {
	case 'a':
		o.AppPassword = value
	case 'f', 'r':
		o.Sender = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(value), "<"), ">")
		o.NullSender = o.Sender == ""
	case 'F':
		o.Name = value
	case 'o':
		o.IgnoreDots = o.IgnoreDots || value == "i"
	case 'O':
		o.IgnoreDots = o.IgnoreDots || strings.EqualFold(strings.TrimSpace(value), "IgnoreDots")
	}
}

// Package clientconfig writes the settings of mail programs and devices: a
// configuration file that the program takes as it is, or, where it has none,
// what a person types where.
//
// It knows nothing of how app passwords are kept. No password is in what it
// writes: a program that can run a command gets that of [Account.PasswordCommand],
// the others ask the person.
package clientconfig

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode"
)

// Account is what a mail program has to be told.
type Account struct {
	AppPassword string // the app password's name
	Address     string // of the mailbox; mail is sent from it
	User        string // to sign in with: Address, or the app password's login name
	From        string // what mail is sent as; empty: Address
	ReadOnly    bool   // the mailbox cannot be changed

	// Servers are the gateway's, by protocol: imap, pop3, smtp. A protocol that
	// the app password may not use is not there.
	Servers map[string]Server

	// CAFile is the path of the certificate (PEM) to trust on this machine;
	// empty: the gateway's certificate is of an authority that machines trust.
	CAFile string
	// OwnCertificate tells that CAFile is named in the configuration, and not the
	// gateway's own authority, which the commands under o365pw cert hand out.
	OwnCertificate bool

	// ProfilePage is the https URL at which the gateway has the profile of this
	// account for Apple's devices; empty: it answers no autoconfiguration, or not
	// to other machines.
	ProfilePage string

	// Program runs o365pw: its path and the flags that choose the profile and
	// the configuration, one argument each. It stands before "show".
	Program []string
}

// Server is an address of the gateway, for one protocol.
type Server struct {
	Host     string // name or address, without brackets
	Port     int
	Security string // tls (from the first byte), starttls, none
}

// Sender is the address that mail is sent as.
func (a Account) Sender() string { return cmp.Or(a.From, a.Address) }

// PasswordArgs are the program and the arguments that print the password and a
// newline.
func (a Account) PasswordArgs() []string {
	args := append(slices.Clone(a.Program), "show", "--password")
	if strings.HasPrefix(a.AppPassword, "-") { // it is no flag
		args = append(args, "--")
	}
	return append(args, a.AppPassword)
}

// PasswordCommand prints the password and a newline, when /bin/sh runs it.
func (a Account) PasswordCommand() string {
	args := a.PasswordArgs()
	for i, arg := range args {
		args[i] = Shell(arg)
	}
	return strings.Join(args, " ")
}

// Shell quotes an argument for /bin/sh where that is needed (POSIX, Shell
// Command Language, section 2.2).
func Shell(arg string) string {
	plain := arg != "" && !strings.ContainsFunc(arg, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-", r)
	})
	if plain && arg[0] != '-' || plain && strings.HasPrefix(arg, "--") {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}

// trustHere is how this machine comes to trust the gateway.
func (a Account) trustHere() string {
	if a.OwnCertificate {
		return "have this machine trust " + a.CAFile
	}
	return "run " + a.command("cert", "install") + " on this machine"
}

// Config is how one program is set up.
type Config struct {
	// Files are for the program to read. Most programs have one.
	Files []File
	// Steps are what a person does, in this order: where the files go, and what
	// to type where. One line of plain text each.
	Steps []string
}

// File is a configuration file.
type File struct {
	Path    string // where the program looks for it; a leading ~ is the home folder
	Content []byte // whole, with a final newline where it is text
	Binary  bool   // it is not for a terminal

	// Terminal is what a terminal shows in its place: a QR code, for one, with
	// escape sequences. Empty: nothing.
	Terminal []byte
}

// Client is a mail program or device that there are settings for.
type Client struct {
	Name  string // as --for takes it: lower case, with hyphens
	Title string // as its makers write it
	Does  string // what it is used for, in a few words: "reads and sends", "fetches"

	// Device tells that it is on another machine than the gateway, as phones and
	// printers are: it reaches none that listens on this machine alone.
	Device bool

	// Protocols are those that it can use, the best first. Of imap and pop3 it
	// uses the first that the account has.
	Protocols []string
	// Needs are those without which there is nothing to set up; empty: any one.
	Needs []string
	// Reads tells that it needs imap or pop3, too.
	Reads bool

	// Scope is what an app password that is made for it is held to, where its
	// maker is not told otherwise.
	Scope Scope

	// Checked says how it is known that the settings are right.
	Checked Checked

	// Write makes the settings. The account has all that Needs asks for.
	Write func(Account) (Config, error)
}

// Scope is the scope of an app password as a client needs it, and no wider.
type Scope struct {
	Allow     []string // protocols; empty: the profile's own
	ReadOnly  bool
	OwnSender bool // it may send as its mailbox's address alone
}

// Checked is how settings were checked.
type Checked string

// The ways to check settings.
const (
	// ByProgram: the integration tests run the program with the settings as they
	// are printed.
	ByProgram Checked = "program"
	// ByFormat: tests hold them to the published format; nobody has run the
	// program with them here.
	ByFormat Checked = "format"
)

// MissingError tells that a client needs a protocol that the account lacks.
type MissingError struct {
	Client   string   // its Name
	Protocol []string // any of them would do
	Allowed  bool     // the app password may use it, but the gateway does not listen for it
}

// Error says what is missing.
func (e *MissingError) Error() string {
	what := strings.Join(e.Protocol, " or ")
	if e.Allowed {
		return fmt.Sprintf("%s needs %s, for which the gateway does not listen", e.Client, what)
	}
	return fmt.Sprintf("%s needs %s, which this app password may not use", e.Client, what)
}

// NoAuthorityError tells that settings need the certificate of the gateway's
// authority, which has not been made yet.
type NoAuthorityError struct{ File string }

// Error says which.
func (e *NoAuthorityError) Error() string {
	return e.File + ", which is to be trusted and is part of these settings, is not there yet"
}

// Clients are all there are settings for, sorted by name.
func Clients() []Client {
	all := slices.Concat(readers(), senders(), graphical())
	sort.SliceStable(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

// Find is the client of that name or title, or of another name that people have
// for it. Capitals, blanks and signs do not matter.
func Find(name string) (Client, bool) {
	typed := letters(name)
	typed = cmp.Or(otherNames[typed], typed)
	for _, c := range Clients() {
		if typed == letters(c.Name) || typed == letters(c.Title) {
			return c, true
		}
	}
	return Client{}, false
}

// otherNames are what else clients are called, in [letters].
var otherNames = map[string]string{
	"applemailapp": "applemail", "macmail": "applemail", "macos": "applemail", "mailapp": "applemail",
	"ios": "iphone", "ipados": "ipad",
	"k9": "android", "k9mail": "android", "gmail": "android", "samsungemail": "android", "thunderbirdandroid": "android", "androidphone": "android",
	"isync": "mbsync", "getmail6": "getmail", "offlineimap3": "offlineimap", "python3": "python", "heirloommailx": "snail",
	"git": "gitsendemail", "sendemail": "gitsendemail",
	"scannertls": "printertls", "scannerstarttls": "printerstarttls", "scannerplain": "printerplain", "printerssl": "printertls", "printernone": "printerplain",
}

// letters are the letters and digits of a name, in lower case.
func letters(name string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}

// Missing are the protocols of which the client needs one more than there are;
// empty: it has what it needs.
func (c Client) Missing(has func(protocol string) bool) []string {
	for _, p := range c.Needs {
		if !has(p) {
			return []string{p}
		}
	}
	if reading := []string{"imap", "pop3"}; c.Reads && !slices.ContainsFunc(reading, has) {
		return reading
	}
	if !slices.ContainsFunc(c.Protocols, has) {
		return c.Protocols
	}
	return nil
}

// errControl tells of what no line of a configuration can hold.
var errControl = errors.New("the path of o365pw, of its configuration or of the certificate holds a line break or another control character, which the settings of mail programs cannot have")

// Settings are those of the client for the account. Its error is a
// [*MissingError] where the account lacks a protocol, or that of Write. What
// would end a line of a file early is refused: names and addresses are checked
// when an app password is made, paths are not.
func (c Client) Settings(a Account) (Config, error) {
	for _, s := range append(slices.Clone(a.Program), a.AppPassword, a.Address, a.User, a.From, a.CAFile) {
		if strings.ContainsFunc(s, unicode.IsControl) {
			return Config{}, errControl
		}
	}
	missing := c.Missing(func(p string) bool { _, ok := a.Servers[p]; return ok })
	if len(missing) > 0 {
		return Config{}, &MissingError{Client: c.Name, Protocol: missing}
	}
	return c.Write(a)
}

// reading is the server to read mail from, and its protocol; empty: there is
// none. prefer is the order.
func (a Account) reading(prefer ...string) (protocol string, s Server) {
	for _, p := range prefer {
		if s, ok := a.Servers[p]; ok {
			return p, s
		}
	}
	return "", Server{}
}

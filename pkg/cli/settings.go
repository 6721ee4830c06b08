package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/clientconfig"
	"github.com/o365pw/o365pw/pkg/gateway"
)

type settingsOptions struct {
	client  string
	mailbox string
	file    string
	dir     string
	list    bool
	dns     string
}

func newSettings(a *app) *cobra.Command {
	var o settingsOptions
	cmd := &cobra.Command{
		Use:   "settings [NAME|ID] --for CLIENT",
		Short: "Print a mail program's configuration for an app password",
		Long: `Prints the configuration of a mail program as the program takes it; where it has
none, what to type where. What to do with it goes to stderr.

No password is in it. A program that can run a command gets the password by
o365pw show --password; that needs the keychain, also from cron. The others ask.

Several files are written to a folder by --dir. Neither --dir nor --file
replaces a file that has other content.

--list has the programs, and how it is known that their settings are right:
"program", the tests run the program with them; "format", the tests hold them to
its published format. Works without network, and reads no password.

--dns has the DNS records by which mail programs find the gateway of a domain.`,
		Example: `  o365pw settings --list
  o365pw settings laptop --for mutt > ~/.muttrc
  o365pw settings laptop --for mbsync --file ~/.mbsyncrc
  o365pw settings phone --for android --file code.png
  o365pw settings laptop --for aerc --dir ~/.config/aerc
  o365pw settings shared --for neomutt --mailbox shared@contoso.com
  o365pw settings --dns contoso.com
  o365pw settings laptop --for mutt -o json | jq -r '.steps[]'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, f := range []string{"for", "file", "dir", "mailbox", "dns"} {
				if flag := cmd.Flags().Lookup(f); flag.Changed && flag.Value.String() == "" {
					return &usageError{problem: "--" + f + " is empty", hint: cmd.CommandPath() + " --help"}
				}
			}
			switch {
			case o.list && (len(args) > 0 || o.client != ""):
				return &usageError{problem: "--list lists all programs", hint: "o365pw settings --list"}
			case o.list:
				return a.printClients()
			case o.dns != "" && (len(args) > 0 || o.client != ""):
				return &usageError{problem: "--dns is for a domain, not for an app password", hint: "o365pw settings --dns " + o.dns}
			case o.dns != "":
				return a.runDNS(cmd.Context(), o.dns)
			case o.client == "":
				return &usageError{problem: "for which mail program: --for is missing", hint: "o365pw settings --list has them; then: o365pw settings NAME --for CLIENT"}
			case len(args) == 0:
				return &usageError{problem: "for which app password: its name is missing", hint: "o365pw settings NAME --for " + o.client + "; o365pw list has the names"}
			case o.file != "" && o.dir != "":
				return &usageError{problem: "--file and --dir both say where the settings go", hint: "take one of them"}
			}
			return a.runSettings(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.client, "for", "", "mail program or device, as --list has it")
	f.StringVar(&o.mailbox, "mailbox", "", "which of the app password's mailboxes (default: the first)")
	f.StringVar(&o.file, "file", "", "write the configuration to this file; of several, that with the same ending")
	f.StringVar(&o.dir, "dir", "", "write the configuration's files into this folder")
	f.StringVar(&o.dns, "dns", "", "print the DNS records of this mail domain")
	f.BoolVar(&o.list, "list", false, "list the mail programs and devices that there are settings for")
	return cmd
}

func (a *app) runSettings(ctx context.Context, arg string, o settingsOptions) error {
	client, err := findClient(o.client)
	if err != nil {
		return err
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	e, err := s.findLocal(arg)
	if err != nil {
		return err
	}
	if e.Status != apppassword.Active {
		a.warn("the app password %q is %s, so nothing signs in with it", e.Name, e.Status)
	}
	settings, err := a.settingsFor(ctx, s, e.Record, client, o.mailbox)
	if err != nil {
		return err
	}
	v := settingsJSON{SchemaVersion: schemaVersion, AppPassword: toJSON(e), clientSettings: *settings}
	switch {
	case o.file != "":
		alike := slices.DeleteFunc(slices.Clone(settings.Files), func(f settingsFile) bool {
			return len(settings.Files) > 1 && filepath.Ext(f.Path) != filepath.Ext(o.file)
		})
		if len(alike) != 1 {
			return &usageError{problem: fmt.Sprintf("--file is for one file, and %s has %d", client.Title, len(settings.Files)),
				hint: map[bool]string{true: "leave --file out: there is nothing to write, but something to type", false: "name a folder: --dir DIR"}[len(settings.Files) == 0]}
		}
		err = a.writeSettings(map[string][]byte{o.file: alike[0].data})
	case o.dir != "":
		if len(settings.Files) == 0 {
			return &usageError{problem: client.Title + " has no configuration file", hint: "leave --dir out: there is nothing to write, but something to type"}
		}
		files := map[string][]byte{}
		for _, f := range settings.Files {
			files[filepath.Join(o.dir, filepath.Base(f.Path))] = f.data
		}
		err = a.writeSettings(files)
	}
	if err != nil {
		return err
	}
	return a.printSettings(v, o.file != "" || o.dir != "")
}

// findClient is the client of that name.
func findClient(name string) (clientconfig.Client, error) {
	c, ok := clientconfig.Find(name)
	if ok {
		return c, nil
	}
	var all, near []string
	for _, c := range clientconfig.Clients() {
		all = append(all, c.Name)
	}
	typed := strings.ToLower(strings.TrimSpace(name))
	for _, n := range all {
		if distance(typed, n) <= 2 || len(typed) >= 3 && (strings.Contains(n, typed) || strings.Contains(typed, n)) {
			near = append(near, n)
		}
	}
	if typed == "printer" || typed == "scanner" {
		return c, &usageError{problem: "which kind of " + typed + ": by what it can do",
			hint: "--for printer-tls (SSL/TLS), --for printer-starttls (STARTTLS, often called TLS), or --for printer-plain (neither)"}
	}
	hint := "o365pw settings --list"
	if len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "? All: " + hint
	}
	return c, &usageError{problem: "there are no settings for " + quote(name), hint: hint}
}

// distance is how many letters are to be changed, added or taken away to make
// one word of the other (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			row[j+1] = min(above+1, row[j]+1, before+map[bool]int{true: 0, false: 1}[a[i] == b[j]])
			before = above
		}
	}
	return row[len(b)]
}

// settingsFor writes the settings of a client. It tells what the person has to
// know besides.
func (a *app) settingsFor(ctx context.Context, s *session, rec apppassword.Record, client clientconfig.Client, mailbox string) (*clientSettings, error) {
	account, err := a.account(ctx, s, rec, client, mailbox)
	if err != nil {
		return nil, err
	}
	cfg, err := client.Settings(account)
	if e, ok := errors.AsType[*clientconfig.MissingError](err); ok {
		e.Allowed = slices.ContainsFunc(e.Protocol, func(p string) bool { return slices.Contains(rec.Allow, p) })
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(account.CAFile); account.CAFile != "" && errors.Is(err, fs.ErrNotExist) {
		a.note("%s is not there yet: the first o365pw serve makes it", account.CAFile)
	}
	out := &clientSettings{Client: client.Name, Files: []settingsFile{}, Steps: orEmpty(cfg.Steps)}
	runs := false
	for _, f := range cfg.Files {
		out.Files = append(out.Files, toSettingsFile(f))
		runs = runs || strings.Contains(string(f.Content), "-password")
	}
	if step := a.environmentStep(s, client); runs && step != "" {
		out.Steps = append(out.Steps, step)
	}
	return out, nil
}

// account is what the client has to be told.
func (a *app) account(ctx context.Context, s *session, rec apppassword.Record, client clientconfig.Client, mailbox string) (clientconfig.Account, error) {
	account := clientconfig.Account{AppPassword: rec.Name, Address: mailbox, ReadOnly: rec.ReadOnly, Servers: map[string]clientconfig.Server{}}
	known := slices.IndexFunc(rec.Mailboxes, func(m string) bool { return strings.EqualFold(m, mailbox) })
	switch {
	case mailbox != "" && known < 0:
		return account, &usageError{problem: fmt.Sprintf("%q does not open %s", rec.Name, mailbox), hint: "it opens " + strings.Join(rec.Mailboxes, ", ")}
	case len(rec.Mailboxes) == 0:
		return account, &usageError{problem: fmt.Sprintf("this machine does not know which mailbox %q opens", rec.Name), hint: "o365pw list --local"}
	case mailbox == "" && len(rec.Mailboxes) > 1:
		a.note("these are for %s; for another mailbox of the app password: --mailbox %s", rec.Mailboxes[0], rec.Mailboxes[1])
	}
	account.Address = rec.Mailboxes[max(known, 0)]
	account.User = cmp.Or(rec.LoginName, account.Address)
	account.From = senderOf(rec, account.Address)

	own := s.gateway.TLSCert == "" // the gateway's certificate is of the local authority
	shown := a.clientCertificate(s)
	account.CAFile, account.OwnCertificate = shown.trust, !own
	listeners, _ := s.listening(ctx)
	named := ""
	for p, srv := range s.servers(ctx, rec) {
		if client.Device && isLoopback(srv.Host) && slices.Contains(client.Protocols, p) {
			a.warn("the gateway listens for %[1]s on this machine alone; to let %[2]s reach it, in [gateway] of the configuration: %[1]s = \"%[3]s\"",
				p, map[bool]string{true: "the device", false: client.Title}[strings.HasPrefix(client.Name, "printer")], net.JoinHostPort(outsideHost(), fmt.Sprint(srv.Port)))
		}
		switch {
		case !own:
			listens := srv.Host
			if srv.Host = shown.name(listens); srv.Host != listens && srv.Host != named && srv.Host != "localhost" {
				named = srv.Host
				a.note("the gateway's certificate is for %s and not for %s: that name has to lead to this gateway", named, listens)
			}
		case srv.Host == "127.0.0.1": // some compare the certificate with names only
			srv.Host = "localhost"
		case client.Device:
			srv.Host = s.outsideName(listeners[gateway.Protocol(p)])
		}
		if strings.Contains(srv.Host, ":") {
			a.note("for %s the server is an IPv6 address, which not every program takes; if this one does not, let the gateway listen on a name or on 127.0.0.1", p)
		}
		account.Servers[p] = clientconfig.Server{Host: srv.Host, Port: srv.Port, Security: srv.Security}
	}
	if _, reads := account.Servers["imap"]; client.Device && reads && rec.LoginName == "" {
		account.ProfilePage = s.profilePage(ctx, account.Address)
	}
	var err error
	account.Program, err = a.calledAs()
	return account, err
}

// senderOf is the mailbox's own address where the app password may send as it,
// else the first address that it may.
func senderOf(rec apppassword.Record, address string) string {
	_, domain, _ := strings.Cut(address, "@")
	if len(rec.From) == 0 || slices.ContainsFunc(rec.From, func(f string) bool {
		return strings.EqualFold(f, address) || strings.EqualFold(f, "@"+domain)
	}) {
		return address
	}
	if i := slices.IndexFunc(rec.From, func(f string) bool { return !strings.HasPrefix(f, "@") }); i >= 0 {
		return rec.From[i]
	}
	return address
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// outsideHost is an address of this machine that others in its network reach.
func outsideHost() string {
	for _, name := range listenNames("") {
		if ip := net.ParseIP(name); ip != nil && ip.To4() != nil && ip.IsPrivate() {
			return name
		}
	}
	return "0.0.0.0"
}

// calledAs is how this program is called: by its name where that leads to it,
// with the flags that the environment and the command line have chosen.
func (a *app) calledAs() ([]string, error) {
	program := "o365pw"
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	called, err := exec.LookPath(program)
	one, err1 := os.Stat(exe)
	other, err2 := os.Stat(called)
	if err != nil || err1 != nil || err2 != nil || !os.SameFile(one, other) {
		program = exe
	}
	args := []string{program}
	if path := cmp.Or(a.configPath, a.Getenv("O365PW_CONFIG")); path != "" {
		if path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		args = append(args, "--config", path)
	}
	if profile := cmp.Or(a.profile, a.Getenv("O365PW_PROFILE")); profile != "" {
		args = append(args, "--profile", profile)
	}
	return args, nil
}

// environmentStep says which variables the command needs that prints the
// password; empty: none.
func (a *app) environmentStep(s *session, client clientconfig.Client) string {
	var names []string
	for _, name := range []string{"O365PW_STATE", "O365PW_TENANT", "O365PW_CLIENT_ID", "O365PW_KEYCHAIN"} {
		if a.Getenv(name) != "" {
			names = append(names, name)
		}
	}
	file := s.profile.Keychain == "file"
	if file {
		names = append(names, "O365PW_KEYCHAIN_PASSPHRASE_FILE")
	}
	if len(names) == 0 {
		return ""
	}
	step := client.Title + " needs in its environment, as here: " + strings.Join(names, ", ")
	if file {
		step += "; run by cron or a service it has no terminal to ask for the keychain's passphrase"
	}
	return step
}

// completeClients offers the clients.
func completeClients(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, c := range clientconfig.Clients() {
		out = append(out, choice(c.Name, c.Title+": "+c.Does))
	}
	return begin(out, typed), noFiles
}

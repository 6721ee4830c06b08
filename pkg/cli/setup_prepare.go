package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
)

// prepare finds out what is wanted: from the flags, then from the file to
// import, the profile and the environment, then from the person.
func (w *setup) prepare(ctx context.Context) (err error) {
	if err := w.o.check("o365pw setup"); err != nil {
		return err
	}
	if err := w.checkFlags(); err != nil {
		return err
	}
	if w.path, err = config.ConfigPath(w.configPath, w.Getenv); err != nil {
		return err
	}
	if w.cfg, err = w.loadForSetup(); err != nil {
		return err
	}
	named := cmp.Or(w.app.profile, w.Getenv("O365PW_PROFILE"))
	if w.cfg != nil && named != "" {
		w.was = w.cfg.Profiles[named]
	}
	asked := w.interactive() && !w.structured() && !w.o.yes
	if err := w.takeImport(ctx, asked); err != nil {
		return err
	}
	if err := w.takeMailboxes(ctx, asked); err != nil {
		return err
	}
	if err := w.takeMode(ctx, asked); err != nil {
		return err
	}
	if named == "" {
		named = w.chooseName()
		if w.cfg != nil {
			w.was = w.cfg.Profiles[named]
		}
	}
	if err := w.takeCloud(ctx, asked); err != nil {
		return err
	}
	if err := w.takeProfile(ctx, named, asked); err != nil {
		return err
	}
	if !asked && !w.o.yes && !w.o.dryRun {
		return &usageError{problem: "there is nobody to confirm", hint: "look with --dry-run; then add --yes"}
	}
	gw := config.DefaultGateway()
	if w.cfg != nil {
		gw = w.cfg.Gateway
	}
	if w.s, err = w.openProfile(w.profile, gw); err != nil {
		return err
	}
	if err := w.s.needState(); err != nil {
		return err
	}
	// What the configuration would refuse is refused before anybody is asked.
	_, err = config.PreviewProfile(w.path, w.profile.Name, w.settings())
	return err
}

func (w *setup) checkFlags() error {
	o := &w.o
	usage := func(problem, hint string) error { return &usageError{problem: problem, hint: hint} }
	switch {
	case o.organization && o.justMe:
		return usage("--organization and --just-me are two ways", "o365pw setup --organization, or o365pw setup --just-me")
	case !slices.Contains([]string{"", apppassword.BackingSecret, apppassword.BackingCertificate, apppassword.BackingUser}, o.backing):
		return usage("--backing "+quote(o.backing)+" is none of secret, certificate, user", "o365pw setup --help")
	case o.organization && o.backing == apppassword.BackingUser:
		return usage("backing user is for one's own mailbox, not for the organisation", "o365pw setup --just-me")
	case o.justMe && o.backing != "" && o.backing != apppassword.BackingUser:
		return usage("with --just-me the person's own sign-in stands behind app passwords, so it goes with backing user only", "leave --backing out")
	case o.justMe && (o.app != "" || o.loginClientID != ""):
		return usage("--app and --login-client-id are for --organization", "o365pw setup --just-me --client-id GUID")
	case o.justMe && o.azureCLI:
		return usage("the Azure CLI has no tokens for mail", "leave --azure-cli out")
	case o.justMe && len(o.mailboxes) > 1:
		return usage("with --just-me there is one mailbox, that of the person who signs in", "give --mailbox once")
	case o.app != "" && o.clientID != "":
		return usage("--app and --client-id both say which application is meant", "leave one of them out")
	case o.dryRun && o.wait != "":
		return usage("--dry-run changes nothing that could be waited for", "leave --wait out")
	}
	if !guidOrEmpty.MatchString(o.clientID) || !guidOrEmpty.MatchString(o.loginClientID) {
		return usage("a client id is a GUID, as in 00001111-aaaa-2222-bbbb-3333cccc4444", "see the application's page in Entra: Overview, Application (client) ID")
	}
	if o.app != "" && !appNames.MatchString(o.app) {
		return usage("--app "+quote(o.app)+" is no unique name: letters, digits, dot, dash and underscore", "o365pw setup --app o365pw-sales")
	}
	for _, m := range o.mailboxes {
		if err := apppassword.CheckMailbox(m); err != nil {
			return usage(err.Error(), "as in --mailbox alice@contoso.com")
		}
	}
	if len(o.allow) > 0 {
		if _, err := apppassword.ParseAllow(o.allow); err != nil {
			return usage(err.Error(), "as in --allow imap,smtp")
		}
	}
	if o.wait != "" {
		d, err := config.ParseDuration(o.wait)
		if err != nil {
			return usage("--wait: "+err.Error(), "as in --wait 30m")
		}
		w.waitLimit = d
	}
	return nil
}

var (
	guidOrEmpty = regexp.MustCompile(`^$|^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$`)
	appNames    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$`)
)

// loadForSetup reads the configuration; one that is named and not there yet is
// to be made.
func (w *setup) loadForSetup() (*config.Config, error) {
	cfg, err := w.loadConfig()
	if e, ok := errors.AsType[*config.Error](err); ok && e.Line == 0 && errors.Is(e, fs.ErrNotExist) {
		return nil, nil
	}
	return cfg, err
}

// takeMailboxes finds out whose mailbox it is.
func (w *setup) takeMailboxes(ctx context.Context, asked bool) error {
	known := cmp.Or(w.imported.Mailbox, w.was.Mailbox)
	switch {
	case len(w.o.mailboxes) > 0:
		for _, m := range w.o.mailboxes {
			if !slices.ContainsFunc(w.mailboxes, func(s string) bool { return strings.EqualFold(s, m) }) {
				w.mailboxes = append(w.mailboxes, m)
			}
		}
		return nil
	case w.imported.Mailbox != "", !asked && known != "":
		w.mailboxes = []string{known}
		return nil
	case !asked && w.o.justMe && cmp.Or(w.o.tenant, w.Getenv("O365PW_TENANT"), w.imported.Tenant, w.was.Tenant) != "":
		return nil // the sign-in tells
	case !asked:
		return &usageError{problem: "it is not said whose mailbox is to be set up", hint: "add --mailbox alice@contoso.com"}
	}
	standard := cmp.Or(known, w.defaultProfile().Mailbox)
	if email := w.Getenv("EMAIL"); standard == "" && apppassword.CheckMailbox(email) == nil {
		standard = email
	}
	return w.ask(ctx, question{text: "Whose mailbox? Its address", standard: standard, flag: "--mailbox", take: func(answer string) error {
		if err := apppassword.CheckMailbox(answer); err != nil {
			return err
		}
		w.mailboxes = []string{answer}
		return nil
	}})
}

// defaultProfile is the one that commands take without --profile.
func (w *setup) defaultProfile() config.Profile {
	if w.cfg == nil {
		return config.Profile{}
	}
	name := w.cfg.DefaultProfile
	if name == "" && len(w.cfg.Profiles) == 1 {
		name = slices.Collect(maps.Keys(w.cfg.Profiles))[0]
	}
	return w.cfg.Profiles[name]
}

// takeMode finds out who it is for.
func (w *setup) takeMode(ctx context.Context, asked bool) error {
	isPersonal := len(w.mailboxes) > 0 && config.IsPersonalAddress(w.mailboxes[0])
	known := cmp.Or(w.o.backing, w.imported.Backing, w.was.Backing)
	switch {
	case isPersonal && (w.o.organization || w.o.backing != "" && w.o.backing != apppassword.BackingUser):
		return &usageError{problem: w.mailboxes[0] + " is a personal account, which no application can open by itself", hint: "o365pw setup --just-me --mailbox " + shellQuote(w.mailboxes[0])}
	case w.o.organization:
		return nil
	case w.o.justMe:
		w.justMe = true
		return nil
	case isPersonal:
		w.justMe = true
		w.note("%s is a personal account: it is set up for you alone", w.mailboxes[0])
		return nil
	case w.o.backing != "", !asked && known != "":
		w.justMe = known == apppassword.BackingUser
		return w.oneMailbox()
	case !asked:
		return &usageError{problem: "it is not said whether this is for an organisation or for you alone", hint: "add --organization, or --just-me"}
	}
	standard := "organisation"
	if d := w.defaultProfile(); known == "" && strings.EqualFold(d.Mailbox, w.mailboxes[0]) {
		known = d.Backing
	}
	if known == apppassword.BackingUser {
		standard = "me"
	}
	err := w.ask(ctx, question{text: "For the organisation (you are an administrator), or just for me?", standard: standard, flag: "--organization or --just-me", take: func(answer string) error {
		switch strings.ToLower(answer) {
		case "o", "org", "organisation", "organization":
			w.justMe = false
		case "m", "me", "just me", "just for me":
			w.justMe = true
		default:
			return errors.New("answer organisation or me; o and m will do")
		}
		return nil
	}})
	if err != nil {
		return err
	}
	return w.oneMailbox()
}

func (w *setup) oneMailbox() error {
	if w.justMe && len(w.mailboxes) > 1 {
		return &usageError{problem: "for you alone there is one mailbox, that of the person who signs in", hint: "give --mailbox once"}
	}
	return nil
}

// chooseName is the profile's name where none was given: that of the profile
// that is for this mailbox already, else a free one after the mailbox.
func (w *setup) chooseName() string {
	mailbox := cmp.Or(append(slices.Clone(w.mailboxes), w.imported.Mailbox)...)
	if mailbox == "" {
		return cmp.Or(w.defaultProfile().Name, "mail")
	}
	var profiles map[string]config.Profile
	if w.cfg != nil {
		profiles = w.cfg.Profiles
	}
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		if w.serves(profiles[name], mailbox) {
			return name
		}
	}
	local, domain, _ := strings.Cut(mailbox, "@")
	domain, _, _ = strings.Cut(domain, ".")
	base := nameFrom(cmp.Or(w.imported.Name, local))
	for n := 0; ; n++ {
		name := base
		switch {
		case n == 1:
			name = nameFrom(local + "-" + domain)
		case n > 1:
			name = base + "-" + strconv.Itoa(n)
		}
		if _, taken := profiles[name]; !taken {
			return name
		}
	}
}

// serves tells whether a profile is for the mailbox, as it is wanted now.
func (w *setup) serves(p config.Profile, mailbox string) bool {
	tenant := cmp.Or(w.o.tenant, w.Getenv("O365PW_TENANT"))
	return strings.EqualFold(p.Mailbox, mailbox) && (p.Backing == apppassword.BackingUser) == w.justMe &&
		(w.o.cloud == "" || w.o.cloud == p.CloudName) && (tenant == "" || strings.EqualFold(tenant, p.Tenant))
}

// nameFrom makes a name of s that is good in keychains, files and Entra.
func nameFrom(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '-'
	}, strings.ToLower(s))
	s = strings.Trim(s[:min(len(s), 50)], "._-")
	return cmp.Or(s, "mail")
}

// cloudNames are those that --cloud takes.
func (w *setup) cloudNames() []string {
	names := []string{"global", "usgov", "dod", "china"}
	if w.cfg != nil {
		for _, n := range slices.Sorted(maps.Keys(w.cfg.Clouds)) {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

func (w *setup) cloud(name string) (config.Cloud, error) {
	if w.cfg != nil {
		if c, ok := w.cfg.Clouds[name]; ok {
			return c, nil
		}
	}
	if c, ok := config.BuiltinCloud(name); ok {
		return c, nil
	}
	return config.Cloud{}, &usageError{problem: "there is no cloud " + quote(name), hint: "known: " + strings.Join(w.cloudNames(), ", ")}
}

func (w *setup) takeCloud(ctx context.Context, asked bool) error {
	name := cmp.Or(w.o.cloud, w.imported.Cloud, w.was.CloudName, config.DefaultCloud)
	take := func(name string) (err error) {
		w.profile.CloudName = name
		w.profile.Cloud, err = w.cloud(name)
		return err
	}
	if w.o.cloud != "" || w.justMe || !asked {
		return take(name)
	}
	return w.ask(ctx, question{text: "Which cloud? " + strings.Join(w.cloudNames(), ", "), standard: name, flag: "--cloud", take: func(answer string) error {
		err := take(strings.ToLower(answer))
		if err != nil {
			err = take(answer)
		}
		if err != nil {
			return fmt.Errorf("%w; known: %s", err, strings.Join(w.cloudNames(), ", "))
		}
		return nil
	}})
}

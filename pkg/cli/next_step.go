package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// machineState is how far this machine has come, as its files and its gateway
// tell. Neither network nor keychain is asked: it is there at once.
type machineState int

const (
	stateFaulty  machineState = iota // a file cannot be understood
	stateNew                         // nothing is configured
	stateSignIn                      // mail needs a person's sign-in, and there is none
	stateEmpty                       // no app password
	stateStopped                     // app passwords, and no gateway that takes them
	stateRunning
)

// step is a command with what it is for.
type step struct{ command, what string }

// nextSteps are what can be done in each state, the likely one first.
var nextSteps = map[machineState]struct {
	says  string // PROFILE, PASSWORDS and SESSIONS stand for name and numbers
	steps []step
}{
	stateFaulty: {"The set-up of this machine cannot be used:", []step{
		{"o365pw doctor", "look at everything, and say what mends it"},
	}},
	stateNew: {"Nothing is set up on this machine yet.", []step{
		{"o365pw demo", "see it work, without a tenant"},
		{"o365pw setup", "set a tenant or your own mailbox up"},
	}},
	stateSignIn: {"Profile PROFILE is set up, but nobody is signed in for mail.", []step{
		{"o365pw login", "sign in, so that app passwords can open your mailbox"},
	}},
	stateEmpty: {"Profile PROFILE is set up, and has no app password on this machine.", []step{
		{"o365pw create", "make one for a mail program"},
		{"o365pw status", "is somebody signed in? else: o365pw login"},
	}},
	stateStopped: {"Profile PROFILE: PASSWORDS, but the gateway does not run.", []step{
		{"o365pw serve", "run it here, until Ctrl-C"},
		{"o365pw service install", "have the system run it, from now on"},
	}},
	stateRunning: {"Profile PROFILE: PASSWORDS; the gateway runs, SESSIONS.", []step{
		{"o365pw list", "app passwords, with ends and last uses"},
		{"o365pw show NAME", "what to type into the mail program"},
		{"o365pw sessions", "who is connected"},
	}},
}

// machineFacts are what is said about this machine, by what it has itself.
type machineFacts struct {
	state     machineState
	fault     error
	profile   string
	active    int
	sessions  int
	attention []step // what is the matter, and the command that mends it
}

// mostAttention bounds what is told at once.
const mostAttention = 3

// machine looks at the profile's files and asks its gateway.
func (a *app) machine(ctx context.Context) machineFacts {
	cfg, err := a.loadConfig()
	if err == nil && (cfg == nil || len(cfg.Profiles) == 0) && a.Getenv("O365PW_TENANT") == "" && a.Getenv("O365PW_CLIENT_ID") == "" {
		return machineFacts{state: stateNew}
	}
	if err != nil {
		return machineFacts{fault: err}
	}
	s, err := a.open()
	if err != nil {
		return machineFacts{fault: err}
	}
	f := machineFacts{profile: s.profile.Name}
	entries, err := s.manager.Local()
	if err != nil {
		return machineFacts{fault: err}
	}
	signIn, signedIn, err := s.manager.SignInOf()
	if err != nil {
		return machineFacts{fault: err}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	gw, err := controlOf(s.stateDir).Status(ctx)
	running := err == nil
	if err != nil && !errors.Is(err, gateway.ErrNotRunning) {
		f.need(err.Error(), "o365pw doctor")
	}
	if signedIn && !signIn.Ended.IsZero() {
		f.need("Entra asks "+nobodyAs(signIn.Username)+" for a new sign-in", "o365pw login --for mail")
	}
	f.count(entries, a.Now())
	if running {
		f.sessions = len(gw.Sessions)
		if gw.Version != version() {
			f.need("the gateway is of version "+gw.Version+", not "+version()+"; stop it and start it anew", "o365pw serve --stop")
		}
	}
	switch {
	case s.profile.Backing == apppassword.BackingUser && (!signedIn || signIn.Since.IsZero()):
		f.state = stateSignIn
	case len(entries) == 0:
		f.state = stateEmpty
	case !running:
		f.state = stateStopped
	default:
		f.state = stateRunning
	}
	return f
}

func (f *machineFacts) need(what, command string) {
	f.attention = append(f.attention, step{command, what})
}

// count counts the app passwords that are in force, and finds those that are not for long.
func (f *machineFacts) count(entries []apppassword.Entry, now time.Time) {
	var expired, soon, unfinished, overlap []string
	for _, e := range entries {
		switch {
		case e.Unfinished(now):
			unfinished = append(unfinished, e.Name)
		case e.InOverlap(now):
			overlap = append(overlap, e.Name)
		}
		switch {
		case e.Decoy: // opens nothing
		case e.Status == apppassword.Expired:
			expired = append(expired, e.Name)
		case e.Status == apppassword.Active:
			f.active++
			if !e.Expires.IsZero() && e.Expires.Sub(now) < expiresSoon {
				soon = append(soon, e.Name)
			}
		}
	}
	about := func(names []string, what, command string) {
		slices.Sort(names)
		switch len(names) {
		case 0:
		case 1:
			f.need(fmt.Sprintf("%q %s", names[0], what), fmt.Sprintf(command, asArgument(names[0])))
		default:
			f.need(fmt.Sprintf("%q and %d more: %s", names[0], len(names)-1, what), fmt.Sprintf(command, asArgument(names[0])))
		}
	}
	about(expired, "has expired", "o365pw rotate %s")
	about(soon, "expires within 30 days", "o365pw rotate %s")
	about(unfinished, "has an old password that is over and not removed", "o365pw rotate %s --finish")
	about(overlap, "waits for its new password in the mail program", "o365pw show %s")
}

// runNextStep is o365pw alone on a terminal.
func (a *app) runNextStep(ctx context.Context) error {
	f := a.machine(ctx)
	if err := a.print([]byte(a.nextStepText(f))); err != nil {
		return err
	}
	if f.fault != nil {
		return &failedError{code: a.advise(f.fault).code}
	}
	return nil
}

func (a *app) nextStepText(f machineFacts) string {
	next := nextSteps[f.state]
	var b strings.Builder
	says := strings.NewReplacer("PROFILE", f.profile, "PASSWORDS", plural(f.active, "app password"), "SESSIONS", plural(f.sessions, "open session")).Replace(next.says)
	fmt.Fprintln(&b, a.paint(bold, printable(says)))
	if f.fault != nil {
		fmt.Fprintln(&b, a.paint(red, printable(f.fault.Error())))
		if hint := a.advise(f.fault).hint; hint != "" {
			fmt.Fprintln(&b, printable("to mend it: "+hint))
		}
	}
	width := len("o365pw --help")
	for _, s := range next.steps {
		width = max(width, len(s.command))
	}
	b.WriteString("\n")
	for _, s := range append(slices.Clone(next.steps), step{"o365pw --help", "all commands"}) {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, s.command, s.what)
	}
	for i, s := range f.attention {
		if i == mostAttention {
			fmt.Fprintf(&b, "%s and more: o365pw status\n", a.paint(yellow, "⚠"))
			break
		}
		fmt.Fprintf(&b, "%s %s\n", a.paint(yellow, "⚠"), printable(s.what+": "+s.command))
	}
	return b.String()
}

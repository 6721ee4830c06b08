package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/pflag"

	"github.com/o365pw/o365pw/pkg/entra"
)

// flow is how a person signs in.
type flow struct {
	deviceCode bool
	paste      bool
	azureCLI   bool
}

// bind adds the flags of the flows.
func (fl *flow) bind(f *pflag.FlagSet) {
	f.BoolVar(&fl.deviceCode, "device-code", false, "show a code to type in on another device, in place of opening a browser")
	f.BoolVar(&fl.paste, "paste", false, "show the address to open on another machine, and take back the address that the browser ends at")
	f.BoolVar(&fl.azureCLI, "azure-cli", false, "take tokens for Graph from an installed Azure CLI (az login)")
}

// check refuses two flows at once. command is for the hint.
func (fl flow) check(command string) error {
	var given []string
	for _, one := range []struct {
		flag string
		set  bool
	}{{"--device-code", fl.deviceCode}, {"--paste", fl.paste}, {"--azure-cli", fl.azureCLI}} {
		if one.set {
			given = append(given, one.flag)
		}
	}
	if len(given) > 1 {
		return &usageError{problem: strings.Join(given, " and ") + " are ways to do the same", hint: command + " " + given[0]}
	}
	return nil
}

// person is whose sign-in is wanted, and for what.
type person struct {
	clientID string
	scope    string
	hint     string // the address, where it is known
	claims   string // of an earlier refusal, for Entra to see again
}

// signInPerson lets a person sign in. What they have to do goes to stderr,
// whatever the output format.
func (a *app) signInPerson(ctx context.Context, c *entra.Client, fl flow, who person) (entra.Token, error) {
	switch {
	case fl.deviceCode:
		tok, err := c.SignInDeviceCode(ctx, who.clientID, who.scope, func(dc entra.DeviceCode) {
			a.tell("open %s and enter the code %s", dc.VerificationURI, dc.UserCode)
			a.progress.set("waiting for the sign-in")
		})
		if ee, ok := errors.AsType[*entra.Error](err); ok && ee.Kind() == entra.Forbidden {
			err = &deviceCodeError{err}
		}
		return tok, err
	}
	// Of a tenant that is not there, or of a network that is down, only the
	// browser would tell, and the sign-in would wait for it.
	a.progress.set("looking for the tenant")
	if err := c.FindTenant(ctx); err != nil {
		return entra.Token{}, err
	}
	a.progress.stop()
	if fl.paste {
		return a.signInPaste(ctx, c, who)
	}
	tok, err := c.SignInBrowser(ctx, entra.BrowserSignIn{
		ClientID: who.clientID, Scope: who.scope, LoginHint: who.hint, Claims: who.claims,
		Announce: func(address string) {
			a.tell("sign in in the browser; if none opens, visit:")
			fmt.Fprintf(a.Stderr, "%s\n", address)
			a.browserAdvice(address)
			a.progress.set("waiting for the sign-in")
		},
		Open: func(address string) error {
			err := a.openBrowser(address)
			if err != nil {
				a.tell("%v", err)
			}
			return err
		},
	})
	if ee, ok := errors.AsType[*entra.Error](err); ok && (ee.Kind() == entra.Expired || ctx.Err() != nil) {
		a.tell("if the browser showed an error, this says what it means: o365pw explain \"AADSTS…\"")
	}
	return tok, err
}

// signInPaste is for a machine that no browser can reach.
func (a *app) signInPaste(ctx context.Context, c *entra.Client, who person) (entra.Token, error) {
	reader := &pasteReader{a: a}
	tok, err := c.SignInPaste(ctx, entra.PasteSignIn{
		ClientID: who.clientID, Scope: who.scope, LoginHint: who.hint, Claims: who.claims,
		Ask: func(ctx context.Context, address string) (string, error) {
			a.tell("open this address in a browser on any machine, and sign in:")
			fmt.Fprintf(a.Stderr, "%s\n", address)
			a.tell("the browser then ends at a page that it cannot load, at http://localhost/?code=…: that is right; copy its address")
			for {
				pasted, err := reader.read(ctx, "paste it here: ")
				if err != nil {
					return "", err
				}
				if !isTerminal(a.Stdin) || entra.CheckPaste(pasted) == nil {
					return pasted, nil
				}
				a.tell("that is not it: the address begins with http://localhost/ and holds code= or error=")
			}
		},
	})
	if ee, ok := errors.AsType[*entra.Error](err); ok && ee.URL == "" && ctx.Err() == nil {
		err = &failedError{code: signInRequired, msg: err.Error(), errs: []error{err},
			hint: "run it again, and paste the whole address that the browser ends at after this sign-in"}
	}
	return tok, err
}

// browserAdvice helps where the browser is on another machine than this
// command: the answer has to reach the port that waits for it here.
func (a *app) browserAdvice(address string) {
	switch {
	case a.Getenv("SSH_CONNECTION") != "" && a.Getenv("BROWSER") == "":
		port := redirectPort(address)
		host := "HOST"
		if parts := strings.Fields(a.Getenv("SSH_CONNECTION")); len(parts) == 4 {
			host = parts[2]
		}
		user := a.Getenv("USER")
		if user != "" {
			host = user + "@" + host
		}
		a.tell("over SSH, run this on the machine with the browser first: ssh -N -L %s:localhost:%s %s", port, port, host)
		a.tell("or press Ctrl-C and run: o365pw login --paste")
	case a.Getenv("WSL_DISTRO_NAME") != "" && a.Getenv("BROWSER") == "":
		a.tell("in WSL, the browser of Windows opens with BROWSER=wslview (package wslu); if it cannot reach this machine: o365pw login --paste")
	}
}

// redirectPort is the port of the loopback redirect in an authorization
// request.
func redirectPort(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	redirect, err := url.Parse(u.Query().Get("redirect_uri"))
	if err != nil {
		return ""
	}
	return redirect.Port()
}

// deviceCodeError tells that the tenant blocks the device code flow, as
// Microsoft advises tenants to, and perhaps no other.
type deviceCodeError struct{ err error }

func (e *deviceCodeError) Error() string { return e.err.Error() }

func (e *deviceCodeError) Unwrap() error { return e.err }

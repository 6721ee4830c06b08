package entra

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"unicode"
)

// pasteRedirect is where the browser is sent to, on whatever machine it runs.
// Nobody listens there: the person takes the address out of the address bar.
const pasteRedirect = "http://localhost"

// maxPaste bounds what is looked at. Real answers have one or two kilobytes.
const maxPaste = 64 << 10

// ErrNotAnAnswer says that what a person pasted is no address that a sign-in
// led to: it holds neither a code nor an error.
var ErrNotAnAnswer = errors.New("this is not the address that the sign-in led to (it begins with http://localhost/?code=)")

// PasteSignIn says how a person signs in by [Client.SignInPaste].
type PasteSignIn struct {
	ClientID string
	// Scope, LoginHint, Claims and Prompt are as in [BrowserSignIn].
	Scope     string
	LoginHint string
	Claims    string
	Prompt    string
	// Ask shows the address to open in a browser anywhere, and returns what
	// the person pasted. It can ask again, with the same address, for as long
	// as [CheckPaste] has an error.
	Ask func(ctx context.Context, url string) (string, error)
}

// SignInPaste lets a person sign in from a machine without a browser:
// authorization code with PKCE S256, as [Client.SignInBrowser], but the person
// carries the answer. They open the address elsewhere, sign in, and end on a
// page that cannot be loaded, http://localhost/?code=…, whose address they
// paste. The application needs the redirect URI http://localhost.
//
// A failure is an [*Error]: SignInRequired where what was pasted belongs to
// another sign-in, or is none, which wraps [ErrNotAnAnswer]; Expired, wrapping
// its error, where Ask fails; and else as for SignInBrowser.
func (c *Client) SignInPaste(ctx context.Context, p PasteSignIn) (Token, error) {
	a, err := c.start(authorization{
		op: "sign in by pasting", redirect: pasteRedirect,
		clientID: p.ClientID, scope: p.Scope, loginHint: p.LoginHint, claims: p.Claims, prompt: p.Prompt,
	})
	if err != nil {
		return Token{}, err
	}
	fail := func(kind Kind, err error) (Token, error) {
		return Token{}, &Error{Op: a.op, Err: err, kind: kind} // no server is at fault
	}
	if p.Ask == nil {
		return fail(Misconfigured, errors.New("nobody would learn the address to open"))
	}
	pasted, err := p.Ask(ctx, a.address())
	switch {
	case ctx.Err() != nil:
		return fail("", ctx.Err())
	case err != nil:
		return fail(Expired, err)
	}
	answer, err := parsePaste(pasted)
	switch {
	case err != nil:
		return fail(SignInRequired, err)
	case !hasState(answer, a.state):
		return fail(SignInRequired, errors.New("the pasted address is of another sign-in than this one (its state differs)"))
	}
	return c.redeem(ctx, a, answer)
}

// CheckPaste returns [ErrNotAnAnswer] where what a person pasted holds neither
// a code nor an error, and nil otherwise. Whether it belongs to the sign-in
// that waits for it is for [Client.SignInPaste] to say.
func CheckPaste(pasted string) error {
	_, err := parsePaste(pasted)
	return err
}

// parsePaste finds the answer in the address that a person pasted: whole or
// its query alone, in quotes or brackets, over several lines as terminals
// break them.
func parsePaste(pasted string) (url.Values, error) {
	if len(pasted) > maxPaste {
		return nil, ErrNotAnAnswer
	}
	// What a terminal puts around a paste (bracketed paste mode of xterm).
	pasted = strings.NewReplacer("\x1b[200~", "", "\x1b[201~", "").Replace(pasted)
	pasted = strings.Map(func(r rune) rune {
		// An address has no blanks of its own, nor invisible characters.
		if unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, pasted)
	pasted = strings.Trim(pasted, "\"'`<>()[]“”‘’«»")
	if _, query, ok := strings.Cut(pasted, "?"); ok {
		pasted = query
	}
	pasted, _, _ = strings.Cut(pasted, "#")
	query, err := url.ParseQuery(strings.Trim(pasted, "&"))
	if err != nil || !isAnswer(query) {
		// The message would quote the code.
		return nil, ErrNotAnAnswer
	}
	return query, nil
}

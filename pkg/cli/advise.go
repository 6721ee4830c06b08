package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/audit"
	"github.com/o365pw/o365pw/pkg/clientconfig"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/graph"
	"github.com/o365pw/o365pw/pkg/secret"
)

// advice is what the table says of an error.
type advice struct {
	code exitCode
	hint string
}

// advise is the one table from errors to exit code and hint. The first row
// that fits counts: what was being done comes before what went wrong beneath.
func advise(err error) advice {
	if errors.Is(err, errInterrupted) {
		return advice{code: interrupted}
	}
	if e, ok := errors.AsType[*setupError](err); ok {
		return e.advice()
	}
	if e, ok := errors.AsType[*failedError](err); ok {
		return advice{e.code, e.hint}
	}
	if a, ok := adviseSendmail(err); ok {
		return a
	}
	if e, ok := errors.AsType[*unprintedError](err); ok {
		if e.rotated {
			return advice{failed, "o365pw show --password " + asArgument(e.name)}
		}
		return advice{failed, "o365pw show --password " + asArgument(e.name) + "; or undo it: o365pw revoke " + asArgument(e.name)}
	}
	if e, ok := errors.AsType[*filterError](err); ok {
		return advice{failed, "-o json prints what " + e.flag + " works on"}
	}
	if e, ok := errors.AsType[*apppassword.LeftBehindError](err); ok {
		a := advise(e.Cause)
		a.hint = "the next create removes it; or now: o365pw revoke --yes " + strings.Join(e.KeyIDs, " ")
		if len(e.KeyIDs) == 0 {
			a.hint = "look with: o365pw list; the next create removes what it finds"
		}
		return a
	}
	if e, ok := errors.AsType[*usageError](err); ok {
		return advice{wrongUsage, e.hint}
	}
	if e, ok := errors.AsType[*clientconfig.MissingError](err); ok {
		if e.Allowed {
			return advice{wrongUsage, notListening(e.Protocol[0]) + " of the configuration, and start the gateway again"}
		}
		return advice{wrongUsage, "make one that may: o365pw create NAME --for " + e.Client}
	}
	if _, ok := errors.AsType[*clientconfig.NoAuthorityError](err); ok {
		return advice{failed, "o365pw serve, once; or: o365pw cert export"}
	}
	if a, ok := adviseAppPassword(err); ok {
		return a
	}
	if e, ok := errors.AsType[*config.UnknownProfileError](err); ok {
		if len(e.Known) > 0 {
			return advice{notFound, "o365pw --profile " + e.Known[0] + " …"}
		}
		return advice{notFound, "add [profiles." + e.Name + "] to the configuration, or set O365PW_TENANT and O365PW_CLIENT_ID"}
	}
	if e, ok := errors.AsType[*config.Error](err); ok {
		return advice{wrongUsage, cmp.Or(e.Hint, "mend the file; what else is wrong with it: o365pw config check")}
	}
	if e, ok := errors.AsType[*azureCLIError](err); ok {
		return adviseAzureCLI(e)
	}
	if e, ok := errors.AsType[*deviceCodeError](err); ok {
		a := advise(e.err)
		a.hint = "the tenant may block device codes alone: o365pw login, or on a machine without a browser o365pw login --paste; " + a.hint
		return a
	}
	if e, ok := errors.AsType[*signInError](err); ok {
		return advice{signInRequired, cmp.Or(e.hint, "o365pw login; in CI set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or O365PW_ACCESS_TOKEN")}
	}
	if e, ok := errors.AsType[*unattendedError](err); ok {
		a := advise(e.err)
		if ee, ok := errors.AsType[*entra.Error](e.err); ok {
			a.hint = cmp.Or(e.refusedHint(ee), a.hint)
		}
		return a
	}
	if e, ok := errors.AsType[*secret.UnavailableError](err); ok {
		return advice{failed, keychainHint(e)}
	}
	if e, ok := errors.AsType[*secret.SealedError](err); ok {
		return adviseSealed(e)
	}
	if e, ok := errors.AsType[*graph.AmbiguousError](err); ok {
		return advice{failed, "look for " + quote(e.Name) + " with: o365pw list"}
	}
	if e, ok := errors.AsType[*graph.UnconfirmedError](err); ok && e.Err == nil {
		return advice{unavailable, "Graph's reads lag behind; look again in a few minutes, and repeat the revoke: o365pw list"}
	}
	if e, ok := errors.AsType[*graph.CertificateError](err); ok {
		return advice{failed, "an administrator's move: add the certificate in Entra: App registrations, " + e.AppID + ", Certificates & secrets; or take an application of its own: o365pw setup --app NAME"}
	}
	if e, ok := errors.AsType[*graph.Error](err); ok {
		return adviseGraph(e)
	}
	if e, ok := errors.AsType[*entra.Error](err); ok {
		return adviseEntra(e)
	}
	if a, ok := adviseReach(err); ok {
		return a
	}
	if e, ok := errors.AsType[*gateway.Refusal](err); ok {
		return adviseRefusal(e)
	}
	if e, ok := errors.AsType[*audit.BrokenError](err); ok {
		return advice{failed, brokenHint(e)}
	}
	if e, ok := errors.AsType[*gateway.OlderError](err); ok {
		return advice{failed, fmt.Sprintf("end it with: kill %d; then start this version: o365pw serve", e.PID)}
	}
	if _, ok := errors.AsType[*gateway.AlreadyRunningError](err); ok {
		return advice{failed, "look with: o365pw status; to end it before starting another: o365pw serve --stop"}
	}
	if _, ok := errors.AsType[*gateway.ForeignError](err); ok {
		return advice{failed, "run it as the user that the gateway runs as, such as: sudo o365pw service run status"}
	}
	if errors.Is(err, gateway.ErrNotRunning) {
		return advice{failed, "o365pw serve"}
	}
	if e, ok := errors.AsType[*gateway.StillRunningError](err); ok {
		return advice{unavailable, fmt.Sprintf("look with: o365pw sessions; to end it at once: kill -9 %d", e.PID)}
	}
	if _, ok := errors.AsType[*gateway.NoSessionError](err); ok {
		return advice{notFound, "o365pw sessions"}
	}
	if e, ok := errors.AsType[*listenError](err); ok {
		if strings.HasPrefix(e.what, "legacy ") {
			return advice{failed, "another program has the address, or this machine does not; choose another in [gateway.legacy] of the configuration, or leave it out"}
		}
		if e.what == "metrics" || e.what == "autoconfig" {
			return advice{failed, "another program has the address, or this machine does not; choose another for " + e.what + " in [gateway] of the configuration, or leave it out"}
		}
		return advice{failed, "another program has the address, or this machine does not; choose one in [gateway] of the configuration, or with --imap, --pop3, --smtp; off leaves one out: o365pw serve --pop3 off"}
	}
	if _, ok := errors.AsType[*activationError](err); ok {
		return advice{wrongUsage, "make systemd's sockets agree with [gateway] of the configuration: o365pw service install, service stop, service start"}
	}
	if e, ok := errors.AsType[*noServiceError](err); ok {
		return advice{failed, e.hint}
	}
	if e, ok := errors.AsType[*trustError](err); ok {
		if _, ran := errors.AsType[*commandError](err); ran && e.hint == "" {
			return advice{failed, "what it said is above; look what there is: o365pw cert show"}
		}
		return advice{failed, e.hint}
	}
	if e, ok := errors.AsType[*commandError](err); ok {
		return adviseCommand(e)
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(err, fs.ErrPermission) {
		return advice{failed, "run it as the user whom " + lasting(e.Path) + " belongs to, or set O365PW_STATE to a folder of your own"}
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok && e.Path != "/dev/stdout" {
		return advice{failed, "see that you can write to " + lasting(e.Path) + ", or set O365PW_STATE to a folder where you can"}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return advice{unavailable, "try again later"}
	}
	return advice{code: failed}
}

func adviseAppPassword(err error) (advice, bool) {
	if a, ok := adviseMove(err); ok {
		return a, true
	}
	if e, ok := errors.AsType[*apppassword.InvalidError](err); ok {
		hint := "o365pw create --help"
		if e.Field == "mailbox" && e.Value == "" {
			hint = "add --mailbox alice@contoso.com, or mailbox = \"…\" to the profile"
		}
		if e.Field == "backing" {
			hint = "o365pw create --backing secret …"
		}
		if e.Needs != "" {
			hint = "allow it: --allow " + e.Needs + ", or --allow imap," + e.Needs
		}
		return advice{wrongUsage, hint}, true
	}
	if e, ok := errors.AsType[*apppassword.NameTakenError](err); ok {
		hint := "choose another name, or first: o365pw revoke " + asArgument(e.Name)
		if e.Status == apppassword.Active || e.Status == apppassword.Expired {
			hint += "; for a new password of this one: o365pw rotate " + asArgument(e.Name)
		}
		return advice{nameTaken, hint}, true
	}
	if _, ok := errors.AsType[*apppassword.NotFoundError](err); ok {
		return advice{notFound, "o365pw list"}, true
	}
	if _, ok := errors.AsType[*apppassword.SeveralError](err); ok {
		return advice{wrongUsage, "name one by its id; revoke takes them all with --all (while it is being rotated, an app password has two, the old one and the new one)"}, true
	}
	if a, ok := adviseRotation(err); ok {
		return a, true
	}
	if e, ok := errors.AsType[*apppassword.PolicyError](err); ok {
		switch {
		case e.ForbidsSecrets:
			x, _ := explain.Graph("CredentialTypeNotAllowedAsPerAppPolicy")
			return advice{refused, x.Hint() + "; or " + x.More[0].Fix}, true
		case e.Max > 0:
			return advice{refused, "the maximum is " + apppassword.Days(e.Max) + ": --expires " + apppassword.Days(e.Max)}, true
		}
		hint := "leave --expires out to get the longest that is allowed"
		if e.Shorter > 0 {
			hint = "ask for less, such as --expires " + apppassword.Days(e.Shorter+time.Minute) + ", or " + hint
		}
		return advice{refused, hint}, true
	}
	if e, ok := errors.AsType[*apppassword.RefusedError](err); ok {
		return adviseRefused(e), true
	}
	if _, ok := errors.AsType[*apppassword.SignInError](err); ok {
		return advice{signInRequired, "o365pw login"}, true
	}
	if e, ok := errors.AsType[*apppassword.ScopeError](err); ok {
		return advice{signInRequired, "sign in again and consent to it: o365pw login; or leave " + e.Protocol + " out: --allow …"}, true
	}
	if e, ok := errors.AsType[*apppassword.CertificateError](err); ok {
		return adviseCertificate(e), true
	}
	if e, ok := errors.AsType[*apppassword.UnusableError](err); ok {
		a := advise(e.Err)
		a.code = refused
		return a, true
	}
	if e, ok := errors.AsType[*apppassword.HalfRevokedError](err); ok && e.Left == apppassword.InKeychain {
		return advice{failed, "it opens nothing any more; mend the keychain and run the same revoke again"}, true
	}
	if e, ok := errors.AsType[*apppassword.OtherTenantError](err); ok {
		return advice{wrongUsage, "set tenant = \"" + e.Tenant + "\" in a profile of this name, then revoke it there"}, true
	}
	if e, ok := errors.AsType[*apppassword.NewerError](err); ok {
		return advice{failed, "update o365pw, or use the one that wrote " + e.Path}, true
	}
	if errors.Is(err, apppassword.ErrNoState) {
		return advice{wrongUsage, "set O365PW_STATE to a folder you can write to"}, true
	}
	if e, ok := errors.AsType[*apppassword.DamagedError](err); ok {
		return advice{failed, "put " + e.Path + " back from a backup; or move it away: then o365pw list and o365pw revoke ID work by what Graph has"}, true
	}
	return advice{}, false
}

func adviseRotation(err error) (advice, bool) {
	if e, ok := errors.AsType[*apppassword.NotRotatableError](err); ok {
		switch {
		case e.Decoy:
			return advice{wrongUsage, "lay out another: o365pw create NAME --decoy; and forget this one: o365pw revoke " + asArgument(e.Name)}, true
		case e.Status == apppassword.RemoteOnly:
			return advice{notFound, "run it on the machine that holds it; what this one holds: o365pw list --local"}, true
		}
		return advice{notFound, "take what is left of it off the list, and make a new one: o365pw revoke " + asArgument(e.Name) + "; o365pw create " + asArgument(e.Name)}, true
	}
	if e, ok := errors.AsType[*apppassword.NotAcceptedError](err); ok {
		a := advice{unavailable, "nothing was changed; try again in a few minutes"}
		if x := advise(e.Err); x.hint != "" && x.code != signInRequired {
			a.hint += "; " + x.hint
		}
		return a, true
	}
	if e, ok := errors.AsType[*apppassword.OldLeftError](err); ok {
		a := advise(e.Err)
		a.hint = strings.TrimPrefix(a.hint+"; then: ", "; then: ") + finishCommand(e.Name)
		return a, true
	}
	return advice{}, false
}

func adviseCertificate(e *apppassword.CertificateError) advice {
	if ue, ok := errors.AsType[*secret.UnavailableError](e.Err); ok {
		return advice{failed, keychainHint(ue)}
	}
	switch {
	case !e.Expired.IsZero():
		return advice{signInRequired, "make a new certificate and add it to the application: o365pw setup"}
	case e.Missing() && e.File == "":
		return advice{wrongUsage, "make one and add it to the application: o365pw setup; or name a PEM file in the profile: certificate = \"…\""}
	}
	return advice{wrongUsage, "check certificate in the profile: it names a PEM file with an RSA key and its certificate"}
}

func adviseAzureCLI(e *azureCLIError) advice {
	switch {
	case e.missing:
		return advice{wrongUsage, "install it (https://aka.ms/azure-cli), or leave it out: o365pw login"}
	case e.signIn:
		return advice{signInRequired, "az login --allow-no-subscriptions --tenant " + shellQuote(e.tenant)}
	case errors.Is(e.err, context.DeadlineExceeded):
		return advice{unavailable, "see whether az answers: az account show"}
	}
	return advice{signInRequired, "see whether az works by itself: az account get-access-token --tenant " + shellQuote(e.tenant)}
}

// explainGraph is by code, else by HTTP status, which says less.
func explainGraph(e *graph.Error) (explain.Explanation, bool) {
	x, ok := explain.Graph(e.Code)
	if !ok {
		x, ok = explain.Graph(strconv.Itoa(e.Status))
	}
	if !ok && e.Temporary() {
		x, ok = explain.Exit(int(unavailable))
	}
	return x, ok
}

func adviseGraph(e *graph.Error) advice {
	x, _ := explainGraph(e)
	switch {
	case e.IsUnauthorized():
		return advice{signInRequired, x.Hint()}
	case e.IsForbidden(), e.HasCode("Directory_ResourceSizeExceeded"):
		return advice{refused, x.Hint()}
	case e.IsNotFound():
		return advice{notFound, x.Hint()}
	case e.Temporary():
		return advice{unavailable, x.Hint()}
	}
	return advice{failed, x.Hint()}
}

// explainEntra is by number, else by the error member, which says less.
func explainEntra(e *entra.Error) (explain.Explanation, bool) {
	if x, ok := explain.AADSTS(e.Number()); ok {
		return x, true
	}
	return explain.OAuth(e.Code)
}

func adviseEntra(e *entra.Error) advice {
	code := failed
	switch e.Kind() {
	case entra.Refused, entra.SignInRequired, entra.Declined, entra.Expired:
		code = signInRequired
	case entra.Forbidden:
		code = refused
	case entra.Misconfigured:
		code = wrongUsage
	case entra.Unavailable:
		code = unavailable
	}
	x, ok := explainEntra(e)
	if !ok && (code == signInRequired || code == unavailable) {
		x, _ = explain.Exit(int(code))
	}
	return advice{code, x.Hint()}
}

// adviseReach is for servers that were tried, not asked for something.
func adviseReach(err error) (advice, bool) {
	later, _ := explain.Exit(int(unavailable))
	if _, ok := foreignIssuer(err); ok {
		return advice{wrongUsage, "if the certificate is your network's (TLS inspection) or your own authority's, name a PEM file with it: SSL_CERT_FILE, or ca_file in [clouds.…]"}, true
	}
	if _, ok := errors.AsType[*inBetweenError](err); ok {
		return advice{unavailable, "open a page in a browser and sign in to this network, or check HTTPS_PROXY, NO_PROXY and the addresses of the cloud"}, true
	}
	if e, ok := errors.AsType[*gateway.ServerError](err); ok {
		switch e.Fault {
		case gateway.FaultRefused, gateway.FaultNotConnected, gateway.FaultSMTPAuthOff:
			if e.Step == gateway.StepProxy {
				return advice{unavailable, e.Fix}, true
			}
			return advice{refused, e.Fix}, true
		}
		return advice{unavailable, cmp.Or(e.Fix, later.Hint())}, true
	}
	if _, ok := errors.AsType[*reachError](err); ok {
		return advice{unavailable, later.Hint()}, true
	}
	return advice{}, false
}

func brokenHint(e *audit.BrokenError) string {
	if e.Line > 1 {
		return fmt.Sprintf("what stands before line %d holds together; compare the file with a backup; o365pw audit shows what can be read", e.Line)
	}
	return "compare the file with a backup; o365pw audit shows what can be read"
}

func keychainHint(e *secret.UnavailableError) string {
	switch e.Reason {
	case secret.NoSession, secret.NoService, secret.Unsupported:
		return "use the encrypted file: keychain = \"file\" in the profile or O365PW_KEYCHAIN=file, and O365PW_KEYCHAIN_PASSPHRASE_FILE"
	case secret.Locked, secret.Timeout:
		return "unlock the keychain (sign in to the desktop), then run the command again"
	case secret.NoPassphrase:
		return "set O365PW_KEYCHAIN_PASSPHRASE_FILE to a file with the passphrase, or run the command on a terminal"
	case secret.WrongPassphrase:
		return "check O365PW_KEYCHAIN_PASSPHRASE or O365PW_KEYCHAIN_PASSPHRASE_FILE"
	case secret.Damaged:
		return "put the file back from a backup, or move it away and make new app passwords"
	}
	if p, ok := errors.AsType[*fs.PathError](e.Err); ok {
		return "see that you can write to " + lasting(p.Path) + ", or set O365PW_STATE to a folder where you can"
	}
	return "o365pw status"
}

// lasting is the folder in the place of a file that is only there until it is
// whole, and that nobody can look at afterwards.
func lasting(path string) string {
	if base := filepath.Base(path); strings.HasPrefix(base, ".") && strings.HasSuffix(base, ".tmp") {
		return filepath.Dir(path)
	}
	return path
}

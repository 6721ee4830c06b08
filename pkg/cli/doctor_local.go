package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/config"
	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/gateway"
	"github.com/o365pw/o365pw/pkg/secret"
)

// localChecks look at this machine.
func (d *doctor) localChecks() []check {
	list := []check{
		{id: "configuration", title: "Configuration", run: d.configuration},
		{id: "state", title: "State folder", run: d.stateFolder},
		{id: "keychain", title: "Keychain", needs: []string{"configuration", "state"}, limit: passphraseLimit, run: d.keychain},
		{id: "proxy", title: "Proxy", needs: []string{"configuration"}, run: d.proxy},
	}
	if d.session != nil {
		list = append(list, check{id: "app-password", title: "App password", run: d.appPassword})
	}
	return list
}

// passphraseLimit leaves a person the time to type the keychain's passphrase.
const passphraseLimit = 2 * time.Minute

func (d *doctor) configuration(context.Context) result {
	if d.openErr != nil {
		e, ok := errors.AsType[*config.Error](d.openErr)
		if ok && e.Line == 0 && e.Key == "" && (d.cfg == nil || len(d.cfg.Profiles) == 0) && (e.Err == nil || errors.Is(e, fs.ErrNotExist)) {
			return result{status: checkFailed, detail: e.Error(), code: advise(e).code, remedies: []remedy{yours("nothing is set up here yet", e.Hint)}}
		}
		return d.fail(d.openErr)
	}
	p := d.session.profile
	file := "no file, the environment alone"
	if d.cfg != nil {
		file = d.cfg.Path
	}
	return passed("profile %s (tenant %s, client id %s, cloud %s, backing %s), %s", p.Name, p.Tenant, p.ClientID, p.Cloud.Name, p.Backing, file)
}

// stateFolder writes a file beside the registry and takes it away again.
func (d *doctor) stateFolder(context.Context) result {
	dir, err := config.StateDir(d.a.Getenv)
	if err != nil {
		return d.fail(err)
	}
	fi, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return passed("%s, which is made when something is kept there", dir)
	}
	var f *os.File
	if err == nil {
		f, err = os.CreateTemp(dir, ".doctor-*")
	}
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return d.fail(err)
	}
	if runtime.GOOS != "windows" && fi.Mode().Perm()&0o022 != 0 {
		return result{status: checkWarning, detail: "others can change what is in " + dir,
			remedies: []remedy{yours("", "chmod 700 "+shellQuote(dir))}}
	}
	return passed("%s", dir)
}

func (d *doctor) keychain(ctx context.Context) result {
	s := d.session
	err := apppassword.ProbeKeychain(ctx, s.keychain, "doctor")
	if err != nil {
		return d.fail(err)
	}
	file := d.a.Getenv("O365PW_KEYCHAIN_PASSPHRASE_FILE")
	if s.profile.Keychain == "file" && file != "" && d.a.Getenv("O365PW_KEYCHAIN_PASSPHRASE") == "" {
		if others, err := readableByOthers(file); err == nil && others {
			return result{status: checkWarning, detail: s.keychain.String() + ": it works, but others can read the passphrase in " + file,
				remedies: []remedy{yours("", keepFromOthers(file))}}
		}
	}
	return passed("%s: written, read and deleted", s.keychain)
}

// appPassword looks at what the registry says of the one that is looked at.
func (d *doctor) appPassword(ctx context.Context) result {
	if d.subjectErr != nil {
		return d.fail(d.subjectErr)
	}
	if d.subject == nil {
		return skipped("there is none here that is good; make one: o365pw create")
	}
	e := d.subject
	ended := func(code string) result {
		x, _ := explain.Gateway(code)
		return d.explained(failed, x, "%q is %s", e.Name, e.Status)
	}
	switch {
	case e.Decoy:
		return passed("%q is a decoy: it never signs in, and its use raises an alert", e.Name)
	case e.Status == apppassword.Revoked:
		return ended("revoked")
	case e.Status == apppassword.Expired:
		return ended("EXPIRED")
	}
	if _, err := d.session.manager.Reveal(ctx, e.Record); errors.Is(err, secret.ErrNotFound) {
		return result{status: checkFailed, code: failed, detail: err.Error(),
			remedies: []remedy{yours("the keychain does not hold it any more", "o365pw revoke "+asArgument(e.Name), "o365pw create "+asArgument(e.Name))}}
	} else if err != nil {
		return d.fail(err)
	}
	text := ""
	if !e.Expires.IsZero() {
		text = ", expires " + relative(e.Expires, d.a.Now())
	}
	r := passed("%q (backing %s)%s", e.Name, e.Backing, text)
	if !e.Expires.IsZero() && e.Expires.Sub(d.a.Now()) < expiresSoon {
		r.status = checkWarning
		r.remedies = []remedy{yours("it ends soon", "o365pw create")}
	}
	return r
}

// proxy tells how the network is reached. Whether the proxy works is told by
// the checks of what is behind it.
func (d *doctor) proxy(context.Context) result {
	choose := gateway.ProxyFromEnvironment(d.a.Getenv)
	var through, direct []string
	for _, t := range d.targets() {
		via, err := choose(t.url)
		switch {
		case err != nil:
			return result{status: checkFailed, code: wrongUsage, detail: "HTTPS_PROXY: " + err.Error(),
				remedies: []remedy{yours("", "export HTTPS_PROXY=http://proxy.example:3128")}}
		case via != nil:
			through = append(through, t.url.Hostname()+" through "+via.Scheme+"://"+via.Host)
		default:
			direct = append(direct, t.url.Hostname())
		}
	}
	through, direct = distinct(through), distinct(direct)
	switch {
	case len(through) == 0:
		return passed("none")
	case len(direct) == 0:
		return passed("%s", sentence(through))
	}
	return passed("%s; none for %s", sentence(through), sentence(direct))
}

// distinct is list without what is there twice, in its order.
func distinct(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// soon tells whether something ends within the time in which people are warned.
func (d *doctor) soon(t time.Time) bool { return !t.IsZero() && t.Sub(d.a.Now()) < expiresSoon }

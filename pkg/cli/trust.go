package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Kinds of trust stores, as --store takes them.
const (
	storeSystem = "system" // for everybody on this machine
	storeUser   = "user"   // for one person: macOS, Windows
	storeNSS    = "nss"    // databases of Firefox, Thunderbird and Chromium: Linux
)

var storeKinds = []string{storeSystem, storeUser, storeNSS}

// trustStore is where programs of this machine look up whom they trust. add and
// remove may be repeated.
type trustStore struct {
	kind, name string
	has        func(ctx context.Context, c *x509.Certificate) (bool, error)
	add        func(ctx context.Context, c *x509.Certificate) error
	remove     func(ctx context.Context, c *x509.Certificate) error
}

// trustError tells what keeps a store from being changed or read.
type trustError struct {
	store string
	err   error
	hint  string
}

func (e *trustError) Error() string { return fmt.Sprintf("%s: %v", e.store, e.err) }
func (e *trustError) Unwrap() error { return e.err }

// errNeedsRoot means that somebody else has to do it.
var errNeedsRoot = errors.New("only an administrator may change it")

// anchors are how a family of Linux systems takes authorities of one's own: a
// folder, how files in it are called, and what makes use of them, with a flag for
// when one has gone: Debian's leaves links that lead nowhere without it.
var anchors = []struct {
	folder, suffix, update string
	gone                   []string
}{
	{"/usr/local/share/ca-certificates", ".crt", "update-ca-certificates", []string{"--fresh"}}, // Debian, Ubuntu, Alpine
	{"/etc/pki/ca-trust/source/anchors", ".pem", "update-ca-trust", nil},                        // Fedora, Red Hat
	{"/etc/pki/trust/anchors", ".pem", "update-ca-certificates", nil},                           // openSUSE
	{"/etc/ca-certificates/trust-source/anchors", ".crt", "update-ca-trust", nil},               // Arch
}

// nssFolders are where databases of NSS (cert9.db) are, in the home folder.
var nssFolders = []string{
	".pki/nssdb", ".mozilla/firefox/*", ".config/mozilla/firefox/*", ".thunderbird/*",
	"snap/firefox/common/.mozilla/firefox/*", "snap/thunderbird/common/.thunderbird/*", "snap/chromium/current/.pki/nssdb",
	".var/app/org.mozilla.firefox/.mozilla/firefox/*", ".var/app/org.mozilla.Thunderbird/.thunderbird/*",
	".var/app/org.mozilla.thunderbird/.thunderbird/*", ".var/app/org.chromium.Chromium/.pki/nssdb", ".var/app/com.google.Chrome/.pki/nssdb",
}

// trustStores are those of this machine, of the kinds asked for; without any,
// those that whoever calls can change.
func (a *app) trustStores(kinds []string) []trustStore {
	var all []trustStore
	switch goos := cmp.Or(a.GOOS, runtime.GOOS); goos {
	case "darwin":
		all = []trustStore{a.macStore(storeSystem, "/Library/Keychains/System.keychain"),
			a.macStore(storeUser, filepath.Join(a.Getenv("HOME"), "Library/Keychains/login.keychain-db"))}
	case "windows":
		all = []trustStore{a.windowsStore(storeSystem), a.windowsStore(storeUser)}
	default:
		for _, s := range anchors {
			folder := filepath.Join(cmp.Or(a.Root, "/"), s.folder)
			if info, err := os.Stat(folder); err == nil && info.IsDir() {
				all = append(all, a.anchorStore(folder, s.suffix, s.update, s.gone))
				break
			}
		}
		for _, pattern := range nssFolders {
			found, _ := filepath.Glob(filepath.Join(a.Getenv("HOME"), pattern, "cert9.db"))
			for _, db := range found {
				all = append(all, a.nssStore(filepath.Dir(db)))
			}
		}
	}
	return slices.DeleteFunc(all, func(s trustStore) bool {
		if len(kinds) > 0 {
			return !slices.Contains(kinds, s.kind)
		}
		// Where a person has a store, that is the one meant.
		return s.kind == storeSystem && slices.ContainsFunc(all, func(o trustStore) bool { return o.kind == storeUser })
	})
}

// anchorStore is the store of a Linux system: a file for each authority.
func (a *app) anchorStore(folder, suffix, update string, gone []string) trustStore {
	name := "the system (" + folder + ")"
	path := func(c *x509.Certificate) string {
		return filepath.Join(folder, "o365pw-"+shortPrint(c)+suffix)
	}
	refresh := func(ctx context.Context, args ...string) error {
		_, err := a.ask(ctx, append([]string{update}, args...)...)
		return err
	}
	done := func(err error, what string) error {
		hint := ""
		if errors.Is(err, fs.ErrPermission) {
			err, hint = errNeedsRoot, a.asRoot(what)
		}
		return inStore(name, err, hint)
	}
	return trustStore{
		kind: storeSystem, name: name,
		has: func(_ context.Context, c *x509.Certificate) (bool, error) {
			b, err := os.ReadFile(path(c))
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			return err == nil && bytes.Equal(b, encodeCertificates(c)), inStore(name, err, "")
		},
		add: func(ctx context.Context, c *x509.Certificate) error {
			err := os.WriteFile(path(c), encodeCertificates(c), 0o644) // there is nothing secret in it
			if err == nil {
				if err = refresh(ctx); err != nil {
					_ = os.Remove(path(c)) // half of it must not come into force later
				}
			}
			return done(err, "install")
		},
		remove: func(ctx context.Context, c *x509.Certificate) error {
			err := os.Remove(path(c))
			if err == nil {
				if err = refresh(ctx, gone...); err != nil {
					_ = os.WriteFile(path(c), encodeCertificates(c), 0o644) // else nobody would know that it is still in force
				}
			}
			return done(err, "uninstall")
		},
	}
}

// nssStore is a database of NSS, in a folder. certutil is of its tools.
func (a *app) nssStore(folder string) trustStore {
	name := folder
	certutil := func(ctx context.Context, args ...string) ([]byte, error) {
		out, err := a.ask(ctx, append([]string{"certutil", args[0], "-d", "sql:" + folder}, args[1:]...)...)
		if errors.Is(err, exec.ErrNotFound) {
			return nil, inStore(name, errors.New("certutil, which changes databases of NSS, is not installed"), "sudo apt install libnss3-tools (Fedora: nss-tools, Arch: nss, openSUSE: mozilla-nss-tools); then the same again")
		}
		return out, inStore(name, err, "close the programs that use it, and see that it has no primary password; then the same again")
	}
	has := func(ctx context.Context, c *x509.Certificate) (bool, error) {
		out, err := certutil(ctx, "-L", "-n", nickname(c), "-a")
		if e, ok := errors.AsType[*commandError](err); ok && strings.Contains(e.said, "not find cert") {
			return false, nil
		}
		return bytes.Contains(bytes.ReplaceAll(out, []byte("\r\n"), []byte("\n")), bytes.TrimSpace(encodeCertificates(c))), err
	}
	return trustStore{
		kind: storeNSS, name: name, has: has,
		add: func(ctx context.Context, c *x509.Certificate) error {
			return withCertificateFile(c, func(file string) error {
				_, err := certutil(ctx, "-A", "-n", nickname(c), "-t", "C,,", "-a", "-i", file) // C: for TLS servers alone
				return err
			})
		},
		remove: func(ctx context.Context, c *x509.Certificate) error {
			_, err := certutil(ctx, "-D", "-n", nickname(c))
			return err
		},
	}
}

// macStore is a keychain of macOS, by security(1).
func (a *app) macStore(kind, keychain string) trustStore {
	name := map[string]string{storeSystem: "the system's keychain", storeUser: "your login keychain"}[kind]
	var domain []string
	if kind == storeSystem {
		domain = []string{"-d"}
	}
	security := func(ctx context.Context, what string, args ...string) ([]byte, error) {
		if kind == storeSystem && what != "" && a.Root == "" && os.Geteuid() != 0 {
			return nil, inStore(name, errNeedsRoot, a.asRoot(what))
		}
		out, err := a.ask(ctx, append([]string{"security"}, args...)...)
		return out, inStore(name, err, "")
	}
	return trustStore{
		kind: kind, name: name,
		has: func(ctx context.Context, c *x509.Certificate) (bool, error) {
			out, err := security(ctx, "", "find-certificate", "-a", "-Z", "-c", c.Subject.CommonName, keychain)
			if e, ok := errors.AsType[*commandError](err); ok && strings.Contains(e.said, "could not be found") {
				return false, nil
			}
			return bytes.Contains(out, fmt.Appendf(nil, "SHA-1 hash: %X", sha1.Sum(c.Raw))), err
		},
		add: func(ctx context.Context, c *x509.Certificate) error {
			return withCertificateFile(c, func(file string) error {
				_, err := security(ctx, "install", slices.Concat([]string{"add-trusted-cert"}, domain, []string{"-r", "trustRoot", "-p", "ssl", "-k", keychain, file})...)
				return err
			})
		},
		remove: func(ctx context.Context, c *x509.Certificate) error {
			return withCertificateFile(c, func(file string) error {
				// That it is trusted is kept apart from the certificate, and may be gone.
				_, _ = security(ctx, "uninstall", slices.Concat([]string{"remove-trusted-cert"}, domain, []string{file})...)
				_, err := security(ctx, "uninstall", "delete-certificate", "-Z", fmt.Sprintf("%X", sha1.Sum(c.Raw)), keychain)
				return err
			})
		},
	}
}

// windowsStore is the machine's or the person's store of Windows, by its own
// certutil, which is not that of NSS.
func (a *app) windowsStore(kind string) trustStore {
	name, program := "the machine's store", "certutil"
	var whose []string
	if kind == storeUser {
		name, whose = "your own store", []string{"-user"}
	}
	if root := a.Getenv("SystemRoot"); root != "" {
		program = filepath.Join(root, "System32", "certutil.exe")
	}
	certutil := func(ctx context.Context, args ...string) ([]byte, error) {
		out, err := a.ask(ctx, slices.Concat([]string{program}, whose, args)...)
		// It writes its faults to standard output, in the language of the system.
		if _, ok := errors.AsType[*commandError](err); ok && kind == storeSystem {
			return out, inStore(name, err, "run the same as an administrator; or for yourself alone: --store user")
		}
		return out, inStore(name, err, "")
	}
	print1 := func(c *x509.Certificate) string { return fmt.Sprintf("%x", sha1.Sum(c.Raw)) }
	return trustStore{
		kind: kind, name: name,
		has: func(ctx context.Context, c *x509.Certificate) (bool, error) {
			_, err := certutil(ctx, "-store", "Root", print1(c))
			if _, ok := errors.AsType[*commandError](err); ok && !errors.Is(err, exec.ErrNotFound) {
				return false, nil // it fails where there is none
			}
			return err == nil, err
		},
		add: func(ctx context.Context, c *x509.Certificate) error {
			return withCertificateFile(c, func(file string) error {
				_, err := certutil(ctx, "-addstore", "Root", file)
				return err
			})
		},
		remove: func(ctx context.Context, c *x509.Certificate) error {
			_, err := certutil(ctx, "-delstore", "Root", print1(c))
			return err
		},
	}
}

func inStore(store string, err error, hint string) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*trustError](err); ok {
		return e
	}
	return &trustError{store, err, hint}
}

// asRoot is the command for whoever may change the system's store: it works on
// the same state folder.
func (a *app) asRoot(what string) string {
	program, err := os.Executable()
	if err != nil {
		program = "o365pw"
	}
	dir, _ := a.stateDir()
	args := []string{"sudo", "env", "O365PW_STATE=" + dir, program, "cert", what, "--store", storeSystem}
	if what == "install" {
		args = append(args, "--yes")
	}
	for i, arg := range args {
		args[i] = shellQuote(arg)
		if strings.HasPrefix(arg, "--") || strings.HasPrefix(arg, "O365PW_STATE=") && shellQuote(dir) == dir {
			args[i] = arg
		}
	}
	return strings.Join(args, " ")
}

// shortPrint is the beginning of a certificate's fingerprint, for names.
func shortPrint(c *x509.Certificate) string { return fmt.Sprintf("%.4x", sha256.Sum256(c.Raw)) }

// nickname is what NSS calls a certificate.
func nickname(c *x509.Certificate) string { return c.Subject.CommonName + " " + shortPrint(c) }

// withCertificateFile puts a certificate into a file for a program to read.
func withCertificateFile(c *x509.Certificate, f func(path string) error) error {
	file, err := os.CreateTemp("", "o365pw-ca-*.crt")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(encodeCertificates(c))
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	return f(file.Name())
}

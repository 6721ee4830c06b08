package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/o365pw/o365pw/pkg/internal/durable"
	"github.com/o365pw/o365pw/pkg/secret"
)

// encryptedPassphrase is where systemd finds the credential of that name.
const encryptedPassphrase = "/etc/credstore.encrypted/" + passphraseCredential

// passphrase makes one for the machine's keychain, unless there is one. Nobody
// has to know it: root can read it with systemd-creds.
func (s *systemd) passphrase() []serviceStep {
	path := s.a.systemPath(encryptedPassphrase)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(s.a.systemPath(serviceDir), "keychain.age")); err == nil {
		// The keychain has a passphrase, which is not known here.
		s.a.warn("the service does not know the passphrase of the keychain in %s; put it there with: systemd-ask-password -n | sudo systemd-creds encrypt - %s", serviceDir, encryptedPassphrase)
		return nil
	}
	encrypt := []string{"systemd-creds", "encrypt", "--name=" + passphraseCredential, "-", "-"}
	return []serviceStep{{
		show: "a random passphrase | " + commandLine(encrypt) + " > " + shellQuote(path),
		run: func(ctx context.Context) error {
			sealed, err := s.a.askWith(ctx, secret.New(rand.Text()), encrypt...)
			if err != nil {
				return err
			}
			if err := durable.WriteFile(path, sealed); err != nil {
				return err
			}
			s.a.note("wrote %s: the keychain's passphrase, made at random and encrypted for this machine", encryptedPassphrase)
			return nil
		},
	}}
}

// passphraseFile makes a file with a random passphrase that only its owner can
// read, unless it is there. Where it is a link, that is of the service's making,
// and led to by nothing that runs as root.
func (a *app) passphraseFile(path string) []serviceStep {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	return []serviceStep{{
		show: "a random passphrase > " + shellQuote(path),
		run: func(context.Context) error {
			passphrase := secret.New(rand.Text() + "\n")
			if err := durable.WriteFile(path, []byte(passphrase.Reveal())); err != nil {
				return err
			}
			a.note("wrote %s: the keychain's passphrase, made at random", path)
			return nil
		},
	}}
}

// checkPassphraseFile gives the absolute path of a file that only its owner can
// read.
func (a *app) checkPassphraseFile(name string) (string, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	switch others, err := readableByOthers(path); {
	case errors.Is(err, fs.ErrNotExist):
		return "", &usageError{problem: "--passphrase-file: there is no file " + path, hint: "make it with mode 600, with the passphrase as its only line"}
	case err != nil:
		return "", err
	case others:
		return "", &usageError{problem: "--passphrase-file: others can read " + path, hint: keepFromOthers(path)}
	}
	return path, nil
}

// keepFromOthers is the command that makes a file its owner's alone.
func keepFromOthers(path string) string {
	if runtime.GOOS == "windows" {
		return `icacls "` + path + `" /inheritance:r /grant:r *S-1-5-18:F *S-1-5-32-544:F`
	}
	return "chmod 600 " + shellQuote(path)
}

// serviceVariables say where things are. A person's service gets them as they
// are in the shell that installs it.
var serviceVariables = []string{
	"O365PW_CONFIG", "O365PW_STATE", "O365PW_PROFILE", "O365PW_TENANT", "O365PW_CLIENT_ID", "O365PW_KEYCHAIN", "O365PW_KEYCHAIN_PASSPHRASE_FILE",
	"XDG_CONFIG_HOME", "XDG_STATE_HOME", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
}

// serviceEnviron are the variables of a person's service.
func (a *app) serviceEnviron(passphraseFile string) (environ []string, err error) {
	given := map[string]string{}
	if passphraseFile != "" {
		given["O365PW_KEYCHAIN_PASSPHRASE_FILE"] = passphraseFile
	} else if a.Getenv("O365PW_KEYCHAIN_PASSPHRASE") != "" && a.Getenv("O365PW_KEYCHAIN_PASSPHRASE_FILE") == "" {
		return nil, &usageError{problem: "O365PW_KEYCHAIN_PASSPHRASE is a secret, and would be in a file that others can read", hint: "write it into a file with mode 600, and add --passphrase-file FILE"}
	}
	if a.configPath != "" {
		given["O365PW_CONFIG"] = a.configPath
	}
	if a.profile != "" {
		given["O365PW_PROFILE"] = a.profile
	}
	for _, name := range serviceVariables {
		value := given[name]
		if value == "" {
			value = a.Getenv(name)
		}
		if value == "" {
			continue
		}
		if strings.HasSuffix(strings.ToUpper(name), "_PROXY") && strings.Contains(value, "@") {
			a.warn("%s has a password in it, and is not written into the service's file, which others can read", name)
			continue
		}
		switch name {
		case "O365PW_CONFIG", "O365PW_STATE", "O365PW_KEYCHAIN_PASSPHRASE_FILE", "SSL_CERT_FILE":
			if value, err = filepath.Abs(value); err != nil {
				return nil, err
			}
		}
		environ = append(environ, name+"="+value)
	}
	return environ, nil
}

// identity is that of the unit, whoever has installed it.
func (s *systemd) identity(ctx context.Context) (serviceIdentity, error) {
	return serviceIdentity{
		user: serviceUser,
		environ: []string{
			"O365PW_CONFIG=" + s.a.systemPath(serviceConfig+"/config.toml"), "O365PW_STATE=" + s.a.systemPath(serviceDir), "O365PW_KEYCHAIN=file",
		},
		passphrase: s.keptPassphrase,
	}, nil
}

// keptPassphrase is the one that systemd gives to the service; empty: none, so
// that a person is asked.
func (s *systemd) keptPassphrase(ctx context.Context) (secret.Text, error) {
	unit, err := os.ReadFile(filepath.Join(s.dir, serviceName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return secret.Text{}, err
	}
	var b []byte
	if _, after, ok := strings.Cut(string(unit), "\nLoadCredential="+passphraseCredential+":"); ok {
		path, _, _ := strings.Cut(after, "\n")
		b, err = os.ReadFile(strings.ReplaceAll(path, "%%", "%"))
	} else if path := s.a.systemPath(encryptedPassphrase); exists(path) {
		b, err = s.a.ask(ctx, "systemd-creds", "decrypt", "--name="+passphraseCredential, path, "-")
	} else {
		return secret.Text{}, nil
	}
	return secret.New(strings.TrimRight(string(b), "\r\n")), err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

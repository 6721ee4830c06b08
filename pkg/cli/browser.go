package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/cli/browser"
)

// openers are the programs that open an address in the person's browser, by
// system. Windows has a call for that, which starts no child.
var openers = map[string]string{
	"darwin": "open",
	"":       "xdg-open:x-www-browser:www-browser:wslview",
}

// openBrowser opens url in the person's browser: the one BROWSER names (a
// list with colons, %s standing for the URL), else the system's.
func (a *app) openBrowser(url string) error {
	named := a.Getenv("BROWSER")
	if named == "" && runtime.GOOS == "windows" {
		browser.Stdout = io.Discard // stdout is for data; what a browser says is none
		return browser.OpenURL(url)
	}
	list, what := named, "open the browser that BROWSER names"
	if named == "" {
		what = "open a browser"
		if list = openers[runtime.GOOS]; list == "" {
			list = openers[""]
		}
	}
	err := errors.New("there is none")
	for candidate := range strings.SplitSeq(list, ":") {
		args := strings.Fields(candidate)
		if len(args) == 0 {
			continue
		}
		placed := false
		for i := range args {
			if strings.Contains(args[i], "%s") {
				args[i], placed = strings.ReplaceAll(args[i], "%s", url), true
			}
		}
		if !placed {
			args = append(args, url)
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = childEnviron(os.Environ())
		if err = cmd.Start(); err == nil {
			go func() { _ = cmd.Wait() }() // a browser may live as long as the person wants
			return nil
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}

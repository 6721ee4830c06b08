package cli

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/cli/browser"
)

// openBrowser opens url in the person's browser: the one BROWSER names (a
// list with colons, %s standing for the URL), else the system's.
func (a *app) openBrowser(url string) error {
	named := a.Getenv("BROWSER")
	if named == "" {
		browser.Stdout = io.Discard // stdout is for data; what a browser says is none
		return browser.OpenURL(url)
	}
	var err error
	for candidate := range strings.SplitSeq(named, ":") {
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
		cmd.Env = hookEnviron(os.Environ())
		if err = cmd.Start(); err == nil {
			go func() { _ = cmd.Wait() }() // a browser may live as long as the person wants
			return nil
		}
	}
	return fmt.Errorf("open the browser that BROWSER names: %w", err)
}

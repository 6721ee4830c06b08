package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// clipboardTools are tried in this order. Each takes the text on its standard
// input: an argument could be read by everybody on the machine.
func (a *app) clipboardTools() [][]string {
	switch runtime.GOOS {
	case "darwin":
		return [][]string{{"pbcopy"}}
	case "windows":
		return [][]string{{"clip.exe"}}
	}
	var tools [][]string
	if a.Getenv("WAYLAND_DISPLAY") != "" {
		tools = append(tools, []string{"wl-copy"})
	}
	if a.Getenv("DISPLAY") != "" {
		tools = append(tools, []string{"xclip", "-selection", "clipboard"}, []string{"xsel", "--clipboard", "--input"})
	}
	return tools
}

// copyToClipboard puts a secret on the clipboard: by the platform's tool, or
// by the terminal itself (OSC 52), which also reaches through SSH.
func (a *app) copyToClipboard(ctx context.Context, text secret.Text) error {
	if a.Getenv("SSH_CONNECTION") == "" {
		for _, tool := range a.clipboardTools() {
			path, err := exec.LookPath(tool[0])
			if err != nil {
				continue
			}
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, path, tool[1:]...)
			cmd.Env = childEnviron(os.Environ())
			cmd.Stdin = strings.NewReader(a.revealed(text))
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("copy to the clipboard with %s: %w", tool[0], err)
			}
			return nil
		}
	}
	tty, err := openTerminal()
	if err != nil {
		return &usageError{problem: "there is no clipboard here: neither a clipboard program nor a terminal", hint: "install wl-copy, xclip or xsel, or use --password"}
	}
	defer tty.Close()
	if _, err := fmt.Fprintf(tty, "\x1b]52;c;%s\a", base64.StdEncoding.EncodeToString([]byte(a.revealed(text)))); err != nil {
		return errors.Join(errors.New("copy to the clipboard by the terminal"), err)
	}
	return nil
}

package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/o365pw/o365pw/pkg/secret"
)

// clipboardTool is a program that has the clipboard. The text goes to its
// standard input: an argument could be read by everybody on the machine.
type clipboardTool struct {
	copy  []string
	paste []string
	clear []string // with nothing on its standard input
}

// clipboardTools are tried in this order.
func clipboardTools(goos string, getenv func(string) string) []clipboardTool {
	switch goos {
	case "darwin":
		return []clipboardTool{{[]string{"pbcopy"}, []string{"pbpaste"}, []string{"pbcopy"}}}
	case "windows":
		return []clipboardTool{{[]string{"clip.exe"}, []string{"powershell.exe", "-NoProfile", "-NonInteractive", "-Command", "Get-Clipboard -Raw"}, []string{"clip.exe"}}}
	}
	var tools []clipboardTool
	if getenv("WAYLAND_DISPLAY") != "" {
		paste, empty := []string{"wl-paste", "--no-newline"}, []string{"wl-copy", "--clear"}
		// Managers of clipboards keep nothing that is sensitive. Older ones of
		// these programs do not know the word.
		tools = append(tools, clipboardTool{[]string{"wl-copy", "--sensitive"}, paste, empty}, clipboardTool{[]string{"wl-copy"}, paste, empty})
	}
	if getenv("DISPLAY") != "" {
		xclip, xsel := []string{"xclip", "-selection", "clipboard"}, []string{"xsel", "--clipboard"}
		tools = append(tools, clipboardTool{xclip, append(slices.Clone(xclip), "-o"), xclip},
			clipboardTool{append(slices.Clone(xsel), "--input"), append(slices.Clone(xsel), "--output"), append(slices.Clone(xsel), "--clear")})
	}
	return tools
}

// clipboardTimeout bounds one run of a program: some wait for a display.
const clipboardTimeout = 5 * time.Second

// clipboardCommand is a command of a tool. Where it is not installed, running it
// fails with [exec.ErrNotFound].
func clipboardCommand(ctx context.Context, words []string, in string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = childEnviron(os.Environ())
	cmd.Stdin = strings.NewReader(in)
	cmd.WaitDelay = time.Second // what it leaves running must not hold this
	return cmd
}

// copyToClipboard puts a secret on the clipboard: by the platform's tool, or
// by the terminal itself (OSC 52), which also reaches through SSH. After a while
// it is taken off again; 0: it stays. byTerminal: nothing tells whether it is there.
func (a *app) copyToClipboard(ctx context.Context, text secret.Text, after time.Duration) (byTerminal bool, err error) {
	order := clearOrder{After: after, Sum: clipboardSum([]byte(a.revealed(text)))}
	var failure error
	if a.Getenv("SSH_CONNECTION") == "" {
		for _, tool := range clipboardTools(runtime.GOOS, a.Getenv) {
			ctx, cancel := context.WithTimeout(ctx, clipboardTimeout)
			err := clipboardCommand(ctx, tool.copy, a.revealed(text)).Run()
			cancel()
			switch {
			case err == nil:
				order.Paste, order.Clear = tool.paste, tool.clear
				return false, a.clearLater(order, nil)
			case !errors.Is(err, exec.ErrNotFound):
				failure = fmt.Errorf("copy to the clipboard with %s: %w", tool.copy[0], err)
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	tty, err := openTerminal()
	if err != nil && failure != nil {
		return false, failure
	}
	if err != nil {
		return false, &usageError{problem: "there is no clipboard here: neither a clipboard program nor a terminal", hint: "use --password; or, at a desktop, install wl-copy, xclip or xsel"}
	}
	defer tty.Close()
	out, err := terminalOutput(tty)
	if err != nil {
		return false, fmt.Errorf("copy to the clipboard by the terminal: %w", err)
	}
	if out != tty {
		defer out.Close()
	}
	if _, err := io.WriteString(out, clipboardSequence(base64.StdEncoding.EncodeToString([]byte(a.revealed(text))))); err != nil {
		return false, fmt.Errorf("copy to the clipboard by the terminal: %w", err)
	}
	return true, a.clearLater(order, out)
}

// clipboardSequence sets the clipboard of the terminal (xterm's OSC 52). What is
// not base64 empties it.
func clipboardSequence(data string) string { return "\x1b]52;c;" + data + "\a" }

// clipboardSum is how a text is known again. Programs add a line's end.
func clipboardSum(text []byte) string {
	sum := sha256.Sum256(bytes.TrimRight(text, "\r\n"))
	return hex.EncodeToString(sum[:])
}

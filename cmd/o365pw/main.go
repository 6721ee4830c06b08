// Command o365pw makes app passwords for Microsoft 365 mailboxes and runs the
// gateway on which mail programs sign in with them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/o365pw/o365pw/pkg/cli"
)

func main() {
	// A reader that leaves early ends nothing halfway: the write fails instead.
	// Programs started from here do not inherit that, as they would an Ignore.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, cli.OS())
	stop()
	os.Exit(code)
}

//go:build unix

package cli_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// powershell FILE: runs a file as an administrator of Exchange would, unchanged,
// by the sandbox's endpoint, and prints what it prints. With "!" it must fail.
func cmdPowerShell(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: powershell FILE")
	}
	resp, err := http.Post(of(ts).sandbox.Authority()+"/sandbox/powershell", "text/plain", strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s", b)
	if (resp.StatusCode == http.StatusOK) == neg {
		ts.Fatalf("HTTP status %s: %s", resp.Status, b)
	}
}

// nowrites: Graph was never asked to change anything.
func cmdNoWrites(ts *testscript.TestScript, neg bool, args []string) {
	wrote := false
	for _, r := range of(ts).sandbox.Requests() {
		if r.Service == "graph" && r.Method != http.MethodGet {
			wrote = true
			if !neg {
				ts.Fatalf("%s %s", r.Method, r.Path)
			}
		}
	}
	if neg && !wrote {
		ts.Fatalf("nothing was written")
	}
}

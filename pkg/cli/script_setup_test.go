//go:build unix

package cli_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// browse visits an address and follows its redirects, as a person with a session
// would. Where a sign-in page is shown, it is user who signs in there.
func browse(address, user string) error {
	resp, err := http.Get(address)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	request := regexp.MustCompile(`name="request" value="([^"]+)"`).FindSubmatch(page)
	action := regexp.MustCompile(`<form method="post" action="([^"]+)"`).FindSubmatch(page)
	if err != nil || user == "" || request == nil || action == nil {
		return err
	}
	to, err := resp.Request.URL.Parse(string(action[1]))
	if err != nil {
		return err
	}
	done, err := http.PostForm(to.String(), url.Values{"request": {string(request[1])}, "user": {user}, "action": {"accept"}})
	if err != nil {
		return err
	}
	defer done.Body.Close()
	_, err = io.Copy(io.Discard, done.Body)
	return err
}

// powershell FILE: runs a file as an administrator of Exchange would, unchanged,
// by the sandbox's endpoint, and prints what it prints. With "!" it must fail.
func cmdPowerShell(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: powershell LINE... | FILE")
	}
	lines := strings.Join(args, "\n")
	if !strings.Contains(lines, " ") {
		lines = ts.ReadFile(lines)
	}
	resp, err := http.Post(of(ts).sandbox.Authority()+"/sandbox/powershell", "text/plain", strings.NewReader(lines))
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

// await FILE PATTERN: waits until the file holds what matches.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE PATTERN")
	}
	pattern := regexp.MustCompile("(?m)" + args[1])
	for range 1200 {
		if b, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && pattern.Match(b) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("%s never held %s", args[0], args[1])
}

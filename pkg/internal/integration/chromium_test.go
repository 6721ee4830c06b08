//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is for one step of a browser on a machine with much else to do.
const patience = time.Minute

// startChromium runs Chromium without a window until the test ends.
func startChromium(t *testing.T) context.Context {
	t.Helper()
	home := t.TempDir()
	allocator, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(tool(t, "chromium")),
		chromedp.UserDataDir(filepath.Join(home, "profile")),
		chromedp.Env("HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home),
		// Its sandbox needs what containers and root do not have. The pages
		// are the test's own.
		chromedp.NoSandbox,
		chromedp.Flag("host-resolver-rules", "MAP rebound.test 127.0.0.1"),
	)...)
	ctx, _ := chromedp.NewContext(allocator, chromedp.WithErrorf(t.Logf))
	t.Cleanup(func() {
		closing, stop := context.WithTimeout(ctx, 20*time.Second)
		defer stop()
		if err := chromedp.Cancel(closing); err != nil {
			t.Errorf("end of Chromium: %v", err)
		}
		cancel()
	})
	must(t, chromedp.Do(ctx))
	return ctx
}

// tab is one tab, with cookies of its own.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	requests []request
	statuses map[network.RequestID]int64 // of the last answer, also where the page does not get to see it
	trouble  []string                    // what the console and the security checks say
}

// request is one that a page has made.
type request struct {
	id  network.RequestID
	url string
}

func newTab(t *testing.T, browser context.Context) *tab {
	t.Helper()
	b := &tab{t: t, statuses: map[network.RequestID]int64{}}
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	b.ctx = ctx
	t.Cleanup(cancel)
	must(t, chromedp.Listen(ctx, b.note))
	_, err := chromedp.Call(ctx, audits.Enable, cdp.Empty{})
	must(t, err)
	return b
}

// note keeps what the browser tells of the page.
func (b *tab) note(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, request{e.RequestID, e.Request.URL})
	case *network.EventResponseReceivedExtraInfo: // which may come before the request
		b.statuses[e.RequestID] = e.StatusCode
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			b.trouble = append(b.trouble, fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL))
		}
	case *runtime.EventConsoleAPICalled:
		b.trouble = append(b.trouble, fmt.Sprintf("console: %s", e.Type))
	case *runtime.EventExceptionThrown:
		b.trouble = append(b.trouble, "exception: "+e.ExceptionDetails.Text)
	case *audits.EventIssueAdded:
		b.trouble = append(b.trouble, fmt.Sprintf("issue: %s", e.Issue.Code))
	}
}

// status is that of the answer to a request; 0 where there is none yet.
func (b *tab) status(r request) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.statuses[r.id]
}

// noted is what was noted so far.
func (b *tab) noted() (requests []request, trouble []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.requests), slices.Clone(b.trouble)
}

// do runs actions, which have to end in time.
func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		requests, trouble := b.noted()
		b.t.Fatalf("%v\nrequests: %+v\ntrouble: %q", err, requests, trouble)
	}
}

// evaluate runs a script, and waits for what it promises.
func evaluate[T any](b *tab, script string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	must(b.t, err)
	return v
}

// scheme is the colour scheme that the person has set.
func (b *tab) scheme(name string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	})
	must(b.t, err)
}

// screenshot writes what the page looks like to a file that -artifacts keeps.
func (b *tab) screenshot(name string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	must(b.t, err)
	path := filepath.Join(b.t.ArtifactDir(), strings.ReplaceAll(name, " ", "-")+".png")
	must(b.t, os.WriteFile(path, png, 0o600))
}

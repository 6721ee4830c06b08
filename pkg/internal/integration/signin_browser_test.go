//go:build integration

package integration

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/o365pw/o365pw/pkg/sandbox"
)

// TestSignInChromium is login with a browser that people use: somebody clicks
// through the sign-in pages, and ends at the page that o365pw shows.
func TestSignInChromium(t *testing.T) {
	t.Parallel()
	browser := startChromium(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, context.Context)
	}{
		{"signed in", testChromiumSignedIn},
		{"declined", testChromiumDeclined},
		{"opened twice", testChromiumTwice},
		{"other sites", testChromiumOtherSites},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, browser) })
	}
}

// waiting is o365pw that waits for the answer of the browser.
type waiting struct {
	*lab
	*process
	address  string // to open
	callback *url.URL
	gate     *gate
}

// startLogin runs login, whose BROWSER is the test. The sandbox behind it is
// reached through a gate.
func startLogin(t *testing.T) *waiting {
	t.Helper()
	s := &sandbox.Server{}
	must(t, s.Start())
	t.Cleanup(func() { s.Close() })
	g := newGate(t, s.Authority())
	l := newUser(t, g.address, s.Tenant, s.LoginClientID())
	opened := make(chan string, 1)
	l.browser(func(address string) { opened <- address })
	w := &waiting{lab: l, process: l.start(binary, "login"), gate: g}
	select {
	case w.address = <-opened:
	case <-time.After(patience):
		t.Fatalf("login opens no browser:\n%s", w.out)
	}
	u, err := url.Parse(w.address)
	must(t, err)
	w.callback, err = url.Parse(u.Query().Get("redirect_uri"))
	must(t, err)
	w.callback.Path = "/"
	w.callback.RawQuery = url.Values{"state": {u.Query().Get("state")}}.Encode()
	return w
}

// answer is the address of an answer with the right state and some code.
func (w *waiting) answer(code string) string { return w.callback.String() + "&code=" + code }

func testChromiumSignedIn(t *testing.T, browser context.Context) {
	w := startLogin(t)
	b := newTab(t, browser)
	b.do(chromedp.Navigate(w.address), chromedp.Click(chromedp.CSS(`button[value="`+mailbox+`"]`)),
		chromedp.WaitVisible(chromedp.CSS("svg.done")))
	b.checkText("Signed in", "as "+mailbox, "go back to the terminal")
	b.checkLook("signed in")
	b.checkQuiet(w, "")
	if code := w.wait(patience); code != 0 || !strings.Contains(w.out.String(), "signed in as "+mailbox) {
		t.Errorf("login: exit code %d\n%s", code, w.out)
	}
}

func testChromiumDeclined(t *testing.T, browser context.Context) {
	w := startLogin(t)
	b := newTab(t, browser)
	b.do(chromedp.Navigate(w.address), chromedp.Click(chromedp.CSS(`button[value="decline"]`)),
		chromedp.WaitVisible(chromedp.CSS("svg.failed")))
	b.checkText("Not signed in", "cancelled or declined", "begin again in the terminal", "AADSTS65004")
	b.checkLook("declined")
	b.checkQuiet(w, "")
	if code := w.wait(patience); code != 3 || !strings.Contains(w.out.String(), "AADSTS65004") {
		t.Errorf("login: exit code %d\n%s", code, w.out)
	}
}

// testChromiumTwice opens the address of the answer again, while the first
// waits for its token and after the end.
func testChromiumTwice(t *testing.T, browser context.Context) {
	w := startLogin(t)
	w.gate.close()
	b := newTab(t, browser)
	b.do(chromedp.Navigate(w.address), chromedp.Click(chromedp.CSS(`button[value="`+mailbox+`"]`)))
	w.gate.await(t)

	second := newTab(t, browser)
	second.do(chromedp.Navigate(w.answer("another")))
	second.checkText("Refused", "This sign-in has had its answer.", "Nothing was changed")
	second.checkLook("opened twice")
	second.checkQuiet(w, "409")

	w.gate.open()
	b.do(chromedp.WaitVisible(chromedp.CSS("svg.done")))
	if code := w.wait(patience); code != 0 {
		t.Errorf("login: exit code %d\n%s", code, w.out)
	}
	// Nobody is there any more.
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Reload()); err == nil || !strings.Contains(err.Error(), "ERR_CONNECTION_REFUSED") {
		t.Errorf("the address of the answer, after the end: %v", err)
	}
}

// testChromiumOtherSites: pages of another site that know even the state get
// nothing of the answer, and do not use it up. Nor does a sign-in with another
// state, or a name of somebody else's that leads to this machine (DNS
// rebinding).
func testChromiumOtherSites(t *testing.T, browser context.Context) {
	w := startLogin(t)
	hostile := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(rw, `<!DOCTYPE html><title>another site</title><link rel="icon" href="data:,"><body></body>`)
	}))
	t.Cleanup(hostile.Close)
	other := newTab(t, browser)
	other.do(chromedp.Navigate(hostile.URL))
	// 127.0.0.1 and localhost are two sites.
	got := evaluate[map[string]string](other, fmt.Sprintf(`(async () => {
		const at = name => %q + name;
		const got = {};
		for (const mode of ['cors', 'no-cors'])
			got[mode] = await fetch(at(mode), {mode, credentials: 'include'}).then(r => r.type + ' ' + r.status, e => e.name);
		const elements = {
			image: ['img', (e, a) => { e.src = a }],
			script: ['script', (e, a) => { e.src = a }],
			style: ['link', (e, a) => { e.rel = 'stylesheet'; e.href = a }],
			prefetch: ['link', (e, a) => { e.rel = 'prefetch'; e.href = a }],
			object: ['object', (e, a) => { e.data = a }],
			frame: ['iframe', (e, a) => { e.src = a }],
		};
		for (const [name, [tag, set]] of Object.entries(elements))
			got[name] = await new Promise(done => {
				const e = document.createElement(tag);
				e.onload = () => done(e.contentDocument === null ? 'out of reach' : 'load');
				e.onerror = () => done('error');
				set(e, at(name));
				document.body.append(e);
			});
		return got;
	})()`, w.answer("")))
	want := map[string]string{
		"cors": "TypeError", "no-cors": "opaque 0", "image": "error", "script": "error", "style": "error", "prefetch": "error",
		"object": "error", "frame": "out of reach",
	}
	if !maps.Equal(got, want) {
		t.Errorf("the other site has got %v, want %v", got, want)
	}
	for name := range want {
		other.checkStatus(w.answer(name), http.StatusForbidden)
	}

	stranger := newTab(t, browser)
	rebound := strings.Replace(w.answer("rebound"), "//localhost:", "//rebound.test:", 1)
	stranger.do(chromedp.Navigate(rebound))
	stranger.checkText("Refused", "This address is not for others.")
	stranger.checkStatus(rebound, http.StatusForbidden)

	another := newTab(t, browser)
	wrong := "http://" + w.callback.Host + "/?code=x&state=another"
	another.do(chromedp.Navigate(wrong))
	another.checkText("Refused", "not the answer to the sign-in that is waiting", "Nothing was changed")
	another.checkStatus(wrong, http.StatusBadRequest)
	another.checkLook("refused")
	another.checkQuiet(w, "400")

	b := newTab(t, browser)
	b.do(chromedp.Navigate(w.address), chromedp.Click(chromedp.CSS(`button[value="`+mailbox+`"]`)),
		chromedp.WaitVisible(chromedp.CSS("svg.done")))
	if code := w.wait(patience); code != 0 {
		t.Errorf("login: exit code %d\n%s", code, w.out)
	}
}

// checkStatus looks for the answer to the one request for address.
func (b *tab) checkStatus(address string, status int64) {
	b.t.Helper()
	var found []request
	eventually(b.t, "the answer to "+address, func() bool {
		found, _ = b.noted()
		found = slices.DeleteFunc(found, func(r request) bool { return r.url != address })
		return len(found) > 0 && b.status(found[0]) != 0
	})
	if got := b.status(found[0]); len(found) != 1 || got != status {
		b.t.Errorf("%s: %d requests, answered by %d, want one and %d", address, len(found), got, status)
	}
}

// checkText looks for text on the page.
func (b *tab) checkText(heading string, texts ...string) {
	b.t.Helper()
	if got := evaluate[string](b, `document.querySelector('h1').innerText`); got != heading {
		b.t.Errorf("the heading is %q, want %q", got, heading)
	}
	page := evaluate[string](b, `document.body.innerText`)
	for _, text := range texts {
		if !strings.Contains(page, text) {
			b.t.Errorf("the page does not say %q:\n%s", text, page)
		}
	}
}

// checkQuiet: nothing was asked for but the pages of the sign-in and one of
// o365pw, and the browser has no complaint but the status of that page.
func (b *tab) checkQuiet(w *waiting, status string) {
	b.t.Helper()
	requests, complaints := b.noted()
	pages := 0
	for _, r := range requests {
		u, err := url.Parse(r.url)
		must(b.t, err)
		if u.Host == w.callback.Host {
			pages++
		} else if u.Scheme+"://"+u.Host != w.gate.address {
			b.t.Errorf("a request to %s", r.url)
		}
	}
	if pages != 1 {
		b.t.Errorf("%d requests to o365pw, want one: %+v", pages, requests)
	}
	for _, trouble := range complaints {
		if status == "" || !strings.HasPrefix(trouble, "network error: ") || !strings.Contains(trouble, "status of "+status) {
			b.t.Errorf("the browser complains: %s", trouble)
		}
	}
}

// painted is a text on the page, or the mark, with its colours.
type painted struct {
	What   string
	Ink    []float64 // red, green, blue
	Ground []float64
}

// checkLook holds the page's colours against WCAG 2.2 (1.4.3, 1.4.11) in both
// colour schemes, and its width against a small telephone (1.4.10).
func (b *tab) checkLook(name string) {
	b.t.Helper()
	grounds := map[string]float64{}
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		list := evaluate[[]painted](b, `(() => {
			const rgb = s => s.match(/[\d.]+/g).map(Number);
			const ground = e => {
				for (; e; e = e.parentElement) {
					const c = rgb(getComputedStyle(e).backgroundColor);
					if (c.length < 4 || c[3] === 1) return c.slice(0, 3);
					if (c[3] !== 0) throw new Error('half transparent');
				}
				throw new Error('no background');
			};
			return [...document.querySelectorAll('h1, p, footer, svg')].map(e => (
				{What: e.localName + ' ' + e.getAttribute('class'), Ink: rgb(getComputedStyle(e).color).slice(0, 3), Ground: ground(e)}));
		})()`)
		if len(list) < 5 {
			b.t.Errorf("%s: only %d things to see on the page", name, len(list))
		}
		for _, p := range list {
			least := 4.5
			if strings.HasPrefix(p.What, "svg") {
				least = 3
			}
			if c := contrast(p.Ink, p.Ground); c < least {
				b.t.Errorf("%s, %s: %s has a contrast of %.2f, less than %v", name, scheme, p.What, c, least)
			}
		}
		grounds[scheme] = luminance(list[0].Ground)
		b.screenshot(name + " " + scheme)
	}
	if light, dark := grounds["light"], grounds["dark"]; light < 0.7 || dark > 0.1 {
		b.t.Errorf("%s: the luminance of the background is %.2f in light colours and %.2f in dark ones", name, light, dark)
	}
	b.do(chromedp.EmulateViewport(320, 568))
	if wide := evaluate[int](b, `document.documentElement.scrollWidth`); wide > 320 {
		b.t.Errorf("%s: %d pixels wide on a display of 320", name, wide)
	}
	b.screenshot(name + " narrow")
	b.do(chromedp.ResetViewport())
}

// contrast is the contrast ratio of WCAG 2.2.
func contrast(a, b []float64) float64 {
	l := []float64{luminance(a), luminance(b)}
	slices.Sort(l)
	return (l[1] + 0.05) / (l[0] + 0.05)
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(rgb []float64) float64 {
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		c := rgb[i] / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

package cli

import (
	"bytes"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// scraped is a page of metrics as Prometheus reads it: by name, the value of
// each series by its labels.
func scraped(t *testing.T, page []byte) map[string]map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, page)
	}
	values := map[string]map[string]float64{}
	for name, f := range families {
		if f.GetHelp() == "" || f.GetType().String() == "UNTYPED" {
			t.Errorf("%s has no help or no type", name)
		}
		values[name] = map[string]float64{}
		for _, m := range f.GetMetric() {
			var parts []string
			for _, l := range m.GetLabel() {
				parts = append(parts, l.GetName()+"="+l.GetValue())
			}
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			values[name][strings.Join(parts, " ")] = v
		}
	}
	return values
}

// observed is a metrics of two app passwords, whose sessions and clock the test
// sets.
type observed struct {
	*metrics
	recs []apppassword.Record
	open []gateway.Session
	at   time.Time
}

// A rotation changes the id, and takes no count back.
func TestMetricsOfARotation(t *testing.T) {
	o := newObserved()
	sent := func(id string) {
		o.observe(gateway.Event{Kind: gateway.SignedIn, Protocol: gateway.SMTP, Grant: gateway.Grant{ID: id}})
		o.observe(gateway.Event{Kind: gateway.MessageSent, Protocol: gateway.SMTP, Grant: gateway.Grant{ID: id}})
	}
	check := func(when string, signIns, messages float64) {
		t.Helper()
		page := scraped(t, o.page())
		if got := page["o365pw_sign_ins_total"]["protocol=smtp result=ok app_password=mutt"]; got != signIns {
			t.Errorf("%s: %v sign-ins", when, got)
		}
		if got := page["o365pw_messages_sent_total"]["app_password=mutt"]; got != messages {
			t.Errorf("%s: %v messages", when, got)
		}
	}
	sent("2")
	check("before", 1, 1)
	o.recs[1].ID, o.recs[1].Previous = "3", &apppassword.Previous{ID: "2"}
	o.rotated()
	check("rotated", 1, 1)
	sent("2")
	sent("3")
	o.open = []gateway.Session{{AppID: "2", Name: "mutt", Protocol: gateway.IMAP}, {AppID: "3", Name: "mutt", Protocol: gateway.IMAP}}
	check("both", 3, 3)
	if got := scraped(t, o.page())["o365pw_sessions"]["protocol=imap app_password=mutt"]; got != 2 {
		t.Errorf("%v sessions", got)
	}
	o.recs[1].ID = "4" // rotated again
	o.rotated()
	check("again", 3, 3)
	o.recs[1].ID = "3"
	o.rotated()
	o.recs[1].Previous, o.open = nil, nil
	o.rotated()
	sent("3")
	check("over", 4, 4)
}

func newObserved() *observed {
	o := &observed{at: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	o.recs = []apppassword.Record{
		{ID: "1", Name: "Outlook \"on\"\\Mac\n2", Profile: "work", Allow: []string{"imap", "smtp"}, Expires: o.at.Add(36 * time.Hour)},
		{ID: "2", Name: "mutt", Profile: "work", Allow: []string{"imap"}},
	}
	o.metrics = &metrics{
		records:  func() []apppassword.Record { return o.recs },
		sessions: func() []gateway.Session { return o.open },
		tokenAge: func(r apppassword.Record) (time.Duration, bool) { return 90 * time.Second, r.ID == "1" },
		now:      func() time.Time { return o.at },
		certificates: func() []certificateEnd {
			return []certificateEnd{{roleServer, o.at.Add(24 * time.Hour), "a"}, {roleAuthority, o.at.Add(-12 * time.Hour), "b"}}
		},
	}
	return o
}

func (o *observed) grant(i int) gateway.Grant {
	return gateway.Grant{ID: o.recs[i].ID, Name: o.recs[i].Name, Profile: o.recs[i].Profile, Mailbox: "alice@contoso.com"}
}

func TestMetrics(t *testing.T) {
	o := newObserved()
	scraped(t, o.page()) // the page of a gateway that has seen nobody
	remote := netip.MustParseAddrPort("192.0.2.1:5000")
	for _, e := range []gateway.Event{
		{Kind: gateway.SignedIn, Protocol: gateway.IMAP, Grant: o.grant(0), Took: 80 * time.Millisecond},
		{Kind: gateway.SignedIn, Protocol: gateway.IMAP, Grant: o.grant(0), Took: time.Hour},
		{Kind: gateway.SignedIn, Protocol: gateway.SMTP, Grant: o.grant(0), Took: time.Second},
		{Kind: gateway.Refused, Protocol: gateway.IMAP, User: "typed\nby a stranger", Reason: gateway.BadCredentials},
		{Kind: gateway.Refused, Protocol: gateway.POP3, Grant: o.grant(1), Reason: gateway.ProtocolNotAllowed},
		{Kind: gateway.Refused, Protocol: gateway.IMAP, Grant: o.grant(1), Reason: gateway.Revoked},
		{Kind: gateway.MessageSent, Protocol: gateway.SMTP, Grant: o.grant(0)},
		{Kind: gateway.SessionEnded, Protocol: gateway.SMTP, Grant: o.grant(0), BytesUp: 1000, BytesDown: 10},
	} {
		e.Remote = remote
		o.observe(e)
	}
	o.open = []gateway.Session{{ID: 9, Protocol: gateway.IMAP, AppID: "1", Name: o.recs[0].Name, BytesUp: 5, BytesDown: 500}}
	page := o.page()
	if strings.Contains(string(page), "stranger") || strings.Contains(string(page), "192.0.2.1") || strings.Contains(string(page), "contoso") {
		t.Errorf("the page says too much:\n%s", page)
	}
	got := scraped(t, page)
	name := "app_password=" + o.recs[0].Name
	for metric, want := range map[string]map[string]float64{
		"o365pw_build_info": {"version=" + version(): 1},
		"o365pw_sign_ins_total": {
			"protocol=imap result=ok " + name: 2, "protocol=smtp result=ok " + name: 1,
			"protocol=imap result=bad-credentials app_password=":          1,
			"protocol=pop3 result=protocol-not-allowed app_password=mutt": 1,
			"protocol=imap result=revoked app_password=":                  1,
		},
		"o365pw_sessions": {"protocol=imap " + name: 1, "protocol=smtp " + name: 0, "protocol=imap app_password=mutt": 0},
		"o365pw_bytes_total": {
			"protocol=imap direction=up": 5, "protocol=imap direction=down": 500, "protocol=smtp direction=up": 1000, "protocol=smtp direction=down": 10,
			"protocol=pop3 direction=up": 0, "protocol=pop3 direction=down": 0,
		},
		"o365pw_messages_sent_total":       {name: 1},
		"o365pw_upstream_sign_in_seconds":  {"protocol=imap": 2, "protocol=smtp": 1},
		"o365pw_token_age_seconds":         {name: 90},
		"o365pw_app_password_expires_days": {name + " profile=work": 1.5},
	} {
		if !maps.Equal(got[metric], want) {
			t.Errorf("%s: %v, want %v", metric, got[metric], want)
		}
	}
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	for metric := range got {
		if !strings.Contains(string(guide), "| `"+metric+"` |") {
			t.Errorf("%s is not in docs/operations.md", metric)
		}
	}
	if counts := o.soFar(); counts != (gateway.Counts{SignIns: 3, Refused: 3, MessagesSent: 1}) {
		t.Errorf("counts: %+v", counts)
	}
	for _, line := range []string{
		`o365pw_upstream_sign_in_seconds_bucket{protocol="imap",le="0.05"} 0`, `o365pw_upstream_sign_in_seconds_bucket{protocol="imap",le="0.1"} 1`,
		`o365pw_upstream_sign_in_seconds_bucket{protocol="imap",le="30"} 1`, `o365pw_upstream_sign_in_seconds_bucket{protocol="imap",le="+Inf"} 2`,
		`o365pw_upstream_sign_in_seconds_sum{protocol="imap"} 3600.08`,
	} {
		if !strings.Contains(string(page), line+"\n") {
			t.Errorf("no %s", line)
		}
	}
}

// TestMetricsForget: what is revoked goes, and does not come back with the
// next of that name.
func TestMetricsForget(t *testing.T) {
	o := newObserved()
	o.observe(gateway.Event{Kind: gateway.SignedIn, Protocol: gateway.IMAP, Grant: o.grant(1)})
	o.observe(gateway.Event{Kind: gateway.MessageSent, Protocol: gateway.SMTP, Grant: o.grant(1)})
	if page := o.page(); !strings.Contains(string(page), "mutt") {
		t.Fatalf("%s", page)
	}
	o.recs[1].Revoked = o.at
	o.open = []gateway.Session{{ID: 1, Protocol: gateway.IMAP, AppID: "2", Name: "mutt"}} // about to be closed
	if page := o.page(); strings.Contains(string(page), "mutt") {
		t.Errorf("revoked:\n%s", page)
	}
	o.recs = []apppassword.Record{{ID: "3", Name: "mutt", Allow: []string{"imap"}}}
	if got := scraped(t, o.page()); len(got["o365pw_sign_ins_total"])+len(got["o365pw_messages_sent_total"]) != 0 {
		t.Errorf("its successor: %v", got)
	}
}

// TestMetricsSameName: names are unique within a profile only, and series must
// be unique on the page.
func TestMetricsSameName(t *testing.T) {
	o := newObserved()
	twin := o.recs[0]
	twin.ID, twin.Expires = "4", o.at.Add(24*time.Hour)
	o.recs = append(o.recs, twin)
	for i := range o.recs {
		o.observe(gateway.Event{Kind: gateway.SignedIn, Protocol: gateway.IMAP, Grant: o.grant(i)})
	}
	got := scraped(t, o.page()) // refuses a page with a series twice
	if n := got["o365pw_sign_ins_total"]["protocol=imap result=ok app_password="+twin.Name]; n != 2 {
		t.Errorf("%v sign-ins", n)
	}
	if d := got["o365pw_app_password_expires_days"]["app_password="+twin.Name+" profile=work"]; d != 1 {
		t.Errorf("%v days", d)
	}
}

// TestMetricsNeverGoBack: a session that has left the list and is not counted
// yet takes nothing away.
func TestMetricsNeverGoBack(t *testing.T) {
	o := newObserved()
	up := func() float64 { return scraped(t, o.page())["o365pw_bytes_total"]["protocol=imap direction=up"] }
	o.open = []gateway.Session{{ID: 1, Protocol: gateway.IMAP, AppID: "1", BytesUp: 100}}
	var seen []float64
	seen = append(seen, up())
	o.open = nil
	seen = append(seen, up())
	o.observe(gateway.Event{Kind: gateway.SessionEnded, Protocol: gateway.IMAP, Grant: o.grant(0), BytesUp: 120})
	seen = append(seen, up())
	if !slices.Equal(seen, []float64{100, 100, 120}) {
		t.Errorf("%v", seen)
	}
}

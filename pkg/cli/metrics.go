package cli

import (
	"cmp"
	"maps"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// metrics counts what the gateway does, and writes it for Prometheus. Labels
// hold names of app passwords and profiles, protocols and reasons: nothing that
// a stranger has typed, no address and no secret.
type metrics struct {
	records  func() []apppassword.Record
	sessions func() []gateway.Session
	tokenAge func(apppassword.Record) (time.Duration, bool)
	now      func() time.Time

	certificates func() []certificateEnd

	mu       sync.Mutex
	counts   gateway.Counts
	signIns  map[signInSeries]int64
	messages map[string]int64      // by id of the app password
	passed   map[byteSeries]int64  // by sessions that have ended
	shown    map[byteSeries]int64  // what the last page said
	took     map[string]*histogram // by protocol
	became   map[string]string     // the id of what was rotated, to that of the new one
}

// The series are kept by id: an app password that takes the name of a revoked
// one begins anew.
type (
	signInSeries struct{ protocol, result, id string }
	byteSeries   struct{ protocol, direction string }
)

// rotated looks which app passwords have a new id, and goes on counting them
// under that: a counter never goes back.
func (m *metrics) rotated() {
	m.mu.Lock()
	defer m.mu.Unlock()
	became := map[string]string{}
	for _, rec := range m.records() {
		if rec.Previous != nil {
			became[rec.Previous.ID] = rec.ID
		}
	}
	for was, id := range m.became {
		if now, ok := became[was]; ok && now != id {
			became[id] = now // replaced before anybody had used it
		}
	}
	for k, n := range maps.Clone(m.signIns) {
		if id, ok := became[k.id]; ok {
			delete(m.signIns, k)
			add(&m.signIns, signInSeries{k.protocol, k.result, id}, n)
		}
	}
	for was, n := range maps.Clone(m.messages) {
		if id, ok := became[was]; ok {
			delete(m.messages, was)
			add(&m.messages, id, n)
		}
	}
	m.became = became
}

// observe counts an event.
func (m *metrics) observe(e gateway.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.Grant.ID = cmp.Or(m.became[e.Grant.ID], e.Grant.ID)
	p := string(e.Protocol)
	switch e.Kind {
	case gateway.SignedIn:
		m.counts.SignIns++
		add(&m.signIns, signInSeries{p, "ok", e.Grant.ID}, 1)
		if m.took == nil {
			m.took = map[string]*histogram{}
		}
		m.took[p] = cmp.Or(m.took[p], &histogram{})
		m.took[p].observe(e.Took)
	case gateway.Refused:
		m.counts.Refused++
		id := e.Grant.ID
		if e.Reason == gateway.Revoked {
			id = "" // its own series are going, and this is not to go with them
		}
		add(&m.signIns, signInSeries{p, string(e.Reason), id}, 1)
	case gateway.SessionEnded:
		add(&m.passed, byteSeries{p, "up"}, e.BytesUp)
		add(&m.passed, byteSeries{p, "down"}, e.BytesDown)
	case gateway.MessageSent:
		m.counts.MessagesSent++
		add(&m.messages, e.Grant.ID, 1)
	}
}

func add[K comparable](counts *map[K]int64, key K, n int64) {
	if *counts == nil {
		*counts = map[K]int64{}
	}
	(*counts)[key] += n
}

// soFar is what status shows.
func (m *metrics) soFar() gateway.Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts
}

// page writes all metrics as they are now. What is of an app password that is
// revoked or gone is left out, and forgotten.
func (m *metrics) page() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	held := map[string]apppassword.Record{}
	for _, rec := range m.records() {
		if rec.Revoked.IsZero() {
			held[rec.ID] = rec
		}
	}
	gone := func(id string) bool { _, ok := held[id]; return id != "" && !ok }
	maps.DeleteFunc(m.signIns, func(k signInSeries, _ int64) bool { return gone(k.id) })
	maps.DeleteFunc(m.messages, func(id string, _ int64) bool { return gone(id) })

	var x exposition
	x.metric("o365pw_build_info", "gauge", "The version that runs.", series{labels("version", version()): 1})
	signIns := series{}
	for k, n := range m.signIns {
		signIns[labels("protocol", k.protocol, "result", k.result, "app_password", held[k.id].Name)] += float64(n)
	}
	x.metric("o365pw_sign_ins_total", "counter", "Sign-ins by result: ok, or why they were refused. app_password is empty where none matched.", signIns)
	// Bytes first: a session that ends in between is missing rather than
	// counted twice, and shown makes up for it.
	passed := maps.Clone(m.passed)
	// The gateway is asked without the lock: it may be telling of an event.
	m.mu.Unlock()
	open := m.sessions()
	m.mu.Lock()
	x.metric("o365pw_sessions", "gauge", "Signed-in mail clients.", m.sessionSeries(held, open))
	x.metric("o365pw_bytes_total", "counter", "Bytes passed on, up to the mail server and down to the client, since the sign-in.", m.bytes(passed, open))
	messages := series{}
	for id, n := range m.messages {
		messages[labels("app_password", held[id].Name)] += float64(n)
	}
	x.metric("o365pw_messages_sent_total", "counter", "Messages that the mail server has accepted by SMTP.", messages)
	x.histogram("o365pw_upstream_sign_in_seconds", "How long token, connection and sign-in at the mail server took together, of sign-ins that succeeded.", "protocol", m.took)
	ages, days := m.recordSeries(held)
	x.metric("o365pw_token_age_seconds", "gauge", "Age of the cached access token, where there is one.", ages)
	x.metric("o365pw_app_password_expires_days", "gauge", "Days until the app password expires; negative once it has.", days)
	ends := series{}
	for _, c := range m.certificates() {
		ends[labels("certificate", c.role)] = c.at.Sub(m.now()).Hours() / 24
	}
	x.metric("o365pw_certificate_expires_days", "gauge", "Days until the gateway's certificate, or the local authority that signs it, expires; negative once it has.", ends)
	return x.Bytes()
}

// sessionSeries has a 0 for what may be used and is not: mu is held.
func (m *metrics) sessionSeries(held map[string]apppassword.Record, open []gateway.Session) series {
	s := series{}
	of := func(protocol, name string) string { return labels("protocol", protocol, "app_password", name) }
	for _, rec := range held {
		for _, p := range rec.Allow {
			s[of(p, rec.Name)] += 0
		}
	}
	for _, sess := range open {
		if _, ok := held[cmp.Or(m.became[sess.AppID], sess.AppID)]; ok {
			s[of(string(sess.Protocol), sess.Name)]++
		}
	}
	return s
}

// bytes adds those of open sessions to passed. A counter never goes back: mu is
// held.
func (m *metrics) bytes(passed map[byteSeries]int64, open []gateway.Session) series {
	for _, p := range gateway.Protocols() {
		add(&passed, byteSeries{string(p), "up"}, 0)
		add(&passed, byteSeries{string(p), "down"}, 0)
	}
	for _, sess := range open {
		passed[byteSeries{string(sess.Protocol), "up"}] += sess.BytesUp
		passed[byteSeries{string(sess.Protocol), "down"}] += sess.BytesDown
	}
	if m.shown == nil {
		m.shown = map[byteSeries]int64{}
	}
	s := series{}
	for k, n := range passed {
		m.shown[k] = max(m.shown[k], n)
		s[labels("protocol", k.protocol, "direction", k.direction)] = float64(m.shown[k])
	}
	return s
}

// recordSeries are of the app passwords themselves. Where several share their
// labels, the oldest token and the first expiry count.
func (m *metrics) recordSeries(held map[string]apppassword.Record) (ages, days series) {
	ages, days = series{}, series{}
	for _, rec := range held {
		if age, ok := m.tokenAge(rec); ok {
			l := labels("app_password", rec.Name)
			ages[l] = max(ages[l], age.Seconds())
		}
		if rec.Expires.IsZero() {
			continue
		}
		l := labels("app_password", rec.Name, "profile", rec.Profile)
		left := rec.Expires.Sub(m.now()).Hours() / 24
		if other, ok := days[l]; ok {
			left = min(left, other)
		}
		days[l] = left
	}
	return ages, days
}

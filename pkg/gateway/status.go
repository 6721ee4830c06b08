package gateway

import (
	"net/netip"
	"time"
)

// Session is one signed-in mail client, as it is at the moment of asking.
type Session struct {
	ID         uint64         `json:"id"` // unique while the gateway runs
	Protocol   Protocol       `json:"protocol"`
	Remote     netip.AddrPort `json:"remote"`
	TLS        bool           `json:"tls"`
	TLSVersion string         `json:"tlsVersion"` // as in "TLS 1.3"; empty: without TLS
	AppID      string         `json:"appPasswordId"`
	Name       string         `json:"appPassword"`
	Profile    string         `json:"profile"`
	Mailbox    string         `json:"mailbox"`
	Since      time.Time      `json:"since"`     // of the sign-in, UTC
	BytesUp    int64          `json:"bytesUp"`   // from the client to the upstream
	BytesDown  int64          `json:"bytesDown"` // from the upstream to the client
}

// Status is what a running gateway says about itself over its control socket.
type Status struct {
	Version    string              `json:"version"`
	PID        int                 `json:"pid"`
	Started    time.Time           `json:"started"`       // UTC
	Uptime     int64               `json:"uptimeSeconds"` // since Started
	Stopping   bool                `json:"stopping"`      // it accepts nobody any more and waits for its sessions
	Listeners  map[Protocol]string `json:"listeners"`     // protocol to host:port
	Legacy     map[Protocol]string `json:"legacy"`        // the same, of listeners with old TLS
	Metrics    string              `json:"metrics"`       // host:port of metrics and healthz; empty: not offered
	Autoconfig string              `json:"autoconfig"`    // host:port on which mail programs are told their settings; empty: not offered
	Counts     Counts              `json:"counts"`
	Sessions   []Session           `json:"sessions"`          // the oldest first; never null
	ByGraph    []string            `json:"byGraph,omitempty"` // mailboxes that send by Graph since SMTP is closed to them
}

// Counts are what a gateway has done since it started.
type Counts struct {
	SignIns      int64 `json:"signIns"`
	Refused      int64 `json:"refused"`
	MessagesSent int64 `json:"messagesSent"` // as far as the gateway has seen them accepted, by SMTP
}

// info describes a signed-in session. Server.mu is held.
func (s *session) info() Session {
	return Session{
		ID: s.id, Protocol: s.name, Remote: s.client.remote, TLS: s.client.tls, TLSVersion: s.client.version,
		AppID: s.grant.ID, Name: s.grant.Name, Profile: s.grant.Profile, Mailbox: s.grant.Mailbox,
		Since: s.since, BytesUp: s.up.Load(), BytesDown: s.down.Load(),
	}
}

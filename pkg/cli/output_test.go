package cli

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/o365pw/o365pw/pkg/apppassword"
)

// scripts rely on every name and on the form of every value.
const fullJSON = `{
  "id": "c0bbf6de-9c7d-4e1b-8d1a-e0f3918f3611",
  "name": "printer",
  "profile": "work",
  "mailboxes": [
    "alice@contoso.com"
  ],
  "allow": [
    "imap",
    "smtp"
  ],
  "networks": [
    "192.168.1.0/24"
  ],
  "backing": "secret",
  "hint": "abC",
  "created": "2026-11-22T12:00:00Z",
  "expires": "2027-05-21T12:00:00Z",
  "lastUsed": "2026-11-23T08:30:00Z",
  "status": "active",
  "readOnly": true,
  "from": [
    "@contoso.com"
  ],
  "maxPerHour": 20,
  "loginName": "p1",
  "decoy": true,
  "lastUsedProtocol": "imap",
  "lastUsedAddress": "192.168.1.9",
  "send": "graph"
}`

const emptyJSON = `{
  "id": "",
  "name": "",
  "profile": "",
  "mailboxes": [],
  "allow": [],
  "networks": [],
  "backing": "",
  "hint": "",
  "created": null,
  "expires": null,
  "lastUsed": null,
  "status": "",
  "readOnly": false,
  "from": [],
  "maxPerHour": 0,
  "loginName": "",
  "decoy": false,
  "lastUsedProtocol": "",
  "lastUsedAddress": "",
  "send": ""
}`

func fullEntry() apppassword.Entry {
	return apppassword.Entry{Status: apppassword.Active, LastUse: apppassword.LastUse{Time: time.Date(2026, 11, 23, 8, 30, 0, 5, time.UTC), Protocol: "imap", Address: "192.168.1.9"},
		Record: apppassword.Record{ID: "c0bbf6de-9c7d-4e1b-8d1a-e0f3918f3611", Name: "printer", Profile: "work", Tenant: "t", Cloud: "global",
			ClientID: "c", Mailboxes: []string{"alice@contoso.com"}, Allow: []string{"imap", "smtp"},
			Networks: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}, Backing: "secret", Hint: "abC", Keychain: "file",
			Created: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Expires: time.Date(2027, 5, 21, 12, 0, 0, 0, time.UTC),
			ReadOnly: true, From: []string{"@contoso.com"}, MaxPerHour: 20, LoginName: "p1", Decoy: true, Send: "graph"}}
}

func TestAppPasswordJSONIsStable(t *testing.T) {
	for want, e := range map[string]apppassword.Entry{fullJSON: fullEntry(), emptyJSON: {}} {
		b, err := json.MarshalIndent(toJSON(e), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, string(b)); d != "" {
			t.Error(d)
		}
	}
}

// The columns of before come first and in their order.
func TestCSVIsStable(t *testing.T) {
	v := withPassword{AppPassword: toJSON(fullEntry()), Password: "abcdefghijklmnop"}
	for password, want := range map[bool][2]string{
		false: {"id,name,profile,mailboxes,allow,networks,backing,hint,created,expires,lastUsed,status,readOnly,from,maxPerHour,loginName,decoy,lastUsedProtocol,lastUsedAddress,send",
			"c0bbf6de-9c7d-4e1b-8d1a-e0f3918f3611,printer,work,alice@contoso.com,imap smtp,192.168.1.0/24,secret,abC,2026-11-22T12:00:00Z,2027-05-21T12:00:00Z,2026-11-23T08:30:00Z,active,true,@contoso.com,20,p1,true,imap,192.168.1.9,graph"},
		true: {"id,name,profile,mailboxes,allow,networks,backing,hint,created,expires,lastUsed,status,password,readOnly,from,maxPerHour,loginName,decoy,lastUsedProtocol,lastUsedAddress,send",
			"c0bbf6de-9c7d-4e1b-8d1a-e0f3918f3611,printer,work,alice@contoso.com,imap smtp,192.168.1.0/24,secret,abC,2026-11-22T12:00:00Z,2027-05-21T12:00:00Z,2026-11-23T08:30:00Z,active,abcdefghijklmnop,true,@contoso.com,20,p1,true,imap,192.168.1.9,graph"},
	} {
		if d := cmp.Diff(want[0], strings.Join(csvHeader(password), ",")); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(want[1], strings.Join(csvRow(v, password), ",")); d != "" {
			t.Error(d)
		}
	}
}

func TestAllowed(t *testing.T) {
	for want, r := range map[string]apppassword.Record{
		"imap,smtp":              {Allow: []string{"imap", "smtp"}},
		"imap ro,pop3 ro,smtp":   {Allow: []string{"imap", "pop3", "smtp"}, ReadOnly: true},
		"imap ro,smtp 20/h from": {Allow: []string{"imap", "smtp"}, ReadOnly: true, MaxPerHour: 20, From: []string{"@a.b"}},
		"smtp from":              {Allow: []string{"smtp"}, From: []string{"@a.b"}},
		"":                       {},
	} {
		if got := allowed(r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

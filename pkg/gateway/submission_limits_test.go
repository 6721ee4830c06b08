package gateway

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sending are clients that have signed in and send by Graph.
func (r *rig) sending(t *testing.T, n int) (clients []*end) {
	t.Helper()
	for range n {
		conn := r.connect("127.0.0.1:5000")
		clients = append(clients, &end{conn, bufio.NewReader(conn)})
	}
	for _, client := range clients {
		client.hears(t, "220 ")
		client.says(t, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+goodUser+"\x00"+goodPassword))+"\r\n", "235 ")
	}
	return clients
}

const graphMessage = "From: alice@contoso.com\r\nTo: bob@contoso.com\r\n\r\nhello\r\n.\r\n"

// TestNotesOfOthers: a mailbox whose messages stay unknown, whoever sees to that,
// keeps no other one from sending.
func TestNotesOfOthers(t *testing.T) {
	for mailbox, want := range map[string]string{"bob@contoso.com": "250 2.0.0 ", goodUser: "451 4.3.1 "} {
		r := smtpRig(t, func(r *rig) {
			r.backend.grant.Send = SendGraph
			if err := os.Mkdir(r.server.Notes, 0o700); err != nil {
				t.Fatal(err)
			}
			for i := range maxNotes {
				n := newNote(Grant{Mailbox: mailbox}, letter{message: fmt.Append(nil, i)}, fmt.Sprintf("<%d@contoso.com>", i), time.Now())
				b, err := json.Marshal(n)
				if err == nil {
					err = os.WriteFile(filepath.Join(r.server.Notes, n.file()), b, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		})
		client := r.sending(t, 1)[0]
		client.says(t, "MAIL FROM:<alice@contoso.com>\r\n", "250 ")
		client.says(t, "RCPT TO:<bob@contoso.com>\r\n", "250 ")
		client.says(t, "DATA\r\n", "354 ")
		client.says(t, graphMessage, want)
		client.says(t, "QUIT\r\n", "221 ")
		r.close()
	}
}

// TestMessagesAtOnce: one app password has so many messages in memory, and others
// are not kept waiting by it.
func TestMessagesAtOnce(t *testing.T) {
	r := smtpRig(t, func(r *rig) { r.backend.grant.Send = SendGraph })
	begin := func(client *end, last, want string) {
		client.says(t, "MAIL FROM:<alice@contoso.com>\r\n", "250 ")
		client.says(t, "RCPT TO:<bob@contoso.com>\r\n", "250 ")
		client.says(t, last, want)
	}
	clients := r.sending(t, maxTaking+1)
	one := clients[maxTaking]
	for i, client := range clients[:maxTaking] {
		if i%2 == 0 {
			begin(client, "DATA\r\n", "354 ")
		} else {
			begin(client, "BDAT 3\r\nabc", "250 ")
		}
	}
	begin(one, "DATA\r\n", "450 4.3.2 ")
	one.says(t, "RSET\r\n", "250 ")
	begin(one, "BDAT 3 LAST\r\nabc", "450 4.3.2 ")
	one.says(t, "NOOP\r\n", "250 ")
	one.says(t, "RSET\r\n", "250 ")

	clients[1].says(t, "RSET\r\n", "250 ")
	begin(one, "DATA\r\n", "354 ")
	one.says(t, graphMessage, "250 ")

	// Another app password, meanwhile.
	clients[3].says(t, "RSET\r\n", "250 ")
	r.backend.grant.ID = "another"
	others := r.sending(t, maxTaking)
	for _, client := range others {
		begin(client, "DATA\r\n", "354 ")
	}
	for _, client := range append(clients, others...) {
		client.Close()
	}
	r.close()
	if !strings.Contains(r.log.String(), "messages at once") {
		t.Error("the log does not say why a message was put off")
	}
}

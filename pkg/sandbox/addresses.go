package sandbox

import "slices"

// Authority is the base URL of the sandbox's Entra, without a tenant. It and
// the other addresses are known once Start has returned.
func (s *Server) Authority() string { return s.authority }

// Graph is the base URL of the sandbox's Microsoft Graph, with "/v1.0".
func (s *Server) Graph() string { return s.graphURL }

// IMAP is the host and port of the sandbox's Exchange for IMAP; TLS from the
// start.
func (s *Server) IMAP() string { return s.imapAddr }

// POP3 is the host and port of the sandbox's Exchange for POP3; TLS from the
// start.
func (s *Server) POP3() string { return s.pop3Addr }

// SMTP is the host and port of the sandbox's Exchange for submission; TLS by
// STARTTLS.
func (s *Server) SMTP() string { return s.smtpAddr }

// CAPEM is the certificate, in PEM, of the authority that signed the
// certificate of IMAP, POP3 and SMTP for localhost, 127.0.0.1 and ::1.
func (s *Server) CAPEM() []byte { return slices.Clone(s.certs.caPEM) }

// MailApp gives the object id and the client id of the mail application: the
// one whose password credentials open mailboxes.
func (s *Server) MailApp() (objectID, clientID string) {
	return s.dir.mail.objectID, s.dir.mail.clientID
}

// MailApps gives the client ids of the mail application and of those of
// MoreMailApps.
func (s *Server) MailApps() []string {
	var ids []string
	for _, a := range s.dir.mailApps {
		ids = append(ids, a.clientID)
	}
	return ids
}

// LoginClientID is a public client to sign people in to Graph with. Its
// redirect URI is http://localhost, with any port.
func (s *Server) LoginClientID() string { return s.dir.login.clientID }

// PersonalClientID is a public client for the people of every organisation and
// for personal accounts, to sign in to their mail at /common and /consumers.
// Its redirect URI is http://localhost, with any port.
func (s *Server) PersonalClientID() string { return s.dir.personal.clientID }

// AdminClient is a confidential client for unattended use of Graph. It owns
// the mail application and has AdminRoles.
func (s *Server) AdminClient() (clientID, secret string) {
	return s.dir.admin.clientID, s.dir.adminSecret
}

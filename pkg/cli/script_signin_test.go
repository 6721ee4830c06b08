//go:build unix

package cli_test

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// identity certificate FILE [unknown] | file FILE | github: lets the
// administrator's client sign in so, as an administrator would have prepared
// it, and writes what goes on the machine. identity job | app-service |
// virtual-machine | gitlab [expired|audience|issuer|cut|changed] | connection: the
// environment that the platforms give. identity trust gitlab | connection: an
// administrator lets them in. identity app-certificate FILE |
// remove-app-certificate: the mail application's.
func cmdIdentity(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: identity KIND [FILE]")
	}
	s := of(ts)
	admin, _ := s.sandbox.AdminClient()
	_, mail := s.sandbox.MailApp()
	const subject = "system:serviceaccount:mail:o365pw"
	const gitLab = "project_path:contoso/mail:ref_type:branch:ref:main"
	certificate := func(clientID, file string, known bool) {
		cert, err := entra.NewCertificate("o365pw test", time.Now(), 24*time.Hour)
		ts.Check(err)
		if old, err := os.ReadFile(file); err == nil {
			cert, err = entra.ParseCertificate(secret.New(string(old)))
			ts.Check(err)
		}
		ts.Check(os.WriteFile(file, []byte(cert.PEM().Reveal()), 0o600))
		if known {
			s.appCertificate, err = s.sandbox.AddCertificate(clientID, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.DER()}))
			ts.Check(err)
		}
	}
	switch args[0] {
	case "certificate":
		certificate(admin, ts.MkAbs(args[1]), len(args) == 2)
	case "app-certificate":
		certificate(mail, ts.MkAbs(args[1]), true)
	case "remove-app-certificate":
		if !s.sandbox.RemoveCertificate(mail, s.appCertificate) {
			ts.Fatalf("the application has no such certificate")
		}
	case "file":
		ts.Check(s.sandbox.AddFederatedCredential(admin, "cluster", s.sandbox.OIDCIssuer(), subject))
		token := s.sandbox.OIDCToken(subject, "api://AzureADTokenExchange", time.Hour)
		s.secrets = append(s.secrets, token)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(token+"\n"), 0o600))
	case "app-service":
		_, endpoint, header := s.sandbox.ManagedIdentity()
		s.secrets = append(s.secrets, header)
		ts.Setenv("IDENTITY_ENDPOINT", endpoint)
		ts.Setenv("IDENTITY_HEADER", header)
	case "virtual-machine":
		imds, _, _ := s.sandbox.ManagedIdentity()
		ts.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", imds)
	case "job":
		url, token := s.sandbox.GitHubOIDC()
		s.secrets = append(s.secrets, token)
		ts.Setenv("ACTIONS_ID_TOKEN_REQUEST_URL", url)
		ts.Setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", token)
	case "gitlab":
		wrong := strings.Join(args[1:], "")
		audience, life := "api://AzureADTokenExchange", time.Hour
		switch wrong {
		case "expired":
			life = -time.Second
		case "audience":
			audience = "https://gitlab.example.com"
		}
		token := s.sandbox.OIDCToken(gitLab, audience, life)
		header, rest, _ := strings.Cut(token, ".")
		claims, signature, _ := strings.Cut(rest, ".")
		switch wrong {
		case "issuer":
			token = header + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://gitlab.example.com","sub":"`+gitLab+`","aud":"`+audience+`"}`)) + "." + signature
		case "cut":
			token = header + "." + claims + "." + signature[:len(signature)-8]
		case "changed":
			other := s.sandbox.OIDCToken("somebody else", audience, life)
			token = header + "." + claims + other[strings.LastIndex(other, "."):]
		}
		s.secrets = append(s.secrets, token)
		ts.Setenv("AZURE_FEDERATED_TOKEN", token)
	case "connection":
		uri, token, connection, _ := s.sandbox.AzurePipelinesOIDC()
		s.secrets = append(s.secrets, token)
		for name, value := range map[string]string{
			"TF_BUILD": "True", "SYSTEM_OIDCREQUESTURI": uri, "SYSTEM_ACCESSTOKEN": token,
			"AZURESUBSCRIPTION_SERVICE_CONNECTION_ID": connection, "AZURESUBSCRIPTION_CLIENT_ID": admin, "AZURESUBSCRIPTION_TENANT_ID": s.sandbox.Tenant,
		} {
			ts.Setenv(name, value)
		}
	case "trust":
		subjects := map[string]string{"gitlab": gitLab}
		_, _, _, subjects["connection"] = s.sandbox.AzurePipelinesOIDC()
		issuer := s.sandbox.OIDCIssuer()
		if len(args) == 3 {
			issuer = args[2]
		}
		ts.Check(s.sandbox.AddFederatedCredential(admin, args[1]+fmt.Sprint(len(args)), issuer, subjects[args[1]]))
	case "github":
		ts.Check(s.sandbox.AddFederatedCredential(admin, "github", s.sandbox.OIDCIssuer(), s.sandbox.OIDCSubject))
	default:
		ts.Fatalf("unknown identity %s", args[0])
	}
}

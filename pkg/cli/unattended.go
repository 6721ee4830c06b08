package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// The ways to sign in to Graph without a person, each named after the variable
// of the Azure convention that asks for it
// (https://learn.microsoft.com/azure/developer/go/sdk/authentication/credential-chains).
const (
	byClientSecret    signInKind = "AZURE_CLIENT_SECRET"
	byCertificate     signInKind = "AZURE_CLIENT_CERTIFICATE_PATH"
	byTokenFile       signInKind = "AZURE_FEDERATED_TOKEN_FILE"
	byToken           signInKind = "AZURE_FEDERATED_TOKEN"
	byGitHub          signInKind = "ACTIONS_ID_TOKEN_REQUEST_URL"
	byAzurePipelines  signInKind = "SYSTEM_OIDCREQUESTURI"
	byManagedIdentity signInKind = "managed identity"
	byAzureCLI        signInKind = "Azure CLI"
)

// unattended is one way to get a token without a person.
type unattended struct {
	kind  signInKind
	token func(ctx context.Context, s *session) (entra.Token, error)
}

// unattended finds the way that the environment names, if it names one. A
// client's own credential comes first, then AZURE_TOKEN_CREDENTIALS, then the
// identity that Azure gives a web application.
func (a *app) unattended() (unattended, bool) {
	var (
		clientID     = a.Getenv("AZURE_CLIENT_ID")
		clientSecret = a.Getenv("AZURE_CLIENT_SECRET")
		certificate  = a.Getenv("AZURE_CLIENT_CERTIFICATE_PATH")
		tokenFile    = a.Getenv("AZURE_FEDERATED_TOKEN_FILE")
		token        = a.Getenv("AZURE_FEDERATED_TOKEN")
		requestURL   = a.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL")
		requestToken = a.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")

		// The first is there in each step of Azure Pipelines, the second where it is
		// mapped, and the others in the tasks for Azure.
		oidcURI     = a.Getenv("SYSTEM_OIDCREQUESTURI")
		accessToken = a.Getenv("SYSTEM_ACCESSTOKEN")
		connection  = a.Getenv("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID")
		connected   = cmp.Or(clientID, a.Getenv("AZURESUBSCRIPTION_CLIENT_ID"))
	)
	asserted := func(assertion func(s *session) (entra.Assertion, error)) func(context.Context, *session) (entra.Token, error) {
		return func(ctx context.Context, s *session) (entra.Token, error) {
			how, err := assertion(s)
			if err != nil {
				return entra.Token{}, err
			}
			return a.unattendedClient(s).ClientAssertion(ctx, clientID, how, s.graphDefault())
		}
	}
	switch {
	case clientID != "" && clientSecret != "":
		return unattended{byClientSecret, func(ctx context.Context, s *session) (entra.Token, error) {
			return a.unattendedClient(s).ClientSecret(ctx, clientID, secret.New(clientSecret), s.graphDefault())
		}}, true
	case clientID != "" && certificate != "":
		return unattended{byCertificate, asserted(func(s *session) (entra.Assertion, error) { return a.certificateFile(certificate) })}, true
	case clientID != "" && tokenFile != "":
		return unattended{byTokenFile, asserted(func(s *session) (entra.Assertion, error) { return entra.FederatedFile(tokenFile), nil })}, true
	case clientID != "" && token != "":
		return unattended{byToken, asserted(func(s *session) (entra.Assertion, error) { return entra.FederatedToken(secret.New(token)), nil })}, true
	case clientID != "" && requestURL != "" && requestToken != "":
		return unattended{byGitHub, asserted(func(s *session) (entra.Assertion, error) {
			return entra.GitHubActions(a.unattendedClient(s).HTTP, requestURL, secret.New(requestToken)), nil
		})}, true
	case connected != "" && oidcURI != "" && accessToken != "" && connection != "":
		return unattended{byAzurePipelines, func(ctx context.Context, s *session) (entra.Token, error) {
			tenant := cmp.Or(a.Getenv("AZURE_TENANT_ID"), a.Getenv("AZURESUBSCRIPTION_TENANT_ID"), s.profile.Tenant)
			c := a.entraClient(s.http, s.profile.Cloud, tenant)
			return c.ClientAssertion(ctx, connected, entra.AzurePipelines(c.HTTP, oidcURI, secret.New(accessToken), connection), s.graphDefault())
		}}, true
	}
	switch a.Getenv("AZURE_TOKEN_CREDENTIALS") {
	case "ManagedIdentityCredential":
		return unattended{byManagedIdentity, a.managedIdentity}, true
	case "AzureCliCredential":
		return unattended{byAzureCLI, a.azureCLIToken}, true
	}
	if a.Getenv("IDENTITY_ENDPOINT") != "" && a.Getenv("IDENTITY_HEADER") != "" {
		return unattended{byManagedIdentity, a.managedIdentity}, true
	}
	return unattended{}, false
}

// unattendedClient speaks for the tenant of AZURE_TENANT_ID, else the
// profile's.
func (a *app) unattendedClient(s *session) *entra.Client {
	return a.entraClient(s.http, s.profile.Cloud, cmp.Or(a.Getenv("AZURE_TENANT_ID"), s.profile.Tenant))
}

// missingInCI is what the CI system that this program runs in has not been asked
// for; empty elsewhere, and where nothing is known to be missing.
func (a *app) missingInCI() string {
	set := func(name string) bool { return a.Getenv(name) != "" }
	switch client := "set AZURE_CLIENT_ID to the client id of the application that trusts this job"; {
	case a.Getenv("GITHUB_ACTIONS") == "true" && !set("ACTIONS_ID_TOKEN_REQUEST_URL"):
		return "give the job permissions: id-token: write, and AZURE_CLIENT_ID in env"
	case a.Getenv("GITHUB_ACTIONS") == "true" && !set("AZURE_CLIENT_ID"):
		return client
	case a.Getenv("GITLAB_CI") == "true" && !set("AZURE_FEDERATED_TOKEN"):
		return "give the job id_tokens: AZURE_FEDERATED_TOKEN: aud: api://AzureADTokenExchange, and the variable AZURE_CLIENT_ID"
	case a.Getenv("GITLAB_CI") == "true" && !set("AZURE_CLIENT_ID"):
		return client
	case strings.EqualFold(a.Getenv("TF_BUILD"), "true") && !set("SYSTEM_ACCESSTOKEN"):
		return "give the step env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)"
	case strings.EqualFold(a.Getenv("TF_BUILD"), "true") && !set("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID"):
		return "run it in a task AzureCLI@2 that names the service connection in azureSubscription"
	}
	return ""
}

// graphDefault is the scope of what an application was granted at Graph.
func (s *session) graphDefault() string { return s.profile.Cloud.GraphResource + "/.default" }

func (a *app) certificateFile(path string) (entra.Assertion, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, &usageError{problem: "AZURE_CLIENT_CERTIFICATE_PATH: " + err.Error(), hint: "name a PEM file with the certificate and its private key"}
	}
	cert, err := entra.ParseCertificate(secret.New(string(b)))
	if err != nil {
		return nil, &usageError{problem: fmt.Sprintf("AZURE_CLIENT_CERTIFICATE_PATH: %s: %v", path, err),
			hint: "name a PEM file with the certificate and its private key; from a .pfx: openssl pkcs12 -in CERT.pfx -nodes -out CERT.pem"}
	}
	return cert.Assertion(entra.PS256, a.Now), nil
}

// managedIdentity asks the machine that Azure runs this program on. That
// address is never behind a proxy.
func (a *app) managedIdentity(ctx context.Context, s *session) (entra.Token, error) {
	direct := http.DefaultTransport.(*http.Transport).Clone()
	direct.Proxy = nil
	m := &entra.ManagedIdentity{
		HTTP:     &http.Client{Transport: loggedTransport{direct, a.logger()}},
		Endpoint: a.Getenv("IDENTITY_ENDPOINT"), Header: secret.New(a.Getenv("IDENTITY_HEADER")),
		IMDS: a.Getenv("AZURE_POD_IDENTITY_AUTHORITY_HOST"), ClientID: a.Getenv("AZURE_CLIENT_ID"),
	}
	return m.Token(ctx, s.profile.Cloud.GraphResource)
}

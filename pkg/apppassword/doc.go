// Package apppassword is the life of an app password: create, list, reveal,
// rotate, revoke, and, for the gateway, verify.
//
// An app password is a generated password with a name, mailboxes, protocols
// and an expiry. It is good at the gateway only. Behind it stands a backing
// credential (here an Entra client secret of its own), with which the gateway
// gets access tokens. Three places know of it, and this package keeps them
// agreed:
//
//   - Graph holds the Entra client secret's public part (key id, name, dates).
//   - The keychain holds the two secrets: password and client secret.
//   - The registry, a file, holds what is not secret.
//
// Guarantees: a create that fails undoes what it did or names what it could
// not undo; one that is killed has left a note in the registry before it asked
// Graph for anything, by which the next create or revoke finds and removes
// the credential; a revoke ends only when Graph no longer shows the
// credential. No secret is ever written to the registry.
package apppassword

package explain

import (
	"slices"
	"strings"
)

// Topic is what a remedy of a reply of Exchange's looks at. Exchange gives no
// reason of its own, and whoever has looked at a topic can leave it out.
type Topic string

// The topics.
const (
	ObjectID      Topic = "object id"       // of the service principal in Exchange
	Role          Topic = "role"            // in the application's token
	ScopedRole    Topic = "scoped role"     // in place of Role, to send
	FullAccess    Topic = "full access"     // of the application
	PersonRights  Topic = "person's rights" // of whoever has signed in
	PersonScope   Topic = "scope"           // in the token of whoever has signed in
	IMAPSwitch    Topic = "IMAP"            // of the mailbox
	POPSwitch     Topic = "POP3"            // of the mailbox
	OtherAddress  Topic = "address"         // that the mailbox is known by
	MailboxOnline Topic = "online"          // a mailbox in Exchange Online
	Audience      Topic = "audience"        // of the token
	Propagation   Topic = "propagation"     // of what was changed just now
)

// about finds the topic of a remedy; empty: none of these.
func (r Remedy) about() Topic {
	for t, of := range map[Topic]Remedy{
		ObjectID: wrongObjectID, ScopedRole: noScopedRole, FullAccess: noFullAccess, PersonRights: ownRights, IMAPSwitch: imapOff,
		POPSwitch: popOff, OtherAddress: otherAddress, MailboxOnline: notOnline, Audience: otherService, Propagation: tooNew,
	} {
		if r.Cause == of.Cause {
			return t
		}
	}
	for t, of := range map[Topic]Remedy{Role: noRole("\x00"), PersonScope: noScope("\x00")} {
		if before, _, _ := strings.Cut(of.Cause, "\x00"); strings.HasPrefix(r.Cause, before) {
			return t
		}
	}
	return ""
}

// About tells whether the remedy is about one of the topics.
func (r Remedy) About(topics ...Topic) bool {
	about := r.about()
	return about != "" && slices.Contains(topics, about)
}

// Without are the remedies of x but those about the topics, in their order.
func (x Explanation) Without(topics ...Topic) []Remedy {
	return slices.DeleteFunc(x.Remedies(), func(r Remedy) bool { return r.About(topics...) })
}

// Only are the remedies of x about the topics, in their order.
func (x Explanation) Only(topics ...Topic) []Remedy {
	return slices.DeleteFunc(x.Remedies(), func(r Remedy) bool { return !r.About(topics...) })
}

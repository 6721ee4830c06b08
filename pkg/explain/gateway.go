package explain

import "strconv"

// Gateway explains a reason as the gateway's log has it ("bad-credentials"), a
// response code that mail programs show ("CONTACTADMIN"), or what the gateway
// says at the end of a session.
func Gateway(reason string) (Explanation, bool) { return lookup(OfGateway, reason) }

const (
	imapCodes = "https://www.rfc-editor.org/rfc/rfc5530"
	popCodes  = "https://www.rfc-editor.org/rfc/rfc3206"
	smtpCodes = "https://www.rfc-editor.org/rfc/rfc4954#section-6"
)

var (
	badCredentials = Remedy{
		"no app password here has this user name and password",
		"type the password anew: o365pw show --password NAME; the user name is the mailbox's address", You}
	otherGateway = Remedy{
		"it was made on another machine, for another state folder or by another user",
		"compare with what this gateway knows: o365pw list --local", You}
	revoked = Remedy{
		"the app password was revoked, here or in Entra",
		"take it out of the mail program, or make a new one: o365pw create", You}
	expired = Remedy{
		"the app password has expired",
		"give it a new one and put that into the mail program: o365pw rotate NAME", You}
	wrongMailbox = Remedy{
		"the app password is right, but not for this user name",
		"put its mailbox's address into the mail program: o365pw show NAME", You}
	wrongProtocol = Remedy{
		"the app password is right, but not for this protocol",
		"make one that is: o365pw create --allow imap,smtp", You}
	wrongNetwork = Remedy{
		"the app password is right, but not for this network; if the mail program is not yours, somebody has it",
		"make one that is: o365pw create --network 192.0.2.0/24; or revoke it: o365pw revoke NAME", You}
	notReached = Remedy{
		"Entra or Exchange could not be asked, the keychain could not be read, or a new app password has not reached all of Entra; the password is not at fault",
		"wait; if it goes on, look at the gateway's log and at: o365pw status", Nobody}
	policy = Remedy{
		"the app password is right, but the organisation does not let it in",
		"look at the gateway's log for the cause (an AADSTS number, or Exchange's reply) and give it to: o365pw explain", Administrator}
	inClear = Remedy{
		"a password in clear from another machine is not taken",
		"switch on SSL/TLS or STARTTLS in the mail program", You}
	readOnly = Remedy{
		"the app password is read-only",
		"use another one to change or delete something: o365pw create", You}
)

var gateway = []entry{
	// The reasons, in the words that the mail program is told.
	{kind: OfGateway, codes: []string{"bad-credentials"}, says: []string{"bad-credentials", "user name or app password not accepted"},
		title: "the mail program is told AUTHENTICATIONFAILED, [AUTH] or 535 5.7.8", remedies: []Remedy{badCredentials, otherGateway}},
	{kind: OfGateway, codes: []string{"decoy-used"}, says: []string{"decoy-used", "a decoy app password was used"}, remedies: []Remedy{
		{"a decoy app password was used: somebody has seen what only you should have",
			"find out where it lay, and revoke what lay beside it: o365pw list, o365pw revoke NAME", You}}},
	{kind: OfGateway, codes: []string{"revoked"}, says: []string{"reason=revoked", "this app password was revoked"}, remedies: []Remedy{revoked}},
	{kind: OfGateway, codes: []string{"EXPIRED"}, says: []string{"[expired]", "reason=expired", "this app password has expired"}, source: imapCodes, remedies: []Remedy{expired}},
	{kind: OfGateway, codes: []string{"mailbox-not-allowed"}, says: []string{"mailbox-not-allowed", "this app password may not open this mailbox"}, remedies: []Remedy{wrongMailbox}},
	{kind: OfGateway, codes: []string{"protocol-not-allowed"}, says: []string{"protocol-not-allowed", "this app password may not be used for this protocol"}, remedies: []Remedy{wrongProtocol}},
	{kind: OfGateway, codes: []string{"network-not-allowed"}, says: []string{"network-not-allowed", "this app password may not be used from this network"}, remedies: []Remedy{wrongNetwork}},
	{kind: OfGateway, codes: []string{"CONTACTADMIN", "policy"}, says: []string{}, weakly: []string{"contactadmin", "reason=policy", "the organisation does not let it in"}, source: imapCodes, remedies: []Remedy{policy}},
	{kind: OfGateway, codes: []string{"sign-in-required"}, says: []string{"the sign-in behind this app password has ended"}, weakly: []string{"reason=sign-in-required"}, remedies: []Remedy{
		{"the person's own sign-in, which the app password stands on, has ended",
			"run: o365pw login", You}}},
	{kind: OfGateway, codes: []string{"UNAVAILABLE"}, says: []string{"the mail server cannot be reached for now"}, weakly: []string{"[unavailable]", "reason=unavailable"}, source: imapCodes, remedies: []Remedy{notReached}},
	{kind: OfGateway, codes: []string{"asks for a pause"}, says: []string{"the mail server asks for a pause"}, remedies: []Remedy{
		{"Exchange throttles the mailbox",
			"wait; the gateway stays away as long as Exchange asked, ten minutes at most", Nobody}}},
	{kind: OfGateway, codes: []string{"PRIVACYREQUIRED", "538 5.7.11"}, says: []string{"privacyrequired", "538 5.7.11", "a password is not taken in clear"}, source: imapCodes, remedies: []Remedy{inClear}},

	// What an open session is told.
	{kind: OfGateway, codes: []string{"NOPERM"}, says: []string{"[noperm]", "this app password is read-only"}, source: imapCodes, remedies: []Remedy{readOnly}},
	{kind: OfGateway, codes: []string{"may not send as"}, says: []string{"this app password may not send as"}, remedies: []Remedy{
		{"the sender is none of those that the app password may send as (--from); the empty one of read receipts and bounces never is",
			"set the sender in the mail program to one that this names: o365pw show NAME", You}}},
	{kind: OfGateway, codes: []string{"takes a plain address"}, says: []string{"mail from takes a plain address"}, remedies: []Remedy{
		{"with --from, no quotes, comments or routes are taken in the sender",
			"set a plain address as the sender in the mail program", You}}},
	{kind: OfGateway, codes: []string{"messages an hour"}, says: []string{"this app password may send"}, remedies: []Remedy{
		{"the app password has sent as many messages as it may within an hour (--max-per-hour)",
			"wait: the mail program tries again by itself, or later", Nobody}}},
	{kind: OfGateway, codes: []string{"changed; sign in again"}, says: []string{"this app password was changed"}, remedies: []Remedy{
		{"what the app password may do has changed, or it was renewed",
			"connect again", Nobody}}},
	{kind: OfGateway, codes: []string{"replaced by a new one"}, says: []string{"this app password was replaced", "the app password was replaced by a new one"}, remedies: []Remedy{
		{"the app password was rotated, and the overlap with its old password is over",
			"put the new password into the mail program, for sending too: o365pw show --password NAME", You}}},
	{kind: OfGateway, codes: []string{"the gateway is shutting down"}, remedies: []Remedy{
		{"the gateway was stopped",
			"start it again, unless somebody else does: o365pw serve", You}}},
	{kind: OfGateway, codes: []string{"idle for too long"}, remedies: []Remedy{
		{"no byte came for 35 minutes; 15 over POP3, 10 over SMTP",
			"connect again, which mail programs do by themselves", Nobody}}},
	{kind: OfGateway, codes: []string{"closed by the administrator"}, remedies: []Remedy{
		{"somebody ran o365pw sessions close",
			"connect again; if that is not wanted: o365pw revoke NAME", Nobody}}},
	{kind: OfGateway, codes: []string{"too many sign-ins were refused"}, remedies: []Remedy{
		{"three sign-ins were refused on one connection",
			"type the password anew: o365pw show --password NAME", You}}},
	{kind: OfGateway, codes: []string{"the connection to the mail server was lost"}, remedies: []Remedy{
		{"the network between gateway and Exchange failed, or Exchange closed the connection",
			"connect again; if it goes on, look at the gateway's log", Nobody}}},
	{kind: OfGateway, codes: []string{"the client began TLS after it was greeted in clear"}, remedies: []Remedy{
		{"the mail program waited too long before it began TLS",
			"try again; choose STARTTLS in the mail program if it goes on", You}}},

	// The way to the gateway.
	{kind: OfGateway, codes: []string{"certificate not trusted"}, seen: true,
		says: []string{"certificate not trusted", "certificate is not trusted", "unknown certificate authority", "certificate signed by unknown authority", "unable to get local issuer certificate",
			"self-signed certificate", "self signed certificate", "certificate verify failed", "sec_error_unknown_issuer", "unknown_ca", "curl: (60)"},
		remedies: []Remedy{
			{"the mail program does not know the gateway's certificate authority",
				"let it trust the file ca.pem that o365pw serve names when it starts", You},
			{"the gateway does not know the authority of a server of your own, or of a proxy that opens TLS",
				"name its certificate in ca_file of the cloud in the configuration", You}}},
	{kind: OfGateway, codes: []string{"connection refused"}, says: []string{"connection refused", "econnrefused", "refused the connection"}, seen: true, remedies: []Remedy{
		{"the gateway does not run, or listens at another address or port",
			"o365pw status; o365pw serve", You}}},

	// The codes alone, which stand for several reasons.
	{kind: OfGateway, codes: []string{"AUTHENTICATIONFAILED", "535 5.7.8"}, says: []string{"authenticationfailed", "535 5.7.8"}, source: imapCodes, general: true,
		remedies: []Remedy{badCredentials, revoked, otherGateway}},
	{kind: OfGateway, codes: []string{"AUTHORIZATIONFAILED"}, source: imapCodes, general: true, remedies: []Remedy{wrongMailbox, wrongProtocol, wrongNetwork}},
	{kind: OfGateway, codes: []string{"[AUTH]"}, source: popCodes, general: true, remedies: []Remedy{badCredentials, revoked, expired, wrongMailbox, wrongProtocol, wrongNetwork, otherGateway}},
	{kind: OfGateway, codes: []string{"[SYS/PERM]"}, says: []string{}, weakly: []string{"[sys/perm]"}, source: popCodes, remedies: []Remedy{policy, readOnly}},
	{kind: OfGateway, codes: []string{"[SYS/TEMP]"}, says: []string{}, weakly: []string{"[sys/temp]"}, source: popCodes, remedies: []Remedy{notReached}},
	{kind: OfGateway, codes: []string{"535 5.7.0"}, says: []string{}, weakly: []string{"535 5.7.0"}, source: smtpCodes, remedies: []Remedy{policy}},
	{kind: OfGateway, codes: []string{"454 4.7.0"}, says: []string{}, weakly: []string{"454 4.7.0"}, source: smtpCodes, remedies: []Remedy{notReached}},
	{kind: OfGateway, codes: []string{"530 5.7.0"}, source: smtpCodes, general: true, remedies: []Remedy{
		{"the mail program sends without having signed in",
			"switch on authentication for the outgoing server in it, with the app password", You},
		inClear}},
}

// Exit explains an exit code of o365pw.
func Exit(code int) (Explanation, bool) { return lookup(OfExit, "exit "+strconv.Itoa(code)) }

var exits = []entry{
	{kind: OfExit, codes: []string{"exit 0"}, title: "done", remedies: []Remedy{{"nothing is wrong", "go on", Nobody}}},
	{kind: OfExit, codes: []string{"exit 1"}, title: "failed", remedies: []Remedy{
		{"something on this machine failed: the keychain, a file, a port, the gateway",
			"read the line that begins with hint: on standard error; then: o365pw status", You}}},
	{kind: OfExit, codes: []string{"exit 2"}, title: "wrong usage or configuration", remedies: []Remedy{
		{"the command line or the configuration cannot be meant so",
			"read the hint on standard error, and: o365pw COMMAND --help", You}}},
	{kind: OfExit, codes: []string{"exit 3"}, title: "sign-in required", remedies: []Remedy{
		{"there is no sign-in to Graph, it has ended, or credentials were refused",
			"run: o365pw login; in CI set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET", You}}},
	{kind: OfExit, codes: []string{"exit 4"}, title: "no such app password, profile or application", remedies: []Remedy{
		{"what was named is not there",
			"look with: o365pw list; check client_id and tenant of the profile", You}}},
	{kind: OfExit, codes: []string{"exit 5"}, title: "refused by the tenant", remedies: []Remedy{
		{"the tenant does not allow it: a permission, a policy or Conditional Access",
			"give the message to o365pw explain, which names what the administrator is to do", Administrator}}},
	{kind: OfExit, codes: []string{"exit 6"}, title: "name already taken", remedies: []Remedy{
		{"there is an app password of this name, whatever its case",
			"choose another name, or first: o365pw revoke NAME", You}}},
	{kind: OfExit, codes: []string{"exit 7"}, title: "unavailable for now (worth a retry)", remedies: []Remedy{
		{"Microsoft asks for a pause, or nothing answers",
			"check the network (and HTTPS_PROXY), then try again later", Nobody}}},
	{kind: OfExit, codes: []string{"exit 130"}, title: "interrupted", remedies: []Remedy{
		{"Ctrl-C, or a signal; what could not be undone was named on standard error",
			"look with: o365pw list; the next create or revoke clears away what is left", You}}},
}

package cli

import (
	"errors"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/secret"
)

// adviseSealed is for a file that does not open.
func adviseSealed(e *secret.SealedError) advice {
	switch e.Fault {
	case secret.SealForeign:
		return advice{wrongUsage, "give the whole file that o365pw export has made, from its first line on"}
	case secret.SealOther:
		return advice{wrongUsage, "export again with --to and this machine's recipient (o365pw import --recipient), or name the key: --identity FILE"}
	case secret.SealPassphrase:
		return advice{wrongUsage, "o365pw export has not made it; export to this machine's recipient: o365pw import --recipient"}
	case secret.SealTooBig:
		return advice{wrongUsage, "export fewer app passwords at a time"}
	}
	return advice{failed, "nothing was changed; copy the file again, whole and as it is, or export again"}
}

// adviseMove is for app passwords that go to another machine, or come from one.
func adviseMove(err error) (advice, bool) {
	if e, ok := errors.AsType[*apppassword.ParcelError](err); ok {
		if e.Newer {
			return advice{failed, "update o365pw on this machine; nothing was changed"}, true
		}
		return advice{wrongUsage, "give a file that o365pw export has made; nothing was changed"}, true
	}
	if e, ok := errors.AsType[*apppassword.HalfForgottenError](err); ok {
		return advice{failed, "mend the keychain; the next create or revoke deletes the item of " + quote(e.Name)}, true
	}
	e, ok := errors.AsType[*apppassword.MoveError](err)
	if !ok {
		return advice{}, false
	}
	name := asArgument(e.Record.Name)
	switch e.Why {
	case apppassword.IsRevoked:
		return advice{wrongUsage, "leave it out; to be rid of it: o365pw revoke " + name}, true
	case apppassword.IsRotating:
		return advice{failed, "o365pw rotate " + name + " --finish"}, true
	case apppassword.IsLost:
		return advice{failed, "revoke it and make a new one: o365pw revoke " + name}, true
	case apppassword.HasChanged:
		return advice{failed, "it is still here; export it again"}, true
	case apppassword.NameIsTaken:
		return advice{nameTaken, "first be rid of the one that is here: o365pw revoke " + asArgument(e.Taken.ID)}, true
	case apppassword.DiffersHere:
		return advice{failed, "see which one is right: o365pw show " + name + "; the one here goes by: o365pw revoke " + name}, true
	case apppassword.RotatedHere:
		return advice{failed, "the one here is the newer one; rotate it on one machine only"}, true
	case apppassword.RotatedThere:
		return advice{failed, "when the mail programs have the new password: o365pw revoke " + name + ", then run the same import again"}, true
	case apppassword.RevokedHere:
		return advice{failed, "make a new one: o365pw create"}, true
	case apppassword.UnknownCloud:
		return advice{wrongUsage, "add [clouds." + e.Record.Cloud + "] to the configuration (o365pw config path), then run the same import again"}, true
	case apppassword.NoCertificate:
		return advice{wrongUsage, "copy the PEM file here, name it in a profile with this client_id (certificate = \"…\"), then run the same import again"}, true
	case apppassword.SignInEnded:
		return advice{signInRequired, "sign in on the machine that it comes from (o365pw login), export it again, and import that"}, true
	case apppassword.CertificateRefused:
		return advice{signInRequired, "see on the machine that it comes from whether it works there: o365pw doctor"}, true
	}
	return advice{failed, "make a new app password here: o365pw create --backing certificate"}, true
}

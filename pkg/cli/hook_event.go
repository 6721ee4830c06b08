package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/o365pw/o365pw/pkg/apppassword"
	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/explain"
	"github.com/o365pw/o365pw/pkg/gateway"
)

// hookEvent is what a hook's command reads on its standard input: one JSON
// object. It holds no secret. What an event does not have is empty or left out.
type hookEvent struct {
	SchemaVersion int       `json:"schemaVersion"`
	Event         string    `json:"event"` // expiring, certificate-expiring, sign-in-required, refused, decoy
	Time          time.Time `json:"time"`  // UTC
	AppPassword   string    `json:"appPassword"`
	ID            string    `json:"id"`
	Profile       string    `json:"profile"`
	Mailbox       string    `json:"mailbox"`
	Protocol      string    `json:"protocol"`
	Address       string    `json:"address"` // the mail program's, without the port
	User          string    `json:"user"`    // as it was typed; of refused only
	Reason        string    `json:"reason"`  // as the log has it
	Message       string    `json:"message"` // what happened, what to do, whose move it is

	Count    int        `json:"count,omitempty"`    // of refused: how many this one stands for
	Expires  *time.Time `json:"expires,omitempty"`  // of expiring and certificate-expiring
	DaysLeft int        `json:"daysLeft,omitempty"` // the same, rounded up
	Number   int        `json:"aadsts,omitempty"`   // of sign-in-required: Entra's error number
	Mover    string     `json:"mover,omitempty"`    // of sign-in-required: you, administrator, Microsoft or o365pw
	Fix      string     `json:"fix,omitempty"`      // of sign-in-required: what to run or to set
}

func eventOf(kind string, e gateway.Event) hookEvent {
	v := hookEvent{
		SchemaVersion: schemaVersion, Event: kind, Time: e.Time.UTC().Truncate(time.Second),
		AppPassword: e.Grant.Name, ID: e.Grant.ID, Profile: e.Grant.Profile, Mailbox: e.Grant.Mailbox,
		Protocol: string(e.Protocol), Reason: string(e.Reason),
	}
	if e.Remote.IsValid() {
		v.Address = e.Remote.Addr().String()
	}
	return v
}

func refusedEvent(e gateway.Event) hookEvent {
	v := eventOf("refused", e)
	v.User, v.Count = e.User, 1
	v.Message = "A sign-in was refused: " + v.Reason + "."
	if x, ok := explain.Gateway(v.Reason); ok {
		x = x.Fill(grantValues(e.Grant))
		v.Message = fmt.Sprintf("A sign-in was refused: %s. To mend it (%s): %s.", x.Cause, x.Mover, x.Fix)
	}
	return v
}

func manyRefusedEvent(now time.Time, n int) hookEvent {
	return hookEvent{
		SchemaVersion: schemaVersion, Event: "refused", Time: now.UTC().Truncate(time.Second), Count: n,
		Message: fmt.Sprintf("%d more sign-ins were refused within a minute; the gateway's log has each of them.", n),
	}
}

func decoyEvent(e gateway.Event) hookEvent {
	v := eventOf("decoy", e)
	v.Message = fmt.Sprintf("The decoy app password %q was used from %s: somebody has seen what only you should have. "+
		"Your move: find out where it lay, and revoke what lay beside it (o365pw list, o365pw revoke NAME).", v.AppPassword, v.Address)
	return v
}

func expiringEvent(rec apppassword.Record, now time.Time) hookEvent {
	v := hookEvent{
		SchemaVersion: schemaVersion, Event: "expiring", Time: now.UTC().Truncate(time.Second),
		AppPassword: rec.Name, ID: rec.ID, Profile: rec.Profile, Expires: utc(rec.Expires), DaysLeft: daysLeft(rec, now),
	}
	if len(rec.Mailboxes) > 0 {
		v.Mailbox = rec.Mailboxes[0]
	}
	v.Message = fmt.Sprintf("The app password %q ends in %s. Your move: give it a new one (o365pw rotate %s), and put that into the mail program.",
		rec.Name, plural(v.DaysLeft, "day"), asArgument(rec.Name))
	return v
}

func signInEvent(e gateway.Event, cause error) hookEvent {
	v := eventOf("sign-in-required", e)
	ee, asked := findEntra(cause)
	if asked {
		v.Number = ee.Number()
	}
	if e.Reason == gateway.SignInRequired {
		x, _ := explain.Gateway(string(e.Reason))
		v.Mover, v.Fix = x.Mover, x.Fix
		what := fmt.Sprintf("The sign-in behind the app password %q has ended", v.AppPassword)
		if asked {
			what += ": " + printable(ee.Error())
		}
		v.Message = fmt.Sprintf("%s. To mend it (%s): %s.", what, v.Mover, v.Fix)
		return v
	}
	what := fmt.Sprintf("Entra refuses what stands behind the app password %q", v.AppPassword)
	if v.Number != 0 {
		what += fmt.Sprintf(" (AADSTS%d)", v.Number)
	}
	var x explain.Explanation
	known := false
	if asked {
		x, known = explainEntra(ee)
	}
	if !known {
		v.Message = what + ": " + printable(cause.Error()) + ". The gateway's log and the sign-in log in Entra have more."
		return v
	}
	x = x.Fill(grantValues(e.Grant))
	v.Mover, v.Fix = x.Mover, x.Fix
	v.Message = fmt.Sprintf("%s: %s. To mend it (%s): %s.", what, x.Cause, v.Mover, v.Fix)
	return v
}

func findEntra(err error) (*entra.Error, bool) { return errors.AsType[*entra.Error](err) }

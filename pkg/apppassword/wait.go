package apppassword

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
	"github.com/o365pw/o365pw/pkg/secret"
)

// awaited is a credential that Entra may not know yet.
type awaited struct {
	name string // in messages: "the new secret"
	get  func(context.Context) error
	// late holds for refusals that time may mend.
	late func(*entra.Error) bool
	// own credentials were made here a moment ago: when the time is over, they
	// are only slow to arrive everywhere.
	own bool
	// must holds where it is of no use before Entra has accepted it.
	must    bool
	backing string
}

// newSecret is the client secret of a record's application.
func (m *Manager) newSecret(rec Record, clientSecret secret.Text) awaited {
	return awaited{
		name: "the new secret", own: true, backing: BackingSecret,
		late: func(e *entra.Error) bool { return e.Kind() == entra.Refused },
		get: func(ctx context.Context) error {
			c := *m.Entra
			c.Tenant = rec.Tenant
			_, err := c.ClientSecret(ctx, rec.ClientID, clientSecret, exchangeScope(m.Profile.Cloud))
			return err
		},
	}
}

// newCertificate may have been added to the application a moment ago. Whether
// it ever was, nobody here knows.
func (m *Manager) newCertificate(cert entra.Certificate, rec Record) awaited {
	return awaited{
		name: "the certificate", backing: BackingCertificate, late: certificateUnknown,
		get: func(ctx context.Context) error {
			c := *m.Entra
			c.Tenant = rec.Tenant
			_, err := c.ClientAssertion(ctx, rec.ClientID, cert.Assertion(rec.CertificateAlg, m.now), exchangeScope(m.Profile.Cloud))
			return err
		},
	}
}

// certificateUnknown holds for the refusal of a certificate that is not among
// the application's, or not everywhere yet.
func certificateUnknown(e *entra.Error) bool { return slices.Contains(e.Numbers, 700027) }

// waitAccepted polls the token endpoint until Entra takes the credential. It
// tells false when the time is over and nothing speaks against the credential.
// A refusal that waiting does not mend is an [*UnusableError], and with must the
// end of the time is a [*NotAcceptedError].
func (m *Manager) waitAccepted(ctx context.Context, cred awaited) (bool, error) {
	limit, step := m.WaitLimit, m.WaitStep
	if limit == 0 {
		limit = 2 * time.Minute
	}
	if step == 0 {
		step = time.Second
	}
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var refused error // the last refusal that time may mend
	for {
		m.progress("waiting for Entra to accept %s", cred.name)
		err := cred.get(limited)
		if err == nil {
			return true, nil
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		pause := step
		if ee, ok := errors.AsType[*entra.Error](err); ok {
			switch {
			case cred.late(ee):
				refused = err
			case ee.Kind() != entra.Unavailable:
				return false, &UnusableError{Backing: cred.backing, Rotated: cred.must, Err: err}
			}
			pause = max(step, ee.RetryAfter)
		} else if limited.Err() == nil {
			return false, err
		}
		if limited.Err() != nil || time.Since(start)+pause > limit {
			if refused != nil && !cred.own {
				return false, &UnusableError{Backing: cred.backing, Rotated: cred.must, Err: refused}
			}
			if cred.must {
				return false, &NotAcceptedError{What: cred.name, Err: err}
			}
			m.warn("entra does not accept %s yet (%v)", cred.name, err)
			if cred.backing == "" {
				return false, nil
			}
			m.warn("the app password is made and works as soon as entra does; until then the mail client is told that the service is unavailable")
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(pause):
		}
		step = min(step*3/2, 10*time.Second)
	}
}

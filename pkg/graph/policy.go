package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AppManagementPolicy is what an app management policy of the tenant says about
// the credentials of applications. Only the answer to adding one is final: a
// policy may exempt callers, and changes take a minute to be in force.
// https://learn.microsoft.com/graph/api/resources/applicationauthenticationmethodpolicy
type AppManagementPolicy struct {
	// Own says that the policy is assigned to the application itself. It then
	// stands in place of the tenant's default.
	Own bool

	// ForbidsSecrets says that no client secret may be added to applications
	// created after ForbidsSecretsFrom (zero: to any).
	ForbidsSecrets     bool
	ForbidsSecretsFrom time.Time

	// MaxLifetime is the longest life of a client secret of applications
	// created after MaxLifetimeFrom (zero: of any). 0: no limit.
	MaxLifetime     time.Duration
	MaxLifetimeFrom time.Time

	// MaxKeyLifetime is the same for certificates.
	MaxKeyLifetime     time.Duration
	MaxKeyLifetimeFrom time.Time

	// TrustedCAOnly says that the certificates of applications created after
	// TrustedCAFrom (zero: of any) must come from certificate authorities that
	// the tenant has named: one signed by itself is refused.
	TrustedCAOnly bool
	TrustedCAFrom time.Time
}

// SecretsForbidden says whether an application created at that time
// (Application.Created) may get no client secret. For one that is still to be
// made, give the time of now.
func (p AppManagementPolicy) SecretsForbidden(created time.Time) bool {
	return p.ForbidsSecrets && holds(p.ForbidsSecretsFrom, created)
}

// SecretLimit is the longest life of a client secret for an application created
// at that time. 0: no limit.
func (p AppManagementPolicy) SecretLimit(created time.Time) time.Duration {
	if !holds(p.MaxLifetimeFrom, created) {
		return 0
	}
	return p.MaxLifetime
}

// CertificateLimit is the longest life of a certificate for an application
// created at that time. 0: no limit.
func (p AppManagementPolicy) CertificateLimit(created time.Time) time.Duration {
	if !holds(p.MaxKeyLifetimeFrom, created) {
		return 0
	}
	return p.MaxKeyLifetime
}

// SelfSignedForbidden says whether an application created at that time takes
// certificates of the tenant's trusted authorities alone.
func (p AppManagementPolicy) SelfSignedForbidden(created time.Time) bool {
	return p.TrustedCAOnly && holds(p.TrustedCAFrom, created)
}

// holds says whether a restriction for applications created after from holds
// for one created at that time.
func holds(from, created time.Time) bool { return from.IsZero() || created.After(from) }

// AppManagementPolicy reads the tenant's default policy, which an application
// with a policy of its own does not follow. It needs Policy.Read.All; without it
// the result is an *Error whose IsForbidden says true, and nothing is known.
// https://learn.microsoft.com/graph/api/tenantappmanagementpolicy-get
func (c *Client) AppManagementPolicy(ctx context.Context) (AppManagementPolicy, error) {
	return c.defaultPolicy(ctx, c.budget())
}

// ApplicationPolicy reads the policy that holds for the application with the
// object id (not the client id): its own, where one is assigned and enabled,
// else the tenant's default. Permissions and errors are those of
// AppManagementPolicy, and one whose IsNotFound says true for an application
// that is not there.
// https://learn.microsoft.com/graph/api/resources/appmanagementpolicy
func (c *Client) ApplicationPolicy(ctx context.Context, objectID string) (AppManagementPolicy, error) {
	if !isGUID(objectID) {
		return AppManagementPolicy{}, fmt.Errorf("object id %q is not a GUID", objectID)
	}
	b := c.budget()
	list, err := all(ctx, c, b, c.base()+"/applications/"+objectID+"/appManagementPolicies", decodeOwnPolicy)
	if err != nil {
		return AppManagementPolicy{}, err
	}
	for _, policy := range list { // Graph allows one
		if policy.Own {
			return policy, nil
		}
	}
	return c.defaultPolicy(ctx, b)
}

func (c *Client) defaultPolicy(ctx context.Context, b *budget) (AppManagementPolicy, error) {
	r := request{method: http.MethodGet, url: c.base() + "/policies/defaultAppManagementPolicy"}
	resp, err := c.send(ctx, b, r)
	if err != nil {
		return AppManagementPolicy{}, err
	}
	policy, err := decodePolicy(resp.body)
	if err != nil {
		return AppManagementPolicy{}, r.malformed(resp, err)
	}
	return policy, nil
}

type wirePolicy struct {
	IsEnabled *bool `json:"isEnabled"`
	// The tenant's default has the first, others have the second.
	ApplicationRestrictions wireRestrictions `json:"applicationRestrictions"`
	Restrictions            wireRestrictions `json:"restrictions"`
}

type wireRestrictions struct {
	PasswordCredentials []wireRestriction `json:"passwordCredentials"`
	KeyCredentials      []wireRestriction `json:"keyCredentials"`
}

type wireRestriction struct {
	RestrictionType string  `json:"restrictionType"`
	State           string  `json:"state"`
	MaxLifetime     *string `json:"maxLifetime"`
	From            *string `json:"restrictForAppsCreatedAfterDateTime"`
}

func decodePolicy(body []byte) (AppManagementPolicy, error) {
	w, err := unmarshalPolicy(body)
	if err != nil || !*w.IsEnabled {
		return AppManagementPolicy{}, err
	}
	return w.ApplicationRestrictions.policy()
}

// decodeOwnPolicy gives one without Own for a policy that is not enabled: what
// holds then is not documented, and the default is the likelier to refuse.
func decodeOwnPolicy(body []byte) (AppManagementPolicy, error) {
	w, err := unmarshalPolicy(body)
	if err != nil || !*w.IsEnabled {
		return AppManagementPolicy{}, err
	}
	policy, err := w.Restrictions.policy()
	policy.Own = true
	return policy, err
}

func unmarshalPolicy(body []byte) (w wirePolicy, err error) {
	if err := json.Unmarshal(body, &w); err != nil {
		return w, err
	}
	if w.IsEnabled == nil {
		return w, errors.New("a policy without isEnabled")
	}
	return w, nil
}

func (w wireRestrictions) policy() (AppManagementPolicy, error) {
	var policy AppManagementPolicy
	for _, restriction := range slices.Concat(w.PasswordCredentials, w.KeyCredentials) {
		// state is younger than the type; where it is missing, the restriction
		// holds.
		if strings.EqualFold(restriction.State, "disabled") {
			continue
		}
		from, err := decodeTime(restriction.From)
		if err != nil {
			return AppManagementPolicy{}, err
		}
		switch restriction.RestrictionType {
		case "passwordAddition":
			policy.ForbidsSecrets, policy.ForbidsSecretsFrom = true, from
		case "trustedCertificateAuthority":
			policy.TrustedCAOnly, policy.TrustedCAFrom = true, from
		case "passwordLifetime", "asymmetricKeyLifetime":
			limit, err := parseISODuration(deref(restriction.MaxLifetime))
			if err != nil {
				return AppManagementPolicy{}, err
			}
			if restriction.RestrictionType == "passwordLifetime" {
				policy.MaxLifetime, policy.MaxLifetimeFrom = limit, from
			} else {
				policy.MaxKeyLifetime, policy.MaxKeyLifetimeFrom = limit, from
			}
		}
	}
	return policy, nil
}

// isoDuration is the duration of ISO 8601-1 section 5.5.2, the form with
// designators. Edm.Duration allows only days and smaller, but policies are
// written with years and months as well.
var isoDuration = regexp.MustCompile(`^P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:[.,]\d+)?S)?)?$`)

// parseISODuration takes a year for 365 days and a month for 30, the shorter
// readings, so that a lifetime cut to the result is within the limit. Fractions
// of a second are dropped.
func parseISODuration(s string) (time.Duration, error) {
	m := isoDuration.FindStringSubmatch(s)
	if m == nil || strings.HasSuffix(s, "P") || strings.HasSuffix(s, "T") {
		return 0, fmt.Errorf("a duration that is not ISO 8601: %q", clean(s))
	}
	const day = 24 * time.Hour
	units := [...]time.Duration{365 * day, 30 * day, 7 * day, day, time.Hour, time.Minute, time.Second}
	var total time.Duration
	for i, unit := range units {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(m[i+1], 10, 64)
		if err != nil || n > int64((math.MaxInt64-total)/unit) {
			return math.MaxInt64, nil // longer than anything asked for
		}
		total += time.Duration(n) * unit
	}
	return total, nil
}

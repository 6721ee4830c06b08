package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// AppManagementPolicy is what the tenant's default app management policy says
// about client secrets. An application with a policy of its own does not follow
// it, so that only the answer of AddPassword is final.
// https://learn.microsoft.com/graph/api/resources/tenantappmanagementpolicy
type AppManagementPolicy struct {
	// ForbidsSecrets says that no client secret may be added to applications
	// created after ForbidsSecretsFrom (zero: to any).
	ForbidsSecrets     bool
	ForbidsSecretsFrom time.Time

	// MaxLifetime is the longest life of a client secret of applications
	// created after MaxLifetimeFrom (zero: of any). 0: no limit.
	MaxLifetime     time.Duration
	MaxLifetimeFrom time.Time
}

// AppManagementPolicy reads the policy. It needs Policy.Read.All; without it the
// result is an *Error whose IsForbidden says true, and nothing is known.
// https://learn.microsoft.com/graph/api/tenantappmanagementpolicy-get
func (c *Client) AppManagementPolicy(ctx context.Context) (AppManagementPolicy, error) {
	r := request{method: http.MethodGet, url: c.base() + "/policies/defaultAppManagementPolicy"}
	resp, err := c.send(ctx, c.budget(), r)
	if err != nil {
		return AppManagementPolicy{}, err
	}
	policy, err := decodePolicy(resp.body)
	if err != nil {
		return AppManagementPolicy{}, r.malformed(resp, err)
	}
	return policy, nil
}

func decodePolicy(body []byte) (AppManagementPolicy, error) {
	var w struct {
		IsEnabled               *bool `json:"isEnabled"`
		ApplicationRestrictions struct {
			PasswordCredentials []struct {
				RestrictionType string  `json:"restrictionType"`
				State           string  `json:"state"`
				MaxLifetime     *string `json:"maxLifetime"`
				From            *string `json:"restrictForAppsCreatedAfterDateTime"`
			} `json:"passwordCredentials"`
		} `json:"applicationRestrictions"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return AppManagementPolicy{}, err
	}
	if w.IsEnabled == nil {
		return AppManagementPolicy{}, errors.New("a policy without isEnabled")
	}
	var policy AppManagementPolicy
	if !*w.IsEnabled {
		return policy, nil
	}
	for _, restriction := range w.ApplicationRestrictions.PasswordCredentials {
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
		case "passwordLifetime":
			limit, err := parseISODuration(deref(restriction.MaxLifetime))
			if err != nil {
				return AppManagementPolicy{}, err
			}
			policy.MaxLifetime, policy.MaxLifetimeFrom = limit, from
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

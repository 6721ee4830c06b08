package apppassword

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/entra"
)

// RemoteUse gives when the credential behind each entry was last used to sign
// in, by id, as Graph's report knows it: see [graph.Client.CredentialUse]. List
// must have been called. An application whose report cannot be read is left out,
// with an error as List has them.
func (f *Fleet) RemoteUse(ctx context.Context) (map[string]time.Time, []error) {
	var apps []string
	for id := range f.readers {
		apps = append(apps, id)
	}
	slices.Sort(apps)
	f.Managers[0].progress("reading the report on sign-ins")
	used := map[string]time.Time{}
	var mu sync.Mutex
	errs := make([]error, len(apps))
	each(apps, func(id string) {
		m := f.readers[id]
		if m.Reports == nil {
			return
		}
		of, err := m.Reports.CredentialUse(ctx, id)
		mu.Lock()
		defer mu.Unlock()
		if err != nil && len(f.Managers) > 1 {
			err = &ProfileError{Profile: m.Profile.Name, Err: err}
		}
		errs[slices.Index(apps, id)] = err
		for key, at := range of {
			if !at.IsZero() {
				used[key] = at
			}
		}
	})
	return used, slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

// Gone tells whether what List shows as revoked has really gone, so that nobody
// misses it. Graph's reads lag behind for what was made in the last ten minutes;
// of that, Entra is asked, which must have accepted the secret before and refuse
// it now.
func (f *Fleet) Gone(ctx context.Context, e Entry) bool {
	m := f.holder(e)
	if !e.Revoked.IsZero() || m.now().Sub(e.Created) > replication {
		return true
	}
	if !e.Verified {
		return false
	}
	_, err := m.Token(ctx, e.Record)
	ee, ok := errors.AsType[*entra.Error](err)
	return ok && ee.Kind() == entra.Refused
}

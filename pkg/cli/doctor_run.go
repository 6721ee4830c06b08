package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/o365pw/o365pw/pkg/explain"
)

// checkStatus is how a check has ended.
type checkStatus string

const (
	checkOK      checkStatus = "ok"
	checkWarning checkStatus = "warning"
	checkFailed  checkStatus = "failed"
	checkSkipped checkStatus = "skipped"
)

// remedy is a cause and what mends it, line by line.
type remedy struct {
	cause string
	mover string // as in [explain.Remedy]
	fix   []string
}

// result is what a check has found.
type result struct {
	status   checkStatus
	detail   string
	remedies []remedy // the likeliest first; of a warning or failure
	code     exitCode // of a failure
	ids      []string // by which Microsoft finds the request, and a report keeps
	blocks   bool     // of a warning: what needs this check has no meaning
}

// check is one thing that doctor looks at.
type check struct {
	id, title string
	needs     []string      // ids of checks without which it has no meaning
	after     []string      // ids of checks that come first, however they end
	limit     time.Duration // 0: checkLimit
	run       func(ctx context.Context) result
}

// Limits of the checks.
const (
	checkLimit  = 30 * time.Second // for one
	checksAside = 8                // at the same time
)

// runChecks runs the checks side by side, each after those that it needs, and
// gives their results in the same order. A check whose need has failed or was
// skipped is skipped. When ctx ends it returns at once; what has not ended by
// then is skipped. What a check has written may be read by those that come
// after it, and by the caller unless ctx has ended.
func runChecks(ctx context.Context, checks []check, began func(c check)) []result {
	type outcome struct {
		at int
		result
	}
	outcomes := make(chan outcome, len(checks))
	ended := make(map[string]chan struct{}, len(checks))
	results := make([]result, len(checks))
	at := map[string]int{}
	for i, c := range checks {
		ended[c.id] = make(chan struct{})
		at[c.id] = i
		results[i] = skipped("interrupted")
	}
	var mu sync.Mutex
	settled := make([]result, len(checks)) // guarded by mu until the check has ended
	room := make(chan struct{}, checksAside)
	for i, c := range checks {
		go func() {
			r := func() result {
				for _, id := range slices.Concat(c.needs, c.after) {
					if ended[id] == nil {
						continue // it is not looked at in this run
					}
					select {
					case <-ended[id]:
					case <-ctx.Done():
						return skipped("interrupted")
					}
				}
				mu.Lock()
				for _, id := range c.needs {
					j, ok := at[id]
					if !ok || settled[j].stops() {
						mu.Unlock()
						if !ok {
							return skipped("there is none in this cloud")
						}
						return skipped("needs %q", checks[j].title)
					}
				}
				mu.Unlock()
				select {
				case room <- struct{}{}:
					defer func() { <-room }()
				case <-ctx.Done():
					return skipped("interrupted")
				}
				if ctx.Err() == nil {
					began(c)
				}
				limited, cancel := context.WithTimeout(ctx, cmp.Or(c.limit, checkLimit))
				defer cancel()
				return c.run(limited)
			}()
			mu.Lock()
			settled[i] = r
			mu.Unlock()
			outcomes <- outcome{i, r}
			close(ended[c.id])
		}()
	}
	for range checks {
		select {
		case o := <-outcomes:
			results[o.at] = o.result
		case <-ctx.Done():
			for {
				select {
				case o := <-outcomes:
					if o.status != checkFailed { // a failure now may be the interruption's
						results[o.at] = o.result
					}
				default:
					return results
				}
			}
		}
	}
	return results
}

// stops tells that what needs the check cannot be looked at.
func (r result) stops() bool {
	return r.status == checkFailed || r.status == checkSkipped || r.blocks
}

func passed(format string, args ...any) result {
	return result{status: checkOK, detail: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) result {
	return result{status: checkSkipped, detail: fmt.Sprintf(format, args...)}
}

func remediesOf(list []explain.Remedy) []remedy {
	var out []remedy
	for _, r := range list {
		out = append(out, remedy{r.Cause, r.Mover, []string{strings.TrimPrefix(r.Fix, "run: ")}})
	}
	return out
}

// yours is what the person at the terminal can do.
func yours(cause string, fix ...string) remedy { return remedy{cause, explain.You, fix} }

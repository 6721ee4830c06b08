package gateway

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What an upstream can do has to be known before sign-in: SMTP clients choose
// by the reply to EHLO how they send, POP3 clients by CAPA, and both go on with
// that when they are connected to the upstream. So upstreams are asked ahead,
// and what they say is kept for a while. Over SMTP each sign-in brings it up to
// date.

const (
	offersKept   = time.Hour
	offersRetry  = 10 * time.Second // after a failure
	offersWithin = 3 * time.Second
)

// offers is what the upstreams can do. The zero value is ready.
type offers struct {
	mu        sync.Mutex
	byAddress map[string]*offer
}

// offer is what one upstream can do.
type offer struct {
	mu    sync.Mutex // held while it is asked
	list  []string   // nil: not known
	until time.Time
}

// ask gives what is known of an upstream, asking it where nothing is.
func (o *offers) ask(address string, ask func() ([]string, error)) []string {
	o.mu.Lock()
	if o.byAddress == nil {
		o.byAddress = map[string]*offer{}
	}
	one := o.byAddress[address]
	if one == nil {
		one = &offer{}
		o.byAddress[address] = one
	}
	o.mu.Unlock()
	one.mu.Lock()
	defer one.mu.Unlock()
	if time.Now().Before(one.until) {
		return one.list
	}
	list, err := ask()
	one.until = time.Now().Add(offersKept)
	if err != nil {
		one.until = time.Now().Add(offersRetry)
		return one.list // as it was, if it was known
	}
	one.list = list
	return list
}

// offered is what clients of a protocol can be told before sign-in: what every upstream
// that an app password may lead to can do. An upstream that cannot be asked,
// and never could be, can do nothing.
func (s *Server) offered(ctx context.Context, name Protocol, p protocol) []string {
	upstreams := s.Backend.Upstreams(name)
	// Who sends by Graph is known after sign-in only: what that cannot do is
	// refused then, unless everybody does.
	all := len(upstreams)
	upstreams = slices.DeleteFunc(slices.Clone(upstreams), func(u Upstream) bool { return u.ByGraph })
	if all > 0 && len(upstreams) == 0 {
		return graphOffers(s.graphSize())
	}
	lists := make([][]string, len(upstreams))
	ctx, cancel := context.WithTimeout(ctx, offersWithin)
	defer cancel()
	var wg sync.WaitGroup
	for i, u := range upstreams {
		wg.Go(func() {
			lists[i] = s.offers.ask(u.Address, func() ([]string, error) {
				var list []string
				err := guarded(s.log(), "a question to an upstream", func() (err error) {
					list, err = s.askUpstream(ctx, p, u)
					return err
				})
				if err != nil {
					s.log().Info("cannot ask the upstream what it can do; clients are told what is known of it", "protocol", string(name), "cause", err)
				}
				return list, err
			})
		})
	}
	wg.Wait()
	if len(lists) == 0 {
		return nil
	}
	common := slices.Clone(lists[0])
	for _, list := range lists[1:] {
		for i := len(common) - 1; i >= 0; i-- {
			at := slices.IndexFunc(list, func(line string) bool { return keyword(line) == keyword(common[i]) })
			if at < 0 {
				common = slices.Delete(common, i, i+1)
			} else {
				common[i] = lesser(common[i], list[at])
			}
		}
	}
	return common
}

func (s *Server) askUpstream(ctx context.Context, p protocol, u Upstream) ([]string, error) {
	up, err := s.dialer().dial(ctx, u)
	if err != nil {
		return nil, err
	}
	defer up.close()
	stop := whenDone(ctx, up.interrupt)
	defer stop()
	return p.offers(ctx, up)
}

// lesser is the one of two lines of an extension that promises less: SIZE has
// the largest message (RFC 1870), where nothing and 0 mean any.
func lesser(a, b string) string {
	size := func(line string) uint64 {
		n, err := strconv.ParseUint(strings.TrimPrefix(line, "SIZE "), 10, 64)
		if err != nil || n == 0 {
			return math.MaxUint64
		}
		return n
	}
	if size(b) < size(a) {
		return b
	}
	return a
}

// learned takes what an upstream said of itself at a sign-in.
func (o *offers) learned(address string, list []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byAddress == nil {
		o.byAddress = map[string]*offer{}
	}
	o.byAddress[address] = &offer{list: list, until: time.Now().Add(offersKept)}
}

// keyword is the name of an extension or a capability.
func keyword(line string) string {
	word, _, _ := strings.Cut(line, " ")
	return word
}

package secret

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// How a value lies in the keychain
//
// Under its key is the head. It is the value itself where that fits into one
// item. Otherwise the value lies in parts, and the head names them:
//
//	o365pw:parts <generation> <count> <SHA-256 of the value, in hex>
//
// Part i of generation g of key K lies under "K#gi". A value that itself
// begins with "o365pw:" has "o365pw:value " before it.
//
// There are two generations, a and b. A writer writes the one that the head
// does not name, then the head, then removes the other. So the parts that a
// head names are never touched while it names them, and whatever the time at
// which a writer is killed, what it leaves behind is found without a list:
// the parts of a generation are written from the first and removed from the
// last, so they are always 0 to n without a gap.
const (
	headPrefix  = "o365pw:"
	valuePrefix = headPrefix + "value "
	partsPrefix = headPrefix + "parts "
)

// generations are the two there are.
var generations = []string{"a", "b"}

// maxParts is more than a value has on any platform.
const maxParts = maxValue / utf8.UTFMax

// head is what lies under the key of a value. Where generation is empty the
// value is in it.
type head struct {
	value      string
	generation string
	count      int
	sum        string
}

func partsHead(generation string, count int, value string) head {
	sum := sha256.Sum256([]byte(value))
	return head{generation: generation, count: count, sum: hex.EncodeToString(sum[:])}
}

func (h head) String() string {
	switch {
	case h.generation != "":
		return fmt.Sprintf("%s%s %d %s", partsPrefix, h.generation, h.count, h.sum)
	case strings.HasPrefix(h.value, headPrefix):
		return valuePrefix + h.value
	}
	return h.value
}

// parseHead is the inverse of String.
func parseHead(s string) (head, error) {
	if !strings.HasPrefix(s, headPrefix) {
		return head{value: s}, nil
	}
	if value, ok := strings.CutPrefix(s, valuePrefix); ok && strings.HasPrefix(value, headPrefix) {
		return head{value: value}, nil
	}
	if fields := strings.Fields(strings.TrimPrefix(s, partsPrefix)); len(fields) == 3 {
		count, err := strconv.Atoi(fields[1])
		h := head{generation: fields[0], count: count, sum: fields[2]}
		// Compared with s, so that there is one way to write a head only.
		if err == nil && 0 < count && count <= maxParts && slices.Contains(generations, h.generation) &&
			len(h.sum) == hex.EncodedLen(sha256.Size) && h.String() == s {
			return h, nil
		}
	}
	return head{}, errors.New("the item under the key is neither a value nor the head of one in parts")
}

func partKey(key, generation string, i int) string {
	return key + "#" + generation + strconv.Itoa(i)
}

// isPartKey reports whether key looks like the key of a part of another.
func isPartKey(key string) bool {
	i := strings.LastIndexByte(key, '#')
	if i < 0 || i+2 >= len(key) || !slices.Contains(generations, key[i+1:i+2]) {
		return false
	}
	_, err := strconv.ParseUint(key[i+2:], 10, 64)
	return err == nil
}

// split cuts value into pieces of at most limit bytes, between characters:
// KeePassXC gives back valid UTF-8 only.
func split(value string, limit int) []string {
	limit = max(limit, utf8.UTFMax)
	var parts []string
	for len(value) > limit {
		n := limit
		for !utf8.RuneStart(value[n]) {
			n--
		}
		parts, value = append(parts, value[:n]), value[n:]
	}
	return append(parts, value)
}

// errTorn is returned by join where the parts are not those the head names.
var errTorn = errors.New("the parts of the value are missing or do not belong together")

// join reads the value that h names.
func (s *System) join(ctx context.Context, key string, h head) (string, error) {
	if h.generation == "" {
		return h.value, nil
	}
	var value strings.Builder
	for i := range h.count {
		part, err := s.get(ctx, partKey(key, h.generation, i))
		if errors.Is(err, ErrNotFound) {
			return "", errTorn
		}
		if err != nil {
			return "", err
		}
		if value.WriteString(part); value.Len() > maxValue {
			return "", errTorn
		}
	}
	if partsHead(h.generation, h.count, value.String()) != h {
		return "", errTorn
	}
	return value.String(), nil
}

// read returns the value under key. Parts that do not fit their head were
// replaced while they were read, unless the head stays what it is.
func (s *System) read(ctx context.Context, key string) (string, error) {
	var last string
	for same := 0; same < 3; {
		stored, err := s.get(ctx, key)
		if err != nil {
			return "", err
		}
		h, err := parseHead(stored)
		if err != nil {
			return "", s.unavailable(Damaged, err)
		}
		if value, err := s.join(ctx, key, h); !errors.Is(err, errTorn) {
			return value, err
		}
		if stored != last {
			last, same = stored, 0
		}
		same++
	}
	return "", s.unavailable(Damaged, errTorn)
}

// write puts value under key. The caller holds the lock.
func (s *System) write(ctx context.Context, key, value string) error {
	before, err := s.get(ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	// What cannot be read is replaced: nothing refers to any part then.
	old, _ := parseHead(before)
	h := head{value: value}
	if limit := s.itemLimit(); limit > 0 && len(h.String()) > limit {
		if h, err = s.writeParts(ctx, key, value, old.generation); err != nil {
			return err
		}
	}
	if err := s.put(ctx, key, h.String()); err != nil {
		return err
	}
	switch after, err := s.get(ctx, key); {
	case err != nil && !errors.Is(err, ErrNotFound):
		return err
	case after == h.String():
	// Where no lock is held, another process may have been here since.
	case err != nil, after == before, s.itemLimit() > 0:
		return s.unavailable(Failed, errors.New("it took the value but does not hold it; it may have asked for leave in vain"))
	}
	// The value is kept. Old parts that cannot be removed now are removed
	// by the next write.
	_ = s.sweep(ctx, key, old, h)
	return nil
}

// writeParts writes value into the generation that is not live and returns
// the head for it. What it could not finish is removed.
func (s *System) writeParts(ctx context.Context, key, value, live string) (h head, err error) {
	fresh := generations[0]
	if fresh == live {
		fresh = generations[1]
	}
	parts := split(value, s.itemLimit())
	defer func() {
		// A keychain that does not answer is not asked again.
		if u, ok := errors.AsType[*UnavailableError](err); err != nil && !(ok && u.Reason == Timeout) {
			_ = s.dropParts(context.WithoutCancel(ctx), key, fresh, 0, len(parts))
		}
	}()
	for i, part := range parts {
		if err := s.put(ctx, partKey(key, fresh, i), part); err != nil {
			return head{}, err
		}
	}
	// Looked at before the head makes them count: security(1) on macOS
	// reports no error of a command that it reads from its input.
	h = partsHead(fresh, len(parts), value)
	switch _, err := s.join(ctx, key, h); {
	case errors.Is(err, errTorn):
		return head{}, s.unavailable(Failed, errors.New("it took the parts of the value but does not hold them"))
	case err != nil:
		return head{}, err
	}
	return h, nil
}

// remove deletes what is under key. The caller holds the lock.
func (s *System) remove(ctx context.Context, key string) error {
	before, err := s.get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return errors.Join(ErrNotFound, s.sweep(ctx, key, head{}, head{}))
	}
	if err != nil {
		return err
	}
	if err := s.drop(ctx, key); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	switch _, err := s.get(ctx, key); {
	case err == nil:
		return s.unavailable(Failed, errors.New("it still holds the value; it may have asked for leave in vain"))
	case !errors.Is(err, ErrNotFound):
		return err
	}
	old, _ := parseHead(before)
	return s.sweep(ctx, key, old, head{})
}

// sweep removes all parts of key but those that live names: those of old, and
// what a writer left behind that was killed.
func (s *System) sweep(ctx context.Context, key string, old, live head) error {
	if s.itemLimit() <= 0 && old.generation == "" {
		return nil // never any parts
	}
	for _, g := range generations {
		var from, to int
		if g == live.generation {
			from = live.count
		}
		if g == old.generation {
			to = old.count
		}
		if err := s.dropParts(ctx, key, g, from, to); err != nil {
			return err
		}
	}
	return nil
}

// dropParts removes the parts of generation g beginning at from, the last one
// first. There are parts up to, not including, to; whether there are more it
// finds out.
func (s *System) dropParts(ctx context.Context, key, g string, from, to int) error {
	for to = max(from, to); to < maxParts; to++ {
		_, err := s.get(ctx, partKey(key, g, to))
		if errors.Is(err, ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
	}
	for i := to - 1; i >= from; i-- {
		if err := s.drop(ctx, partKey(key, g, i)); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

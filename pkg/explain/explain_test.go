package explain

import (
	"slices"
	"strings"
	"testing"
)

func TestAADSTS(t *testing.T) {
	movers := []string{you, administrator, microsoft, ourselves}
	seen := map[int]bool{}
	for _, x := range aadsts {
		for _, n := range x.numbers {
			got, ok := AADSTS(n)
			if !ok || seen[n] {
				t.Errorf("%d: ok %v, twice %v", n, ok, seen[n])
			}
			seen[n] = true
			for _, text := range []string{got.Cause, got.Fix} {
				if text == "" || strings.HasSuffix(text, ".") || strings.Contains(text, "\n") || strings.ToLower(text[:1]) != text[:1] {
					t.Errorf("%d: %q is no hint", n, text)
				}
			}
			if !slices.Contains(movers, got.Mover) {
				t.Errorf("%d: mover %q", n, got.Mover)
			}
		}
	}
	if _, ok := AADSTS(0); ok {
		t.Error("0 is explained")
	}
}

package gateway

import (
	"maps"
	"slices"
)

// Protocols are those that this gateway serves, in alphabetical order.
func Protocols() []Protocol { return slices.Sorted(maps.Keys(protocols)) }

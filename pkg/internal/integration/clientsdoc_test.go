//go:build integration

package integration

import "testing"

func (c *clientTable) check(t *testing.T) {
	for k, v := range c.cells {
		t.Log(k, v)
	}
}

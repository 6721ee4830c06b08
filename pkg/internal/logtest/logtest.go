// Package logtest collects what a program or a gateway writes while a test
// reads it.
package logtest

import (
	"strings"
	"sync"
)

// Buffer keeps all that is written to it. Its methods may be called from
// several goroutines. The zero value is empty.
type Buffer struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write keeps p. It never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String is all that was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

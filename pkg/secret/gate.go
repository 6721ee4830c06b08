package secret

import (
	"context"
	"sync"
)

// gate is a mutex whose waiters give up when their context ends. The zero
// value is open.
type gate struct {
	once sync.Once
	held chan struct{}
}

func (g *gate) acquire(ctx context.Context) error {
	g.once.Do(func() { g.held = make(chan struct{}, 1) })
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case g.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) release() { <-g.held }

package cli

import "github.com/o365pw/o365pw/pkg/gateway"

// observer hands each event of the gateway to those who want to know. It is
// called in the goroutine of the session that the event is of, so nobody here
// may make it wait.
type observer struct {
	metrics *metrics
	hooks   *hooks
}

func (o *observer) observe(e gateway.Event) {
	o.metrics.observe(e)
	o.hooks.observe(e)
}

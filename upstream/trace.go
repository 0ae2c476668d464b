package upstream

import (
	"context"
	"net/http/httptrace"
)

// traceContext is what httptrace.WithClientTrace makes of a context without a
// trace, for a trace that looks at no dials. It is part of an exchange, so that it
// costs no allocation.
type traceContext struct {
	context.Context
	key   any // of net/http/httptrace
	trace *httptrace.ClientTrace
}

// Value returns the trace for its key.
func (c *traceContext) Value(key any) any {
	if key == c.key {
		return c.trace
	}
	return c.Context.Value(key)
}

// traceKey returns the key that net/http/httptrace, which does not export it,
// looks for in a context, or nil if it looks for none.
func traceKey() any {
	seen := keySeen{Context: context.Background()}
	httptrace.ContextClientTrace(&seen)
	return seen.key
}

// keySeen is a context that takes down the key it is asked for.
type keySeen struct {
	context.Context
	key any
}

func (c *keySeen) Value(key any) any {
	c.key = key
	return nil
}

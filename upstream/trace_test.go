package upstream

import (
	"context"
	"net/http/httptrace"
	"testing"
)

// A traceContext is to net/http what httptrace.WithClientTrace returns, and to all
// others the context within.
func TestTraceContext(t *testing.T) {
	key := traceKey()
	if key == nil {
		t.Fatal("net/http/httptrace asks for no key")
	}
	type other struct{}
	trace := new(httptrace.ClientTrace)
	ctx := &traceContext{context.WithValue(t.Context(), other{}, "value"), key, trace}
	if got := httptrace.ContextClientTrace(ctx); got != trace {
		t.Errorf("the trace is %p, want %p", got, trace)
	}
	if got := ctx.Value(other{}); got != "value" {
		t.Errorf("another value is %v", got)
	}
	if got := ctx.Value(nil); got != nil {
		t.Errorf("the value of no key is %v", got)
	}
}

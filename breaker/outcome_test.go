package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"example.com/plainware/breaker"
)

// fault is an error as those of middleware are: with a status.
type fault int

func (f fault) Error() string   { return fmt.Sprint("status ", int(f)) }
func (f fault) HTTPStatus() int { return int(f) }

// Unwrap makes it one of a deadline, as that of a limit is.
func (f fault) Unwrap() error { return context.DeadlineExceeded }

// What clients do is not the fault of who serves them: an upload that stalls until
// a limit ends it must not open the breaker for all.
func TestClassify(t *testing.T) {
	ended := func(cause error) *http.Request {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(cause)
		return httptest.NewRequestWithContext(ctx, "POST", "/", nil)
	}
	running := httptest.NewRequest("GET", "/", nil)
	for _, c := range []struct {
		name string
		r    breaker.Result
		want breaker.Outcome
	}{
		{"200", breaker.Result{Request: running, Status: 200}, breaker.Success},
		{"404", breaker.Result{Request: running, Status: 404}, breaker.Success},
		{"500", breaker.Result{Request: running, Status: 500}, breaker.Failure},
		{"501", breaker.Result{Request: running, Status: 501}, breaker.Success},
		{"503", breaker.Result{Request: running, Status: 503}, breaker.Failure},
		{"505", breaker.Result{Request: running, Status: 505}, breaker.Success},
		{"panic", breaker.Result{Request: running, Panicked: true}, breaker.Failure},
		{"error", breaker.Result{Request: running, Err: errors.New("reset")}, breaker.Failure},
		{"no request", breaker.Result{Err: errors.New("reset")}, breaker.Failure},
		{"another breaker", breaker.Result{Request: running, Err: fmt.Errorf("x: %w", &breaker.OpenError{})}, breaker.Ignored},
		{"the caller left", breaker.Result{Request: ended(nil), Err: context.Canceled}, breaker.Ignored},
		{"the caller's deadline", breaker.Result{Request: ended(context.DeadlineExceeded), Err: context.DeadlineExceeded}, breaker.Failure},
		{"too slow to answer", breaker.Result{Request: ended(fault(503)), Err: fault(503)}, breaker.Failure},
		{"too slow an upload", breaker.Result{Request: ended(fault(408)), Err: fault(408)}, breaker.Ignored},
		{"the same, in a response", breaker.Result{Request: ended(fault(408)), Status: 500}, breaker.Ignored},
		{"an upload refused", breaker.Result{Request: running, Err: fmt.Errorf("sending: %w", fault(413))}, breaker.Ignored},
		{"too long an upload", breaker.Result{Request: running, Err: &http.MaxBytesError{Limit: 1}}, breaker.Ignored},
	} {
		if got := breaker.Classify(c.r); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

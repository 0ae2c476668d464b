package timeout

import (
	"fmt"
	"net/http"
	"time"

	"example.com/plainware/internal/respwriter"
)

// Late tells of a handler that did not return when its request was over.
type Late struct {
	Err     error         // why the request was over: an *[Error], or context.Canceled when the client went away
	Elapsed time.Duration // since the request began

	// Running says that [Limits.Grace] is over too, and the handler is left
	// behind. Another Late follows when it ends, with the handler's own
	// request instead of the one outside. Without Running this is that end, or
	// a panic within Grace.
	Running bool

	Panic any    // what the handler panicked with, or nil
	Stack []byte // of the panic
}

// Panic is what a handler's panic is raised again with in the serving
// goroutine, whose own stack does not show where it came from.
type Panic struct {
	Value any    // what the handler panicked with
	Stack []byte // of the handler's goroutine
}

// Error returns the value and the handler's stack.
func (p *Panic) Error() string { return fmt.Sprintf("%v\n\nin the handler:\n%s", p.Value, p.Stack) }

// Unwrap returns the value if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

func (m *Middleware) reportLate(r *http.Request, l Late) {
	switch {
	case m.cfg.OnLate != nil:
		m.cfg.OnLate(r, l)
	case l.Panic != nil && l.Panic != http.ErrAbortHandler:
		respwriter.Logf(r.Context(), "timeout: panic after the limit serving %s: %v\n%s", r.RemoteAddr, l.Panic, l.Stack)
	}
}

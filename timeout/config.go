package timeout

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

// Limits says how long a request may take, phase by phase. A zero or negative
// field is no limit, so that the zero Limits limits nothing: a kit must not cut
// a stranger's upload. In [Config.Routes] zero inherits the field of
// [Config.Limits], and negative is no limit.
type Limits struct {
	// Total is the time from entry until the handler has returned, as a real
	// deadline of its context. It goes on after a hijack and then closes the
	// connection, so routes that upgrade must have none: Total: -1. With
	// Cooperative only the context ends.
	Total time.Duration

	// FirstByte is the time from entry until the response is committed: by
	// more than [Config.Hold] bytes of body, a flush, a hijack, or the
	// handler's return. With Cooperative the first byte commits it.
	FirstByte time.Duration

	// ReadIdle is the longest wait for bytes inside one Read of the request
	// body, or inside the server's own reading of a body that the handler has
	// left. A slow but steady upload is never cut; a stalled one is answered
	// with 408 if nothing was sent.
	ReadIdle time.Duration

	// WriteIdle is the longest that one write or flush may take to be
	// accepted by the connection. Long writes are timed in pieces of 64 KiB, so
	// the limit holds the client to a rate of about 64 KiB in that time, and
	// not to the size of a file. What the server still has to send when the
	// handler has returned is under it too, and so are handlers outside that
	// then work on: keep those shorter.
	WriteIdle time.Duration

	// Grace is how long the middleware waits for the handler to return once
	// the request is over. The client has the whole answer before that; after it
	// come the cut of a response that had begun, the end of an HTTP/2 stream, and
	// the next request on an HTTP/1.1 connection. Zero is 50 ms; negative is no
	// wait. It has no effect with Cooperative.
	Grace time.Duration
}

// Config configures a [Middleware]. The zero Config limits nothing.
type Config struct {
	// Limits hold for every request, but for what Routes says otherwise.
	Limits Limits

	// Mux and Routes give some routes more time than Limits, or less. A key
	// of Routes is a pattern as it was registered with Mux, such as "POST
	// /upload" or "/users/{id}"; the entry's zero fields inherit from Limits.
	// Mux is asked which pattern a request will match; patterns may be added to
	// it later, and requests that match none have Limits. A key must parse as a
	// pattern. Whether it is ever registered cannot be known here: a key that
	// matches nothing has no effect.
	Mux    *http.ServeMux
	Routes map[string]Limits

	// Cooperative runs the handler in the goroutine that serves the request,
	// not in one of its own. A handler that ignores its context is then not
	// interrupted: the answer is given when it returns, if it has sent nothing
	// itself. It is cheaper, nothing is held back, and no handler outlives its
	// request.
	Cooperative bool

	// Status answers a request whose Total, FirstByte or WriteIdle has
	// passed: 400 to 599, zero is 503. ReadIdle answers 408 always, and a
	// deadline of the caller's 504.
	Status int

	// Hold is how many bytes of a response are held back until the handler
	// has returned or sent more, so that a small answer cut short can still be
	// replaced: at most 1 MiB per request in flight. Zero is 2048; negative is
	// none. It has no effect with Cooperative.
	Hold int

	// ErrorHandler answers in the handler's place, with an *[Error]; nil is
	// [WriteError]. Unless Cooperative is set it runs while the handler may
	// still be running. It must not read the body. On HTTP/2 an answer that has a
	// grpc-status in its head is sent after Grace, since the end of the stream must
	// be in the same frame.
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// OnLate, unless nil, is told of handlers that are still running when the
	// request is over, and of how they end. Nil logs the late panics, and only
	// these, to the server's ErrorLog. It may be called from several goroutines
	// at once. It has no effect with Cooperative.
	OnLate func(*http.Request, Late)
}

const (
	defaultGrace  = 50 * time.Millisecond
	defaultStatus = http.StatusServiceUnavailable
	defaultHold   = 2048
	maxHold       = 1 << 20
)

// check returns every problem of c at once.
func (c *Config) check() error {
	var errs []error
	bad := func(field, wrong string, got any) {
		errs = append(errs, fmt.Errorf("timeout: %s: %s (got %v)", field, wrong, got))
	}
	if c.Status != 0 && (c.Status < 400 || c.Status > 599) {
		bad("Status", "must be between 400 and 599", c.Status)
	}
	if c.Hold > maxHold {
		bad("Hold", "must be at most 1048576 bytes", c.Hold)
	}
	if len(c.Routes) > 0 && c.Mux == nil {
		bad("Mux", "must be set when Routes is", "nil")
	}
	for _, pattern := range slices.Sorted(maps.Keys(c.Routes)) {
		if err := checkPattern(pattern); err != nil {
			bad("Routes", err.Error(), fmt.Sprintf("%q", pattern))
		}
	}
	return errors.Join(errs...)
}

// checkPattern asks a ServeMux, whose only way to refuse is a panic.
func checkPattern(pattern string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("not a ServeMux pattern: %v", v)
		}
	}()
	http.NewServeMux().Handle(pattern, http.NotFoundHandler())
	return nil
}

// plan is a Limits made ready: no field is negative, defaults are in place,
// and the errors that its limits lead to exist already.
type plan struct {
	Limits
	total, firstByte, readIdle, writeIdle *Error
}

func newPlan(l Limits, status int) *plan {
	l.Total = max(l.Total, 0)
	l.FirstByte = max(l.FirstByte, 0)
	l.ReadIdle = max(l.ReadIdle, 0)
	l.WriteIdle = max(l.WriteIdle, 0)
	if l.Grace == 0 {
		l.Grace = defaultGrace
	}
	return &plan{
		Limits:    l,
		total:     &Error{Phase: Total, Limit: l.Total, status: status},
		firstByte: &Error{Phase: FirstByte, Limit: l.FirstByte, status: status},
		readIdle:  &Error{Phase: ReadIdle, Limit: l.ReadIdle},
		writeIdle: &Error{Phase: WriteIdle, Limit: l.WriteIdle, status: status},
	}
}

// none reports whether there is nothing to do.
func (p *plan) none() bool {
	return p.Total == 0 && p.FirstByte == 0 && p.ReadIdle == 0 && p.WriteIdle == 0
}

// deadlineOnly reports whether Total is the only limit.
func (p *plan) deadlineOnly() bool {
	return p.FirstByte == 0 && p.ReadIdle == 0 && p.WriteIdle == 0
}

// restDeadline is when the rest of a request body must have been read.
func (p *plan) restDeadline(start, now time.Time) (d time.Time, ok bool) {
	for _, t := range [...]struct {
		from  time.Time
		limit time.Duration
	}{{now, p.ReadIdle}, {start, p.Total}, {start, p.FirstByte}} {
		end := t.from.Add(t.limit)
		if t.limit == 0 || !end.After(now) {
			continue // kept, or see guardRest
		}
		if !ok || end.Before(d) {
			d, ok = end, true
		}
	}
	return d, ok
}

// inherit fills the zero fields of l from d.
func (l Limits) inherit(d Limits) Limits {
	for _, f := range [...]struct{ to, from *time.Duration }{
		{&l.Total, &d.Total}, {&l.FirstByte, &d.FirstByte}, {&l.ReadIdle, &d.ReadIdle},
		{&l.WriteIdle, &d.WriteIdle}, {&l.Grace, &d.Grace},
	} {
		if *f.to == 0 {
			*f.to = *f.from
		}
	}
	return l
}

// routes are the plans of the patterns that have one. Those without a limit
// have one too, so that a look-up tells "no limit" from "not listed".
type routes struct {
	plans map[string]*plan
	few   []route // all of them, if that is faster to search
}

type route struct {
	pattern string
	plan    *plan
}

// few is how many patterns are found faster by comparing than by hashing. The
// mux returns the string that it was given, which is most often the very one.
const few = 8

func newRoutes(limits map[string]Limits, d Limits, status int) routes {
	r := routes{plans: make(map[string]*plan, len(limits))}
	for pattern, l := range limits {
		p := newPlan(l.inherit(d), status)
		r.plans[pattern] = p
		if len(limits) <= few {
			r.few = append(r.few, route{pattern, p})
		}
	}
	return r
}

// find returns the plan of a pattern, or nil.
func (r *routes) find(pattern string) *plan {
	if r.few == nil {
		return r.plans[pattern]
	}
	for i := range r.few {
		if r.few[i].pattern == pattern {
			return r.few[i].plan
		}
	}
	return nil
}

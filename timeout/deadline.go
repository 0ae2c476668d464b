package timeout

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// DeadlineConfig configures a [Deadline]. The zero value reads all the headers
// it knows.
type DeadlineConfig struct {
	// Headers are the fields to read, of these four, in any letter case; none
	// means all.
	//
	//   - Grpc-Timeout: one to eight digits and one of H M S m u n, as in the
	//     gRPC protocol over HTTP/2
	//   - Connect-Timeout-Ms: one to ten digits, milliseconds, as in the
	//     Connect protocol
	//   - X-Envoy-Expected-Rq-Timeout-Ms: the same, as sent by Envoy
	//   - Request-Timeout: seconds, with or without a decimal fraction
	Headers []string

	// Max is the longest deadline that is taken over; zero or negative is no
	// maximum. A deadline can only shorten what is already in the context.
	Max time.Duration

	// ErrorHandler answers with an *[Error]; nil is [WriteError].
	ErrorHandler func(http.ResponseWriter, *http.Request, error)
}

// Deadline sets the deadline of a request's context to the time that the
// caller says it will wait, so that nobody works on an answer that nobody reads.
// It is safe for concurrent use.
//
// It runs the handler in the serving goroutine, and answers 504 when that
// returns after the deadline without having answered. A [Middleware] inside it
// answers at the deadline. The smallest of several fields counts; a field that
// is malformed, or there twice, is as if it were not there, since a deadline is
// a hint; a time of zero is answered with 504 at once. A request without a
// deadline passes untouched.
type Deadline struct {
	m       *Middleware
	headers []string
	max     time.Duration
}

// NewDeadline returns a Deadline. The error lists every field that is wrong.
func NewDeadline(cfg DeadlineConfig) (*Deadline, error) {
	var errs []error
	d := &Deadline{max: cfg.Max}
	for i, name := range cfg.Headers {
		canonical := http.CanonicalHeaderKey(name)
		if _, ok := headerFormats[canonical]; !ok {
			errs = append(errs, fmt.Errorf("timeout: Headers[%d]: must be one of %s (got %q)", i, strings.Join(knownHeaders, ", "), name))
		}
		d.headers = append(d.headers, canonical)
	}
	if len(d.headers) == 0 {
		d.headers = knownHeaders
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	m, err := New(Config{ErrorHandler: cfg.ErrorHandler, Cooperative: true})
	if err != nil {
		return nil, err
	}
	d.m = m
	return d, nil
}

// Handler returns a handler that runs next within the caller's deadline. A nil
// next panics.
func (d *Deadline) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("timeout: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit, ok := d.limit(r.Header)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		p := &plan{Limits: Limits{Total: limit}, total: &Error{Phase: Caller, Limit: limit}}
		if limit > 0 {
			d.m.serveCooperative(w, r, next, p)
			return
		}
		if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody {
			w.Header()["Connection"] = []string{"close"} // instead of reading what is not wanted
		}
		d.m.cfg.ErrorHandler(w, r, p.total)
	})
}

// limit returns the shortest time that h gives.
func (d *Deadline) limit(h http.Header) (limit time.Duration, ok bool) {
	for _, name := range d.headers {
		if v := h[name]; len(v) == 1 {
			if t, valid := headerFormats[name].parse(v[0]); valid && (!ok || t < limit) {
				limit, ok = t, true
			}
		}
	}
	if d.max > 0 {
		limit = min(limit, d.max)
	}
	return limit, ok
}

// format is the text of a deadline header.
type format struct {
	parse  func(string) (time.Duration, bool)
	append func([]byte, time.Duration) []byte
}

var headerFormats = map[string]format{
	"Grpc-Timeout":                   {parseGRPC, appendGRPC},
	"Connect-Timeout-Ms":             {parseMillis, appendMillis},
	"X-Envoy-Expected-Rq-Timeout-Ms": {parseMillis, appendMillis},
	"Request-Timeout":                {parseSeconds, appendSeconds},
}

var knownHeaders = []string{"Grpc-Timeout", "Connect-Timeout-Ms", "X-Envoy-Expected-Rq-Timeout-Ms", "Request-Timeout"}

// grpcUnits are the units of the gRPC protocol, shortest first.
var grpcUnits = [...]struct {
	letter string
	unit   time.Duration
}{
	{"n", time.Nanosecond}, {"u", time.Microsecond}, {"m", time.Millisecond},
	{"S", time.Second}, {"M", time.Minute}, {"H", time.Hour},
}

const maxGRPC = 99_999_999 // eight digits

func parseGRPC(s string) (time.Duration, bool) {
	for _, u := range grpcUnits {
		if digits, ok := strings.CutSuffix(s, u.letter); ok {
			n, ok := parseDigits(digits, 8)
			return times(n, u.unit), ok
		}
	}
	return 0, false
}

// appendGRPC writes d in the finest unit that has room for it. As with the
// other formats a fraction is dropped: better a deadline too early for the one
// who keeps it than one too late for the one who waits. Only what would become
// zero, which is no time at all, is rounded up.
func appendGRPC(b []byte, d time.Duration) []byte {
	u := grpcUnits[0]
	for _, u = range grpcUnits {
		if d/u.unit <= maxGRPC { // at the latest as hours
			break
		}
	}
	return append(strconv.AppendInt(b, int64(d/u.unit), 10), u.letter...)
}

const maxMillis = 9_999_999_999 // ten digits

func parseMillis(s string) (time.Duration, bool) {
	n, ok := parseDigits(s, 10)
	return times(n, time.Millisecond), ok
}

func appendMillis(b []byte, d time.Duration) []byte {
	return strconv.AppendInt(b, min(max(1, d.Milliseconds()), maxMillis), 10)
}

func parseSeconds(s string) (time.Duration, bool) {
	whole, fraction, dot := strings.Cut(s, ".")
	n, ok := parseDigits(whole, 10)
	if !ok {
		return 0, false
	}
	d := times(n, time.Second)
	if !dot {
		return d, true
	}
	f, ok := parseDigits(fraction, 9)
	if !ok {
		return 0, false
	}
	for range 9 - len(fraction) {
		f *= 10
	}
	return d + min(time.Duration(f), math.MaxInt64-d), true
}

func appendSeconds(b []byte, d time.Duration) []byte {
	ms := max(1, d.Milliseconds())
	b = strconv.AppendInt(b, ms/1000, 10)
	if ms %= 1000; ms > 0 {
		b = fmt.Appendf(b, ".%03d", ms)
	}
	return b
}

// parseDigits parses one to most digits and nothing else.
func parseDigits(s string, most int) (n int64, ok bool) {
	if len(s) == 0 || len(s) > most {
		return 0, false
	}
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// times is n units, or the longest time there is.
func times(n int64, unit time.Duration) time.Duration {
	if n > int64(math.MaxInt64/unit) {
		return math.MaxInt64
	}
	return time.Duration(n) * unit
}

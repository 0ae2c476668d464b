// Package mwtest is the conformance suite for whatever stands between a
// client and a handler. [Run] checks a func(http.Handler) http.Handler and
// [RunTransport] an http.RoundTripper, each rule in a subtest of its own with
// a sentence that says what the rule is for.
//
// A package of the kit uses it in three lines:
//
//	func TestConformance(t *testing.T) {
//		mwtest.Run(t, mwtest.Middleware{New: func(t testing.TB) func(http.Handler) http.Handler {
//			return newLimiter(t, ratelimit.Config{…}).Handler
//		}})
//	}
//
// Every rule runs in a [testing/synctest] bubble of its own over
// [example.com/plainware/internal/memnet], once for each version of HTTP
// that it concerns. Waiting costs nothing there, so a rule that is broken by
// silence fails at once. What is under test must therefore live in a bubble:
// no sockets, and goroutines of its own must end in a t.Cleanup of the t that
// New receives. While it behaves, no request takes more than 5 s of fake time.
package mwtest

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
)

// Middleware is what Run tests, and what it is allowed to do by design.
type Middleware struct {
	// New returns a new instance, independent of those before. It is called
	// many times, in a bubble each. Required.
	New func(testing.TB) func(http.Handler) http.Handler

	// RequestHeaders names the headers that it may set, change or delete in
	// the caller's request before it calls the next handler. Empty means
	// that the request is not touched.
	RequestHeaders []string

	// ResponseHeaders names the headers that it adds to every response.
	// Empty means that responses are as without it.
	ResponseHeaders []string

	// PanicValue returns the value with which the handler panicked, given
	// the value that came out of the middleware. Nil means that they are the
	// same. http.ErrAbortHandler has to come out as it is in any case,
	// because the server compares it.
	PanicValue func(recovered any) any

	// ReadsBody says that it reads the whole body of a request before it
	// calls the next handler. The rules that watch a handler read a body
	// while it arrives are left out then.
	ReadsBody bool

	// Large is the size in bytes of a large body. 0 means 8 MiB, far beyond
	// every buffer and flow-control window on the way.
	Large int
}

// Run checks the rules of the composition contract.
func Run(t *testing.T, m Middleware) {
	t.Helper()
	if m.New == nil {
		t.Fatal("mwtest: New: is required")
	}
	for _, r := range handlerRules {
		if m.ReadsBody && slices.Contains(whileItArrives, r.name) {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			for _, p := range r.over {
				t.Run(p.String(), func(t *testing.T) {
					inBubble(t, r, &env{proto: p, mw: m, large: m.Large})
				})
			}
		})
	}
}

// rule is one sentence of the contract with the check that proves it.
type rule struct {
	name  string // of the subtest
	why   string // the sentence
	over  []memnet.Proto
	check func(*env) // reports with env.errorf
}

// What a rule runs over: the versions for which the server or its writer has
// code of its own.
var (
	http1 = []memnet.Proto{memnet.HTTP1}
	both  = []memnet.Proto{memnet.HTTP1, memnet.HTTP2} // h2c shares all of HTTP/2's code
	all   = memnet.Protos()
)

// inBubble runs one rule in a bubble and says so if it hangs. In a bubble
// everything that waits ends, but for one thing: time stands still while a
// goroutine waits for a sync.Mutex, which somebody then holds across a call
// of the next handler or of the base.
func inBubble(t *testing.T, r rule, e *env) {
	const limit = 2 * time.Minute // of real time; a rule takes milliseconds
	watch := time.AfterFunc(limit, func() {
		panic(fmt.Sprintf("mwtest: rule %q over %v hangs: is a mutex held while the next handler runs?", r.name, e.proto))
	})
	defer watch.Stop()
	synctest.Test(t, func(t *testing.T) {
		e.t = t
		if err := r.run(e); err != nil {
			t.Errorf("%s:\n%v", r.why, err)
		}
	})
}

// run checks the rule inside a bubble and returns all that is wrong.
func (r rule) run(e *env) error {
	// The first cleanup is the last to run. The clock stands still once the
	// test has ended, so what is still asleep by then has to wake up here.
	e.t.Cleanup(func() { time.Sleep(time.Hour) })
	r.check(e)
	synctest.Wait() // what handlers still report
	e.mu.Lock()
	defer e.mu.Unlock()
	return errors.Join(e.problems...)
}

// whileItArrives names the rules that whoever reads a body first cannot keep.
var whileItArrives = []string{"read deadline", "full duplex", "expect continue", "streamed upload"}

// handlerRules are the rules of Run, by theme.
var handlerRules = slices.Concat(
	responseRules,
	writerRules,
	streamRules,
	requestRules,
	isolationRules,
)

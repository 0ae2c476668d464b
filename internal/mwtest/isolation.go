package mwtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"example.com/plainware/internal/memnet"
)

var isolationRules = []rule{
	{"panic", "a panic leaves the middleware with the handler's value, before and after the response has begun", http1, checkPanic},
	{"abort handler", "http.ErrAbortHandler leaves the middleware as it is, and the client sees a cut", all, checkAbortHandler},
	{"nil handler", "a nil handler panics when wrapping and not at the first request", http1, checkNil},
	{"outer headers", "what a middleware outside has set is kept, and Vary and Set-Cookie are added to", both, checkOuterHeaders},
	{"header slices", "no two requests share a slice of header values", http1, checkHeaderSlices},
	{"two handlers", "one instance wraps two handlers, and each gets its own requests", http1, checkTwoHandlers},
	{"two instances", "two instances in one process do not affect each other", both, checkTwoInstances},
	{"nested", "it works inside itself, the same instance and another one", both, checkNested},
	{"concurrent", "requests run at the same time and do not mix", both, checkConcurrent},
	{"goroutines", "no goroutine is left after requests of every kind", both, checkGoroutines},
}

// recovered serves h below the middleware and a recoverer, and returns what
// that recovers; the panic goes on as http.ErrAbortHandler, so that the
// server closes the connection and logs nothing.
func (e *env) recovered(h http.HandlerFunc) (a answer, got any, err error) {
	mw := e.wrap(h)
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if got = recover(); got != nil {
				panic(http.ErrAbortHandler)
			}
		}()
		mw.ServeHTTP(w, r)
	}))
	a, err = e.fetch(s.Transport, e.request(s, "GET", "/", nil))
	return a, got, err
}

func checkPanic(e *env) {
	type private struct{ n int }
	for _, value := range []any{"text", errors.New("an error"), 42, &private{1}} {
		for _, begun := range []bool{false, true} {
			_, got, _ := e.recovered(func(w http.ResponseWriter, r *http.Request) {
				if begun {
					io.WriteString(w, "begun")
					http.NewResponseController(w).Flush()
				}
				panic(value)
			})
			if e.mw.PanicValue != nil && got != nil {
				got = e.mw.PanicValue(got)
			}
			if got != value {
				e.errorf("after panic(%#v) with the response begun (%t) a recoverer outside gets %#v", value, begun, got)
			}
		}
	}
}

func checkAbortHandler(e *env) {
	for _, begun := range []bool{false, true} {
		a, got, err := e.recovered(func(w http.ResponseWriter, r *http.Request) {
			if begun {
				io.WriteString(w, "begun")
				http.NewResponseController(w).Flush()
			}
			panic(http.ErrAbortHandler)
		})
		if got != http.ErrAbortHandler {
			e.errorf("with the response begun (%t) a recoverer outside gets %#v", begun, got)
		}
		if err == nil && !a.Cut {
			e.errorf("with the response begun (%t) the client gets a whole response, status %d, %q", begun, a.Status, a.Body)
		}
	}
	if log := e.logged(); log != "" {
		e.errorf("the server logs an abort: %s", log)
	}
}

func checkNil(e *env) {
	wrap := e.mw.New(e.t)
	defer func() {
		if v := recover(); v == nil {
			e.errorf("wrapping a nil handler does not panic")
		} else if !strings.Contains(fmt.Sprint(v), "nil handler") {
			e.errorf(`wrapping a nil handler panics with %v, want "package: nil handler"`, v)
		}
	}()
	wrap(nil)
}

func checkOuterHeaders(e *env) {
	mw := e.wrap(func(w http.ResponseWriter, r *http.Request) {
		if got := w.Header().Get("X-Outer"); got != "kept" {
			e.errorf("the handler sees X-Outer %q", got)
		}
		w.Header().Del("X-Delete")
		w.Header().Add("Vary", "Inner")
		w.Header().Add("Set-Cookie", "inner=1")
		w.WriteHeader(http.StatusTeapot)
	})
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Outer", "kept")
		w.Header().Set("X-Delete", "gone")
		w.Header().Add("Vary", "Outer")
		w.Header().Add("Set-Cookie", "outer=1")
		mw.ServeHTTP(w, r)
		// What stands outside, an access log for example, reads them here.
		if got := w.Header().Get("X-Outer"); got != "kept" {
			e.errorf("afterwards X-Outer is %q outside", got)
		}
	}))
	a, err := e.fetch(s.Transport, e.request(s, "GET", "/", nil))
	if err != nil {
		e.errorf("%v", err)
		return
	}
	if got := a.Header.Values("X-Outer"); !slices.Equal(got, []string{"kept"}) {
		e.errorf("the response has X-Outer %q", got)
	}
	if got := a.Header.Values("X-Delete"); len(got) != 0 {
		e.errorf("the handler deleted X-Delete, the response has it: %q", got)
	}
	for name, want := range map[string][]string{"Vary": {"Outer", "Inner"}, "Set-Cookie": {"outer=1", "inner=1"}} {
		got := a.Header.Values(name)
		for _, v := range want {
			if !slices.Contains(got, v) {
				e.errorf("the response has %s %q without %q", name, got, v)
			}
		}
	}
}

// checkHeaderSlices writes into every header value that a handler can reach,
// behind the end of the slices too, and looks for the marks of others.
func checkHeaderSlices(e *env) {
	requests := 0
	handler := func(w http.ResponseWriter, r *http.Request) {
		requests++
		const prefix = "written by request "
		mark := fmt.Sprint(prefix, requests)
		spoil := func(what string, h http.Header) {
			for k, v := range h {
				for i, s := range v[:cap(v)] {
					if strings.HasPrefix(s, prefix) && s != mark {
						e.errorf("%s %s of request %d shares its slice: %s", what, k, requests, s)
					}
					v[:cap(v)][i] = mark
				}
			}
		}
		spoil("response header", w.Header())
		spoil("request header", r.Header)
		clear(w.Header()) // a mark is not valid as every header
	}
	a, b := e.mw.New(e.t), e.mw.New(e.t)
	one, same, other := e.serve(a(http.HandlerFunc(handler))), e.serve(a(http.HandlerFunc(handler))), e.serve(b(http.HandlerFunc(handler)))
	for range 2 {
		for _, s := range []*memnet.Server{one, same, other} {
			if _, err := e.fetch(s.Transport, e.request(s, "GET", "/", nil)); err != nil {
				e.errorf("%v", err)
			}
		}
	}
}

// say is a handler that answers with its name and what it is asked to echo.
func say(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Name", name)
		fmt.Fprint(w, name, " ", r.Header.Get("X-Echo"))
	})
}

// ask sends n requests at once to each server and checks that the answer
// comes from the handler of that name.
func (e *env) ask(n int, servers map[string]*memnet.Server) {
	var wg sync.WaitGroup
	for name, s := range servers {
		for i := range n {
			wg.Go(func() {
				r := e.request(s, "GET", "/", nil)
				r.Header.Set("X-Echo", fmt.Sprint(i))
				a, err := e.fetch(s.Transport, r)
				if want := fmt.Sprint(name, " ", i); err != nil || a.Body != want || a.Header.Get("X-Name") != name {
					e.errorf("the answer is status %d, %q, X-Name %q, %v; want %q", a.Status, a.Body, a.Header.Get("X-Name"), err, want)
				}
			})
		}
	}
	wg.Wait()
}

func checkTwoHandlers(e *env) {
	wrap := e.mw.New(e.t)
	a, b := wrap(say("a")), wrap(say("b"))
	e.ask(4, map[string]*memnet.Server{"a": e.serve(a), "b": e.serve(b)})
}

func checkTwoInstances(e *env) {
	a, b := e.mw.New(e.t), e.mw.New(e.t)
	ha, hb := a(say("a")), b(say("b"))
	e.ask(16, map[string]*memnet.Server{"a": e.serve(ha), "b": e.serve(hb)})
}

func checkNested(e *env) {
	h := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-A", "1")
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, "one")
		if err := http.NewResponseController(w).Flush(); err != nil {
			e.errorf("Flush: %v", err)
		}
		io.WriteString(w, "two")
	}
	one, two := e.mw.New(e.t), e.mw.New(e.t)
	plain := e.serve(http.HandlerFunc(h))
	e.compare("one instance twice", plain, e.serve(one(one(http.HandlerFunc(h)))), e.get("GET", "/"))
	e.compare("two instances", plain, e.serve(one(two(http.HandlerFunc(h)))), e.get("GET", "/"))
}

func checkConcurrent(e *env) {
	const n = 16
	var running atomic.Int64
	met := make(chan struct{})
	s := e.serve(e.wrap(func(w http.ResponseWriter, r *http.Request) {
		if running.Add(1) == n {
			close(met)
		}
		if !wait(met) {
			e.errorf("%d requests do not run at the same time", n)
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Path", r.URL.Path)
		w.Write(body)
	}))
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			path, body := fmt.Sprint("/", i), strings.Repeat(fmt.Sprint(i, " "), 10_000)
			a, err := e.fetch(s.Transport, e.request(s, "POST", path, strings.NewReader(body)))
			if err != nil || a.Header.Get("X-Path") != path || a.Body != body {
				e.errorf("request %d: path %q, the body is right: %t, %v", i, a.Header.Get("X-Path"), a.Body == body, err)
			}
		})
	}
	wg.Wait()
}

func checkGoroutines(e *env) {
	wrap := e.mw.New(e.t)
	begun := make(chan struct{}, 1)
	h := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/body":
			io.Copy(w, r.Body)
		case "/panic":
			panic(http.ErrAbortHandler)
		case "/cut":
			io.WriteString(w, "begun")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/left":
			begun <- struct{}{}
			wait(r.Context().Done())
		case "/hijack":
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				c.Close()
			}
		}
	}))
	before := goroutines()
	s := memnet.Serve(e.t, e.proto, &http.Server{Handler: h})
	for _, path := range []string{"/", "/body", "/panic", "/cut", "/hijack", "/"} {
		e.fetch(s.Transport, e.request(s, "POST", path, strings.NewReader(strings.Repeat("x", 100_000))))
	}
	r := e.request(s, "GET", "/left", nil)
	ctx, cancel := context.WithCancel(r.Context())
	go func() {
		select {
		case <-begun:
		case <-ctx.Done(): // the handler was not called
		}
		cancel()
	}()
	e.fetch(s.Transport, r.WithContext(ctx))
	cancel()
	s.Transport.CloseIdleConnections()
	s.HTTP.Close()
	for _, g := range newGoroutines(before) {
		e.errorf("left behind:\n%s", g)
	}
}

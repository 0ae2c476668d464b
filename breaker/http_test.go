package breaker_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/breaker"
	"example.com/plainware/internal/memnet"
	"example.com/plainware/internal/mwtest"
)

func TestConformance(t *testing.T) {
	mwtest.Run(t, mwtest.Middleware{New: func(t testing.TB) func(http.Handler) http.Handler {
		return newBreaker(t, breaker.Config{FailureRatio: -1}).Handler
	}})
}

func TestGroupConformance(t *testing.T) {
	mwtest.Run(t, mwtest.Middleware{New: func(t testing.TB) func(http.Handler) http.Handler {
		return newGroup(t, breaker.GroupConfig{}).Handler
	}})
}

func TestTransportConformance(t *testing.T) {
	mwtest.RunTransport(t, mwtest.Transport{New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
		return newBreaker(t, breaker.Config{Base: base})
	}})
}

func TestGroupTransportConformance(t *testing.T) {
	mwtest.RunTransport(t, mwtest.Transport{New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
		return newGroup(t, breaker.GroupConfig{Config: breaker.Config{Base: base}})
	}})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func request(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// breaker 35: a caller that leaves is neutral, a body that breaks off is a
// failure, and so on: what each end of a call counts as, over a real transport.
func TestTransportOutcomes(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			io.WriteString(w, "fine")
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/404":
			w.WriteHeader(http.StatusNotFound)
		case "/429":
			w.WriteHeader(http.StatusTooManyRequests)
		case "/500":
			http.Error(w, "broken", http.StatusInternalServerError)
		case "/501":
			w.WriteHeader(http.StatusNotImplemented)
		case "/cut":
			w.Write(make([]byte, 10))
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/gone":
			panic(http.ErrAbortHandler)
		case "/hang":
			<-r.Context().Done()
		case "/stream":
			for r.Context().Err() == nil {
				w.Write(make([]byte, 10))
				http.NewResponseController(w).Flush()
				time.Sleep(time.Second)
			}
		}
	})
	read := func(ctx context.Context, b *breaker.Breaker, r *http.Request) {
		if res, err := b.RoundTrip(r.WithContext(ctx)); err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}
	cancelled := func(ctx context.Context, b *breaker.Breaker, r *http.Request) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(1500*time.Millisecond, cancel)
		read(ctx, b, r)
	}
	deadline := func(ctx context.Context, b *breaker.Breaker, r *http.Request) {
		ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
		defer cancel()
		read(ctx, b, r)
	}
	closing := func(ctx context.Context, b *breaker.Breaker, r *http.Request) {
		if res, err := b.RoundTrip(r.WithContext(ctx)); err == nil {
			res.Body.Close()
		}
	}
	for _, c := range []struct {
		name, path      string
		do              func(context.Context, *breaker.Breaker, *http.Request)
		calls, failures int64
	}{
		{"success", "/ok", read, 1, 0},
		{"no body", "/none", read, 1, 0},
		{"not found", "/404", read, 1, 0},
		{"too many requests", "/429", read, 1, 0},
		{"5xx", "/500", read, 1, 1},
		{"5xx, not read", "/500", closing, 1, 1},
		{"not implemented", "/501", read, 1, 0},
		{"body cut", "/cut", read, 1, 1},
		{"no response", "/gone", read, 1, 1},
		{"cancelled before the header", "/hang", cancelled, 0, 0},
		{"cancelled in the body", "/stream", cancelled, 0, 0},
		{"deadline before the header", "/hang", deadline, 1, 1},
		{"deadline in the body", "/stream", deadline, 1, 1},
		{"closed in the body", "/stream", closing, 1, 0},
	} {
		for _, proto := range memnet.Protos() {
			t.Run(c.name+"/"+proto.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := memnet.Serve(t, proto, &http.Server{Handler: handler})
					b := newBreaker(t, breaker.Config{Base: s.Transport})
					c.do(t.Context(), b, request(t, "GET", s.URL+c.path, nil))
					if st := b.Stats(); st.Calls != c.calls || st.Failures != c.failures {
						t.Errorf("%d calls, %d failures", st.Calls, st.Failures)
					}
					settle(2 * time.Second) // for the handlers
				})
			})
		}
	}
}

// The same below a handler.
func TestHandlerOutcomes(t *testing.T) {
	left, leave := context.WithCancel(t.Context())
	leave()
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for _, c := range []struct {
		name            string
		ctx             context.Context
		handler         http.HandlerFunc
		calls, failures int64
	}{
		{"nothing written", t.Context(), func(w http.ResponseWriter, r *http.Request) {}, 1, 0},
		{"404", t.Context(), func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) }, 1, 0},
		{"502", t.Context(), func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(502) }, 1, 1},
		{"505", t.Context(), func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(505) }, 1, 0},
		{"502 for a client that has left", left, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(502) }, 0, 0},
		{"deadline outside", late, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(504) }, 1, 1},
		{"panic", t.Context(), func(http.ResponseWriter, *http.Request) { panic("x") }, 1, 1},
		{"abort", t.Context(), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 1, 1},
		{"abort for a client that has left", left, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{})
			func() {
				defer func() { recover() }()
				b.Handler(c.handler).ServeHTTP(&recorder{header: http.Header{}}, request(t, "GET", "/", nil).WithContext(c.ctx))
			}()
			if st := b.Stats(); st.Calls != c.calls || st.Failures != c.failures {
				t.Errorf("%d calls, %d failures", st.Calls, st.Failures)
			}
		})
	}
}

// recorder is a plain response writer.
type recorder struct {
	header http.Header
	status int
	body   strings.Builder
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status = status }
func (w *recorder) Write(p []byte) (int, error) { return w.body.Write(p) }

// breaker 29: a probe that panics, or whose base does, frees its place.
func TestPanickingProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{
			Base:     roundTrip(func(*http.Request) (*http.Response, error) { panic("base") }),
			Classify: func(breaker.Result) breaker.Outcome { return breaker.Ignored },
		})
		trip(t, b)
		settle(6 * time.Second)
		for range 3 { // and stays half-open by way of Classify
			func() {
				defer func() { recover() }()
				b.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("handler") })).
					ServeHTTP(&recorder{header: http.Header{}}, request(t, "GET", "/", nil))
			}()
		}
		want(t, b, breaker.HalfOpen)
		func() {
			defer func() { recover() }()
			b.RoundTrip(request(t, "GET", "http://x/", nil))
		}()
		want(t, b, breaker.Open)
	})
}

// breaker 35: 503 with Retry-After and problem details where it is open.
func TestRefusal(t *testing.T) {
	for _, proto := range memnet.Protos() {
		t.Run(proto.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, breaker.Config{})
				s := memnet.Serve(t, proto, &http.Server{Handler: b.Handler(http.NotFoundHandler())})
				trip(t, b)
				res, err := s.Client.Do(request(t, "POST", s.URL, strings.NewReader("body")))
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				var p struct{ Code string }
				if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
					t.Fatal(err)
				}
				after := res.Header.Get("Retry-After")
				if res.StatusCode != 503 || p.Code != "breaker_open" || after != "5" && after != "6" ||
					res.Close != (proto == memnet.HTTP1) {
					t.Errorf("status %d, code %q, Retry-After %q, close %v", res.StatusCode, p.Code, after, res.Close)
				}
			})
		})
	}
}

func TestErrorHandler(t *testing.T) {
	b := newBreaker(t, breaker.Config{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		e, ok := errors.AsType[*breaker.OpenError](err)
		if !ok || w.Header().Get("Retry-After") == "" {
			t.Errorf("%#v", err)
		}
		w.WriteHeader(e.HTTPStatus() + 1)
	}})
	trip(t, b)
	w := &recorder{header: http.Header{}}
	b.Handler(http.NotFoundHandler()).ServeHTTP(w, request(t, "GET", "/", nil))
	if w.status != 504 {
		t.Error(w.status)
	}
}

type closer struct {
	io.Reader
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

// A call that is refused closes the body of the request, as a transport must.
func TestRefusedCall(t *testing.T) {
	base := roundTrip(func(*http.Request) (*http.Response, error) { t.Error("was sent"); return nil, io.EOF })
	b := newBreaker(t, breaker.Config{Base: base})
	trip(t, b)
	body := &closer{Reader: strings.NewReader("x")}
	_, err := b.RoundTrip(request(t, "POST", "http://x/", body))
	if _, ok := errors.AsType[*breaker.OpenError](err); !ok || !body.closed {
		t.Errorf("%v, closed %v", err, body.closed)
	}

	b = newBreaker(t, breaker.Config{Base: base, Fallback: func(r *http.Request, e *breaker.OpenError) (*http.Response, error) {
		return &http.Response{StatusCode: 203, Body: http.NoBody, Request: r}, nil
	}})
	trip(t, b)
	body = &closer{Reader: strings.NewReader("x")}
	res, err := b.RoundTrip(request(t, "POST", "http://x/", body))
	if err != nil || res.StatusCode != 203 || !body.closed {
		t.Errorf("%v, %v, closed %v", res, err, body.closed)
	}
}

// A probe whose response is a stream without an end has succeeded when it still
// delivers after the probe timeout.
func TestStreamingProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, "tick")
				http.NewResponseController(w).Flush()
				time.Sleep(time.Second)
			}
		})})
		b := newBreaker(t, breaker.Config{Base: s.Transport, Successes: 1})
		trip(t, b)
		settle(6 * time.Second)
		res, err := b.RoundTrip(request(t, "GET", s.URL, nil))
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4)
		for range 10 {
			want(t, b, breaker.HalfOpen)
			io.ReadFull(res.Body, buf)
		}
		io.ReadFull(res.Body, buf)
		io.ReadFull(res.Body, buf)
		want(t, b, breaker.Closed)
		res.Body.Close()
		settle(2 * time.Second) // for the handler
	})
}

// Another breaker's refusal below says nothing, as nothing was sent.
func TestNested(t *testing.T) {
	inner := newBreaker(t, breaker.Config{})
	outer := newBreaker(t, breaker.Config{Base: inner})
	trip(t, inner)
	for range 100 {
		outer.RoundTrip(request(t, "GET", "http://x/", nil))
	}
	want(t, outer, breaker.Closed)
	if s := outer.Stats(); s.Calls != 0 {
		t.Errorf("%+v", s)
	}
}

func TestNilHandler(t *testing.T) {
	for _, f := range []func(http.Handler) http.Handler{
		newBreaker(t, breaker.Config{}).Handler, newGroup(t, breaker.GroupConfig{}).Handler,
	} {
		func() {
			defer func() {
				if got := recover(); got != "breaker: nil handler" {
					t.Error(got)
				}
			}()
			f(nil)
		}()
	}
}

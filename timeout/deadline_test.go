package timeout_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

func newDeadline(t testing.TB, cfg timeout.DeadlineConfig) *timeout.Deadline {
	t.Helper()
	d, err := timeout.NewDeadline(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// never is the time until the deadline of a context that has none.
const never = time.Duration(-1)

// timeLeft is how long the handler below d has for a request with the header
// fields h. It must be called in a bubble, where no time passes on the way. A
// refusal is 0.
func timeLeft(t *testing.T, d *timeout.Deadline, h http.Header) time.Duration {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	r.Header = h
	var left time.Duration
	w := httptest.NewRecorder()
	d.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		left = never
		if end, ok := r.Context().Deadline(); ok {
			left = time.Until(end)
		}
	})).ServeHTTP(w, r)
	if left == 0 && w.Code != http.StatusGatewayTimeout || left != 0 && w.Code != http.StatusOK {
		t.Errorf("%v: the handler had %v, and the status is %d", h, left, w.Code)
	}
	return left
}

// forever is the longest time that there is.
const forever = time.Duration(math.MaxInt64)

// timeout 30: every format of a deadline header, what is malformed in each,
// and the ends of its range.
func TestDeadlineFormats(t *testing.T) {
	for _, c := range []struct {
		header, value string
		want          time.Duration
	}{
		// As in grpc-go's test of its decoder.
		{"Grpc-Timeout", "1234S", 1234 * time.Second},
		{"Grpc-Timeout", "1234x", never},
		{"Grpc-Timeout", "1", never},
		{"Grpc-Timeout", "", never},
		// The units of the protocol's specification.
		{"Grpc-Timeout", "1H", time.Hour},
		{"Grpc-Timeout", "2M", 2 * time.Minute},
		{"Grpc-Timeout", "3S", 3 * time.Second},
		{"Grpc-Timeout", "4m", 4 * time.Millisecond},
		{"Grpc-Timeout", "5u", 5 * time.Microsecond},
		{"Grpc-Timeout", "6n", 6 * time.Nanosecond},
		{"Grpc-Timeout", "00000001S", time.Second},
		{"Grpc-Timeout", "99999999S", 99_999_999 * time.Second},
		{"Grpc-Timeout", "99999999M", 99_999_999 * time.Minute},
		{"Grpc-Timeout", "2562047H", 2_562_047 * time.Hour},
		{"Grpc-Timeout", "2562048H", forever},
		{"Grpc-Timeout", "99999999H", forever},
		{"Grpc-Timeout", "0S", 0},
		{"Grpc-Timeout", "00000000n", 0},
		{"Grpc-Timeout", "999999999n", never}, // nine digits
		{"Grpc-Timeout", "000000001S", never},
		{"Grpc-Timeout", "1s", never},
		{"Grpc-Timeout", "1h", never},
		{"Grpc-Timeout", "1N", never},
		{"Grpc-Timeout", "S", never},
		{"Grpc-Timeout", "-1S", never},
		{"Grpc-Timeout", "+1S", never},
		{"Grpc-Timeout", "1.5S", never},
		{"Grpc-Timeout", " 1S", never},
		{"Grpc-Timeout", "1S ", never},
		{"Grpc-Timeout", "1 S", never},
		{"Grpc-Timeout", "1mS", never},
		{"Grpc-Timeout", "1SS", never},
		{"Grpc-Timeout", "0x1S", never},
		{"Grpc-Timeout", "1_0S", never},
		{"Grpc-Timeout", "1S, 2S", never},
		{"Grpc-Timeout", "١S", never}, // a digit, but not of ASCII

		{"Connect-Timeout-Ms", "1", time.Millisecond},
		{"Connect-Timeout-Ms", "1500", 1500 * time.Millisecond},
		{"Connect-Timeout-Ms", "9999999999", 9_999_999_999 * time.Millisecond},
		{"Connect-Timeout-Ms", "0", 0},
		{"Connect-Timeout-Ms", "10000000000", never}, // eleven digits
		{"Connect-Timeout-Ms", "00000000001", never},
		{"Connect-Timeout-Ms", "", never},
		{"Connect-Timeout-Ms", "-1", never},
		{"Connect-Timeout-Ms", "+1", never},
		{"Connect-Timeout-Ms", "1.5", never},
		{"Connect-Timeout-Ms", "1ms", never},
		{"Connect-Timeout-Ms", " 1", never},
		{"Connect-Timeout-Ms", "1e3", never},
		{"Connect-Timeout-Ms", "Infinity", never},

		{"X-Envoy-Expected-Rq-Timeout-Ms", "250", 250 * time.Millisecond},
		{"X-Envoy-Expected-Rq-Timeout-Ms", "0", 0},
		{"X-Envoy-Expected-Rq-Timeout-Ms", "-5", never},

		{"Request-Timeout", "5", 5 * time.Second},
		{"Request-Timeout", "0.25", 250 * time.Millisecond},
		{"Request-Timeout", "1.500", 1500 * time.Millisecond},
		{"Request-Timeout", "0.000000001", time.Nanosecond},
		{"Request-Timeout", "9999999999", forever},
		{"Request-Timeout", "9223372036", 9_223_372_036 * time.Second},
		{"Request-Timeout", "9223372036.854775807", forever},
		{"Request-Timeout", "9223372036.854775806", forever - 1},
		{"Request-Timeout", "9223372036.9", forever},
		{"Request-Timeout", "0", 0},
		{"Request-Timeout", "0.0", 0},
		{"Request-Timeout", "12345678901", never}, // eleven digits
		{"Request-Timeout", "0.0000000001", never},
		{"Request-Timeout", "", never},
		{"Request-Timeout", ".", never},
		{"Request-Timeout", ".5", never},
		{"Request-Timeout", "5.", never},
		{"Request-Timeout", "1.2.3", never},
		{"Request-Timeout", "-1", never},
		{"Request-Timeout", "1.-5", never},
		{"Request-Timeout", "+1", never},
		{"Request-Timeout", "5s", never},
		{"Request-Timeout", "1,5", never},
		{"Request-Timeout", " 5", never},
		{"Request-Timeout", "NaN", never},
		{"Request-Timeout", "Inf", never},
		{"Request-Timeout", "1e1", never},
	} {
		t.Run(c.header+"="+c.value, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDeadline(t, timeout.DeadlineConfig{})
				if got := timeLeft(t, d, http.Header{c.header: {c.value}}); got != c.want {
					t.Errorf("got %v, want %v", got, c.want)
				}
			})
		})
	}
}

// timeout 30: Max, several headers, a repeated field, and the choice of fields.
func TestDeadlineChoice(t *testing.T) {
	all := http.Header{"Grpc-Timeout": {"4S"}, "Connect-Timeout-Ms": {"3000"}, "X-Envoy-Expected-Rq-Timeout-Ms": {"2000"}, "Request-Timeout": {"5"}}
	for _, c := range []struct {
		name string
		cfg  timeout.DeadlineConfig
		h    http.Header
		want time.Duration
	}{
		{"none", timeout.DeadlineConfig{}, http.Header{}, never},
		{"none with a maximum", timeout.DeadlineConfig{Max: time.Second}, http.Header{}, never},
		{"longer than the maximum", timeout.DeadlineConfig{Max: time.Minute}, http.Header{"Grpc-Timeout": {"99999999H"}}, time.Minute},
		{"shorter than the maximum", timeout.DeadlineConfig{Max: time.Minute}, http.Header{"Grpc-Timeout": {"1S"}}, time.Second},
		{"negative maximum", timeout.DeadlineConfig{Max: -1}, http.Header{"Grpc-Timeout": {"1H"}}, time.Hour},
		{"zero with a maximum", timeout.DeadlineConfig{Max: time.Minute}, http.Header{"Grpc-Timeout": {"0S"}}, 0},
		{"the smallest of all", timeout.DeadlineConfig{}, all, 2 * time.Second},
		{"the smallest of those chosen", timeout.DeadlineConfig{Headers: []string{"grpc-timeout", "Request-Timeout"}}, all, 4 * time.Second},
		{"not chosen", timeout.DeadlineConfig{Headers: []string{"Grpc-Timeout"}}, http.Header{"Request-Timeout": {"1"}}, never},
		{"malformed beside a good one", timeout.DeadlineConfig{}, http.Header{"Grpc-Timeout": {"1s"}, "Request-Timeout": {"9"}}, 9 * time.Second},
		{"zero beside a good one", timeout.DeadlineConfig{}, http.Header{"Grpc-Timeout": {"0S"}, "Request-Timeout": {"9"}}, 0},
		{"repeated", timeout.DeadlineConfig{}, http.Header{"Grpc-Timeout": {"1S", "2S"}}, never},
		{"repeated with one value", timeout.DeadlineConfig{}, http.Header{"Grpc-Timeout": {"1S", "1S"}}, never},
		{"repeated beside a good one", timeout.DeadlineConfig{}, http.Header{"Grpc-Timeout": {"1S", "2S"}, "Request-Timeout": {"9"}}, 9 * time.Second},
		{"without a value", timeout.DeadlineConfig{}, http.Header{"Grpc-Timeout": {}}, never},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := timeLeft(t, newDeadline(t, c.cfg), c.h); got != c.want {
					t.Errorf("got %v, want %v", got, c.want)
				}
			})
		})
	}
}

// A deadline can only shorten what is in the context already, and says so when
// it has passed.
func TestDeadlineOnlyShortens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeadline(t, timeout.DeadlineConfig{})
		for _, c := range []struct {
			header string
			want   time.Duration
		}{{"5S", 5 * time.Second}, {"30S", 10 * time.Second}} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
			r.Header.Set("Grpc-Timeout", c.header)
			w := httptest.NewRecorder()
			d.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				start := time.Now()
				<-r.Context().Done()
				if time.Since(start) != c.want {
					t.Errorf("%s: the context ended after %v, want %v", c.header, time.Since(start), c.want)
				}
			})).ServeHTTP(w, r)
			if w.Code != http.StatusGatewayTimeout {
				t.Errorf("%s: got %d", c.header, w.Code)
			}
			cancel()
		}
	})
}

// The handler's context tells why it ended.
func TestDeadlineCause(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, newDeadline(t, timeout.DeadlineConfig{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			cause := context.Cause(r.Context())
			e, ok := errors.AsType[*timeout.Error](cause)
			if !ok || e.Phase != timeout.Caller || e.Limit != time.Second || !errors.Is(cause, context.DeadlineExceeded) {
				t.Errorf("the cause is %#v", cause)
			}
			if r.Context().Err() != context.DeadlineExceeded {
				t.Errorf("the error is %v", r.Context().Err())
			}
		})))
		req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
		req.Header.Set("Request-Timeout", "1")
		if r := askWith(t, s, req); !r.isProblem(http.StatusGatewayTimeout, "timeout_caller") || r.after != time.Second {
			t.Errorf("got %+v", r)
		}
	})
}

// timeout 30: a time of zero is answered at once, without the handler, and on
// HTTP/1.1 without waiting for the body.
func TestDeadlineZero(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, newDeadline(t, timeout.DeadlineConfig{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			t.Error("the handler was called")
		})))
		pr, _ := pipeBody(t)
		for _, c := range []struct {
			body  io.Reader
			close bool
		}{{nil, false}, {pr, p == memnet.HTTP1}} {
			req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL, c.body)
			req.Header.Set("Grpc-Timeout", "0m")
			r := askWith(t, s, req)
			if !r.isProblem(http.StatusGatewayTimeout, "timeout_caller") || r.close != c.close {
				t.Errorf("with a body %v: got %+v", c.body != nil, r)
			}
			if p == memnet.HTTP1 && r.after != 0 {
				t.Errorf("with a body %v: answered after %v", c.body != nil, r.after)
			}
		}
	})
}

// A handler that ends in time, one that answers too late itself, and one that
// returns without an answer.
func TestDeadlineIsCooperative(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, newDeadline(t, timeout.DeadlineConfig{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/late":
				time.Sleep(3 * time.Second)
				io.WriteString(w, "late")
			case "/fast":
				io.WriteString(w, "fast")
			case "/none":
				time.Sleep(3 * time.Second)
			}
		})))
		for path, want := range map[string]string{"/late": "late", "/fast": "fast", "/none": "timeout_caller"} {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+path, nil)
			req.Header.Set("Connect-Timeout-Ms", "1000")
			if r := askWith(t, s, req); !strings.Contains(r.body, want) || r.cut != nil || (r.status == http.StatusGatewayTimeout) != (path == "/none") {
				t.Errorf("%s: got %+v", path, r)
			}
		}
	})
}

// A stalled upload is freed at the deadline.
func TestDeadlineStalledUpload(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, newDeadline(t, timeout.DeadlineConfig{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("read: %v", err)
			}
		})))
		pr, pw := pipeBody(t)
		go io.WriteString(pw, "abc")
		req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL, pr)
		req.Header.Set("Grpc-Timeout", "2S")
		r := askWith(t, s, req)
		if !r.isProblem(http.StatusGatewayTimeout, "timeout_caller") || r.after != 2*time.Second || r.close != (p == memnet.HTTP1) {
			t.Errorf("got %+v", r)
		}
	})
}

// A Middleware inside answers at the deadline, in whose place a handler that
// ignores its context cannot stand, and a Middleware outside keeps its own.
func TestDeadlineWithMiddleware(t *testing.T) {
	stubborn := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(20 * time.Second) })
	for _, c := range []struct {
		name  string
		wrap  func(*timeout.Deadline, *timeout.Middleware) http.Handler
		total time.Duration
		code  string
		want  int
		after time.Duration
	}{
		{"inside", func(d *timeout.Deadline, m *timeout.Middleware) http.Handler { return d.Handler(m.Handler(stubborn)) },
			10 * time.Second, "timeout_caller", http.StatusGatewayTimeout, 2 * time.Second},
		{"inside with less time", func(d *timeout.Deadline, m *timeout.Middleware) http.Handler { return d.Handler(m.Handler(stubborn)) },
			time.Second, "timeout_total", http.StatusServiceUnavailable, time.Second},
		{"outside", func(d *timeout.Deadline, m *timeout.Middleware) http.Handler { return m.Handler(d.Handler(stubborn)) },
			10 * time.Second, "timeout_total", http.StatusServiceUnavailable, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				m := newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: c.total}})
				s := serve(t, p, c.wrap(newDeadline(t, timeout.DeadlineConfig{}), m))
				req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
				req.Header.Set("Request-Timeout", "2")
				if r := askWith(t, s, req); !r.isProblem(c.want, c.code) || r.after != c.after {
					t.Errorf("got %+v", r)
				}
			})
		})
	}
}

// The ErrorHandler gets the error, for both kinds of refusal.
func TestDeadlineErrorHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeadline(t, timeout.DeadlineConfig{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if e, ok := errors.AsType[*timeout.Error](err); !ok || e.Phase != timeout.Caller {
				t.Errorf("got %v", err)
			}
			http.Error(w, err.Error(), http.StatusTeapot)
		}})
		for header, want := range map[string]string{
			"0S": "timeout: caller's limit passed\n",
			"1S": "timeout: caller's limit of 1s passed\n",
		} {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.Header.Set("Grpc-Timeout", header)
			w := httptest.NewRecorder()
			d.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })).ServeHTTP(w, r)
			if w.Code != http.StatusTeapot || w.Body.String() != want {
				t.Errorf("%s: got %d, %q", header, w.Code, w.Body)
			}
		}
	})
}

// A request without a deadline passes untouched: the same request, and the same
// writer.
func TestDeadlineUntouched(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	w := httptest.NewRecorder()
	newDeadline(t, timeout.DeadlineConfig{}).Handler(http.HandlerFunc(func(w2 http.ResponseWriter, r2 *http.Request) {
		if r2 != r || w2 != http.ResponseWriter(w) {
			t.Error("the request or the writer is another one")
		}
	})).ServeHTTP(w, r)
}

// The configuration is copied, every problem is named at once, and a nil
// handler panics.
func TestDeadlineConfig(t *testing.T) {
	const known = "Grpc-Timeout, Connect-Timeout-Ms, X-Envoy-Expected-Rq-Timeout-Ms, Request-Timeout"
	for _, c := range []struct {
		headers []string
		want    string
	}{
		{[]string{"X-Timeout"}, `timeout: Headers[0]: must be one of ` + known + ` (got "X-Timeout")`},
		{[]string{""}, `timeout: Headers[0]: must be one of ` + known + ` (got "")`},
		{[]string{"Grpc-Timeout ", "request-timeout", "Timeout"},
			`timeout: Headers[0]: must be one of ` + known + ` (got "Grpc-Timeout ")` + "\n" +
				`timeout: Headers[2]: must be one of ` + known + ` (got "Timeout")`},
	} {
		if d, err := timeout.NewDeadline(timeout.DeadlineConfig{Headers: c.headers}); d != nil || err == nil || err.Error() != c.want {
			t.Errorf("%q: got %v, %v\nwant %s", c.headers, d, err, c.want)
		}
	}

	synctest.Test(t, func(t *testing.T) {
		headers := []string{"Grpc-Timeout"}
		d := newDeadline(t, timeout.DeadlineConfig{Headers: headers})
		headers[0] = "Request-Timeout"
		if got := timeLeft(t, d, http.Header{"Grpc-Timeout": {"1S"}, "Request-Timeout": {"2"}}); got != time.Second {
			t.Errorf("after the configuration was changed: got %v", got)
		}
	})

	defer func() {
		if v := recover(); v != "timeout: nil handler" {
			t.Errorf("a nil handler panics with %v", v)
		}
	}()
	newDeadline(t, timeout.DeadlineConfig{}).Handler(nil)
}

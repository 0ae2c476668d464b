package timeout_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// roundTrip is a base for a Transport.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func newTransport(t testing.TB, cfg timeout.TransportConfig) *timeout.Transport {
	t.Helper()
	tr, err := timeout.NewTransport(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// sent returns the header that goes to the server for a request with the
// header h and so much time left, nil if none does. It must be called in a
// bubble.
func sent(t *testing.T, cfg timeout.TransportConfig, left time.Duration, h http.Header) http.Header {
	t.Helper()
	ctx := t.Context()
	if left != never {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, time.Now().Add(left))
		defer cancel()
	}
	req := httptest.NewRequestWithContext(ctx, "GET", "http://example.net/", nil)
	req.Header = h
	before := h.Clone()
	var got http.Header
	cfg.Base = roundTrip(func(r *http.Request) (*http.Response, error) {
		got = r.Header
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
	})
	_, err := newTransport(t, cfg).RoundTrip(req)
	if (got == nil) != (err == context.DeadlineExceeded) {
		t.Errorf("sent %v, and the error is %v", got, err)
	}
	if !maps.EqualFunc(req.Header, before, slices.Equal) {
		t.Errorf("the caller's header became %v", req.Header)
	}
	return got
}

// What is left is written in the form of each header, from the shortest time
// to the longest, and never as more than what is left, but for the one unit
// that keeps it from being zero.
func TestTransportFormats(t *testing.T) {
	for _, c := range []struct {
		header string
		left   time.Duration
		want   string
	}{
		{"Grpc-Timeout", 1, "1n"},
		{"Grpc-Timeout", 99_999_999, "99999999n"},
		{"Grpc-Timeout", 100_000_000, "100000u"},
		{"Grpc-Timeout", 100_000_999, "100000u"},
		{"Grpc-Timeout", time.Second, "1000000u"},
		{"Grpc-Timeout", 100*time.Second + 1, "100000m"},
		{"Grpc-Timeout", 30 * time.Hour, "108000S"},
		{"Grpc-Timeout", 99_999_999 * time.Second, "99999999S"},
		{"Grpc-Timeout", 100_000_000 * time.Second, "1666666M"},
		{"Grpc-Timeout", forever, "2562047H"},
		{"Connect-Timeout-Ms", 1, "1"},
		{"Connect-Timeout-Ms", 999_999, "1"},
		{"Connect-Timeout-Ms", 1_999_999, "1"},
		{"Connect-Timeout-Ms", 2 * time.Second, "2000"},
		{"Connect-Timeout-Ms", 9_999_999_999 * time.Millisecond, "9999999999"},
		{"Connect-Timeout-Ms", 10_000_000_000 * time.Millisecond, "9999999999"}, // ten digits, says the protocol
		{"Connect-Timeout-Ms", forever, "9999999999"},
		{"X-Envoy-Expected-Rq-Timeout-Ms", 15 * time.Second, "15000"},
		{"X-Envoy-Expected-Rq-Timeout-Ms", forever, "9999999999"},
		{"Request-Timeout", 1, "0.001"},
		{"Request-Timeout", 1_999_999, "0.001"},
		{"Request-Timeout", 250 * time.Millisecond, "0.250"},
		{"Request-Timeout", 5 * time.Second, "5"},
		{"Request-Timeout", 5*time.Second + 70*time.Millisecond, "5.070"},
		{"Request-Timeout", forever, "9223372036.854"},
		{"", 5 * time.Second, "5"},
	} {
		t.Run(c.header+"="+c.want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				name := c.header
				if name == "" {
					name = "Request-Timeout"
				}
				h := sent(t, timeout.TransportConfig{Header: c.header}, c.left, http.Header{"Accept": {"*/*"}})
				if got := h[name]; !slices.Equal(got, []string{c.want}) || h.Get("Accept") != "*/*" {
					t.Errorf("%v left: sent %v, want %q", c.left, h, c.want)
				}
				// The other side understands what is sent.
				got := timeLeft(t, newDeadline(t, timeout.DeadlineConfig{}), http.Header{name: h[name]})
				if got <= 0 || got > c.left && c.left > time.Millisecond {
					t.Errorf("%v left: understood as %v", c.left, got)
				}
			})
		})
	}
}

// A value that is there already stays if it is shorter, and is replaced if it
// is longer or not understood. The margin is kept back. Without a deadline
// nothing is touched.
func TestTransportExisting(t *testing.T) {
	for _, c := range []struct {
		name   string
		cfg    timeout.TransportConfig
		left   time.Duration
		have   []string
		want   []string // nil: not sent
		absent bool     // sent without the field
	}{
		{name: "none", left: 5 * time.Second, want: []string{"5"}},
		{name: "shorter", left: 5 * time.Second, have: []string{"3"}, want: []string{"3"}},
		{name: "the same", left: 5 * time.Second, have: []string{"5.0"}, want: []string{"5.0"}},
		{name: "zero", left: 5 * time.Second, have: []string{"0"}, want: []string{"0"}},
		{name: "longer", left: 5 * time.Second, have: []string{"60"}, want: []string{"5"}},
		{name: "malformed", left: 5 * time.Second, have: []string{"3s"}, want: []string{"5"}},
		{name: "repeated", left: 5 * time.Second, have: []string{"1", "2"}, want: []string{"5"}},
		{name: "longer than what the margin leaves", cfg: timeout.TransportConfig{Margin: time.Second}, left: 5 * time.Second, have: []string{"4.5"}, want: []string{"4"}},
		{name: "with a margin", cfg: timeout.TransportConfig{Margin: 50 * time.Millisecond}, left: 5 * time.Second, want: []string{"4.950"}},
		{name: "with a negative margin", cfg: timeout.TransportConfig{Margin: -time.Second}, left: 5 * time.Second, want: []string{"5"}},
		{name: "all margin", cfg: timeout.TransportConfig{Margin: 5 * time.Second}, left: 5 * time.Second},
		{name: "less than the margin", cfg: timeout.TransportConfig{Margin: 6 * time.Second}, left: 5 * time.Second},
		{name: "nothing left", left: 0},
		{name: "past", left: -time.Hour},
		{name: "past with a value", left: -time.Hour, have: []string{"1"}},
		{name: "no deadline", left: never, absent: true},
		{name: "no deadline with a value", left: never, have: []string{"60"}, want: []string{"60"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := http.Header{"Accept": {"*/*"}}
				if c.have != nil {
					h["Request-Timeout"] = c.have
				}
				got := sent(t, c.cfg, c.left, h)
				if !slices.Equal(got["Request-Timeout"], c.want) || (got != nil) != (c.want != nil || c.absent) {
					t.Errorf("sent %v, want %q", got, c.want)
				}
			})
		})
	}
}

// closeCounter counts how often a body is closed.
type closeCounter struct {
	io.Reader
	closed atomic.Int32
}

func (c *closeCounter) Close() error {
	c.closed.Add(1)
	return nil
}

// Where nothing is left, nothing is sent, the body is closed, and the error is
// what a client expects of a deadline.
func TestTransportNothingLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, timeout.TransportConfig{
			Base:   roundTrip(func(*http.Request) (*http.Response, error) { t.Error("sent"); return nil, errors.New("sent") }),
			Margin: time.Second,
		})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		body := &closeCounter{Reader: strings.NewReader("abc")}
		req, err := http.NewRequestWithContext(ctx, "POST", "http://example.net/", body)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := tr.RoundTrip(req); res != nil || err != context.DeadlineExceeded {
			t.Errorf("RoundTrip: %v, %v", res, err)
		}
		if n := body.closed.Load(); n != 1 {
			t.Errorf("the body was closed %d times", n)
		}
		req.Body = nil
		var timedOut interface{ Timeout() bool }
		if _, err := (&http.Client{Transport: tr}).Do(req); !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &timedOut) || !timedOut.Timeout() {
			t.Errorf("Do: %v", err)
		}
	})
}

// Without a deadline, and where a shorter value stays, the base gets the very
// request; else a copy that has the body, the trailers and the context.
func TestTransportRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got *http.Request
		tr := newTransport(t, timeout.TransportConfig{Base: roundTrip(func(r *http.Request) (*http.Response, error) {
			got = r
			return nil, errors.New("no server")
		})})
		req := httptest.NewRequestWithContext(t.Context(), "POST", "http://example.net/", bytes.NewReader([]byte("abc")))
		if tr.RoundTrip(req); got != req {
			t.Error("without a deadline: another request")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req = req.WithContext(ctx)
		req.Header.Set("Request-Timeout", "0.5")
		if tr.RoundTrip(req); got != req {
			t.Error("with a shorter value: another request")
		}
		req.Header.Del("Request-Timeout")
		req.Trailer = http.Header{"X-Sum": nil}
		if tr.RoundTrip(req); got == req || got.Body != req.Body || got.Context() != ctx || got.Header.Get("Request-Timeout") != "1" {
			t.Errorf("with a deadline: %+v", got)
		}
		req.Trailer.Set("X-Sum", "6")
		if got.Trailer.Get("X-Sum") != "6" || len(req.Header) != 0 {
			t.Errorf("the trailer is %v, the caller's header %v", got.Trailer, req.Header)
		}
		req.Header = nil
		if tr.RoundTrip(req); got != req {
			t.Error("without a header map: another request")
		}
	})
}

// The time of a call shrinks by the margin at each hop, over every format and
// protocol, and what the innermost does not finish in time is answered there.
func TestTransportToDeadline(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		for _, header := range []string{"Grpc-Timeout", "Connect-Timeout-Ms", "X-Envoy-Expected-Rq-Timeout-Ms", "Request-Timeout"} {
			d := newDeadline(t, timeout.DeadlineConfig{Headers: []string{header}})
			var middle, inner time.Duration
			far := serve(t, p, d.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				end, _ := r.Context().Deadline()
				inner = time.Until(end)
				<-r.Context().Done()
			})))
			toFar := newTransport(t, timeout.TransportConfig{Base: far.Transport, Header: header, Margin: 200 * time.Millisecond})
			near := serve(t, p, d.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				end, _ := r.Context().Deadline()
				middle = time.Until(end)
				time.Sleep(time.Second)
				out, _ := http.NewRequestWithContext(r.Context(), "GET", far.URL, nil)
				res, err := toFar.RoundTrip(out)
				if err != nil {
					t.Errorf("%s: %v", header, err)
					return
				}
				defer res.Body.Close()
				w.WriteHeader(res.StatusCode)
				io.Copy(w, res.Body)
			})))
			toNear := newTransport(t, timeout.TransportConfig{Base: near.Transport, Header: header, Margin: 100 * time.Millisecond})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			req, _ := http.NewRequestWithContext(ctx, "GET", near.URL, nil)
			start := time.Now()
			res, err := (&http.Client{Transport: toNear}).Do(req)
			if err != nil {
				t.Fatalf("%s: %v", header, err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			cancel()
			if err != nil || res.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(body), "timeout_caller") {
				t.Errorf("%s: got %s, %s, %v", header, res.Status, body, err)
			}
			if middle != 4900*time.Millisecond || inner != 3700*time.Millisecond || time.Since(start) != 4700*time.Millisecond {
				t.Errorf("%s: the first server had %v, the second %v, and the answer came after %v", header, middle, inner, time.Since(start))
			}
		}
	})
}

// CloseIdleConnections reaches the base through http.Client, and does nothing
// where the base has none.
func TestTransportCloseIdleConnections(t *testing.T) {
	base := new(idleCloser)
	(&http.Client{Transport: newTransport(t, timeout.TransportConfig{Base: base})}).CloseIdleConnections()
	if base.closed != 1 {
		t.Errorf("the base was called %d times", base.closed)
	}
	newTransport(t, timeout.TransportConfig{Base: roundTrip(nil)}).CloseIdleConnections()
}

type idleCloser struct {
	http.RoundTripper
	closed int
}

func (c *idleCloser) CloseIdleConnections() { c.closed++ }

func TestTransportConfig(t *testing.T) {
	for header, want := range map[string]string{
		"X-Timeout":   `timeout: Header: must be one of Grpc-Timeout, Connect-Timeout-Ms, X-Envoy-Expected-Rq-Timeout-Ms, Request-Timeout (got "X-Timeout")`,
		"Timeout\r\n": `timeout: Header: must be one of Grpc-Timeout, Connect-Timeout-Ms, X-Envoy-Expected-Rq-Timeout-Ms, Request-Timeout (got "Timeout\r\n")`,
	} {
		if tr, err := timeout.NewTransport(timeout.TransportConfig{Header: header}); tr != nil || err == nil || err.Error() != want {
			t.Errorf("%q: got %v, %v\nwant %s", header, tr, err, want)
		}
	}
	newTransport(t, timeout.TransportConfig{Header: "grpc-timeout"}) // in any case
}

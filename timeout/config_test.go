package timeout_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// Every field that can be wrong is named with its value, all of them at once and
// in the same order each time.
func TestConfigErrors(t *testing.T) {
	mux := http.NewServeMux()
	none := map[string]timeout.Limits{"/": {}}
	const notAPattern = `timeout: Routes: not a ServeMux pattern: parsing `
	for _, c := range []struct {
		name string
		cfg  timeout.Config
		want []string // nil: the Config is good; a "…" at the end is any text
	}{
		{"zero", timeout.Config{}, nil},
		{"smallest", timeout.Config{Status: 400, Hold: -1}, nil},
		{"largest", timeout.Config{Status: 599, Hold: 1 << 20}, nil},
		{"negative Hold is none", timeout.Config{Hold: -1 << 30}, nil},
		{"Mux without Routes", timeout.Config{Mux: mux}, nil},
		{"Routes that the Mux does not have", timeout.Config{Mux: mux, Routes: none}, nil},
		{"Status is not a refusal", timeout.Config{Status: 399},
			[]string{"timeout: Status: must be between 400 and 599 (got 399)"}},
		{"Status is no status", timeout.Config{Status: 600},
			[]string{"timeout: Status: must be between 400 and 599 (got 600)"}},
		{"Status negative", timeout.Config{Status: -1},
			[]string{"timeout: Status: must be between 400 and 599 (got -1)"}},
		{"Hold", timeout.Config{Hold: 1<<20 + 1},
			[]string{"timeout: Hold: must be at most 1048576 bytes (got 1048577)"}},
		{"Routes without Mux", timeout.Config{Routes: none},
			[]string{"timeout: Mux: must be set when Routes is (got nil)"}},
		{"no pattern", timeout.Config{Mux: mux, Routes: map[string]timeout.Limits{"": {}}},
			[]string{`timeout: Routes: not a ServeMux pattern: …(got "")`}},
		{"bad patterns", timeout.Config{Mux: mux, Routes: map[string]timeout.Limits{"/{a": {}, "GET": {}, "/{x}/{x}": {}}}, []string{
			notAPattern + `"/{a": …(got "/{a")`,
			notAPattern + `"/{x}/{x}": …(got "/{x}/{x}")`,
			notAPattern + `"GET": …(got "GET")`,
		}},
		{"all at once", timeout.Config{Status: 200, Hold: 2 << 20, Routes: map[string]timeout.Limits{"x y z": {}}}, []string{
			"timeout: Status: must be between 400 and 599 (got 200)",
			"timeout: Hold: must be at most 1048576 bytes (got 2097152)",
			"timeout: Mux: must be set when Routes is (got nil)",
			notAPattern + `"x y z": …(got "x y z")`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := timeout.New(c.cfg)
			if (err == nil) != (c.want == nil) || (m == nil) != (err != nil) {
				t.Fatalf("got %v, %v", m, err)
			}
			if err == nil {
				return
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(c.want) {
				t.Fatalf("got %d problems:\n%v", len(got), err)
			}
			for i, want := range c.want {
				begin, end, _ := strings.Cut(want, "…")
				if !strings.HasPrefix(got[i], begin) || !strings.HasSuffix(got[i], end) {
					t.Errorf("got  %s\nwant %s", got[i], want)
				}
			}
			if _, again := timeout.New(c.cfg); again == nil || again.Error() != err.Error() {
				t.Errorf("the second time: %v", again)
			}
		})
	}
}

func TestNilHandler(t *testing.T) {
	for _, l := range []timeout.Limits{{}, generous} {
		func() {
			defer func() {
				if v := recover(); v != "timeout: nil handler" {
					t.Errorf("recovered %v", v)
				}
			}()
			newMiddleware(t, timeout.Config{Limits: l}).Handler(nil)
			t.Error("no panic")
		}()
	}
}

// timeout 27: without a limit Handler returns next itself.
//
// timeout 28: a negative limit is none, like zero.
func TestNoLimits(t *testing.T) {
	const d = -time.Second
	next := new(http.ServeMux)
	for name, l := range map[string]timeout.Limits{
		"zero":       {},
		"grace only": {Grace: time.Second},
		"negative":   {Total: d, FirstByte: d, ReadIdle: d, WriteIdle: d, Grace: d},
	} {
		if h := newMiddleware(t, timeout.Config{Limits: l}).Handler(next); h != http.Handler(next) {
			t.Errorf("%s: got a %T", name, h)
		}
	}
}

// timeout 28: one negative limit among others is none, in Limits as in Routes,
// where zero inherits.
func TestNegativeIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := http.NewServeMux()
		slow := func(w http.ResponseWriter, r *http.Request) {
			for range 10 {
				time.Sleep(time.Second)
				io.WriteString(w, ".")
				http.NewResponseController(w).Flush()
			}
		}
		for _, pattern := range []string{"/default", "/inherits", "/negative", "/none"} {
			mux.HandleFunc(pattern, slow)
		}
		h := newMiddleware(t, timeout.Config{
			Limits: timeout.Limits{Total: -1, FirstByte: 500 * time.Millisecond, Grace: -1},
			Mux:    mux,
			Routes: map[string]timeout.Limits{
				"/inherits": {ReadIdle: time.Second},
				"/negative": {FirstByte: -1, WriteIdle: time.Second},
				"/none":     {Total: -1, FirstByte: -1, ReadIdle: -1, WriteIdle: -1},
			},
		}).Handler(mux)
		for path, want := range map[string]int{"/default": 503, "/inherits": 503, "/negative": 200, "/none": 200} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
			if w.Code != want {
				t.Errorf("%s: got %d, want %d", path, w.Code, want)
			}
		}
		time.Sleep(time.Minute) // for the handlers that were left behind
	})
}

// A Config is read once: what becomes of its map has no effect.
func TestConfigIsCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Minute) })
		routes := map[string]timeout.Limits{"/": {Total: time.Second}}
		h := newMiddleware(t, timeout.Config{Mux: mux, Routes: routes}).Handler(mux)
		clear(routes)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("got %d", w.Code)
		}
		time.Sleep(time.Minute)
	})
}

// Status is the answer's for all limits but ReadIdle; ErrorHandler gets the
// error, and the request as it is outside.
func TestAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got error
		h := newMiddleware(t, timeout.Config{
			Limits: timeout.Limits{Total: time.Second},
			Status: http.StatusGatewayTimeout,
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				got = err
				w.Header().Set("X-Path", r.URL.Path)
				timeout.WriteError(w, r, err)
			},
		}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/path", nil))
		const want = `{"type":"about:blank","title":"Gateway Timeout","status":504,` +
			`"detail":"The server did not answer in time.","code":"timeout_total"}` + "\n"
		if w.Code != http.StatusGatewayTimeout || w.Body.String() != want || w.Header().Get("X-Path") != "/path" {
			t.Errorf("got %d, %v\n%s", w.Code, w.Header(), w.Body)
		}
		if e, ok := got.(*timeout.Error); !ok || e.Phase != timeout.Total || e.Limit != time.Second {
			t.Errorf("the error is %#v", got)
		}
	})
}

// An answer to gRPC that has its status in the head ends the stream with it, which
// only the handler's return lets the server do. Any other goes out before that.
func TestAnswerWithGRPCStatus(t *testing.T) {
	for _, cooperative := range []bool{false, true} {
		for _, nested := range []bool{false, true} {
			inBubbles(t, []memnet.Proto{memnet.HTTP2, memnet.H2C}, func(t *testing.T, p memnet.Proto) {
				h := newMiddleware(t, timeout.Config{
					Limits:      timeout.Limits{Total: time.Second},
					Cooperative: cooperative,
					ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
						w.Header().Set("Content-Type", "application/grpc")
						w.Header().Set("Grpc-Status", "4")
						w.WriteHeader(http.StatusOK)
					},
				}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(1020 * time.Millisecond) }))
				if nested {
					h = newMiddleware(t, timeout.Config{Limits: generous, Cooperative: cooperative}).Handler(h)
				}
				s := serve(t, p, h)
				res, err := s.Client.Post(s.URL, "application/grpc", nil)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				// The server knows the length if the handler has returned.
				if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "4" || res.ContentLength != 0 {
					t.Errorf("cooperative %v, nested %v: %s, %v, length %d", cooperative, nested, res.Status, res.Header, res.ContentLength)
				}
			})
		}
	}
}

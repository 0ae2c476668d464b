package upstream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/internal/mwtest"
	"example.com/plainware/upstream"
)

func newMirror(t testing.TB, c upstream.MirrorConfig) *upstream.Mirror {
	t.Helper()
	m, err := upstream.NewMirror(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// shadow is a back end that remembers what it was sent.
type shadow struct {
	mu     sync.Mutex
	got    []string
	header []http.Header
	wait   time.Duration
}

func (s *shadow) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body.Close()
	}
	s.mu.Lock()
	s.got = append(s.got, fmt.Sprintf("%s %s %s %d %q", r.Method, r.Host, r.URL.Path, r.ContentLength, body))
	s.header = append(s.header, r.Header)
	s.mu.Unlock()
	if s.wait > 0 {
		select {
		case <-time.After(s.wait):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	return &http.Response{StatusCode: 204, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// reader is a base that reads the whole body.
var reader = tripper(func(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
	}
	return says("base")(r)
})

func TestMirrorConformance(t *testing.T) {
	mwtest.RunTransport(t, mwtest.Transport{New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
		return newMirror(t, upstream.MirrorConfig{Base: base, To: new(shadow)})
	}})
}

// A9: mirroring, for requests with and without a body.
func TestMirrorCopies(t *testing.T) {
	for _, c := range []struct {
		name string
		req  func() *http.Request
		want string // "" if it is not copied
	}{
		{"GET", func() *http.Request { return httptest.NewRequest("GET", "http://api/x", nil) }, `GET api /x 0 ""`},
		{"POST", func() *http.Request { return httptest.NewRequest("POST", "http://api/x", strings.NewReader("hello")) }, `POST api /x 5 "hello"`},
		{"chunked", func() *http.Request {
			return httptest.NewRequest("POST", "http://api/x", io.MultiReader(strings.NewReader("hel"), strings.NewReader("lo")))
		}, `POST api /x 5 "hello"`},
		{"empty chunked", func() *http.Request {
			return httptest.NewRequest("PUT", "http://api/x", io.MultiReader())
		}, `PUT api /x 0 ""`},
		{"as long as allowed", func() *http.Request {
			return httptest.NewRequest("POST", "http://api/x", io.MultiReader(strings.NewReader(strings.Repeat("x", 100))))
		}, `POST api /x 100 "` + strings.Repeat("x", 100) + `"`},
		{"too long", func() *http.Request {
			return httptest.NewRequest("POST", "http://api/x", strings.NewReader(strings.Repeat("x", 101)))
		}, ""},
		{"too long and chunked", func() *http.Request {
			return httptest.NewRequest("POST", "http://api/x", io.MultiReader(strings.NewReader(strings.Repeat("x", 101))))
		}, ""},
		{"upgrade", func() *http.Request {
			r := httptest.NewRequest("GET", "http://api/x", nil)
			r.Header.Set("Upgrade", "websocket")
			return r
		}, ""},
		{"CONNECT", func() *http.Request { return httptest.NewRequest("CONNECT", "http://api/x", nil) }, ""},
		{"not matched", func() *http.Request { return httptest.NewRequest("GET", "http://api/no", nil) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to := new(shadow)
				m := newMirror(t, upstream.MirrorConfig{
					Base: reader, To: to, MaxBody: 100,
					Match: func(r *http.Request) bool { return r.URL.Path != "/no" },
				})
				res, err := m.RoundTrip(c.req())
				if err != nil || res.Header.Get("X-Arm") != "base" {
					t.Fatalf("%v, %v", res, err)
				}
				synctest.Wait()
				if got := strings.Join(to.got, "\n"); got != c.want {
					t.Errorf("copied %s, want %s", got, c.want)
				}
			})
		})
	}
}

// The caller does not wait for the copy, not even if it hangs, and its end does
// not end the copy.
func TestMirrorDoesNotHoldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &shadow{wait: 3 * time.Second}
		var results []upstream.MirrorResult
		m := newMirror(t, upstream.MirrorConfig{Base: reader, To: to, Done: func(r upstream.MirrorResult) { results = append(results, r) }})
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		req := httptest.NewRequestWithContext(ctx, "POST", "http://api/", strings.NewReader("hello"))
		if _, err := m.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		cancel()
		if time.Since(start) != 0 {
			t.Errorf("waited %v", time.Since(start))
		}
		// The caller may do with the header what it wants now.
		req.Header.Set("X-Later", "1")
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if len(results) != 1 || results[0].Status != 204 || results[0].Err != nil || results[0].Elapsed != 3*time.Second {
			t.Fatalf("results %+v", results)
		}
		if to.header[0].Get("X-Later") != "" {
			t.Error("the copy shares the header")
		}
	})
}

// A9: bounded workers, own timeout.
func TestMirrorBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &shadow{wait: time.Hour}
		m := newMirror(t, upstream.MirrorConfig{Base: reader, To: to, Workers: 3})
		for range 10 {
			ask(t, m)
		}
		synctest.Wait()
		if st := m.Stats(); st.Sent != 3 || st.Busy != 7 || len(to.got) != 3 {
			t.Errorf("%+v", st)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if st := m.Stats(); st.Failed != 3 {
			t.Errorf("after the timeout %+v", st)
		}
		ask(t, m)
		synctest.Wait()
		if st := m.Stats(); st.Sent != 4 {
			t.Errorf("no worker is free again: %+v", st)
		}
		start := time.Now()
		m.Close()
		if time.Since(start) != 0 || m.Stats().Failed != 4 {
			t.Errorf("Close took %v, %+v", time.Since(start), m.Stats())
		}
		ask(t, m)
		synctest.Wait()
		if st := m.Stats(); st.Sent != 4 {
			t.Errorf("copied after Close: %+v", st)
		}
	})
}

// A9: percent.
func TestMirrorShare(t *testing.T) {
	const n = 8000 // for a quarter of them, the bounds below are eight standard deviations away
	for _, c := range []struct{ share, least, most int }{{0, n, n}, {-1, 0, 0}, {2500, n * 21 / 100, n * 29 / 100}, {10000, n, n}} {
		synctest.Test(t, func(t *testing.T) {
			to := new(shadow)
			m := newMirror(t, upstream.MirrorConfig{Base: reader, To: to, Share: c.share})
			for range n {
				ask(t, m)
				synctest.Wait()
			}
			if got := len(to.got); got < c.least || got > c.most {
				t.Errorf("share %d: copied %d of %d", c.share, got, n)
			}
		})
	}
}

// A body that Base did not read to its end is not a request that anyone sent.
func TestMirrorDropsPartialBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := new(shadow)
		m := newMirror(t, upstream.MirrorConfig{To: to, Base: tripper(func(r *http.Request) (*http.Response, error) {
			r.Body.Read(make([]byte, 2))
			r.Body.Close()
			r.Body.Close()
			return nil, errors.New("broken")
		})})
		if _, err := m.RoundTrip(httptest.NewRequest("POST", "http://api/", strings.NewReader("hello"))); err == nil {
			t.Fatal("no error")
		}
		synctest.Wait()
		if st := m.Stats(); len(to.got) != 0 || st.Partial != 1 {
			t.Errorf("copied %q, %+v", to.got, st)
		}
	})
}

// A copy must not be seen through the hooks of the request: a 103 for the copy
// would reach the client.
func TestMirrorKeepsContextsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		done := make(chan struct{})
		m := newMirror(t, upstream.MirrorConfig{Base: reader, To: tripper(func(r *http.Request) (*http.Response, error) {
			defer close(done)
			if r.Context().Value(key{}) != nil || httptrace.ContextClientTrace(r.Context()) != nil {
				t.Error("the copy has the values of the request's context")
			}
			if _, ok := r.Context().Deadline(); !ok {
				t.Error("the copy has no deadline")
			}
			return says("")(r)
		})})
		ctx := context.WithValue(t.Context(), key{}, 1)
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{})
		m.RoundTrip(httptest.NewRequestWithContext(ctx, "GET", "http://api/", nil))
		<-done
	})
}

func TestMirrorPrepare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := new(shadow)
		m := newMirror(t, upstream.MirrorConfig{Base: reader, To: to, Prepare: func(r *http.Request) {
			r.Header.Del("Authorization")
			r.Header.Set("X-Mirror", "1")
			r.URL.Path = "/shadow" + r.URL.Path
			r.Host = "shadow"
		}})
		req := httptest.NewRequest("GET", "http://api/x", nil)
		req.Header.Set("Authorization", "Bearer x")
		req.Header.Set("Expect", "100-continue")
		m.RoundTrip(req)
		synctest.Wait()
		if to.got[0] != `GET shadow /shadow/x 0 ""` || len(to.header[0]) != 1 {
			t.Errorf("copied %s with %v", to.got[0], to.header[0])
		}
		if req.URL.Path != "/x" || req.Host != "api" || len(req.Header) != 2 {
			t.Errorf("the request became %s %s %v", req.Host, req.URL, req.Header)
		}
	})
}

// Over real servers: bodies, trailers, and connections that can be used again.
func TestMirrorOverServers(t *testing.T) {
	for _, proto := range memnet.Protos() {
		t.Run(proto.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				got := make(map[string][]string)
				server := func(name string) *memnet.Server {
					return memnet.Serve(t, proto, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						b, err := io.ReadAll(r.Body)
						mu.Lock()
						got[name] = append(got[name], fmt.Sprintf("%q %v %v", b, r.Trailer, err))
						mu.Unlock()
						w.Write(bytes.Repeat([]byte("x"), 100_000))
					})})
				}
				base, to := server("base"), server("to")
				done := make(chan upstream.MirrorResult, 1)
				m := newMirror(t, upstream.MirrorConfig{
					Base: base.Transport, To: to.Transport,
					Done: func(r upstream.MirrorResult) { done <- r },
				})
				req, _ := http.NewRequestWithContext(t.Context(), "POST", base.URL+"/", io.MultiReader(strings.NewReader("hello")))
				req.Trailer = http.Header{"X-Sum": {"5"}}
				res, err := m.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if r := <-done; r.Err != nil || r.Status != 200 {
					t.Errorf("result %+v", r)
				}
				mu.Lock()
				defer mu.Unlock()
				if want := `"hello" map[X-Sum:[5]] <nil>`; len(got["to"]) != 1 || got["to"][0] != want || got["base"][0] != want {
					t.Errorf("sent %q, want %s at both", got, want)
				}
			})
		})
	}
}

func TestMirrorEndlessResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan struct{})
		m := newMirror(t, upstream.MirrorConfig{Base: reader, To: tripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: endless{closed}, Request: r}, nil
		})})
		ask(t, m)
		<-closed
		synctest.Wait()
		if st := m.Stats(); st.Failed != 0 || st.Sent != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// endless is a body without an end.
type endless struct{ closed chan struct{} }

func (endless) Read(p []byte) (int, error) { return len(p), nil }
func (e endless) Close() error             { close(e.closed); return nil }

// A panic in what a copy calls ends the copy, not the program.
func TestMirrorPanics(t *testing.T) {
	bang := func() { panic("bang") }
	for name, c := range map[string]upstream.MirrorConfig{
		"To": {To: tripper(func(*http.Request) (*http.Response, error) { bang(); return nil, nil })},
		"the body": {To: tripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: bomb{bang}, Request: r}, nil
		})},
		"Prepare": {To: new(shadow), Prepare: func(*http.Request) { bang() }},
		"Done":    {To: new(shadow)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				var results []upstream.MirrorResult
				c.Base, c.Workers = reader, 1
				c.Logger = slog.New(slog.NewTextHandler(&log, nil))
				c.Done = func(r upstream.MirrorResult) {
					results = append(results, r)
					if name == "Done" {
						bang()
					}
				}
				m := newMirror(t, c)
				for range 2 { // the worker is free again
					mustSendTo(t, m)
					synctest.Wait()
				}
				failed := uint64(2)
				if name == "Done" {
					failed = 0
				}
				if s := m.Stats(); s.Sent != 2 || s.Failed != failed || s.Busy != 0 {
					t.Errorf("%+v", s)
				}
				if len(results) != 2 || (results[0].Err != nil) != (failed > 0) || failed > 0 && (results[0].Status != 0 || !strings.Contains(results[0].Err.Error(), "bang")) {
					t.Errorf("told %+v", results)
				}
				if got := log.String(); strings.Count(got, "level=ERROR") != 2 || !strings.Contains(got, "bang") || !strings.Contains(got, "mirror_test.go") {
					t.Errorf("logged %s", got)
				}
			})
		})
	}
}

// mustSendTo sends a request that must be answered.
func mustSendTo(t *testing.T, rt http.RoundTripper) {
	t.Helper()
	res, err := rt.RoundTrip(newRequest(t, "GET", "/", ""))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}

// bomb is a body that cannot be read.
type bomb struct{ bang func() }

func (b bomb) Read([]byte) (int, error) { b.bang(); return 0, io.EOF }
func (b bomb) Close() error             { return nil }

func TestMirrorClosesIdleConnections(t *testing.T) {
	n := 0
	m := newMirror(t, upstream.MirrorConfig{Base: idler{closed: &n}, To: idler{closed: &n}})
	if m.CloseIdleConnections(); n != 2 {
		t.Errorf("%d of 2 were told", n)
	}
}

func TestNewMirrorErrors(t *testing.T) {
	_, err := upstream.NewMirror(upstream.MirrorConfig{Share: 10001, MaxBody: 1 << 30, Workers: -1, Timeout: -1})
	for _, field := range []string{"To", "Share", "MaxBody", "Workers", "Timeout"} {
		if !strings.Contains(fmt.Sprint(err), "upstream: MirrorConfig."+field+": ") {
			t.Errorf("no word of %s in %v", field, err)
		}
	}
}

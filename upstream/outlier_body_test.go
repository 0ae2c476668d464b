package upstream_test

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// bodies returns a Pool over two back ends, "odd" and "good". What odd does with
// a request says the test; good always answers.
func bodies(t *testing.T, proto memnet.Proto, cfg upstream.Config, odd http.HandlerFunc) *upstream.Pool {
	t.Helper()
	scheme := map[memnet.Proto]string{memnet.HTTP1: "http://", memnet.H2C: "h2c://"}[proto]
	served, _ := serveFor(t, proto, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "odd" {
			odd(w, r)
			return
		}
		io.WriteString(w, "ok")
	})}, scheme+"odd")
	cfg.Dial = served.Dial
	cfg.Picker = upstream.RoundRobin()
	cfg.SlowStart = -1
	for _, name := range []string{"odd", "good"} {
		cfg.Targets = append(cfg.Targets, upstream.Target{URL: scheme + name, ID: name, Host: name})
	}
	return newPool(t, cfg)
}

// breakOff sends half of a response, after a while.
func breakOff(after time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		time.Sleep(after)
		panic(http.ErrAbortHandler)
	}
}

// stateOf returns the state of a back end and its failures.
func stateOf(t *testing.T, p *upstream.Pool, id string) (upstream.State, uint64) {
	t.Helper()
	for s := range p.Backends() {
		if s.Target.ID == id {
			return s.State, s.Failed()
		}
	}
	t.Fatalf("no back end %q", id)
	return 0, 0
}

// upstream 21: a back end that breaks off every response is ejected, although
// every header is a good one.
func TestBodyAbortsEject(t *testing.T) {
	for name, c := range map[string]struct {
		outlier upstream.Outlier
		most    int
	}{
		"in a row":   {upstream.Outlier{}, 10},
		"percentage": {upstream.Outlier{Failures: -1, FailurePercent: 90, MinRequests: 10}, 80},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, []memnet.Proto{memnet.HTTP1, memnet.H2C}, func(t *testing.T, proto memnet.Proto) {
				p := bodies(t, proto, upstream.Config{Outlier: c.outlier}, breakOff(0))
				failed := 0
				for range 400 { // in 40 s, of which an ejection takes 27 or more
					if _, _, _, err := send(p, newRequest(t, "GET", "/", "")); err != nil {
						wantKind(t, err, upstream.KindBodyAborted)
						failed++
					}
					time.Sleep(100 * time.Millisecond)
				}
				if failed > c.most {
					t.Errorf("%d of 400 requests failed", failed)
				}
			})
		})
	}
}

// One outcome for each attempt, whatever becomes of its body: four failures
// and what follows eject nobody, and the fifth does.
func TestBodyOutcomes(t *testing.T) {
	failing := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(status)
			breakOff(0)(w, r)
		}
	}
	fine := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }
	empty := func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }
	stuck := func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	buffering := func(_ upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
		return tripFunc(func(r *http.Request) (*http.Response, error) {
			res, err := rt.RoundTrip(r)
			if err != nil {
				return nil, err
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				res.Body.Close()
				return nil, err
			}
			return res, nil
		}), nil
	}
	for name, c := range map[string]struct {
		first, then http.HandlerFunc // four times the one, once the other
		cfg         upstream.Config
		close       bool // the response to then is closed by the client
		eject       bool // without another failure
	}{
		"five that broke off":               {first: breakOff(0), then: breakOff(0), eject: true},
		"broken off a little later":         {first: breakOff(9 * time.Second), then: breakOff(9 * time.Second), eject: true},
		"a status that is a failure":        {first: failing(503), then: fine},
		"that, and a response that breaks":  {first: failing(503), then: breakOff(0)},
		"one that ends":                     {first: breakOff(0), then: fine},
		"one without a body":                {first: breakOff(0), then: empty},
		"one that the client gives up":      {first: breakOff(0), then: stuck, close: true},
		"a stream that broke off at last":   {first: breakOff(0), then: breakOff(3 * time.Hour)},
		"a wrapper that reads what is fine": {first: breakOff(0), then: fine, cfg: upstream.Config{Wrap: buffering}},
		"a wrapper that reads the bodies":   {first: breakOff(0), then: breakOff(0), cfg: upstream.Config{Wrap: buffering}, eject: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, []memnet.Proto{memnet.HTTP1, memnet.H2C}, func(t *testing.T, proto memnet.Proto) {
				n := 0
				cfg := c.cfg
				cfg.Retry.Attempts = -1
				p := bodies(t, proto, cfg, func(w http.ResponseWriter, r *http.Request) {
					if n++; n <= 4 {
						c.first(w, r)
						return
					}
					c.then(w, r)
				})
				for i := 0; n < 5; i++ {
					if n == 4 || i == 20 {
						if s, _ := stateOf(t, p, "odd"); s != upstream.StateHealthy {
							t.Fatalf("after four failures it is %v", s)
						}
					}
					res, err := p.RoundTrip(newRequest(t, "GET", "/", ""))
					if err != nil {
						continue // of the wrapper
					}
					if !c.close || n < 5 {
						io.Copy(io.Discard, res.Body)
					}
					res.Body.Close()
				}
				synctest.Wait()
				want := upstream.StateHealthy
				if c.eject {
					want = upstream.StateEjected
				}
				if s, _ := stateOf(t, p, "odd"); s != want {
					t.Errorf("it is %v, want %v", s, want)
				}
			})
		})
	}
}

// A stream is a success from its header on: what fails while it lasts is a row
// of its own, and its end does not cut that short.
func TestLongStreamsAreNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bodies(t, memnet.HTTP1, upstream.Config{Retry: upstream.Retry{Attempts: -1}}, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/stream" {
				w.WriteHeader(503)
				return
			}
			io.WriteString(w, "half")
			http.NewResponseController(w).Flush()
			time.Sleep(time.Second)
		})
		one := func(path string) io.ReadCloser {
			for range 20 {
				res, err := p.RoundTrip(newRequest(t, "GET", path, ""))
				if err != nil {
					t.Fatal(err)
				}
				if id, _ := upstream.BackendOf(res); id == "odd" {
					return res.Body
				}
				res.Body.Close()
			}
			t.Fatal("it gets no request")
			return nil
		}
		var streams []io.ReadCloser
		for range 4 {
			streams = append(streams, one("/stream"))
		}
		for i := range 5 {
			if s, _ := stateOf(t, p, "odd"); s != upstream.StateHealthy {
				t.Fatalf("after %d failures it is %v", i, s)
			}
			one("/").Close()
			if i < len(streams) {
				io.Copy(io.Discard, streams[i])
				streams[i].Close()
			}
		}
		if s, _ := stateOf(t, p, "odd"); s != upstream.StateEjected {
			t.Errorf("after five failures in a row it is %v", s)
		}
	})
}

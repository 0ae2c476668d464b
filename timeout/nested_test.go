package timeout_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// chain nests middlewares, the outermost limits first.
func chain(t testing.TB, h http.Handler, limits ...timeout.Limits) http.Handler {
	t.Helper()
	for i := len(limits) - 1; i >= 0; i-- {
		h = newMiddleware(t, timeout.Config{Limits: limits[i]}).Handler(h)
	}
	return h
}

// Total and FirstByte can only be made shorter inside: the shortest passes,
// wherever it stands, with one whole answer.
func TestNestedShortestWins(t *testing.T) {
	short, long := timeout.Limits{Total: time.Second}, timeout.Limits{Total: time.Minute}
	shortFB, longFB := timeout.Limits{FirstByte: time.Second}, timeout.Limits{FirstByte: time.Minute}
	for name, c := range map[string]struct {
		limits []timeout.Limits
		code   string
	}{
		"inside":                     {[]timeout.Limits{long, short}, "timeout_total"},
		"outside":                    {[]timeout.Limits{short, long}, "timeout_total"},
		"outside, without grace":     {[]timeout.Limits{short, {Total: time.Minute, Grace: -1}}, "timeout_total"},
		"in the middle":              {[]timeout.Limits{long, short, long}, "timeout_total"},
		"inside, by less than Grace": {[]timeout.Limits{{Total: time.Second + 10*time.Millisecond}, short}, "timeout_total"},
		"first byte inside":          {[]timeout.Limits{longFB, shortFB}, "timeout_first_byte"},
		"first byte outside":         {[]timeout.Limits{shortFB, longFB}, "timeout_first_byte"},
		"first byte outside, both":   {[]timeout.Limits{shortFB, short}, ""},
		"total outside a first byte": {[]timeout.Limits{short, longFB}, "timeout_total"},
		"outside of a long write":    {[]timeout.Limits{short, {Total: time.Minute, WriteIdle: time.Millisecond}}, "timeout_total"},
	} {
		for what, handler := range map[string]http.HandlerFunc{
			"honours": func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			"ignores": func(w http.ResponseWriter, r *http.Request) { time.Sleep(10 * time.Second) },
			"answers": func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				w.WriteHeader(500)
				w.(http.Flusher).Flush()
			},
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
					s, logged := serveLogged(t, p, chain(t, handler, c.limits...))
					for range 5 {
						time.Sleep(time.Second) // or an HTTP/1.1 connection is still in the Grace of the one before
						r := ask(t, s, "GET", "/", nil)
						if r.status != 503 || r.cut != nil || r.after != time.Second || c.code != "" && !r.isProblem(503, c.code) {
							t.Fatalf("got %+v", r)
						}
					}
					if logged.String() != "" {
						t.Errorf("the log is\n%s", logged)
					}
				})
			})
		}
	}
}

// The innermost ReadIdle and WriteIdle win, also past middlewares that do not
// have them.
func TestNestedInnermostIdleWins(t *testing.T) {
	short := timeout.Limits{ReadIdle: time.Second, WriteIdle: time.Second}
	long := timeout.Limits{ReadIdle: 3 * time.Second, WriteIdle: 3 * time.Second}
	for name, c := range map[string]struct {
		limits []timeout.Limits
		after  time.Duration
	}{
		"long inside":       {[]timeout.Limits{short, long}, 3 * time.Second},
		"short inside":      {[]timeout.Limits{long, short}, time.Second},
		"three":             {[]timeout.Limits{short, {ReadIdle: 2 * time.Second, WriteIdle: 2 * time.Second}, long}, 3 * time.Second},
		"without between":   {[]timeout.Limits{short, {Total: time.Minute}, long}, 3 * time.Second},
		"half between":      {[]timeout.Limits{short, {WriteIdle: 2 * time.Second}, long}, 3 * time.Second},
		"other half":        {[]timeout.Limits{short, {ReadIdle: 2 * time.Second}, long}, 3 * time.Second},
		"two halves inside": {[]timeout.Limits{short, {ReadIdle: 3 * time.Second}, {WriteIdle: 3 * time.Second}}, 3 * time.Second},
		"none inside":       {[]timeout.Limits{long, {Total: time.Minute}}, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
				took := make(chan time.Duration, 1)
				s, _ := serveLogged(t, p, chain(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					start := time.Now()
					if r.Method == "POST" {
						io.ReadAll(r.Body)
					} else {
						var err error
						for err == nil {
							_, err = w.Write(make([]byte, 64<<10))
						}
					}
					took <- time.Since(start)
				}), c.limits...))
				pr, _ := pipeBody(t)
				if r := ask(t, s, "POST", "/", pr); !r.isProblem(408, "timeout_read_idle") || r.after != c.after {
					t.Errorf("read: got %+v", r)
				}
				if d := <-took; d != c.after {
					t.Errorf("read: the handler was freed after %v", d)
				}
				res, err := s.Client.Get(s.URL)
				if err != nil {
					t.Fatal(err)
				}
				if d := <-took; d != c.after {
					t.Errorf("write: the handler was freed after %v", d)
				}
				res.Body.Close()
			})
		})
	}
}

// When an inner middleware has done its part, the outer one's limits are in
// force again.
func TestNestedIsRestored(t *testing.T) {
	inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
		inner := hard(t, timeout.Limits{ReadIdle: time.Minute, WriteIdle: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
			io.ReadFull(r.Body, make([]byte, 1))
		})
		failed := make(chan time.Duration, 1)
		s := serve(t, p, hard(t, timeout.Limits{ReadIdle: time.Second, WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			// Of the response nothing may be sent yet.
			inner.ServeHTTP(discardHeader{w}, r)
			start := time.Now()
			io.ReadAll(r.Body)
			failed <- time.Since(start)
		}))
		pr, pw := pipeBody(t)
		go func() {
			time.Sleep(10 * time.Second) // longer than the outer limit
			pw.Write([]byte("x"))
		}()
		if r := ask(t, s, "POST", "/", pr); !r.isProblem(408, "timeout_read_idle") || r.after != 11*time.Second {
			t.Errorf("got %+v", r)
		}
		if d := <-failed; d != time.Second {
			t.Errorf("the outer limit passed after %v", d)
		}
	})
}

// discardHeader keeps an inner handler's empty answer from being sent.
type discardHeader struct{ http.ResponseWriter }

func (discardHeader) WriteHeader(int)               {}
func (w discardHeader) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// An inner limit that passes is answered once, by the middleware that has it,
// and what the outer one then says is not heard.
func TestNestedCut(t *testing.T) {
	inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
		s, logged := serveLogged(t, p, chain(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "part")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}), timeout.Limits{Total: time.Minute}, timeout.Limits{Total: time.Second}))
		res, err := s.Client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if text, err := io.ReadAll(res.Body); err == nil || string(text) != "part" {
			t.Errorf("got %q, %v", text, err)
		}
		if logged.String() != "" {
			t.Errorf("the log is\n%s", logged)
		}
	})
}

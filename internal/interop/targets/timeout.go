package targets

import (
	"net/http"
	"testing"
	"time"

	"github.com/go-chi/chi/v5/middleware"

	"example.com/plainware/timeout"
)

func timeoutMeasures() []Measure {
	limits := timeout.Limits{Total: time.Minute}
	hard := must(timeout.New(timeout.Config{Limits: limits})).Handler
	cooperative := must(timeout.New(timeout.Config{Limits: limits, Cooperative: true})).Handler
	standard := func(next http.Handler) http.Handler { return http.TimeoutHandler(next, time.Minute, "") }
	chi := middleware.Timeout(time.Minute)

	chunk := make([]byte, 64<<10)
	var all []Measure
	for _, answer := range []struct {
		name    string
		handler http.HandlerFunc
		ratio   float64 // against http.TimeoutHandler
	}{
		{"empty", nothing, 1.1},
		{"2 bytes", func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = []string{"text/plain"}
			w.Write(chunk[:2])
		}, 1.1},
		{"1 MiB", func(w http.ResponseWriter, r *http.Request) {
			for range 16 {
				w.Write(chunk)
			}
		}, 0.01},
	} {
		all = append(all,
			Measure{
				Package: "timeout", Name: "Handler, " + answer.name,
				Ours: answered(hard(answer.handler)), MaxBytes: 4 << 10,
				Peers: []Peer{{Name: "http.TimeoutHandler", Run: answered(standard(answer.handler)), MaxRatio: answer.ratio}},
			},
			Measure{
				Package: "timeout", Name: "Handler, cooperative, " + answer.name,
				Ours: answered(cooperative(answer.handler)), MaxAllocs: 7,
				Peers: []Peer{{Name: "chi Timeout", Run: answered(chi(answer.handler)), MaxRatio: 1.5}},
			},
		)
	}
	return append(all, routeMeasure())
}

// routeMeasure is what it costs to choose the limits by route. The route chosen
// has none, so that ours is a look-up and a dispatch; it may take as long as
// dispatching twice.
func routeMeasure() Measure {
	mux := http.NewServeMux()
	for _, pattern := range []string{"GET /u/{id}", "POST /u", "GET /a/b/c", "GET /files/{path...}", "POST /upload", "GET /healthz"} {
		mux.Handle(pattern, nothing)
	}
	routed := must(timeout.New(timeout.Config{
		Limits: timeout.Limits{Total: time.Minute},
		Mux:    mux,
		Routes: map[string]timeout.Limits{"GET /u/{id}": {Total: -1}},
	})).Handler(mux)
	twice := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r)
		mux.ServeHTTP(w, r)
	})
	return Measure{
		Package: "timeout", Name: "Routes, look-up and dispatch",
		Ours:  answered(routed),
		Peers: []Peer{{Name: "ServeMux dispatch, twice", Run: answered(twice), MaxRatio: 1}},
	}
}

// answered sends requests with a handful of header fields, below a middleware
// that has set one of the response.
func answered(h http.Handler) func(*testing.B) {
	r := get("http://x/u/1", "Accept", "Accept-Encoding", "Authorization", "Content-Type", "User-Agent", "X-Request-Id")
	w := &nullWriter{header: http.Header{}}
	return serial(func() {
		clear(w.header)
		w.header["X-Request-Id"] = r.Header["X-Request-Id"]
		h.ServeHTTP(w, r)
	})
}

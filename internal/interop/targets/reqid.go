package targets

import (
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/traceid"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"github.com/rs/zerolog/hlog"
	sloghttp "github.com/samber/slog-http"

	"example.com/plainware/reqid"
)

// id is in a form that every peer takes over: traceid wants a UUID.
const id = "0195f180-2939-7bc4-bffe-838eb3c62526"

func reqidMeasures() []Measure {
	googleV7 := func() { _ = uuid.Must(uuid.NewV7()).String() }
	ours := must(reqid.New(reqid.Config{})).Handler
	logger := zerolog.New(io.Discard)
	hlogID := func(next http.Handler) http.Handler {
		return hlog.NewHandler(logger)(hlog.RequestIDHandler("req_id", "X-Request-Id")(next))
	}
	slogHTTP := sloghttp.NewWithConfig(slog.New(slog.DiscardHandler), sloghttp.Config{WithRequestID: true})

	return []Measure{
		{
			Package: "reqid", Name: "V7",
			Ours: serial(func() { _ = reqid.V7() }), MaxAllocs: 1,
			Peers: []Peer{{Name: "google/uuid NewV7", Run: serial(googleV7), MaxRatio: 0.6}},
		},
		{
			Package: "reqid", Name: "V7, parallel",
			Ours: parallel(func() { _ = reqid.V7() }), MaxAllocs: 1,
			Peers: []Peer{{Name: "google/uuid NewV7", Run: parallel(googleV7), MaxRatio: 0.6}},
		},
		{
			Package: "reqid", Name: "Handler, new ID",
			Ours: newID(ours), MaxAllocs: 3,
			Peers: []Peer{
				{Name: "chi RequestID", Run: newID(middleware.RequestID), MaxRatio: 1.2},
				{Name: "chi traceid", Run: newID(traceid.Middleware), MaxRatio: 1},
				{Name: "zerolog hlog", Run: newID(hlogID), MaxRatio: 0.6},
				{Name: "samber slog-http", Run: newID(slogHTTP), MaxRatio: 0.3},
			},
		},
		{
			Package: "reqid", Name: "Handler, inbound ID",
			Ours: inboundID(ours), MaxAllocs: 2,
			Peers: []Peer{
				{Name: "chi RequestID", Run: inboundID(middleware.RequestID), MaxRatio: 1.5},
				{Name: "chi traceid", Run: inboundID(traceid.Middleware), MaxRatio: 1.1},
				{Name: "zerolog hlog", Run: inboundID(hlogID)},
				{Name: "samber slog-http", Run: inboundID(slogHTTP)},
			},
		},
	}
}

var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// newID sends requests without an ID. Ours and some peers write the new one
// into the request, which is the same one every time.
func newID(wrap func(http.Handler) http.Handler) func(*testing.B) {
	h := wrap(nothing)
	r := get("http://x/u/1")
	w := &nullWriter{header: http.Header{}}
	return serial(func() {
		delete(r.Header, "X-Request-Id")
		delete(r.Header, "Traceid")
		h.ServeHTTP(w, r)
	})
}

func inboundID(wrap func(http.Handler) http.Handler) func(*testing.B) {
	h := wrap(nothing)
	r := get("http://x/u/1")
	w := &nullWriter{header: http.Header{}}
	inbound := []string{id}
	return serial(func() {
		r.Header["X-Request-Id"] = inbound
		r.Header["Traceid"] = inbound
		h.ServeHTTP(w, r)
	})
}

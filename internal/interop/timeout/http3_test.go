package timeout_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/interop/front"
	"example.com/plainware/timeout"
)

// limited is a handler under limits.
func limited(t testing.TB, l timeout.Limits, next http.HandlerFunc) http.Handler {
	t.Helper()
	tmo, err := timeout.New(timeout.Config{Limits: l})
	if err != nil {
		t.Fatal(err)
	}
	return tmo.Handler(next)
}

// The same limits mean the same over HTTP/3, whose ResponseWriter is not
// net/http's.
func TestVersions(t *testing.T) {
	const short = 50 * time.Millisecond
	for _, c := range []struct {
		name   string
		limits timeout.Limits
		h      http.HandlerFunc
		status int    // 0: the exchange or the body ends with an error
		code   string // of the problem, "" for the handler's own answer
	}{
		{"in time", timeout.Limits{Total: time.Minute, FirstByte: time.Minute, ReadIdle: time.Minute, WriteIdle: time.Minute},
			func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusTeapot)
				io.WriteString(w, strings.Repeat("x", 100_000))
			}, http.StatusTeapot, ""},
		{"total", timeout.Limits{Total: short},
			func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			http.StatusServiceUnavailable, "timeout_total"},
		{"first byte", timeout.Limits{FirstByte: short},
			func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "held back"); <-r.Context().Done() },
			http.StatusServiceUnavailable, "timeout_first_byte"},
		{"cut", timeout.Limits{Total: short},
			func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "part")
				http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			front.Each(t, func(t *testing.T, start func(*testing.T, http.Handler) front.Server) {
				limits := c.limits
				res, body, err := start(t, limited(t, limits, c.h)).Get(t, "/", nil)
				for c.status == 0 && err == nil && res.StatusCode == http.StatusServiceUnavailable && limits.Total < 20*time.Second {
					limits.Total *= 2 // the machine is too busy to begin an answer in that time
					res, body, err = start(t, limited(t, limits, c.h)).Get(t, "/", nil)
				}
				if c.status == 0 {
					if err == nil {
						t.Errorf("a whole answer: %d %q", res.StatusCode, body)
					}
					return
				}
				if err != nil || res.StatusCode != c.status {
					t.Fatalf("%v, %v; want status %d", res, err, c.status)
				}
				if c.code != "" {
					problemCode(t, res, body, c.code)
				}
			})
		})
	}
}

// timeout 3: an upload that stalls is answered with 408 over each version.
func TestStalledUploadVersions(t *testing.T) {
	front.Each(t, func(t *testing.T, start func(*testing.T, http.Handler) front.Server) {
		read := make(chan error, 1)
		s := start(t, limited(t, timeout.Limits{ReadIdle: 50 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			read <- err
		}))
		body, pipe := io.Pipe()
		defer pipe.Close()
		go io.WriteString(pipe, "three") // and no more
		res, err := s.Client.Post(s.URL, "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusRequestTimeout {
			t.Fatalf("status %d, %v", res.StatusCode, err)
		}
		problemCode(t, res, string(b), "timeout_read_idle")
		if err := <-read; err == nil {
			t.Error("the handler read a whole body")
		}
	})
}

// timeout 10: an event reaches the client while the handler goes on.
func TestStreamVersions(t *testing.T) {
	front.Each(t, func(t *testing.T, start func(*testing.T, http.Handler) front.Server) {
		release := make(chan struct{})
		s := start(t, limited(t, timeout.Limits{FirstByte: time.Minute, WriteIdle: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: 1\n\n")
			http.NewResponseController(w).Flush()
			<-release
			io.WriteString(w, "data: 2\n\n")
		}))
		res, err := s.Client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		first := make([]byte, len("data: 1\n\n"))
		if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "data: 1\n\n" {
			t.Fatalf("%q, %v", first, err)
		}
		close(release)
		if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "data: 2\n\n" {
			t.Errorf("%q, %v", rest, err)
		}
	})
}

func problemCode(t *testing.T, res *http.Response, body, want string) {
	t.Helper()
	var p struct{ Code string }
	if err := json.Unmarshal([]byte(body), &p); err != nil || p.Code != want {
		t.Errorf("%q, %v; want code %s", body, err, want)
	}
	if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q", got)
	}
}

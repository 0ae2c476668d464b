package memnet_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
)

// A client and a server in one bubble let an hour pass at once, on every
// protocol, in the middle of a response as well as between two requests.
func TestAnHourPasses(t *testing.T) {
	for _, p := range memnet.Protos() {
		t.Run(p.String(), func(t *testing.T) {
			real := time.Now()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				s := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(
					func(w http.ResponseWriter, r *http.Request) {
						io.WriteString(w, r.Proto+" ")
						http.NewResponseController(w).Flush()
						time.Sleep(30 * time.Minute)
						io.WriteString(w, r.RemoteAddr)
					})})
				want := "HTTP/2.0 127.0.0.1:49152"
				if p == memnet.HTTP1 {
					want = "HTTP/1.1 127.0.0.1:49152"
				}
				for range 2 {
					res, err := s.Client.Get(s.URL)
					if err != nil {
						t.Fatal(err)
					}
					body, err := io.ReadAll(res.Body)
					res.Body.Close()
					if string(body) != want || err != nil {
						t.Errorf("body %q, %v; want %q", body, err, want)
					}
				}
				if d := time.Since(start); d != time.Hour {
					t.Errorf("%v of fake time passed", d)
				}
			})
			if d := time.Since(real); d > 10*time.Second {
				t.Errorf("an hour of fake time took %v", d)
			} else {
				t.Logf("an hour of fake time took %v", d)
			}
		})
	}
}

// Outside a bubble it is an ordinary server.
func TestServe(t *testing.T) {
	for _, p := range memnet.Protos() {
		t.Run(p.String(), func(t *testing.T) {
			s := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(
				func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })})
			want := strings.Repeat("0123456789", 100_000)
			for _, c := range []*http.Client{s.Client, {Transport: s.NewTransport()}} {
				res, err := c.Post(s.URL, "text/plain", strings.NewReader(want))
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if string(got) != want || err != nil {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}
		})
	}
}

// The deadlines of a server work over memnet: WriteTimeout ends a response
// that the client does not read.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan time.Duration, 1)
		l := memnet.Config{Buffer: 1}.Listen()
		l.Serve(t, memnet.HTTP1, &http.Server{
			WriteTimeout: time.Minute,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				start := time.Now()
				for {
					if _, err := w.Write(make([]byte, 4096)); err != nil {
						break
					}
				}
				ended <- time.Since(start)
			}),
		})
		c, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if d := <-ended; d != time.Minute {
			t.Errorf("the write failed after %v", d)
		}
	})
}

// The server lingers for half a second on a connection whose body was not
// read. The bubble must not end before.
func TestUnreadBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) })})
		res, err := s.Client.Post(s.URL, "text/plain", strings.NewReader(strings.Repeat("x", 1<<20)))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden || !res.Close {
			t.Errorf("status %d, connection closed: %t", res.StatusCode, res.Close)
		}
	})
}

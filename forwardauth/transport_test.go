package forwardauth_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/forwardauth"
	"example.com/plainware/internal/memnet"
)

// silent is a connection whose writes can be made to go nowhere, as those to a
// host that is gone do.
type silent struct {
	net.Conn
	gone *atomic.Bool
}

func (c *silent) Write(p []byte) (int, error) {
	if c.gone != nil && c.gone.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// forwardauth 10: a connection to the service that has gone silent is given up,
// over HTTP/2 too, where a question that times out does not end it.
func TestSilentConnection(t *testing.T) {
	for _, p := range []memnet.Proto{memnet.HTTP1, memnet.HTTP2} {
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})})
				m := mustNew(t, forwardauth.Config{URL: srv.URL})
				own := forwardauth.OwnTransport(m)
				var gone atomic.Bool
				var dials atomic.Int64
				own.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
					conn, err := srv.Listener.DialContext(ctx, network, addr)
					if err != nil || dials.Add(1) > 1 {
						return conn, err
					}
					return &silent{conn, &gone}, nil
				}
				own.TLSClientConfig = srv.Transport.TLSClientConfig
				if h := serve(m, request("GET", "/")); h.StatusCode != 200 {
					t.Fatalf("status %d", h.StatusCode)
				}
				gone.Store(true)
				start := time.Now()
				for serve(m, request("GET", "/")).StatusCode != 200 {
					if since := time.Since(start); since > 10*time.Second {
						t.Fatalf("still failing after %v, %d dials", since, dials.Load())
					}
				}
				if dials.Load() != 2 {
					t.Errorf("%d dials", dials.Load())
				}
			})
		})
	}
}

// forwardauth 10: dialling a service that does not answer ends with the question
// that it is for, or the sockets pile up while it is gone.
func TestDialEnds(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		0: 3 * time.Second, 10 * time.Second: 10 * time.Second, time.Hour: 30 * time.Second, -1: 30 * time.Second,
	} {
		m := mustNew(t, forwardauth.Config{URL: "http://127.0.0.1:9/", Timeout: timeout})
		var all, left time.Duration
		start := time.Now()
		forwardauth.OwnDialer(m).ControlContext = func(ctx context.Context, _, _ string, _ syscall.RawConn) error {
			if end, ok := ctx.Deadline(); ok {
				all, left = end.Sub(start), time.Until(end)
			}
			return errors.New("not today")
		}
		if h := serve(m, request("GET", "/")); h.StatusCode != 503 || all < want || left > want {
			t.Errorf("Timeout %v: status %d, dials for %v, want %v", timeout, h.StatusCode, all, want)
		}
		if tls := forwardauth.OwnTransport(m).TLSHandshakeTimeout; tls <= 0 || tls > want {
			t.Errorf("Timeout %v: %v for TLS", timeout, tls)
		}
	}
}

// forwardauth 10: a service that closes an idle connection just when a question
// is sent on it has not answered, and is asked again, in every mode.
func TestServiceClosesIdle(t *testing.T) {
	for _, c := range []struct {
		mode   forwardauth.Mode
		method string
	}{
		{forwardauth.Traefik, "POST"}, {forwardauth.Nginx, "PUT"}, {forwardauth.JSON, "GET"}, {forwardauth.JSON, "POST"},
		{forwardauth.Envoy, "GET"}, {forwardauth.Envoy, "POST"}, {forwardauth.Envoy, "DELETE"},
	} {
		t.Run(c.mode.String()+" "+c.method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := memnet.Listen()
				defer l.Close()
				var asked atomic.Int64
				go func() {
					for {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						go func() {
							defer conn.Close()
							br := bufio.NewReader(conn)
							r, err := http.ReadRequest(br)
							if err != nil {
								return
							}
							if body, _ := io.ReadAll(r.Body); c.mode != forwardauth.JSON && string(body) != "hello" || len(r.Header["Idempotency-Key"]) > 0 {
								t.Errorf("the service got %q, %v", body, r.Header)
							}
							asked.Add(1)
							io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"result\":true}")
							br.Peek(1) // the next question, which it will not hear
						}()
					}
				}()
				m := mustNew(t, forwardauth.Config{Mode: c.mode, MaxBody: 10})
				forwardauth.OwnTransport(m).DialContext = l.DialContext
				for range 4 {
					r := request(c.method, "/")
					r.Body, r.ContentLength = newBody("hello"), 5
					if h := serve(m, r); h.StatusCode != 200 || h.read != "hello" {
						t.Errorf("status %d, the handler read %q", h.StatusCode, h.read)
					}
					synctest.Wait()
				}
				if asked.Load() != 4 {
					t.Errorf("answered %d times", asked.Load())
				}
				m.Close()
			})
		})
	}
	// A client's own key goes along where it is to.
	s := says(200, "")
	do(t, forwardauth.Config{Mode: forwardauth.Envoy, RequestHeaders: []string{"Idempotency-Key"}}, s, request("POST", "/", "Idempotency-Key: k"))
	if got := s.last(t).Header.Get("Idempotency-Key"); got != "k" {
		t.Errorf("the service got %q", got)
	}
}

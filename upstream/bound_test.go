package upstream_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// authenticating is a back end that authenticates connections, as IIS does:
// whoever has named himself on one is served on it from then on.
func authenticating(scheme string) func(*origin, int, *memnet.Conn) {
	return func(o *origin, _ int, c *memnet.Conn) {
		br := bufio.NewReader(c)
		user := ""
		for {
			req, _, err := o.read(br)
			if err != nil {
				return
			}
			for _, name := range []string{"Authorization", "Proxy-Authorization", "X-Elsewhere"} {
				if s, u, _ := strings.Cut(req.Header.Get(name), " "); strings.EqualFold(s, scheme) {
					user = u
				}
			}
			switch {
			case req.URL.Path == "/ask":
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nWWW-Authenticate: Basic realm=\"a, b\", %s\r\nContent-Length: 2\r\n\r\nok", scheme)
			case req.URL.Path == "/askproxy":
				fmt.Fprintf(c, "HTTP/1.1 407 Proxy\r\nProxy-Authenticate: %s\r\nContent-Length: 0\r\n\r\n", scheme)
			case user == "":
				io.WriteString(c, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
			default:
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(user), user)
			}
		}
	}
}

// upstream 69: a connection that may be authenticated for one client carries
// nobody else's requests.
func TestBoundConnections(t *testing.T) {
	for _, c := range []struct {
		scheme, path, field string
		kept                bool
	}{
		{"NTLM", "/", "Authorization", false},
		{"ntlm", "/", "Authorization", false},
		{"Negotiate", "/", "Authorization", false},
		{"NEGOTIATE", "/", "Authorization", false},
		{"Nego2", "/", "Authorization", false},
		{"NTLM", "/", "Proxy-Authorization", false},
		{"NTLM", "/ask", "", false},
		{"Negotiate", "/ask", "", false},
		{"Negotiate", "/askproxy", "", false},
		{"Basic", "/", "Authorization", true},
		{"Bearer", "/ask", "Authorization", true},
	} {
		t.Run(c.scheme+c.path+c.field, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				n.add("a", authenticating(c.scheme))
				p := n.pool(upstream.Config{}, "a")
				alice := newRequest(t, "GET", c.path, "")
				if c.field != "" {
					alice.Header.Set(c.field, c.scheme+" alice")
				}
				if _, body, _, err := send(p, alice); err != nil || c.path == "/" && body != "alice" {
					t.Errorf("alice got %q, %v", body, err)
				}
				synctest.Wait()
				if s := only(t, p); (s.Conns == 1) != c.kept || s.Active != 0 {
					t.Errorf("%d connections were kept, %d active", s.Conns, s.Active)
				}
			})
		})
	}
}

// upstream 69: the same through a Proxy, with credentials that the client sends or
// a signer in Config.Wrap adds, and with those of a health check.
func TestBoundConnectionsOfAProxy(t *testing.T) {
	for _, scheme := range []string{"NTLM", "Negotiate"} {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", authenticating(scheme))
			cfg := upstream.Config{
				Check: &upstream.Check{Path: "/check", Interval: time.Minute, Header: http.Header{"Authorization": {scheme + " prober"}}},
				Wrap: func(_ upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
					return tripFunc(func(r *http.Request) (*http.Response, error) {
						if r.URL.Path == "/signed" {
							r = r.Clone(r.Context())
							r.Header.Set("Authorization", scheme+" gateway")
						}
						return rt.RoundTrip(r)
					}), nil
				},
			}
			proxy := newProxy(t, upstream.ProxyConfig{Transport: n.pool(cfg, "a")})
			synctest.Wait()
			nobody := func(after string) {
				t.Helper()
				if w := serve(proxy, request("GET", "/secret", nil)); w.Code != 401 {
					t.Errorf("after %s a client without credentials is served as %q", after, w.Body)
				}
			}
			nobody("a check")
			w := serve(proxy, request("GET", "/secret", func(r *http.Request) { r.Header.Set("Authorization", scheme+" alice") }))
			if w.Body.String() != "alice" {
				t.Errorf("alice got %d %q", w.Code, w.Body)
			}
			nobody("alice")
			if w := serve(proxy, request("GET", "/signed", nil)); w.Body.String() != "gateway" {
				t.Errorf("with a signer: %d %q", w.Code, w.Body)
			}
			nobody("a signed request")
		})
	}
}

package forwardauth_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"example.com/plainware/forwardauth"
)

const serviceURL = "http://auth.example/verify"

// service is a decision service in the place of a transport. It keeps what it
// was asked.
type service struct {
	mu     sync.Mutex
	asked  []*http.Request
	bodies []string
	answer func(*http.Request) (*http.Response, error)
}

func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.asked = append(s.asked, r)
	s.bodies = append(s.bodies, string(body))
	s.mu.Unlock()
	return s.answer(r)
}

func (s *service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func (s *service) last(t testing.TB) *http.Request {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) == 0 {
		t.Fatal("the service was not asked")
	}
	return s.asked[len(s.asked)-1]
}

// says is a service that always answers with a status and a header, given as
// lines.
func says(status int, body string, lines ...string) *service {
	return &service{answer: func(*http.Request) (*http.Response, error) {
		return response(status, body, lines...), nil
	}}
}

func response(status int, body string, lines ...string) *http.Response {
	h := make(http.Header)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return &http.Response{
		StatusCode: status, Header: h, ContentLength: int64(len(body)),
		Body: io.NopCloser(strings.NewReader(body)),
	}
}

func mustNew(t testing.TB, c forwardauth.Config) *forwardauth.Middleware {
	t.Helper()
	if c.URL == "" {
		c.URL = serviceURL
	}
	m, err := forwardauth.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// handled is what became of a request.
type handled struct {
	*http.Response
	body string
	ran  *http.Request // what the next handler got; nil if it did not run
	read string        // what it read of the body
}

func (h handled) code(t testing.TB) string {
	t.Helper()
	var p struct{ Code string }
	if err := json.Unmarshal([]byte(h.body), &p); err != nil {
		t.Errorf("status %d, body %q: %v", h.StatusCode, h.body, err)
	}
	return p.Code
}

// do serves r without a network.
func do(t testing.TB, c forwardauth.Config, s *service, r *http.Request) handled {
	t.Helper()
	c.Base = s
	return serve(mustNew(t, c), r)
}

func serve(m *forwardauth.Middleware, r *http.Request) handled {
	var h handled
	w := newRecorder()
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ran = r
		b, _ := io.ReadAll(r.Body)
		h.read = string(b)
		io.WriteString(w, "served")
	})).ServeHTTP(w, r)
	h.Response = w.Result()
	b, _ := io.ReadAll(h.Response.Body)
	h.body = string(b)
	return h
}

// request is a request as a server makes it, with a header given as lines.
func request(method, target string, lines ...string) *http.Request {
	r := &http.Request{
		Method: method, RequestURI: target, Host: "app.example",
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header), Body: http.NoBody, RemoteAddr: "192.0.2.7:4711",
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		u = &url.URL{Path: target}
	}
	r.URL = u
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header[http.CanonicalHeaderKey(name)] = append(r.Header[http.CanonicalHeaderKey(name)], value)
	}
	return r
}

// wire sends text to a server and reads the response.
func wire(t testing.TB, conn net.Conn, text string) (*http.Response, string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	return res, string(bytes.TrimSpace(b))
}

// inBubble is t.Run with a clock on which nothing expires while a machine is
// slow.
func inBubble(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func user(t testing.TB) []forwardauth.HeaderCopy {
	t.Helper()
	return []forwardauth.HeaderCopy{{From: "Remote-User"}, {From: "Remote-Groups"}}
}

func prefixes(t testing.TB, list ...string) (all []netip.Prefix) {
	t.Helper()
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

func newBody(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }

package reqid_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/reqid"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func mustTransport(t testing.TB, c reqid.TransportConfig) *reqid.Transport {
	t.Helper()
	tr, err := reqid.NewTransport(c)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// sink is a base transport that keeps the last request it was given.
type sink struct{ got *http.Request }

func (s *sink) RoundTrip(r *http.Request) (*http.Response, error) {
	s.got = r
	return &http.Response{StatusCode: 204, Body: http.NoBody, Request: r}, nil
}

// reqid 15: the header is set on a copy; what the caller made stays untouched.
// It is never overwritten, and without an ID there is nothing to set.
func TestTransport(t *testing.T) {
	ctx := reqid.NewContext(t.Context(), "id-1")
	for _, c := range []struct {
		name   string
		withID bool
		config reqid.TransportConfig
		header http.Header
		want   http.Header
	}{
		{"sets", true, reqid.TransportConfig{}, http.Header{"Accept": {"*/*"}}, http.Header{"Accept": {"*/*"}, "X-Request-Id": {"id-1"}}},
		{"nil map is the base's error", true, reqid.TransportConfig{}, nil, nil},
		{"other name", true, reqid.TransportConfig{Header: "x-correlation-id"}, http.Header{}, http.Header{"X-Correlation-Id": {"id-1"}}},
		{"never overwrites", true, reqid.TransportConfig{}, http.Header{"X-Request-Id": {"mine"}}, http.Header{"X-Request-Id": {"mine"}}},
		{"a field without value", true, reqid.TransportConfig{}, http.Header{"X-Request-Id": nil}, http.Header{"X-Request-Id": nil}},
		{"no ID", false, reqid.TransportConfig{}, http.Header{"Accept": {"*/*"}}, http.Header{"Accept": {"*/*"}}},
		{"Only false", true, reqid.TransportConfig{Only: func(*http.Request) bool { return false }}, http.Header{}, http.Header{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := &sink{}
			c.config.Base = base
			r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://x/", nil)
			if c.withID {
				r = r.WithContext(ctx)
			}
			r.Header = c.header
			before := fmt.Sprintf("%#v", r.Header)
			res, err := mustTransport(t, c.config).RoundTrip(r)
			if err != nil || res.StatusCode != 204 {
				t.Fatal(res, err)
			}
			if got := fmt.Sprintf("%#v", base.got.Header); got != fmt.Sprintf("%#v", c.want) {
				t.Errorf("sent %s, want %#v", got, c.want)
			}
			if after := fmt.Sprintf("%#v", r.Header); after != before {
				t.Errorf("the caller's header was %s and is %s", before, after)
			}
			if added := len(c.want) > len(c.header); added == (base.got == r) {
				t.Errorf("added %v, but passed on the caller's request: %v", added, base.got == r)
			}
		})
	}
}

// reqid 15: one request used from many goroutines is a race the moment that
// anybody writes to it.
func TestTransportDoesNotWrite(t *testing.T) {
	tr := mustTransport(t, reqid.TransportConfig{Base: roundTrip(func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("X-Request-Id") != "id-1" {
			t.Errorf("sent %v", r.Header)
		}
		r.Header.Set("X-Base", "was here") // RoundTrippers must not, but some do
		return &http.Response{StatusCode: 204, Body: http.NoBody}, nil
	})})
	r, _ := http.NewRequestWithContext(reqid.NewContext(t.Context(), "id-1"), "GET", "http://x/", nil)
	r.Header.Set("Accept", "*/*")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				tr.RoundTrip(r)
			}
		})
	}
	wg.Wait()
	if len(r.Header) != 1 {
		t.Errorf("the caller's header is %v", r.Header)
	}
}

type idleCloser struct {
	sink
	closed int
}

func (c *idleCloser) CloseIdleConnections() { c.closed++ }

// reqid 16: http.Client asks only the outermost transport.
func TestCloseIdleConnections(t *testing.T) {
	base := &idleCloser{}
	outer := mustTransport(t, reqid.TransportConfig{Base: mustTransport(t, reqid.TransportConfig{Base: base})})
	(&http.Client{Transport: outer}).CloseIdleConnections()
	if base.closed != 1 {
		t.Errorf("the base was asked %d times", base.closed)
	}
	mustTransport(t, reqid.TransportConfig{Base: &sink{}}).CloseIdleConnections() // knows nothing of it
}

// reqid 17: a host that may not learn the ID does not, also when an allowed
// host redirects to it, and the other way round.
func TestOnlyAfterRedirect(t *testing.T) {
	got := map[string][]string{}
	base := roundTrip(func(r *http.Request) (*http.Response, error) {
		got[r.URL.String()] = r.Header["X-Request-Id"]
		res := &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}, Request: r}
		if to := r.URL.Query().Get("to"); to != "" {
			res.StatusCode = http.StatusTemporaryRedirect
			res.Header.Set("Location", to)
		}
		return res, nil
	})
	tr := mustTransport(t, reqid.TransportConfig{Base: base, Only: func(r *http.Request) bool {
		return strings.HasSuffix(r.URL.Hostname(), ".internal")
	}})
	client := &http.Client{Transport: tr}
	for from, to := range map[string]string{"http://a.internal/": "http://stranger.example/1", "http://stranger.example/2": "http://b.internal/"} {
		r, _ := http.NewRequestWithContext(reqid.NewContext(t.Context(), "id-1"), "GET", from+"?to="+url.QueryEscape(to), nil)
		if _, err := client.Do(r); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 4 {
		t.Fatalf("called %v", got)
	}
	for u, values := range got {
		if want := strings.Contains(u, ".internal/"); want != slices.Equal(values, []string{"id-1"}) || !want && values != nil {
			t.Errorf("%s was told %q", u, values)
		}
	}
}

// The base may be nil.
func TestDefaultBase(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Request-Id"))
	}))
	defer srv.Close()
	r, _ := http.NewRequestWithContext(reqid.NewContext(t.Context(), "id-1"), "GET", srv.URL, nil)
	client := &http.Client{Transport: mustTransport(t, reqid.TransportConfig{})}
	defer client.CloseIdleConnections()
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "id-1" {
		t.Errorf("the server saw %q", b)
	}
}

// reqid 8: httputil.ReverseProxy below the middleware forwards one ID, the one
// that the client gets, whatever the client sent, with a plain transport and
// with ours.
func TestReverseProxy(t *testing.T) {
	var back http.Header
	backend := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		back = r.Header.Clone()
	})})
	target, _ := url.Parse(backend.URL)
	for name, transport := range map[string]http.RoundTripper{
		"plain": backend.Transport,
		"reqid": mustTransport(t, reqid.TransportConfig{Base: backend.Transport}),
	} {
		proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }}
		h := mustNew(t, reqid.Config{Also: []string{"X-Correlation-Id"}}).Handler(proxy)
		t.Run(name, func(t *testing.T) {
			overProtos(t, h, func(t *testing.T, srv *memnet.Server) {
				for _, header := range []http.Header{
					{},
					{"X-Request-Id": {uuid}},
					{"X-Correlation-Id": {uuid}},
					{"X-Request-Id": {uuid, other}},
					{"X-Request-Id": {"${jndi:ldap://x}"}, "X-Correlation-Id": {"\xff"}},
					{"X-Request-Id": {uuid}, "Connection": {"X-Request-Id"}},
				} {
					if srv.Proto != memnet.HTTP1 {
						delete(header, "Connection")
					}
					res := get(t, srv.Client, srv.URL, header)
					ids := res.Header["X-Request-Id"]
					if len(ids) != 1 || !reqid.Valid(ids[0]) {
						t.Fatalf("%v: the client got %q", header, ids)
					}
					if header.Get("Connection") != "" && name == "plain" {
						// The client may ask a proxy to drop a header; then only
						// our transport puts it back.
						if got := back["X-Request-Id"]; got != nil {
							t.Errorf("%v: the back end got %q", header, got)
						}
						continue
					}
					if got := back["X-Request-Id"]; !slices.Equal(got, ids) {
						t.Errorf("%v: the back end got %q, the client %q", header, got, ids)
					}
					if got := back["X-Correlation-Id"]; len(got) > 0 && !slices.Equal(got, ids) {
						t.Errorf("%v: X-Correlation-Id is %q", header, got)
					}
				}
			})
		})
	}
}

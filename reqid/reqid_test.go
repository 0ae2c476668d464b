package reqid_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/reqid"
)

const (
	uuid  = "0195f180-2939-7bc4-bffe-838eb3c62526"
	other = "0195f180-2939-7bc4-bffe-000000000000"
)

func mustNew(t testing.TB, c reqid.Config) *reqid.Middleware {
	t.Helper()
	m, err := reqid.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// seen is what a handler inside the middleware was given.
type seen struct {
	id, client string
	header     http.Header
}

// recorder is a handler that notes the last request.
func recorder(s *seen) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*s = seen{reqid.FromContext(r.Context()), reqid.ClientID(r.Context()), r.Header.Clone()}
	})
}

// exchange sends a request with the header through m, without a network, and
// returns what the handler and the client got.
func exchange(t testing.TB, m *reqid.Middleware, header http.Header) (seen, http.Header) {
	t.Helper()
	var s seen
	r := httptest.NewRequest("GET", "/", nil)
	r.Header = header
	w := httptest.NewRecorder()
	m.Handler(recorder(&s)).ServeHTTP(w, r)
	return s, w.Result().Header
}

// overProtos runs f once for each version of HTTP, against a server of h.
func overProtos(t *testing.T, h http.Handler, f func(*testing.T, *memnet.Server)) {
	for _, p := range memnet.Protos() {
		t.Run(p.String(), func(t *testing.T) {
			f(t, memnet.Serve(t, p, &http.Server{Handler: h}))
		})
	}
}

func get(t testing.TB, c *http.Client, url string, header http.Header) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res
}

// reqid 1: a request without an ID gets one, of version 7, and the context, the
// response and the request header agree on it.
// reqid 18: so it is over each version of HTTP.
func TestNewID(t *testing.T) {
	var s seen
	overProtos(t, mustNew(t, reqid.Config{}).Handler(recorder(&s)), func(t *testing.T, srv *memnet.Server) {
		res := get(t, srv.Client, srv.URL, http.Header{})
		if len(s.id) != 36 || s.id[14] != '7' || !strings.ContainsRune("89ab", rune(s.id[19])) {
			t.Errorf("%q is no UUID of version 7", s.id)
		}
		want := []string{s.id}
		if got := res.Header["X-Request-Id"]; !slices.Equal(got, want) {
			t.Errorf("response has %q, context %q", got, s.id)
		}
		if got := s.header["X-Request-Id"]; !slices.Equal(got, want) {
			t.Errorf("request has %q, context %q", got, s.id)
		}
		if s.client != "" {
			t.Errorf("ClientID is %q", s.client)
		}
	})
}

// reqid 2: a valid ID is kept byte for byte.
// reqid 18: so it is over each version of HTTP.
func TestInboundKept(t *testing.T) {
	var s seen
	overProtos(t, mustNew(t, reqid.Config{}).Handler(recorder(&s)), func(t *testing.T, srv *memnet.Server) {
		for _, id := range []string{
			uuid, "x", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "host.example/Ab3+_=-000001", "a:b@c", strings.Repeat("z", 128),
		} {
			res := get(t, srv.Client, srv.URL, http.Header{"X-Request-Id": {id}})
			want := []string{id}
			if s.id != id || !slices.Equal(res.Header["X-Request-Id"], want) || !slices.Equal(s.header["X-Request-Id"], want) {
				t.Errorf("%q: context %q, response %q, request %q", id, s.id, res.Header["X-Request-Id"], s.header["X-Request-Id"])
			}
		}
	})
}

// hostile are header values that net/http lets through to a handler.
var hostile = []string{
	"", " ", "\t", "a b", "a\tb", `"quoted"`, "it's", `back\slash`, "a,b", "a, b", "a;b", "<b>", "${jndi:ldap://x}", "{}", "$(id)", "`id`",
	"\x80", "caf\xe9", "\xff\xfe", "id\u202egnp.exe", "日本", strings.Repeat("z", 129), strings.Repeat("z", 100_000), "%0d%0aSet-Cookie", "a|b", "a?b", "a*b", "~",
}

// reqid 3: what is not an ID is replaced, and neither the request nor the
// response keeps any of it.
func TestHostileReplaced(t *testing.T) {
	var s seen
	m := mustNew(t, reqid.Config{Also: []string{"X-Correlation-Id"}})
	check := func(t *testing.T, value string, response http.Header) {
		t.Helper()
		if !reqid.Valid(s.id) || len(s.id) != 36 || s.id == value || s.client != "" {
			t.Errorf("%.40q: ID %.60q, ClientID %.60q", value, s.id, s.client)
		}
		want := []string{s.id}
		if got := response["X-Request-Id"]; !slices.Equal(got, want) {
			t.Errorf("%.40q: response has %.60q", value, got)
		}
		if got := s.header["X-Request-Id"]; !slices.Equal(got, want) {
			t.Errorf("%.40q: request has %.60q", value, got)
		}
		if got, ok := s.header["X-Correlation-Id"]; ok {
			t.Errorf("%.40q: the other field kept %.60q", value, got)
		}
	}
	overProtos(t, m.Handler(recorder(&s)), func(t *testing.T, srv *memnet.Server) {
		for _, value := range hostile {
			for _, header := range []http.Header{
				{"X-Request-Id": {value}},
				{"X-Correlation-Id": {value}},
				{"X-Request-Id": {value}, "X-Correlation-Id": {value}},
			} {
				check(t, value, get(t, srv.Client, srv.URL, header).Header)
			}
		}
	})
	// Not every request comes through net/http's server: fcgi, cgi, tests.
	t.Run("by hand", func(t *testing.T) {
		for c := range 256 {
			value := "id" + string([]byte{byte(c)}) + "id"
			if reqid.Valid(value) {
				continue
			}
			var response http.Header
			s, response = exchange(t, m, http.Header{"X-Request-Id": {value}})
			check(t, value, response)
		}
	})
}

// reqid 4: several lines, or several values in one, are no ID; the handler sees
// one value.
func TestSeveralValues(t *testing.T) {
	var s seen
	overProtos(t, mustNew(t, reqid.Config{}).Handler(recorder(&s)), func(t *testing.T, srv *memnet.Server) {
		for _, values := range [][]string{{"a", "b"}, {uuid, uuid}, {"a, b"}, {"a,b"}, {"", "b"}} {
			res := get(t, srv.Client, srv.URL, http.Header{"X-Request-Id": values})
			want := []string{s.id}
			if len(s.id) != 36 || slices.Contains(values, s.id) ||
				!slices.Equal(s.header["X-Request-Id"], want) || !slices.Equal(res.Header["X-Request-Id"], want) {
				t.Errorf("%q: context %q, request %q, response %q", values, s.id, s.header["X-Request-Id"], res.Header["X-Request-Id"])
			}
		}
	})
}

// reqid 7: the fields of Also count in their order, and only when the fields
// before are absent. The first one present decides, even if it is no use.
func TestAlso(t *testing.T) {
	m := mustNew(t, reqid.Config{Also: []string{"x-correlation-id", "Request-Id"}})
	const fresh = "(new)"
	for _, c := range []struct {
		name   string
		header http.Header
		want   string
		left   []string // the fields of Also that are still there
	}{
		{"correlation alone", http.Header{"X-Correlation-Id": {uuid}}, uuid, []string{"X-Correlation-Id"}},
		{"second alone", http.Header{"Request-Id": {uuid}}, uuid, []string{"Request-Id"}},
		{"header first", http.Header{"X-Request-Id": {"a"}, "X-Correlation-Id": {"b"}}, "a", nil},
		{"order", http.Header{"X-Correlation-Id": {"b"}, "Request-Id": {"c"}}, "b", []string{"X-Correlation-Id"}},
		{"all agree", http.Header{"X-Request-Id": {"a"}, "X-Correlation-Id": {"a"}}, "a", []string{"X-Correlation-Id"}},
		{"header invalid", http.Header{"X-Request-Id": {"a b"}, "X-Correlation-Id": {"b"}}, fresh, nil},
		{"header empty", http.Header{"X-Request-Id": {""}, "X-Correlation-Id": {"b"}}, fresh, nil},
		{"header without values", http.Header{"X-Request-Id": {}, "X-Correlation-Id": {"b"}}, "b", []string{"X-Correlation-Id"}},
		{"also invalid", http.Header{"X-Correlation-Id": {"b", "b"}, "Request-Id": {"c"}}, fresh, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, response := exchange(t, m, c.header)
			if c.want == fresh && len(s.id) != 36 || c.want != fresh && s.id != c.want {
				t.Errorf("ID %q, want %q", s.id, c.want)
			}
			var left []string
			for _, key := range []string{"X-Correlation-Id", "Request-Id"} {
				if v, ok := s.header[key]; ok {
					left = append(left, key)
					if !slices.Equal(v, []string{s.id}) {
						t.Errorf("%s: %q survived beside %q", key, v, s.id)
					}
				}
				if _, ok := response[key]; ok {
					t.Errorf("%s is in the response", key)
				}
			}
			if !slices.Equal(left, c.left) {
				t.Errorf("left %q, want %q", left, c.left)
			}
			if !slices.Equal(s.header["X-Request-Id"], []string{s.id}) {
				t.Errorf("X-Request-Id is %q", s.header["X-Request-Id"])
			}
		})
	}
}

// reqid 9, first half: the response header is there after a panic that a
// recoverer outside turns into a 500, and after a plain error. (With a timeout
// inside, which answers 503 in the handler's place, the middlewares are tested
// together.)
func TestResponseHeaderSurvivesPanic(t *testing.T) {
	inner := mustNew(t, reqid.Config{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/error" {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		panic("boom")
	}))
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				http.Error(w, "oops", http.StatusInternalServerError)
			}
		}()
		inner.ServeHTTP(w, r)
	})
	overProtos(t, h, func(t *testing.T, srv *memnet.Server) {
		for path, status := range map[string]int{"/panic": 500, "/error": 503} {
			res := get(t, srv.Client, srv.URL+path, http.Header{"X-Request-Id": {uuid}})
			if res.StatusCode != status || !slices.Equal(res.Header["X-Request-Id"], []string{uuid}) {
				t.Errorf("%s: %d with %q", path, res.StatusCode, res.Header["X-Request-Id"])
			}
		}
	})
}

// reqid 11: instances with different headers do not meet.
func TestTwoInstances(t *testing.T) {
	a := mustNew(t, reqid.Config{Header: "X-A-Id", Generate: func() string { return "made-by-a" }})
	b := mustNew(t, reqid.Config{Header: "X-B-Id", Generate: func() string { return "made-by-b" }})
	var wg sync.WaitGroup
	for i := range 8 {
		m, mine, theirs, made := a, "X-A-Id", "X-B-Id", "made-by-a"
		if i%2 == 1 {
			m, mine, theirs, made = b, theirs, mine, "made-by-b"
		}
		wg.Go(func() {
			for range 200 {
				s, response := exchange(t, m, http.Header{theirs: {uuid}})
				if s.id != made || response.Get(mine) != made || response.Get(theirs) != "" || s.header.Get(theirs) != uuid {
					t.Errorf("%s: ID %q, request %v, response %v", mine, s.id, s.header, response)
				}
				if s, _ := exchange(t, m, http.Header{mine: {uuid}}); s.id != uuid {
					t.Errorf("%s: ID %q", mine, s.id)
				}
			}
		})
	}
	wg.Wait()
}

// Response and request header have values of their own: whoever changes one in
// place, or appends to it, changes nothing else.
func TestHeaderValuesNotShared(t *testing.T) {
	for name, header := range map[string]http.Header{"new": {}, "kept": {"X-Request-Id": {uuid}}} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header = header
			w := httptest.NewRecorder()
			mustNew(t, reqid.Config{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				id := reqid.FromContext(r.Context())
				w.Header()["X-Request-Id"][0] = "changed"
				w.Header().Add("X-Request-Id", "added")
				if got := r.Header["X-Request-Id"]; !slices.Equal(got, []string{id}) {
					t.Errorf("request has %q", got)
				}
				r.Header["X-Request-Id"][0] = "changed too"
				r.Header.Add("X-Request-Id", "added too")
				if got := w.Header()["X-Request-Id"]; !slices.Equal(got, []string{"changed", "added"}) {
					t.Errorf("response has %q", got)
				}
				if got := reqid.FromContext(r.Context()); got != id {
					t.Errorf("context has %q", got)
				}
			})).ServeHTTP(w, r)
		})
	}
}

// A request without a header map, which no server makes but a test may.
func TestNilHeader(t *testing.T) {
	m := mustNew(t, reqid.Config{Also: []string{"Request-Id"}, Trace: true})
	s, response := exchange(t, m, nil)
	if len(s.id) != 36 || s.header.Get("X-Request-Id") != s.id || response.Get("X-Request-Id") != s.id {
		t.Errorf("ID %q, request %v, response %v", s.id, s.header, response)
	}
}

func TestHideResponse(t *testing.T) {
	s, response := exchange(t, mustNew(t, reqid.Config{HideResponse: true}), http.Header{"X-Request-Id": {uuid}})
	if s.id != uuid || len(response) != 0 {
		t.Errorf("ID %q, response %v", s.id, response)
	}
}

func TestHandlerNil(t *testing.T) {
	defer func() {
		if got := recover(); got != "reqid: nil handler" {
			t.Errorf("panic is %v", got)
		}
	}()
	mustNew(t, reqid.Config{}).Handler(nil)
}

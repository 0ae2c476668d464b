package forwardauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/forwardauth"
)

// The cases of Traefik v3.7.9, pkg/middlewares/auth/forward_test.go, by their
// names there, with what they come to here. Where that is something else than
// there, the comment says why.

// TestForwardAuthFail: Proxy-Authenticate is a field of one connection (RFC
// 9110, section 11.7.1) and is not passed on; Traefik does.
func TestTraefikFail(t *testing.T) {
	h := do(t, forwardauth.Config{}, says(403, "Forbidden\n", "Proxy-Authenticate: test"), request("GET", "/"))
	if h.StatusCode != 403 || h.body != "Forbidden\n" || h.Header["Proxy-Authenticate"] != nil || h.ran != nil {
		t.Errorf("status %d, body %q, header %v", h.StatusCode, h.body, h.Header)
	}
}

// TestForwardAuthSuccess: fields are copied by their names and not by a pattern,
// which would have to be matched with all aliases of all names. Where the
// handler sets a cookie of the same name, the handler's is kept: it ran later,
// and knows more.
func TestTraefikSuccess(t *testing.T) {
	s := says(200, "Success", "X-Auth-User: user@example.com", "X-Auth-Secret: secret", "X-Auth-Group: group1", "X-Auth-Group: group2",
		"Foo-Bar: auth-value", "Set-Cookie: authCookie=Auth", "Set-Cookie: authCookieToo=Auth", "Set-Cookie: authCookieNotAdded=Auth")
	m := mustNew(t, forwardauth.Config{
		Base:           s,
		CopyHeaders:    []forwardauth.HeaderCopy{{From: "X-Auth-User"}, {From: "X-Auth-Group"}, {From: "Foo-Bar"}, {From: "Foo-Baz"}},
		SuccessCookies: forwardauth.NamedCookies("authCookie", "authCookieToo"),
	})
	w := newRecorder()
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, want := range map[string][]string{
			"X-Auth-User": {"user@example.com"}, "X-Auth-Secret": nil, "X-Auth-Group": {"group1", "group2"},
			"Foo-Bar": {"auth-value"}, "Foo-Baz": nil,
		} {
			if got := r.Header[name]; !slices.Equal(got, want) {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		w.Header().Add("Set-Cookie", "authCookie=Backend")
		w.Header().Add("Set-Cookie", "backendCookie=Backend")
		w.Header().Add("Other-Header", "BackendHeaderValue")
		io.WriteString(w, "traefik\n")
	})).ServeHTTP(w, request("GET", "/", "X-Auth-Group: admin_group", "Foo-Bar: client-value", "Foo-Baz: client-value"))
	if got, want := w.Header()["Set-Cookie"], []string{"authCookie=Backend", "backendCookie=Backend", "authCookieToo=Auth"}; !slices.Equal(got, want) {
		t.Errorf("cookies %q, want %q", got, want)
	}
	if w.Code != 200 || w.Header().Get("Other-Header") != "BackendHeaderValue" || w.Body.String() != "traefik\n" {
		t.Errorf("status %d, header %v, body %q", w.Code, w.Header(), w.Body)
	}
}

// TestForwardAuthForwardBody, ForwardBodyEmptyBody, ForwardBodySizeLimit and
// NotForwardBody. A body that is too large is answered with 413, as RFC 9110,
// section 15.5.14, has it, and not with 401.
func TestTraefikForwardBody(t *testing.T) {
	const data = "forwardBodyTest"
	for _, c := range []struct {
		name        string
		limit       int64
		body, asked string
		status      int
		questions   int
	}{
		{"ForwardBody", int64(len(data)), data, data, 200, 1},
		{"ForwardBodyEmptyBody", int64(len(data)), "", "", 200, 1},
		{"ForwardBodySizeLimit", int64(len(data)) - 1, data, "", 413, 0},
		{"NotForwardBody", 0, data, "", 200, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := says(200, "")
			r := request("GET", "/")
			if c.body != "" {
				r.Body, r.ContentLength = newBody(c.body), int64(len(c.body))
			}
			h := do(t, forwardauth.Config{MaxBody: c.limit}, s, r)
			if h.StatusCode != c.status || s.count() != c.questions || (h.ran != nil) != (c.status == 200) {
				t.Fatalf("status %d, %d questions", h.StatusCode, s.count())
			}
			if c.questions > 0 && s.bodies[0] != c.asked || h.ran != nil && h.read != c.body {
				t.Errorf("the service got %q, the handler %q", s.bodies, h.read)
			}
		})
	}
}

// TestForwardAuthDoesNotForwardCONNECTBody: CONNECT is refused before anybody is
// asked, with and without a length, over HTTP/1.1 and HTTP/2: nothing behind
// could be guarded by one decision.
func TestTraefikDoesNotForwardCONNECTBody(t *testing.T) {
	for _, major := range []int{1, 2} {
		for _, length := range []int64{-1, 3} {
			s := says(200, "")
			r := request("CONNECT", "/")
			r.ProtoMajor, r.ProtoMinor, r.Body, r.ContentLength = major, 2-major, newBody("foo"), length
			h := do(t, forwardauth.Config{MaxBody: 100}, s, r)
			if h.StatusCode != 400 || s.count() != 0 || h.ran != nil {
				t.Errorf("HTTP/%d, length %d: status %d, %d questions", major, length, h.StatusCode, s.count())
			}
		}
	}
}

// TestForwardAuthRedirect.
func TestTraefikRedirect(t *testing.T) {
	s := says(302, "<a href=\"http://example.com/redirect-test\">Found</a>.\n", "Location: http://example.com/redirect-test", "Content-Type: text/html; charset=utf-8")
	h := do(t, forwardauth.Config{}, s, request("GET", "/"))
	if h.StatusCode != 302 || h.Header.Get("Location") != "http://example.com/redirect-test" || h.body == "" || h.ran != nil || s.count() != 1 {
		t.Errorf("status %d, header %v, body %q", h.StatusCode, h.Header, h.body)
	}
}

// TestForwardAuthRemoveHopByHopHeaders, with every field that concerns one
// connection.
func TestTraefikRemoveHopByHopHeaders(t *testing.T) {
	names := []string{"Connection", "Keep-Alive", "Te", "Trailer", "Trailers", "Transfer-Encoding", "Upgrade", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization"}
	lines := []string{"Location: http://example.com/redirect-test"}
	for _, name := range names {
		lines = append(lines, name+": test")
	}
	h := do(t, forwardauth.Config{}, says(302, "Found", lines...), request("GET", "/"))
	for _, name := range names {
		if h.Header[name] != nil {
			t.Errorf("%s: %q", name, h.Header[name])
		}
	}
	if h.StatusCode != 302 || h.Header.Get("Location") != "http://example.com/redirect-test" || h.body == "" {
		t.Errorf("status %d, header %v", h.StatusCode, h.Header)
	}
}

// TestForwardAuthFailResponseHeaders: of the answer's fields the client gets
// those that have a meaning in a denial, and those that are named.
func TestTraefikFailResponseHeaders(t *testing.T) {
	s := says(403, "Forbidden\n", "Set-Cookie: example=testing; Path=/", "X-Foo: bar", "X-Bar: foo",
		"Content-Type: text/plain; charset=utf-8", "X-Content-Type-Options: nosniff")
	h := do(t, forwardauth.Config{DenyHeaders: []string{"X-Foo", "X-Content-Type-Options"}}, s, request("GET", "/"))
	want := map[string]string{
		"Content-Length": "10", "Content-Type": "text/plain; charset=utf-8", "X-Foo": "bar",
		"Set-Cookie": "example=testing; Path=/", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
	}
	for name, value := range want {
		if got := h.Header[name]; !slices.Equal(got, []string{value}) {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	if h.StatusCode != 403 || len(h.Header) != len(want) || h.body != "Forbidden\n" {
		t.Errorf("status %d, header %v, body %q", h.StatusCode, h.Header, h.body)
	}
}

// TestForwardAuthClientClosedRequest.
func TestTraefikClientClosedRequest(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &service{answer: func(r *http.Request) (*http.Response, error) {
		cancel()
		<-r.Context().Done()
		return nil, r.Context().Err()
	}}
	h := do(t, forwardauth.Config{}, s, request("GET", "/").WithContext(ctx))
	if h.StatusCode != 499 || h.ran != nil {
		t.Errorf("status %d", h.StatusCode)
	}
}

// TestForwardAuthForwardError: 503, so that clients know it is worth another
// try, and not 500.
func TestTraefikForwardError(t *testing.T) {
	s := &service{answer: func(*http.Request) (*http.Response, error) {
		return nil, errors.New("lookup non-existing-server: no such host")
	}}
	h := do(t, forwardauth.Config{}, s, request("GET", "/"))
	if h.StatusCode != 503 || h.ran != nil {
		t.Errorf("status %d", h.StatusCode)
	}
}

// TestForwardAuth_writeHeader and TestForwardAuth_oldWriteHeader, whose cases
// are those of the first without trust.
//
// What differs: of a trusted proxy scheme, host and address are believed, and
// never the URI or the method, which are this server's to know. A request
// without Host is refused, unless the proxy says what it was. Only named fields
// are sent; User-Agent is one of them always. X-Forwarded-Prefix stays here.
func TestTraefik_writeHeader(t *testing.T) {
	const json = "Accept: application/json"
	written := map[string]string{
		"X-Forwarded-Proto": "http", "X-Forwarded-Host": "foo.bar", "X-Forwarded-Uri": "/path?q=1", "X-Forwarded-Method": "GET",
		"X-Forwarded-Port": "80", "X-Forwarded-For": "192.0.2.7", "X-Real-Ip": "192.0.2.7", "User-Agent": "", "Accept-Encoding": "identity",
	}
	for _, c := range []struct {
		name    string
		lines   []string
		headers []string // RequestHeaders
		trusted bool
		noHost  bool
		status  int               // if not 200
		want    map[string]string // beside what is written
	}{
		{name: "trust forward header", lines: []string{json, "X-Forwarded-Host: fii.bir"}, trusted: true,
			want: map[string]string{"Accept": "application/json", "X-Forwarded-Host": "fii.bir"}},
		{name: "not trust forward header", lines: []string{json, "X-Forwarded-Host: fii.bir"},
			want: map[string]string{"Accept": "application/json"}},
		{name: "trust forward header with empty Host", lines: []string{json, "X-Forwarded-Host: fii.bir"}, trusted: true, noHost: true,
			want: map[string]string{"Accept": "application/json", "X-Forwarded-Host": "fii.bir"}},
		{name: "not trust forward header with empty Host", lines: []string{json, "X-Forwarded-Host: fii.bir"}, noHost: true, status: 400},
		{name: "trust forward header with forwarded URI", lines: []string{json, "X-Forwarded-Host: fii.bir", "X-Forwarded-Uri: /forward?q=1"}, trusted: true,
			want: map[string]string{"Accept": "application/json", "X-Forwarded-Host": "fii.bir"}},
		{name: "not trust forward header with forward requested URI", lines: []string{json, "X-Forwarded-Host: fii.bir", "X-Forwarded-Uri: /forward?q=1"},
			want: map[string]string{"Accept": "application/json"}},
		{name: "trust forward header with forwarded request Method", lines: []string{"X-Forwarded-Method: OPTIONS"}, trusted: true},
		{name: "not trust forward header with forward request Method", lines: []string{"X-Forwarded-Method: OPTIONS"}},
		{name: "remove hop-by-hop headers", lines: []string{"Connection: Connection", "Keep-Alive: KeepAlive", "Proxy-Authenticate: ProxyAuthenticate",
			"Proxy-Authorization: ProxyAuthorization", "Te: Te", "Trailers: Trailers", "Transfer-Encoding: TransferEncoding", "Upgrade: Upgrade", "X-CustomHeader: CustomHeader"}},
		{name: "filter forward request headers", lines: []string{"X-CustomHeader: CustomHeader", "Content-Type: multipart/form-data; boundary=---123456"},
			headers: []string{"X-CustomHeader"}, want: map[string]string{"X-Customheader": "CustomHeader"}},
		{name: "filter forward request headers doesn't add new headers", lines: []string{"X-CustomHeader: CustomHeader", "Content-Type: multipart/form-data; boundary=---123456"},
			headers: []string{"X-CustomHeader", "X-Non-Exists-Header"}, want: map[string]string{"X-Customheader": "CustomHeader"}},
		{name: "set empty User-Agent header if header is allowed but missing", lines: []string{"X-CustomHeader: CustomHeader", json},
			headers: []string{"X-CustomHeader", "Accept", "User-Agent"}, want: map[string]string{"X-Customheader": "CustomHeader", "Accept": "application/json"}},
		{name: "ignore User-Agent header if header is not allowed and missing", lines: []string{"X-CustomHeader: CustomHeader", json},
			headers: []string{"X-CustomHeader", "Accept"}, want: map[string]string{"X-Customheader": "CustomHeader", "Accept": "application/json"}},
		{name: "set empty User-Agent header if header is missing", lines: []string{"X-CustomHeader: CustomHeader", json},
			want: map[string]string{"Accept": "application/json"}},
		{name: "authRequestHeaders and XForwarded are kept if trusted", lines: []string{"X-CustomHeader: CustomHeader", "X-Forwarded-Uri: /path?q=2"},
			headers: []string{"X-CustomHeader"}, trusted: true, want: map[string]string{"X-Customheader": "CustomHeader"}},
		{name: "X-Forwarded and X_forwarded headers are removed when not trusted", lines: []string{"X-CustomHeader: CustomHeader", "X_forwarded_for: 127.0.0.1", "X-Forwarded-Proto: xxx"},
			headers: []string{"X-CustomHeader"}, want: map[string]string{"X-Customheader": "CustomHeader"}},
		{name: "X-Forwarded-Proto is not used to calculate X-Forwarded-Port if trustForwardHeader=false", lines: []string{"X-CustomHeader: CustomHeader", "X-Forwarded-Proto: https"}},
		{name: "X-Forwarded-Prefix is kept for non-breaking behavior", lines: []string{"X-CustomHeader: CustomHeader", "X-Forwarded-Prefix: foo.bar"},
			headers: []string{"X-CustomHeader"}, want: map[string]string{"X-Customheader": "CustomHeader"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := says(200, "")
			r := request("GET", "/path?q=1", c.lines...)
			if r.Host = "foo.bar"; c.noHost {
				r.Host = ""
			}
			config := forwardauth.Config{RequestHeaders: c.headers}
			if c.trusted {
				config.TrustedProxies = prefixes(t, "192.0.2.7/32")
			}
			h := do(t, config, s, r)
			if c.status != 0 {
				if h.StatusCode != c.status || s.count() != 0 {
					t.Errorf("status %d, %d questions", h.StatusCode, s.count())
				}
				return
			}
			sent := s.last(t).Header
			delete(sent, "X-Forwardauth-Loop")
			want := make(map[string]string)
			for _, all := range []map[string]string{written, c.want} {
				for name, value := range all {
					want[name] = value
				}
			}
			for name, value := range want {
				if got, ok := sent[name]; !ok || strings.Join(got, "|") != value {
					t.Errorf("%s is %q, want %q", name, got, value)
				}
			}
			if len(sent) != len(want) {
				t.Errorf("sent %v, want %v", sent, want)
			}
		})
	}
}

// TestForwardAuthTracing: spans are Base's to make. It gets the request's
// context and the header that is sent, and can add to it.
func TestTraefikTracing(t *testing.T) {
	type span struct{}
	s := says(404, "", "X-Bar: foo", "X-Bar: bar")
	var status int
	m := mustNew(t, forwardauth.Config{RequestHeaders: []string{"X-Foo"}, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Context().Value(span{}) != "initial" {
			t.Error("the context is not that of the request")
		}
		traced := r.Clone(r.Context())
		traced.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		res, err := s.RoundTrip(traced)
		if err == nil {
			status = res.StatusCode
		}
		return res, err
	})})
	r := request("GET", "/search?q=Opentelemetry", "User-Agent: forward-test", "X-Forwarded-Proto: http", "X-Foo: foo", "X-Foo: bar")
	h := serve(m, r.WithContext(context.WithValue(t.Context(), span{}, "initial")))
	asked := s.last(t)
	if h.StatusCode != 404 || status != 404 || asked.Header.Get("Traceparent") == "" || !slices.Equal(asked.Header["X-Foo"], []string{"foo", "bar"}) {
		t.Errorf("status %d, %d in the span, asked with %v", h.StatusCode, status, asked.Header)
	}
}

// TestForwardAuthPreserveLocationHeader: the Location is kept as it is by
// default, and made absolute on demand; Traefik has it the other way round.
func TestTraefikPreserveLocationHeader(t *testing.T) {
	for resolve, want := range map[bool]string{false: "/index.html", true: "http://auth.example/index.html"} {
		h := do(t, forwardauth.Config{ResolveLocation: resolve}, says(401, "Unauthorized\n", "Location: /index.html"), request("GET", "/"))
		if h.StatusCode != 401 || h.Header.Get("Location") != want {
			t.Errorf("status %d, Location %q, want %q", h.StatusCode, h.Header.Get("Location"), want)
		}
	}
}

// TestForwardAuthPreserveRequestMethod: the mode decides.
func TestTraefikPreserveRequestMethod(t *testing.T) {
	for mode, want := range map[forwardauth.Mode]string{forwardauth.Envoy: "POST", forwardauth.Traefik: "GET"} {
		s := says(200, "")
		h := do(t, forwardauth.Config{Mode: mode}, s, request("POST", "/"))
		if s.last(t).Method != want || h.ran == nil || h.ran.Method != "POST" {
			t.Errorf("%v: asked with %s", mode, s.last(t).Method)
		}
	}
}

// TestForwardAuthMaxResponseBodySize: too long an answer is none, and so 503
// and not 401. There is always a limit.
func TestTraefikMaxResponseBodySize(t *testing.T) {
	for _, c := range []struct {
		name   string
		limit  int64
		status int
		body   string
		want   int
		text   string // "" for a refusal
	}{
		{"auth failure, default limit", 0, 403, "Forbidden", 403, "Forbidden"},
		{"auth failure, response body exceeds the limit", 1, 403, "Forbidden", 503, ""},
		{"auth success within limit", 100, 200, "ok", 200, "served"},
		{"auth success body exceeds limit", 1, 200, "large auth response", 503, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := do(t, forwardauth.Config{MaxResponse: c.limit}, says(c.status, c.body), request("GET", "/"))
			if h.StatusCode != c.want || c.text != "" && h.body != c.text || strings.Contains(h.body, "large auth") {
				t.Errorf("status %d, body %q", h.StatusCode, h.body)
			}
		})
	}
}

// TestForwardAuthAuthSigninURL: browsers are sent to sign in, with where to
// return to; programs get the 401.
func TestTraefikAuthSigninURL(t *testing.T) {
	const signIn, html = "https://auth.example.com/login", "Accept: text/html"
	for _, c := range []struct {
		name, signIn, accept string
		answer, want         int
		location             string
	}{
		{"redirects to signin URL on 401", signIn, html, 401, 302, signIn + "?rd=http%3A%2F%2Fapp.example%2Fa"},
		{"no redirect of a program", signIn, "Accept: application/json", 401, 401, ""},
		{"no redirect on 401 without signin URL", "", html, 401, 401, ""},
		{"no redirect on other error statuses with signin URL", signIn, html, 403, 403, ""},
		{"no redirect on OK status with signin URL", signIn, html, 200, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := do(t, forwardauth.Config{SignIn: c.signIn}, says(c.answer, http.StatusText(c.answer)), request("GET", "/a", c.accept))
			if h.StatusCode != c.want || h.Header.Get("Location") != c.location || (h.ran != nil) != (c.answer == 200) {
				t.Errorf("status %d, Location %q", h.StatusCode, h.Header.Get("Location"))
			}
		})
	}
}

// roundTripper is a function in the place of a transport.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

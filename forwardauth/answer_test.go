package forwardauth_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/forwardauth"
	"example.com/plainware/internal/memnet"
)

// busy is the error of a breaker that is open.
type busy struct{ error }

func (busy) RetryAfter() time.Duration { return 1500 * time.Millisecond }

// forwardauth 10, 29: whatever is not a decision is 503, and the handler does
// not run.
func TestNoDecision(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		code   string
		retry  string
	}{
		"error":           {func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") }, "forwardauth_unavailable", ""},
		"breaker":         {func(*http.Request) (*http.Response, error) { return nil, fmt.Errorf("open: %w", busy{io.EOF}) }, "forwardauth_unavailable", "2"},
		"both":            {func(*http.Request) (*http.Response, error) { return response(200, ""), errors.New("x") }, "forwardauth_unavailable", ""},
		"nothing":         {func(*http.Request) (*http.Response, error) { return nil, nil }, "forwardauth_bad_response", ""},
		"no body":         {func(*http.Request) (*http.Response, error) { return &http.Response{StatusCode: 200}, nil }, "forwardauth_bad_response", ""},
		"500":             {says(500, "").answer, "forwardauth_unavailable", ""},
		"502, retry":      {says(502, "", "Retry-After: 7").answer, "forwardauth_unavailable", "7"},
		"503, odd retry":  {says(503, "", "Retry-After: -7").answer, "forwardauth_unavailable", ""},
		"503, long retry": {says(503, "", "Retry-After: 2000000000").answer, "forwardauth_unavailable", "86400"},
		"999":             {says(999, "").answer, "forwardauth_unavailable", ""},
		"101":             {says(101, "").answer, "forwardauth_bad_response", ""},
		"304":             {says(304, "").answer, "forwardauth_bad_response", ""},
		"0":               {says(0, "").answer, "forwardauth_bad_response", ""},
		"cut": {func(*http.Request) (*http.Response, error) {
			res := response(200, "")
			res.ContentLength, res.Body = 10, io.NopCloser(io.MultiReader(strings.NewReader("abc"), errReader{}))
			return res, nil
		}, "forwardauth_bad_response", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var seen error
			h := do(t, forwardauth.Config{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				seen = err
				forwardauth.WriteError(w, r, err)
			}}, &service{answer: c.answer}, request("GET", "/"))
			if h.StatusCode != 503 || h.code(t) != c.code || h.ran != nil || h.Header.Get("Retry-After") != c.retry {
				t.Errorf("status %d, Retry-After %q, body %s", h.StatusCode, h.Header.Get("Retry-After"), h.body)
			}
			if _, ok := errors.AsType[*forwardauth.Error](seen); !ok {
				t.Errorf("the error handler got %v", seen)
			}
		})
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// forwardauth 10: the same with a real transport: a service that is gone, slow,
// resets, sends half a header, or something that is not HTTP.
func TestNoDecisionOnTheWire(t *testing.T) {
	for name, c := range map[string]struct {
		text  string // what the service sends
		abort bool
		stall bool
		after time.Duration
	}{
		"silence":          {"", false, true, 3 * time.Second},
		"closed":           {"", false, false, 0},
		"reset":            {"", true, false, 0},
		"half a header":    {"HTTP/1.1 200 OK\r\nRemote-User: a", false, false, 0},
		"stalled header":   {"HTTP/1.1 200 OK\r\nRemote-User: a\r\n", false, true, 3 * time.Second},
		"stalled body":     {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", false, true, 3 * time.Second},
		"cut body":         {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", false, false, 0},
		"garbage":          {"\x00\x01\x02 nonsense\r\n\r\n", false, false, 0},
		"101":              {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", false, false, 0},
		"only information": {"HTTP/1.1 103 Early Hints\r\n\r\n", false, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := memnet.Listen()
				var wg sync.WaitGroup
				wg.Go(func() {
					for {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						buf := make([]byte, 4096)
						conn.Read(buf)
						io.WriteString(conn, c.text)
						switch {
						case c.abort:
							conn.(*memnet.Conn).Abort()
						case c.stall:
							conn.Read(buf) // until the client has gone
						}
						conn.Close()
					}
				})
				tr := &http.Transport{DialContext: l.DialContext}
				m := mustNew(t, forwardauth.Config{Base: tr})
				start := time.Now()
				h := serve(m, request("POST", "/"))
				if h.StatusCode != 503 || h.ran != nil || time.Since(start) != c.after {
					t.Errorf("status %d after %v", h.StatusCode, time.Since(start))
				}
				l.Close()
				if h := serve(m, request("GET", "/")); h.StatusCode != 503 || h.code(t) != "forwardauth_unavailable" {
					t.Errorf("gone: status %d", h.StatusCode)
				}
				tr.CloseIdleConnections()
				wg.Wait()
			})
		})
	}
}

// endless is a body without end that counts what was read of it.
type endless struct{ n atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.n.Add(int64(len(p)))
	return len(p), nil
}

// forwardauth 11: an answer longer than MaxResponse is none, whatever its
// status, and is read no further; 100 at a time hold twice the limit each at
// most.
func TestMaxResponse(t *testing.T) {
	for _, status := range []int{200, 403} {
		for n, want := range map[int]int{1024: status, 1025: 503} {
			h := do(t, forwardauth.Config{MaxResponse: 1024}, says(status, strings.Repeat("x", n)), request("GET", "/"))
			if h.StatusCode != want {
				t.Errorf("%d bytes with %d: status %d", n, status, h.StatusCode)
			}
		}
	}
	const limit = 64 << 10
	var bodies [100]endless
	var next atomic.Int64
	s := &service{answer: func(*http.Request) (*http.Response, error) {
		res := response(403, "")
		res.ContentLength, res.Body = -1, io.NopCloser(&bodies[next.Add(1)-1])
		return res, nil
	}}
	m := mustNew(t, forwardauth.Config{Base: s})
	var wg sync.WaitGroup
	for range bodies {
		wg.Go(func() {
			if h := serve(m, request("GET", "/")); h.StatusCode != 503 {
				t.Errorf("status %d", h.StatusCode)
			}
		})
	}
	wg.Wait()
	for i := range bodies {
		if n := bodies[i].n.Load(); n > limit+1 {
			t.Errorf("%d bytes of an answer were read", n)
		}
	}
	// One that announces its length is not read at all.
	var body endless
	h := do(t, forwardauth.Config{}, &service{answer: func(*http.Request) (*http.Response, error) {
		res := response(200, "")
		res.ContentLength, res.Body = limit+1, io.NopCloser(&body)
		return res, nil
	}}, request("GET", "/"))
	if h.StatusCode != 503 || body.n.Load() != 0 {
		t.Errorf("status %d, %d bytes read", h.StatusCode, body.n.Load())
	}
}

// forwardauth 12, 14: redirects are the client's to follow, with the Location as
// it is or, on demand, resolved.
func TestRedirects(t *testing.T) {
	for _, status := range []int{300, 301, 302, 303, 305, 307, 308} {
		for location, resolved := range map[string]string{
			"http://auth.example/verify": "http://auth.example/verify",
			"/login?rd=%2Fa":             "http://auth.example/login?rd=%2Fa",
			"login":                      "http://auth.example/login",
			"//cdn.example/x":            "http://cdn.example/x",
			"":                           "",
		} {
			for _, resolve := range []bool{false, true} {
				s := says(status, "", "Location: "+location)
				want := location
				if location == "" {
					s = says(status, "")
				} else if resolve {
					want = resolved
				}
				h := do(t, forwardauth.Config{ResolveLocation: resolve}, s, request("GET", "/a"))
				if h.StatusCode != status || h.Header.Get("Location") != want || s.count() != 1 || h.ran != nil {
					t.Errorf("%d %q: status %d, Location %q, %d questions", status, location, h.StatusCode, h.Header.Get("Location"), s.count())
				}
			}
		}
	}
}

// forwardauth 13: what a denial says arrives, line by line.
func TestDenial(t *testing.T) {
	s := says(401, "who are you?", "WWW-Authenticate: Basic realm=a", "WWW-Authenticate: Bearer", "Set-Cookie: a=1, 2; Path=/", "Set-Cookie: b=2",
		"Content-Type: text/plain", "X-Internal: secret", "X-Shown: yes", "Location: /login", "Vary: Cookie", "Server: auth")
	h := do(t, forwardauth.Config{DenyHeaders: []string{"x-shown"}}, s, request("GET", "/"))
	if h.StatusCode != 401 || h.body != "who are you?" || h.ran != nil {
		t.Errorf("status %d, %q", h.StatusCode, h.body)
	}
	for name, want := range map[string][]string{
		"Www-Authenticate": {"Basic realm=a", "Bearer"}, "Set-Cookie": {"a=1, 2; Path=/", "b=2"}, "Content-Type": {"text/plain"},
		"X-Internal": nil, "Server": nil, "X-Shown": {"yes"}, "Location": {"/login"}, "Cache-Control": {"no-store"}, "Vary": {"Cookie"},
	} {
		if got := h.Header[name]; !slices.Equal(got, want) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	h = do(t, forwardauth.Config{}, says(403, "<script>", "Cache-Control: private"), request("GET", "/"))
	if h.Header.Get("Cache-Control") != "private" || len(h.Header["Content-Type"]) != 0 {
		t.Errorf("the header is %v", h.Header)
	}
	if h := do(t, forwardauth.Config{}, says(429, "", "Retry-After: 3"), request("GET", "/")); h.StatusCode != 429 || h.Header.Get("Retry-After") != "3" {
		t.Errorf("429: status %d, %v", h.StatusCode, h.Header)
	}
	if h := do(t, forwardauth.Config{}, says(403, "text"), request("HEAD", "/")); h.body != "" || h.Header.Get("Content-Length") != "4" {
		t.Errorf("HEAD: %q, %v", h.body, h.Header)
	}
}

// The server guesses no type for a page of the service that has none: it could be
// one that runs scripts.
func TestDenialWithoutType(t *testing.T) {
	for _, p := range memnet.Protos() {
		synctest.Test(t, func(t *testing.T) {
			m := mustNew(t, forwardauth.Config{Base: says(403, "<!DOCTYPE html><script>")})
			srv := memnet.Serve(t, p, &http.Server{Handler: m.Handler(http.NotFoundHandler())})
			res, err := srv.Client.Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if got := res.Header["Content-Type"]; res.StatusCode != 403 || len(got) > 0 {
				t.Errorf("%v: status %d, Content-Type %q", p, res.StatusCode, got)
			}
		})
	}
}

// forwardauth 13: nor does it take away what a middleware outside has set.
func TestDenialKeepsOuter(t *testing.T) {
	m := mustNew(t, forwardauth.Config{Base: says(401, "", "Vary: Cookie", "Set-Cookie: a=b", "WWW-Authenticate: Bearer")})
	w := newRecorder()
	outer := http.Header{"Vary": {"Origin"}, "Set-Cookie": {"outer=1"}, "Www-Authenticate": {"Basic"}}
	for name, values := range outer {
		w.Header()[name] = values
	}
	m.Handler(http.NotFoundHandler()).ServeHTTP(w, request("GET", "/"))
	for name, want := range map[string][]string{"Vary": {"Origin", "Cookie"}, "Set-Cookie": {"outer=1", "a=b"}, "Www-Authenticate": {"Basic", "Bearer"}} {
		if got := w.Result().Header[name]; !slices.Equal(got, want) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// forwardauth 14: a 401 with a Location becomes a redirect for browsers alone,
// and only where it was asked for; SignIn does so for one without.
func TestRedirectHTML(t *testing.T) {
	const login = "https://auth.example/login"
	for _, c := range []struct {
		name           string
		config         forwardauth.Config
		method, accept string
		location       string
		want           int
		wantLocation   string
	}{
		{"off", forwardauth.Config{}, "GET", "text/html", login, 401, login},
		{"browser", forwardauth.Config{RedirectHTML: true}, "GET", "text/html,*/*;q=0.8", login, 302, login},
		{"browser, weighted", forwardauth.Config{RedirectHTML: true}, "HEAD", "application/json, Text/HTML;level=1;q=0.5", login, 302, login},
		{"browser posts", forwardauth.Config{RedirectHTML: true}, "POST", "text/html", login, 303, login},
		{"program", forwardauth.Config{RedirectHTML: true}, "GET", "*/*", login, 401, login},
		{"no accept", forwardauth.Config{RedirectHTML: true}, "GET", "", login, 401, login},
		{"refuses html", forwardauth.Config{RedirectHTML: true}, "GET", "text/html;q=0, */*", login, 401, login},
		{"like html", forwardauth.Config{RedirectHTML: true}, "GET", "text/html5", login, 401, login},
		{"no location", forwardauth.Config{RedirectHTML: true}, "GET", "text/html", "", 401, ""},
		{"sign in", forwardauth.Config{SignIn: "https://p.example/start"}, "GET", "text/html", "", 302, "https://p.example/start?rd=http%3A%2F%2Fapp.example%2Fa%3Fb%3Dc%26d"},
		{"sign in, query", forwardauth.Config{SignIn: "/start?x=1"}, "GET", "text/html", "", 302, "/start?x=1&rd=http%3A%2F%2Fapp.example%2Fa%3Fb%3Dc%26d"},
		{"sign in, post", forwardauth.Config{SignIn: "/start"}, "POST", "text/html", "", 401, ""},
		{"sign in, program", forwardauth.Config{SignIn: "/start"}, "GET", "application/json", "", 401, ""},
		{"sign in, location", forwardauth.Config{SignIn: "/start"}, "GET", "text/html", login, 401, login},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := []string{"WWW-Authenticate: Bearer", "Set-Cookie: s=1"}
			if c.location != "" {
				lines = append(lines, "Location: "+c.location)
			}
			r := request(c.method, "/a?b=c&d")
			if c.accept != "" {
				r.Header.Set("Accept", c.accept)
			}
			h := do(t, c.config, says(401, "page", lines...), r)
			if h.StatusCode != c.want || h.Header.Get("Location") != c.wantLocation || h.Header.Get("Set-Cookie") != "s=1" {
				t.Errorf("status %d, Location %q", h.StatusCode, h.Header.Get("Location"))
			}
			if redirected := c.want != 401; redirected != (h.Header.Get("Www-Authenticate") == "") {
				t.Errorf("WWW-Authenticate is %q", h.Header.Get("Www-Authenticate"))
			}
		})
	}
	for _, status := range []int{403, 404, 302} {
		if h := do(t, forwardauth.Config{SignIn: "/start", RedirectHTML: true}, says(status, ""), request("GET", "/", "Accept: text/html")); h.StatusCode != status || h.Header.Get("Location") != "" {
			t.Errorf("%d: status %d", status, h.StatusCode)
		}
	}
}

// A Base of one's own may answer without a header.
func TestNoHeader(t *testing.T) {
	for status, want := range map[int]int{200: 200, 401: 302, 403: 403, 500: 503} {
		s := &service{answer: func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Body: http.NoBody}, nil
		}}
		c := forwardauth.Config{SignIn: "/login", CopyHeaders: user(t), SuccessCookies: forwardauth.AllCookies()}
		if h := do(t, c, s, request("GET", "/", "Accept: text/html")); h.StatusCode != want {
			t.Errorf("%d: status %d, want %d", status, h.StatusCode, want)
		}
	}
}

// forwardauth 15: fields of the connection, by name or by Connection, stay
// behind in both directions.
func TestHopByHop(t *testing.T) {
	lines := []string{
		"Connection: Remote-User, set-cookie, X-Shown, close", "Remote-User: ada", "Remote-Groups: g", "Set-Cookie: a=1", "X-Shown: 1",
		"Keep-Alive: 1", "Proxy-Authenticate: Basic", "Trailer: X", "Upgrade: x", "Transfer-Encoding: chunked", "Te: x", "Www-Authenticate: Bearer",
	}
	h := do(t, forwardauth.Config{CopyHeaders: user(t), SuccessCookies: forwardauth.AllCookies()}, says(200, "", lines...), request("GET", "/"))
	if got := identityHeaders(h.ran.Header); !slices.Equal(got, []string{"Remote-Groups=g"}) || len(h.Header["Set-Cookie"]) != 0 {
		t.Errorf("the handler got %q, the client %v", got, h.Header)
	}
	h = do(t, forwardauth.Config{DenyHeaders: []string{"X-Shown"}}, says(401, "", lines...), request("GET", "/"))
	for name := range h.Header {
		if name != "Www-Authenticate" && name != "Cache-Control" && name != "Content-Length" {
			t.Errorf("the client got %s %q", name, h.Header[name])
		}
	}
}

// forwardauth 16: cookies of an allowing answer, by rule; one that the handler
// sets itself wins.
func TestSuccessCookies(t *testing.T) {
	lines := []string{"Set-Cookie: s_0=a; Path=/", "Set-Cookie: s_1=b, c", "Set-Cookie: csrf=d"}
	for name, c := range map[string]struct {
		rule forwardauth.CookieRule
		want []string
	}{
		"none":  {forwardauth.CookieRule{}, nil},
		"all":   {forwardauth.AllCookies(), []string{"s_0=a; Path=/", "s_1=b, c", "csrf=d"}},
		"named": {forwardauth.NamedCookies("csrf", "s_0"), []string{"s_0=a; Path=/", "csrf=d"}},
	} {
		h := do(t, forwardauth.Config{SuccessCookies: c.rule}, says(200, "", lines...), request("GET", "/"))
		if got := h.Header["Set-Cookie"]; !slices.Equal(got, c.want) || h.body != "served" {
			t.Errorf("%s: %q", name, got)
		}
	}
	m := mustNew(t, forwardauth.Config{Base: says(200, "", lines...), SuccessCookies: forwardauth.AllCookies()})
	for name, f := range map[string]http.HandlerFunc{
		"writes":  func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") },
		"silent":  func(w http.ResponseWriter, r *http.Request) {},
		"flushes": func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() },
	} {
		w := newRecorder()
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "csrf", Value: "mine"})
			http.SetCookie(w, &http.Cookie{Name: "own", Value: "1"})
			f(w, r)
		})).ServeHTTP(w, request("GET", "/"))
		if got := w.Result().Header["Set-Cookie"]; !slices.Equal(got, []string{"csrf=mine", "own=1", "s_0=a; Path=/", "s_1=b, c"}) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Allow narrows what a 2xx means, and cannot widen it.
func TestAllow(t *testing.T) {
	for status, want := range map[int]int{200: 403, 202: 200, 302: 302, 403: 403, 500: 503, 304: 503} {
		var judged []int
		h := do(t, forwardauth.Config{Allow: func(s int) bool {
			judged = append(judged, s)
			return s != 200
		}}, says(status, ""), request("GET", "/"))
		if h.StatusCode != want || status > 299 && len(judged) > 0 {
			t.Errorf("%d: status %d, judged %v", status, h.StatusCode, judged)
		}
	}
}

// forwardauth 23: a client that leaves takes its question with it.
func TestClientLeaves(t *testing.T) {
	for _, p := range memnet.Protos() {
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var left, ran atomic.Int64
				s := &service{answer: func(r *http.Request) (*http.Response, error) {
					<-r.Context().Done()
					left.Add(1)
					return nil, r.Context().Err()
				}}
				var refused atomic.Int64
				m := mustNew(t, forwardauth.Config{Base: s, Timeout: time.Hour, OnDecision: func(_ *http.Request, d forwardauth.Decision) {
					if e, ok := errors.AsType[*forwardauth.Error](d.Err); ok && e.Reason == forwardauth.Canceled && e.HTTPStatus() == 499 {
						refused.Add(1)
					}
				}})
				srv := memnet.Serve(t, p, &http.Server{Handler: m.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran.Add(1) }))})
				const n = 1000
				client := &http.Client{Transport: srv.Transport, Timeout: time.Second}
				var wg sync.WaitGroup
				for range n {
					wg.Go(func() {
						if res, err := client.Get(srv.URL); err == nil {
							res.Body.Close()
							t.Errorf("status %d", res.StatusCode)
						}
					})
				}
				wg.Wait()
				synctest.Wait()
				// Over HTTP/2 some leave before their stream has begun.
				if int(left.Load()) != s.count() || refused.Load() != left.Load() || ran.Load() != 0 || left.Load() == 0 {
					t.Errorf("%d asked, %d left, %d refused, %d handled", s.count(), left.Load(), refused.Load(), ran.Load())
				}
			})
		})
	}
}

// forwardauth 35: what hooks, error texts and logs say has no credential in it.
func TestNothingLeaks(t *testing.T) {
	var said []string
	c := forwardauth.Config{
		OnDecision: func(_ *http.Request, d forwardauth.Decision) { said = append(said, fmt.Sprintf("%+v", d)) },
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			said = append(said, err.Error(), fmt.Sprintf("%+v", err))
			forwardauth.WriteError(w, r, err)
		},
	}
	lines := []string{"Cookie: session=hunter2", "Authorization: Bearer hunter2"}
	for _, s := range []*service{
		says(200, "hunter2", "Set-Cookie: a=hunter2"), says(401, "hunter2", "Set-Cookie: a=hunter2"), says(500, "hunter2"), says(304, ""),
		says(200, strings.Repeat("hunter2", 100_000)), says(200, "", "Remote-User: hunter2\x00"),
		{answer: func(*http.Request) (*http.Response, error) { return nil, errors.New("down") }},
	} {
		for _, mode := range []forwardauth.Mode{forwardauth.Traefik, forwardauth.Envoy, forwardauth.JSON} {
			c.Mode, c.CopyHeaders = mode, user(t)
			h := do(t, c, s, request("GET", "/", lines...))
			said = append(said, h.Header.Get("Content-Type")) // problems are ours
			if h.Header.Get("Content-Type") == "application/problem+json" {
				said = append(said, h.body)
			}
		}
	}
	if len(said) < 40 {
		t.Errorf("only %d texts", len(said))
	}
	for _, text := range said {
		if strings.Contains(text, "hunter2") {
			t.Errorf("said %q", text)
		}
	}
}

// forwardauth 31: the package's own transport asks no environment for a proxy.
func TestNoEnvironmentProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	m := mustNew(t, forwardauth.Config{})
	if p := forwardauth.OwnTransport(m); p == nil || p.Proxy != nil || p.TLSClientConfig != nil {
		t.Errorf("the transport is %+v", p)
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
}

// In Envoy mode HEAD is asked with HEAD, and the answer has the length of a body
// that is not there.
func TestEnvoyHead(t *testing.T) {
	for _, c := range []struct {
		length int64
		lines  []string
		want   []string
	}{
		{17, nil, []string{"17"}}, {200 << 10, nil, []string{"204800"}}, {0, nil, []string{"0"}}, {-1, nil, nil},
		{17, []string{"Accept: text/html"}, []string{"0"}}, // the redirect is ours
	} {
		s := &service{answer: func(*http.Request) (*http.Response, error) {
			res := response(401, "", "Content-Type: text/plain")
			res.ContentLength = c.length
			return res, nil
		}}
		h := do(t, forwardauth.Config{Mode: forwardauth.Envoy, SignIn: "/login"}, s, request("HEAD", "/", c.lines...))
		if got := h.Header["Content-Length"]; !slices.Equal(got, c.want) || h.StatusCode != 401 && c.lines == nil {
			t.Errorf("%d %q: status %d, Content-Length %q", c.length, c.lines, h.StatusCode, got)
		}
	}
}

type hint struct {
	error
	after time.Duration
}

func (h hint) RetryAfter() time.Duration { return h.after }

// Whatever a Base says about when to come back, Retry-After is a number of
// seconds, and no more than a day.
func TestRetryAfterOfBase(t *testing.T) {
	for after, want := range map[time.Duration]string{
		-1: "", 0: "", 1: "1", time.Second: "1", time.Second + 1: "2", time.Hour: "3600", 48 * time.Hour: "86400", math.MaxInt64: "86400", math.MinInt64: "",
	} {
		s := &service{answer: func(*http.Request) (*http.Response, error) { return nil, hint{errors.New("open"), after} }}
		c := forwardauth.Config{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if e, ok := errors.AsType[*forwardauth.Error](err); !ok || e.RetryAfter < 0 || e.RetryAfter > 24*time.Hour {
				t.Errorf("%v: the error handler got %+v", after, err)
			}
			forwardauth.WriteError(w, r, err)
		}}
		if h := do(t, c, s, request("GET", "/")); h.StatusCode != 503 || h.Header.Get("Retry-After") != want {
			t.Errorf("%v: status %d, Retry-After %q", after, h.StatusCode, h.Header.Get("Retry-After"))
		}
	}
}

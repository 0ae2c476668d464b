package cookies_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/cookies"
	"example.com/plainware/internal/memnet"
)

// The value is in the context, of the request as it came, and the writer is the
// server's own.
func TestHandler(t *testing.T) {
	c := sealed(t, cookies.Config[string]{})
	text := encode(t, c, "dark", "")
	for _, tc := range []struct {
		name, cookie, want string
		ok                 bool
	}{
		{"valid", "theme=" + text, "dark", true},
		{"invalid", "theme=" + text + "A", "", false},
		{"none", "", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, r := httptest.NewRecorder(), request(tc.cookie)
			called := false
			c.Handler(http.HandlerFunc(func(inner http.ResponseWriter, r *http.Request) {
				called = true
				if v, ok := c.From(r.Context()); v != tc.want || ok != tc.ok {
					t.Errorf("From: %q, %v", v, ok)
				}
				if v, ok := cookies.FromContext[string](r.Context()); v != tc.want || ok != tc.ok {
					t.Errorf("FromContext: %q, %v", v, ok)
				}
				if inner != http.ResponseWriter(w) {
					t.Errorf("the writer is a %T", inner)
				}
				r.Pattern = "GET /"
			})).ServeHTTP(w, r)
			if !called || len(w.Header()) != 0 || r.Pattern != "GET /" {
				t.Errorf("called %v, header %v, pattern %q", called, w.Header(), r.Pattern)
			}
		})
	}
	defer func() {
		if recover() != "cookies: nil handler" {
			t.Error("a nil handler was accepted")
		}
	}()
	c.Handler(nil)
}

// Each instance has its own value; the package's FromContext is that of the
// innermost, also where it has none.
func TestContext(t *testing.T) {
	theme, lang := sealed(t, cookies.Config[string]{}), sealed(t, cookies.Config[string]{Name: "lang"})
	number := must[int](t)(cookies.NewSigned(cookies.Config[int]{Name: "number", Keys: keys(keyA)}))
	h := theme.Handler(number.Handler(lang.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v, ok := theme.From(r.Context()); v != "dark" || !ok {
			t.Errorf("theme: %q, %v", v, ok)
		}
		if v, ok := lang.From(r.Context()); v != "" || ok {
			t.Errorf("lang: %q, %v", v, ok)
		}
		if v, ok := cookies.FromContext[string](r.Context()); v != "" || ok {
			t.Errorf("the innermost string: %q, %v", v, ok)
		}
		if v, ok := cookies.FromContext[int](r.Context()); v != 7 || !ok {
			t.Errorf("the innermost int: %v, %v", v, ok)
		}
	}))))
	seven, err := number.Encode(7, "")
	if err != nil {
		t.Fatal(err)
	}
	h.ServeHTTP(httptest.NewRecorder(), request("theme="+encode(t, theme, "dark", "")+"; number="+seven))

	ctx := theme.NewContext(t.Context(), "light")
	if v, ok := theme.From(ctx); v != "light" || !ok {
		t.Errorf("NewContext: %q, %v", v, ok)
	}
	if v, ok := cookies.FromContext[string](ctx); v != "light" || !ok {
		t.Errorf("NewContext, FromContext: %q, %v", v, ok)
	}
	for _, ctx := range []context.Context{t.Context(), ctx} {
		if v, ok := lang.From(ctx); v != "" || ok {
			t.Errorf("another instance: %q, %v", v, ok)
		}
		if v, ok := cookies.FromContext[int](ctx); v != 0 || ok {
			t.Errorf("another type: %v, %v", v, ok)
		}
	}
}

// What an old key sealed is written again with the response, at the last moment
// and only where no shared cache could keep it.
func TestHandlerRefreshes(t *testing.T) {
	old := sealed(t, cookies.Config[string]{Keys: keys(keyA)})
	c := sealed(t, cookies.Config[string]{Keys: keys(keyB, keyA)})
	r := request("theme=" + encode(t, old, "dark", ""))
	set := func(name, value string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add(name, value)
			io.WriteString(w, "body")
		}
	}
	for _, tc := range []struct {
		name      string
		next      http.HandlerFunc
		refreshed bool
		control   string // Cache-Control of the response
	}{
		{"plain", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "body") }, true, "private"},
		{"nothing written", func(w http.ResponseWriter, r *http.Request) {}, true, "private"},
		{"status alone", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, true, "private"},
		{"flushed", func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() }, true, "private"},
		{"no-store", set("Cache-Control", "max-age=0, No-Store"), true, "max-age=0, No-Store"},
		{"private", set("Cache-Control", "private , max-age=60"), true, "private , max-age=60"},
		{"public", set("Cache-Control", "public, max-age=60"), false, "public, max-age=60"},
		{"max-age", set("Cache-Control", "max-age=60"), false, "max-age=60"},
		{"no-cache", set("Cache-Control", "no-cache"), false, "no-cache"},
		{"private fields", set("Cache-Control", `max-age=60, private="a, private, b"`), false, `max-age=60, private="a, private, b"`},
		{"empty", set("Cache-Control", ""), false, ""},
		{"for one CDN", set("CDN-Cache-Control", "max-age=60"), false, ""},
		{"for another", set("Surrogate-Control", "max-age=60"), false, ""},
		{"panic", func(w http.ResponseWriter, r *http.Request) { panic("x") }, false, ""},
		{"upgrade", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(101) }, false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			func() {
				defer func() { recover() }()
				c.Handler(tc.next).ServeHTTP(w, r)
			}()
			lines := w.Result().Header["Set-Cookie"]
			if (len(lines) == 1) != tc.refreshed || len(lines) > 1 || w.Result().Header.Get("Cache-Control") != tc.control {
				t.Fatalf("header %q", w.Result().Header)
			}
			if tc.refreshed {
				if v, info, err := c.Get(browse(r, w)); v != "dark" || err != nil || info.NeedsRefresh {
					t.Errorf("refreshed to %q, %+v, %v", v, info, err)
				}
			}
		})
	}
}

// byHand is the cookie as a handler writes it that knows nothing of the package.
func byHand(text string, maxAge int) *http.Cookie {
	return &http.Cookie{Name: "theme", Value: text, Path: "/", MaxAge: maxAge, Secure: true}
}

// What the handler decides about the cookie stands.
func TestHandlerDecides(t *testing.T) {
	old := sealed(t, cookies.Config[string]{Keys: keys(keyA)})
	c := sealed(t, cookies.Config[string]{Keys: keys(keyB, keyA)})
	r := request("theme=" + encode(t, old, "dark", ""))
	for name, next := range map[string]http.HandlerFunc{
		"light": func(w http.ResponseWriter, r *http.Request) { c.Set(w, r, "light") },
		"":      func(w http.ResponseWriter, r *http.Request) { c.Delete(w) },
		"hand":  func(w http.ResponseWriter, r *http.Request) { http.SetCookie(w, byHand(encode(t, c, "hand", ""), 0)) },
		" ":     func(w http.ResponseWriter, r *http.Request) { http.SetCookie(w, byHand("", -1)) },
	} {
		name = strings.TrimSpace(name)
		w := httptest.NewRecorder()
		c.Handler(next).ServeHTTP(w, r)
		v, _, err := c.Get(browse(r, w))
		if len(w.Header()["Set-Cookie"]) != 1 || v != name || name == "" && err != cookies.ErrNotFound {
			t.Errorf("%q: %q, %v, %q", name, v, err, w.Header())
		}
		if _, ok := w.Header()["Cache-Control"]; ok {
			t.Errorf("%q: Cache-Control was touched", name)
		}
	}
}

// A handler that works in the bytes it was given changes nothing that is kept.
func TestHandlerRefreshesWhatCame(t *testing.T) {
	declare := func(ring [][]byte) *cookies.Cookie[[]byte] {
		return must[[]byte](t)(cookies.NewSealed(cookies.Config[[]byte]{Name: "theme", Keys: ring, Codec: cookies.Bytes()}))
	}
	text, err := declare(keys(keyA)).Encode([]byte("dark"), "")
	if err != nil {
		t.Fatal(err)
	}
	c := declare(keys(keyB, keyA))
	r, w := request("theme="+text), httptest.NewRecorder()
	c.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, _ := c.From(r.Context())
		clear(v)
	})).ServeHTTP(w, r)
	if v, _, err := c.Get(browse(r, w)); string(v) != "dark" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
}

// And one that rewrites the request, of which it has the URL and the header, does
// not bind the value to another tenant.
func TestHandlerRefreshesAsBound(t *testing.T) {
	tenant := func(r *http.Request) string { return r.URL.Path + r.Header.Get("X-Tenant") }
	c := sealed(t, cookies.Config[string]{Keys: keys(keyB, keyA), Bind: tenant})
	r := request("theme=" + encode(t, sealed(t, cookies.Config[string]{Bind: tenant}), "dark", "/acme"))
	r.URL.Path = "/acme"
	w := httptest.NewRecorder()
	c.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/"
		r.Header.Set("X-Tenant", "other")
	})).ServeHTTP(w, r)
	back := browse(r, w)
	back.URL.Path = "/acme"
	if v, info, err := c.Get(back); v != "dark" || err != nil || info.NeedsRefresh || len(w.Header()["Set-Cookie"]) != 1 {
		t.Errorf("%q, %+v, %v", v, info, err)
	}
}

// Over a connection: a stream is refreshed with its first flush, after an early
// hint, and keeps streaming.
func TestHandlerStreams(t *testing.T) {
	for _, proto := range memnet.Protos() {
		t.Run(proto.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old := sealed(t, cookies.Config[string]{Keys: keys(keyA)})
				c := sealed(t, cookies.Config[string]{Keys: keys(keyB, keyA)})
				s := memnet.Serve(t, proto, &http.Server{Handler: c.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Link", "</style.css>; rel=preload")
					w.WriteHeader(http.StatusEarlyHints)
					w.Header().Set("X-Late", "1")
					io.WriteString(w, "first")
					if err := http.NewResponseController(w).Flush(); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Minute)
					io.WriteString(w, "second")
				}))})
				r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Cookie", "theme="+encode(t, old, "dark", ""))
				start := time.Now()
				res, err := s.Client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if time.Since(start) > time.Second || res.Header.Get("X-Late") != "1" {
					t.Errorf("header after %v: %v", time.Since(start), res.Header)
				}
				if lines := res.Header["Set-Cookie"]; len(lines) != 1 || !strings.HasPrefix(lines[0], "theme=e1.") {
					t.Errorf("Set-Cookie %q", lines)
				}
				if body, err := io.ReadAll(res.Body); string(body) != "firstsecond" || err != nil {
					t.Errorf("body %q, %v", body, err)
				}
			})
		})
	}
}

// Nothing of the caller's request changes, and a request without a cookie costs
// no more than its context.
func TestHandlerLeavesRequest(t *testing.T) {
	c := sealed(t, cookies.Config[string]{})
	r := request("a=b; theme=x; c=d", "e=f")
	before := slices.Clone(r.Header["Cookie"])
	ctx := r.Context()
	c.Handler(http.HandlerFunc(func(w http.ResponseWriter, inner *http.Request) {
		if inner == r || !slices.Equal(inner.Header["Cookie"], before) {
			t.Errorf("inside: %q", inner.Header)
		}
	})).ServeHTTP(httptest.NewRecorder(), r)
	if r.Context() != ctx || !slices.Equal(r.Header["Cookie"], before) || len(r.Header) != 1 {
		t.Errorf("outside: %q", r.Header)
	}
}

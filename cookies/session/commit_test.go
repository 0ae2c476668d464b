package session_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/cookies/session"
	"example.com/plainware/internal/memnet"
	"example.com/plainware/store/storetest"
)

func addPen(t testing.TB, s *session.Session[cart]) {
	t.Helper()
	must(t, s.Update(func(c *cart) error { c.Items = append(c.Items, "pen"); return nil }))
}

// cookies 33: Set-Cookie is in the response however it begins.
func TestCommit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("body"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		send func(t testing.TB, w http.ResponseWriter)
	}{
		{"return", func(t testing.TB, w http.ResponseWriter) {}},
		{"write", func(t testing.TB, w http.ResponseWriter) { w.Write([]byte("body")) }},
		{"write string", func(t testing.TB, w http.ResponseWriter) { io.WriteString(w, "body") }},
		{"write header", func(t testing.TB, w http.ResponseWriter) { w.WriteHeader(http.StatusAccepted) }},
		{"redirect", func(t testing.TB, w http.ResponseWriter) {
			http.Redirect(w, httptest.NewRequest("GET", "/", nil), "/next", http.StatusSeeOther)
		}},
		{"controller's flush", func(t testing.TB, w http.ResponseWriter) {
			must(t, http.NewResponseController(w).Flush())
			w.Write([]byte("body"))
		}},
		{"flusher", func(t testing.TB, w http.ResponseWriter) { w.(http.Flusher).Flush() }},
		{"103, then 200", func(t testing.TB, w http.ResponseWriter) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusOK)
		}},
		{"read from", func(t testing.TB, w http.ResponseWriter) {
			f, err := os.Open(file)
			must(t, err)
			defer f.Close()
			if rf, ok := w.(io.ReaderFrom); ok {
				rf.ReadFrom(f)
				return
			}
			io.Copy(w, f)
		}},
	} {
		for _, p := range memnet.Protos() {
			t.Run(c.name+"/"+p.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newManager(t, session.Config[cart]{})
					srv := memnet.Serve(t, p, &http.Server{Handler: m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/read" {
							io.WriteString(w, strings.Join(read(t, m.MustFrom(r.Context())).Items, " "))
							return
						}
						addPen(t, m.MustFrom(r.Context()))
						c.send(t, w)
						if len(w.Header()["Set-Cookie"]) != 0 && c.name == "return" {
							t.Error("saved before the response begins")
						}
					}))})
					srv.Client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
					hints := 0
					ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
						hints++
						if h["Set-Cookie"] != nil {
							t.Errorf("Set-Cookie in a %d", code)
						}
						return nil
					}})
					get := func(path, cookie string) *http.Response {
						r, err := http.NewRequestWithContext(ctx, "GET", srv.URL+path, nil)
						must(t, err)
						r.Header.Set("Cookie", cookie)
						res, err := srv.Client.Do(r)
						if err != nil {
							t.Fatal(err)
						}
						return res
					}
					res := get("/", "")
					io.Copy(io.Discard, res.Body) // to the end, or HTTP/2 cancels the handler
					res.Body.Close()
					lines := res.Header["Set-Cookie"]
					if len(lines) != 1 || res.Header.Get("Vary") != "Cookie" || res.Header.Get("Cache-Control") != "no-store" {
						t.Fatalf("%s %v", res.Status, res.Header)
					}
					if want := strings.HasPrefix(c.name, "103"); (hints == 1) != want {
						t.Errorf("%d informational responses", hints)
					}
					cookie, _, _ := strings.Cut(lines[0], ";")
					res = get("/read", cookie)
					body, err := io.ReadAll(res.Body)
					if res.Body.Close(); err != nil || string(body) != "pen" {
						t.Errorf("the session holds %q, %v", body, err)
					}
				})
			})
		}
	}
}

// cookies 33: on Hijack the cookie is in the header, for the handler to send.
func TestCommitOnHijack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore(t)
		m := newManager(t, session.Config[cart]{Store: st, RotateEvery: time.Minute})
		srv := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := m.MustFrom(r.Context())
			addPen(t, s)
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n")
			w.Header().Write(rw)
			rw.WriteString("\r\n")
			rw.Flush()

			// The session is still there for a connection that lives long.
			must(t, s.Update(func(c *cart) error { c.Theme = "late"; return nil }))
			for _, err := range []error{s.Login("ann"), s.Rotate()} {
				if !errors.Is(err, session.ErrCommitted) {
					t.Errorf("error %v, want ErrCommitted", err)
				}
			}
			io.WriteString(conn, read(t, s).Theme)
			if rw.ReadString('\n'); r.Header.Get("X-Logout") != "" {
				must(t, s.Logout())
				if err := s.Update(func(*cart) error { return nil }); !errors.Is(err, session.ErrCommitted) {
					t.Errorf("Update after Logout: %v, want ErrCommitted", err)
				}
			}
		}))})
		upgrade := func(cookie, extra string) (*http.Response, net.Conn, *bufio.Reader) {
			conn, err := srv.Listener.DialContext(t.Context(), "tcp", "")
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n"+extra+"Cookie: "+cookie+"\r\n\r\n")
			br := bufio.NewReader(conn)
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			late := make([]byte, 4)
			if _, err := io.ReadFull(br, late); err != nil || string(late) != "late" {
				t.Errorf("%q, %v", late, err)
			}
			return res, conn, br
		}
		res, conn, _ := upgrade("", "")
		b := newBrowser(t, m)
		b.keep(res)
		if len(b.id()) != 43 {
			t.Fatalf("header %v", res.Header)
		}
		conn.Close()
		if got := b.load(); got.Theme != "late" || len(got.Items) != 1 {
			t.Errorf("session %+v", got)
		}

		// RotateEvery leaves such connections alone, since the handler may not
		// send the header.
		time.Sleep(2 * time.Minute)
		res, conn, br := upgrade(b.cookie, "X-Logout: 1\r\n")
		if res.Header["Set-Cookie"] != nil {
			t.Errorf("Set-Cookie %q", res.Header["Set-Cookie"])
		}
		io.WriteString(conn, "end\n")
		io.Copy(io.Discard, br)
		conn.Close()
		b.wantNone()
		if n := len(st.dump(t)); n != 0 {
			t.Errorf("%d values in the store", n)
		}
	})
}

// After the response has begun, an existing session can be changed still.
func TestLate(t *testing.T) {
	st := newStore(t)
	m := newManager(t, session.Config[cart]{Store: st})
	b := newBrowser(t, m)
	b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		w.Write(nil)
		if err := s.Update(func(*cart) error { return nil }); !errors.Is(err, session.ErrCommitted) {
			t.Errorf("a session for which no cookie can be set: %v", err)
		}
	})
	b.add("pen")
	other := b.with(b.cookie)
	b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		w.Write(nil)
		read(t, s)
		other.add("ink")
		must(t, s.Update(func(c *cart) error { c.Theme = "dark"; return nil }))
		st.fail("CompareAndSwap")
		if err := s.Update(func(c *cart) error { c.Theme = "lost"; return nil }); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		st.fail()
		if got := read(t, s); got.Theme != "dark" || len(got.Items) != 2 {
			t.Errorf("session %+v", got)
		}
		must(t, s.Update(func(c *cart) error { c.Count++; return nil }))
		other.logout()
		must(t, s.Update(func(c *cart) error { c.Count++; return nil })) // dropped
		if got := read(t, s); got.exists || got.Count != 0 {
			t.Errorf("session %+v", got)
		}
	})
	b.wantNone()
}

// cookies 34: a store that fails on load is a 503, whatever the handler makes
// of it, and not an anonymous session.
func TestStoreFailsOnLoad(t *testing.T) {
	st := newStore(t)
	m := newManager(t, session.Config[cart]{Store: st})
	b := newBrowser(t, m)
	b.login("ann")
	cookie := b.cookie
	for name, h := range map[string]handler{
		"returns": func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			if _, err := s.Load(); !errors.Is(err, session.ErrUnavailable) || !errors.Is(err, errDown) {
				t.Errorf("Load: %v", err)
			}
		},
		"takes it for a guest": func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			if user, err := s.UserID(); err == nil || user != "" {
				t.Errorf("UserID: %q, %v", user, err)
			}
			if ok, err := s.Exists(); err == nil || ok {
				t.Errorf("Exists: %v, %v", ok, err)
			}
			http.SetCookie(w, &http.Cookie{Name: "welcome", Value: "guest"})
			if n, err := io.WriteString(w, "secret of guests"); !errors.Is(err, session.ErrUnavailable) || n != 0 {
				t.Errorf("Write: %d, %v", n, err)
			}
			if err := http.NewResponseController(w).Flush(); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("Flush: %v", err)
			}
		},
		"redirects": func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			s.Load()
			http.Redirect(w, r, "/login", http.StatusSeeOther)
		},
		"updates": func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			for _, err := range []error{s.Update(func(*cart) error { return nil }), s.Login("bob"), s.Rotate(), s.Logout()} {
				if !errors.Is(err, session.ErrUnavailable) {
					t.Errorf("error %v", err)
				}
			}
			w.WriteHeader(http.StatusOK)
		},
	} {
		t.Run(name, func(t *testing.T) {
			// The session's own record, or the user's mark.
			for _, key := range []string{"test/", "/user/"} {
				st.inject(func(c storetest.Call) storetest.Fault {
					if strings.Contains(c.Key, key) {
						return storetest.Fault{Before: errDown}
					}
					return storetest.Fault{}
				})
				res := b.with(cookie).send(h)
				wantProblem(t, res, 503, "session_unavailable")
				if res.Header["Location"] != nil || res.Header.Get("Vary") != "Cookie" {
					t.Errorf("header %v", res.Header)
				}
			}
			st.inject(nil)
		})
	}
	if got := b.load(); got.user != "ann" {
		t.Errorf("afterwards: %+v", got)
	}
}

// cookies 34: a store that fails on the save, with nothing sent, is a 503: the
// handler's data is not sent with a missing cookie.
func TestStoreFailsOnSave(t *testing.T) {
	for _, method := range []string{"CompareAndSwap", "after", "stall"} {
		for name, do := range map[string]func(*session.Session[cart]) error{
			"create": func(s *session.Session[cart]) error { return s.Update(func(c *cart) error { c.Count++; return nil }) },
			"login":  func(s *session.Session[cart]) error { return s.Login("ann") },
			"rotate": (*session.Session[cart]).Rotate,
			"logout": (*session.Session[cart]).Logout,
		} {
			t.Run(method+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					st := newStore(t)
					b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
					if name != "create" {
						b.add("pen")
					}
					st.inject(func(c storetest.Call) storetest.Fault {
						switch {
						case c.Method != "CompareAndSwap":
							return storetest.Fault{}
						case method == "after":
							return storetest.Fault{After: errDown}
						case method == "stall":
							return storetest.Fault{Stall: true}
						}
						return storetest.Fault{Before: errDown}
					})
					start := time.Now()
					res := b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
						w.Header().Set("Cache-Control", "public, max-age=3600")
						w.Header().Set("CDN-Cache-Control", "max-age=3600")
						w.Header().Set("Surrogate-Control", "max-age=3600")
						w.Header().Set("Expires", "Fri, 01 Jan 2100 00:00:00 GMT")
						must(t, do(s))
						if _, err := io.WriteString(w, "secret"); !errors.Is(err, session.ErrUnavailable) {
							t.Errorf("Write: %v", err)
						}
						if _, err := s.Load(); !errors.Is(err, session.ErrUnavailable) {
							t.Errorf("Load after that: %v", err)
						}
					})
					wantProblem(t, res, 503, "session_unavailable")
					h := res.Header
					if h.Get("Cache-Control") != "no-store" || h["Cdn-Cache-Control"] != nil || h["Surrogate-Control"] != nil || h["Expires"] != nil {
						t.Errorf("a cache could keep the error: %v", h)
					}
					if took := time.Since(start); took > 5*time.Second {
						t.Errorf("took %v", took)
					}
				})
			})
		}
	}
}

// A use that could not be written is no reason to refuse a request.
func TestStoreFailsOnTouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore(t)
		log, logger := newLog()
		b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, Logger: logger}))
		b.add("pen")
		time.Sleep(10 * time.Minute)
		st.fail("CompareAndSwap")
		b.wantItems("pen")
		if !strings.Contains(log.String(), "a use could not be written") {
			t.Errorf("log %q", log)
		}
		st.fail()
		if _, writes := st.counts(func() { b.load() }); writes != 1 {
			t.Errorf("%d writes", writes)
		}
	})
}

// And neither is a new id that RotateEvery wants and that cannot be written, in
// whichever of its two steps; the next request tries again.
func TestStoreFailsOnRotateEvery(t *testing.T) {
	for _, step := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			st := newStore(t)
			log, logger := newLog()
			b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, Logger: logger, RotateEvery: 10 * time.Minute}))
			b.login("ann")
			b.add("pen")
			old := b.cookie
			time.Sleep(10 * time.Minute)
			writes := 0
			st.inject(func(c storetest.Call) storetest.Fault {
				if c.Method == "CompareAndSwap" {
					if writes++; writes == step {
						return storetest.Fault{Before: errDown}
					}
				}
				return storetest.Fault{}
			})
			res := b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
				if got := read(t, s); got.user != "ann" {
					t.Errorf("session %+v", got)
				}
				io.WriteString(w, "hello, ann")
				must(t, s.Update(func(c *cart) error { c.Theme = "dark"; return nil })) // of a stream
			})
			if body, _ := io.ReadAll(res.Body); res.StatusCode != 200 || string(body) != "hello, ann" || writes == 0 {
				t.Errorf("step %d: %s %q", step, res.Status, body)
			}
			if b.cookie != old || !strings.Contains(log.String(), "could not be written") {
				t.Errorf("step %d: a new id %v, log %q", step, b.cookie != old, log)
			}
			st.inject(nil)
			b.wantItems("pen")
			if got := b.load(); b.cookie == old || got.Theme != "dark" {
				t.Errorf("step %d: the next request has a new id %v, and %+v", step, b.cookie != old, got)
			}

			// A request that does something is refused all the same.
			time.Sleep(10 * time.Minute)
			st.fail("CompareAndSwap")
			wantProblem(t, b.add("ink"), 503, "session_unavailable")
		})
	}
}

// An ErrorHandler of one's own answers in place of the handler.
func TestErrorHandler(t *testing.T) {
	st := newStore(t)
	var got error
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		got = err
		if s, ok := session.FromContext[cart](r.Context()); !ok || s.LogID() != "" {
			t.Errorf("the request has no session: %v", ok)
		}
		w.Header().Set("Retry-After", "1")
		http.Error(w, "come back", http.StatusServiceUnavailable)
	}}))
	b.add("pen")
	st.fail("Get")
	res := b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		s.Load()
		io.WriteString(w, "dropped")
	})
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 503 || string(body) != "come back\n" || res.Header.Get("Retry-After") != "1" {
		t.Errorf("%s %q %v", res.Status, body, res.Header)
	}
	e, ok := got.(interface {
		HTTPStatus() int
		Code() string
	})
	if !ok || e.HTTPStatus() != 503 || e.Code() != "session_unavailable" {
		t.Errorf("error %v", got)
	}
}

// What the handler has said of its page is not said of the ErrorHandler's, which
// may know nothing of it.
func TestErrorHandlerHeader(t *testing.T) {
	for _, p := range memnet.Protos() {
		synctest.Test(t, func(t *testing.T) {
			st := newStore(t)
			m := newManager(t, session.Config[cart]{Store: st, ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				w.WriteHeader(http.StatusServiceUnavailable)
				if _, err := io.WriteString(w, "down for a moment"); err != nil {
					t.Error(err)
				}
			}})
			srv := memnet.Serve(t, p, &http.Server{Handler: m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for name, value := range map[string]string{
					"Content-Length": "6", "Content-Encoding": "br", "Content-Type": "image/png", "Content-Language": "de",
					"Content-Range": "bytes 0-5/9", "Content-Location": "/de", "Content-Disposition": "attachment",
					"Accept-Ranges": "bytes", "ETag": `"1"`, "Last-Modified": "Fri, 01 Jan 2010 00:00:00 GMT",
					"Expires": "Fri, 01 Jan 2100 00:00:00 GMT", "Trailer": "X-Sum", "X-Kept": "yes",
				} {
					w.Header().Set(name, value)
				}
				must(t, m.MustFrom(r.Context()).Login("ann"))
				io.WriteString(w, "secret")
			}))})
			st.fail("CompareAndSwap")
			res, err := srv.Client.Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(body) != "down for a moment" {
				t.Errorf("%v: %q, %v", p, body, err)
			}
			for _, name := range []string{"Content-Length", "Content-Type", "Date", "X-Kept", "Vary"} {
				delete(res.Header, name) // by net/http for the new body, or none of the page's
			}
			if len(res.Header) != 0 || len(res.Trailer) != 0 {
				t.Errorf("%v: header %v, trailer %v", p, res.Header, res.Trailer)
			}
		})
	}
}

// A refused HTTP/1.1 request closes the connection on which its body may still
// be coming.
func TestRefusalClosesConnection(t *testing.T) {
	for _, c := range []struct {
		proto int
		body  string
		want  string
	}{{1, "", ""}, {1, "body", "close"}, {2, "body", ""}} {
		st := newStore(t)
		m := newManager(t, session.Config[cart]{Store: st})
		b := newBrowser(t, m)
		b.add("pen")
		st.fail("Get")
		var body io.Reader
		if c.body != "" {
			body = strings.NewReader(c.body)
		}
		r := httptest.NewRequest("POST", "/", body)
		r.ProtoMajor = c.proto
		r.Header.Set("Cookie", b.cookie)
		w := httptest.NewRecorder()
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.MustFrom(r.Context()).Load() })).ServeHTTP(w, r)
		if got := w.Header().Get("Connection"); got != c.want || w.Code != 503 {
			t.Errorf("HTTP/%d, body %q: %d, Connection %q, want %q", c.proto, c.body, w.Code, got, c.want)
		}
	}
}

// cookies 35: a handler that panics saves nothing.
func TestPanic(t *testing.T) {
	for _, value := range []any{"mistake", http.ErrAbortHandler} {
		st := newStore(t)
		m := newManager(t, session.Config[cart]{Store: st})
		b := newBrowser(t, m)
		b.add("pen")
		for name, do := range map[string]func(*session.Session[cart]) error{
			"update": func(s *session.Session[cart]) error {
				return s.Update(func(c *cart) error { c.Items = nil; return nil })
			},
			"login":  func(s *session.Session[cart]) error { return s.Login("ann") },
			"logout": (*session.Session[cart]).Logout,
		} {
			_, writes := st.counts(func() {
				defer func() {
					if got := recover(); got != value {
						t.Errorf("%s: recovered %v, want %v", name, got, value)
					}
				}()
				b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
					must(t, do(s))
					panic(value)
				})
			})
			if writes != 0 {
				t.Errorf("%s: %d writes", name, writes)
			}
		}
		b.wantItems("pen")
	}
}

// targeted are fields that some caches obey in place of Cache-Control.
var targeted = []string{
	"CDN-Cache-Control", "Surrogate-Control", "Cloudflare-CDN-Cache-Control", "Vercel-CDN-Cache-Control",
}

// cookies 36: a response that sets or deletes a session cookie is not publicly
// cacheable.
func TestNotCacheable(t *testing.T) {
	m := newManager(t, session.Config[cart]{})
	for _, c := range []struct {
		name      string
		set, want []string
	}{
		{"nothing", nil, []string{"no-store"}},
		{"public", []string{"public, max-age=600"}, []string{"no-store"}},
		{"max-age", []string{"max-age=600"}, []string{"no-store"}},
		{"no-cache", []string{"no-cache"}, []string{"no-store"}},
		{"private for a field", []string{`private="X-Other", max-age=600`}, []string{"no-store"}},
		{"private", []string{"max-age=600, Private"}, []string{"max-age=600, Private"}},
		{"no-store", []string{"no-cache", "must-revalidate,no-store"}, []string{"no-cache", "must-revalidate,no-store"}},
	} {
		for name, do := range map[string]func(*session.Session[cart]) error{
			"set":    func(s *session.Session[cart]) error { return s.Login("ann") },
			"delete": (*session.Session[cart]).Logout,
		} {
			b := newBrowser(t, m)
			b.add("pen")
			res := b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
				must(t, do(s))
				w.Header()["Cache-Control"] = c.set
				if c.set == nil {
					delete(w.Header(), "Cache-Control")
				}
				for _, name := range targeted {
					w.Header().Set(name, "max-age=600")
				}
			})
			if got := res.Header["Cache-Control"]; !slices.Equal(got, c.want) {
				t.Errorf("%s, %s: header %v, want Cache-Control %q", c.name, name, res.Header, c.want)
			}
			for _, name := range targeted {
				if res.Header.Get(name) != "" {
					t.Errorf("%s, %s: %s is left", c.name, name, name)
				}
			}
			if n := len(res.Header["Set-Cookie"]); n != 1 {
				t.Errorf("%s, %s: %d cookies", c.name, name, n)
			}
		}
	}

	// One that only depends on the session says so, and no more.
	b := newBrowser(t, m)
	b.add("pen")
	for set, want := range map[string]string{
		"":                        "Cookie",
		"Accept-Encoding":         "Accept-Encoding|Cookie",
		"Accept-Encoding, cookie": "Accept-Encoding, cookie",
		"*":                       "*",
	} {
		res := b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			read(t, s)
			if set != "" {
				w.Header().Set("Vary", set)
			}
			w.Header().Set("Cache-Control", "public")
		})
		if got := strings.Join(res.Header["Vary"], "|"); got != want || res.Header.Get("Cache-Control") != "public" {
			t.Errorf("Vary %q for %q, want %q; Cache-Control %q", got, set, want, res.Header["Cache-Control"])
		}
	}
}

// What a request did counts also if its client went away before the answer: who
// asks for a Logout and closes the window is logged out.
func TestClientGone(t *testing.T) {
	for name, c := range map[string]struct {
		do    func(*session.Session[cart]) error
		items int // in the old id's session afterwards; -1: none
	}{
		"update": {func(s *session.Session[cart]) error { return nil }, 2},
		"rotate": {(*session.Session[cart]).Rotate, 2},
		"login":  {func(s *session.Session[cart]) error { return s.Login("ann") }, -1},
		"logout": {(*session.Session[cart]).Logout, -1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBrowser(t, newManager(t, session.Config[cart]{}))
			b.add("pen")
			ctx, cancel := context.WithCancel(t.Context())
			old := b.with(b.cookie)
			b.sendCtx(ctx, func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
				addPen(t, s)
				must(t, c.do(s))
				cancel()
			})
			if got := old.load(); got.exists != (c.items >= 0) || got.exists && len(got.Items) != c.items {
				t.Errorf("session %+v", got)
			}
		})
	}
}

// But RotateEvery waits for a client that gets the new id.
func TestRotateEveryClientGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, newManager(t, session.Config[cart]{RotateEvery: time.Minute}))
		b.add("pen")
		time.Sleep(2 * time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		old := b.with(b.cookie)
		b.sendCtx(ctx, func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			addPen(t, s)
			cancel()
		})
		if b.cookie != old.cookie {
			t.Error("a new id for nobody")
		}
		old.wantItems("pen", "pen")
		if old.cookie == b.cookie {
			t.Error("no new id")
		}
	})
}

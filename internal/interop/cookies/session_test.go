package cookies

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"example.com/plainware/cookies/session"
	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/store/sqlitestore"
)

// The test binary is the shop too, with these variables set.
const (
	shopAddr = "COOKIES_SHOP_ADDR"
	shopFile = "COOKIES_SHOP_FILE" // of the sessions
)

func TestMain(m *testing.M) {
	if addr := os.Getenv(shopAddr); addr != "" {
		fmt.Fprintln(os.Stderr, shop(addr, os.Getenv(shopFile)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

type basket struct{ Items []string }

var shopPage = template.Must(template.New("").Parse(`<!DOCTYPE html>
<p id="user">{{.User}}</p><p id="items">{{range .Items}}{{.}};{{end}}</p><p id="pid">{{.PID}}</p>
<form id="login" method="post" action="/login"><input name="user"></form>
<form id="add" method="post" action="/add"><input name="item"></form>
<form id="logout" method="post" action="/logout"></form>`))

// shop serves pages with forms until it is killed.
func shop(addr, file string) error {
	db, err := sql.Open("sqlite", "file:"+file)
	if err != nil {
		return err
	}
	st, err := sqlitestore.New(context.Background(), sqlitestore.Config{DB: db})
	if err != nil {
		return err
	}
	sess, err := session.New(session.Config[basket]{Store: st, Name: "shop"})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /static", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "static") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := sess.MustFrom(r.Context())
		user, err1 := s.UserID()
		b, err2 := s.Load()
		if errors.Join(err1, err2) != nil {
			return // the response is a 503
		}
		shopPage.Execute(w, map[string]any{"User": user, "Items": b.Items, "PID": os.Getpid()})
	})
	post := func(path string, f func(s *session.Session[basket], r *http.Request) error) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			if err := f(sess.MustFrom(r.Context()), r); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			http.Redirect(w, r, "/", http.StatusSeeOther)
		})
	}
	post("/login", func(s *session.Session[basket], r *http.Request) error { return s.Login(r.FormValue("user")) })
	post("/logout", func(s *session.Session[basket], r *http.Request) error { return s.Logout() })
	post("/add", func(s *session.Session[basket], r *http.Request) error {
		return s.Update(func(b *basket) error { b.Items = append(b.Items, r.FormValue("item")); return nil })
	})
	return http.ListenAndServe(addr, http.NewCrossOriginProtection().Handler(sess.Handler(mux)))
}

// startShop runs a process of the shop, and kills it at the end of the test.
func startShop(t *testing.T, file string) *prog.Process {
	t.Helper()
	p, err := prog.Run(t.Context(), func(addr string) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), shopAddr+"="+addr, shopFile+"="+file)
		return cmd
	}, prog.Dial)
	t.Cleanup(p.Stop)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// front is a TLS server for the browser, before a process that can change.
func front(t *testing.T) (srv *httptest.Server, to func(addr string)) {
	t.Helper()
	var target atomic.Pointer[url.URL]
	srv = httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target.Load())
		r.Out.Host = r.In.Host
	}})
	t.Cleanup(srv.Close)
	return srv, func(addr string) { target.Store(&url.URL{Scheme: "http", Host: addr}) }
}

// submit sends a form of the page, and waits for the page that follows.
func (b *browser) submit(form, field, value string) {
	b.t.Helper()
	script := fmt.Sprintf("{ const f = document.getElementById(%q); ", form)
	if field != "" {
		script += fmt.Sprintf("f.querySelector('[name=%s]').value = %q; ", field, value)
	}
	b.script(script + "f.submit() }")
	b.wait("form " + form)
}

func (b *browser) reload() {
	b.t.Helper()
	b.must(b.session, "Page.reload", nil, nil)
	b.wait("reload")
}

// wait waits until a page is loaded.
func (b *browser) wait(what string) {
	b.t.Helper()
	select {
	case <-b.loaded:
	case <-time.After(patience):
		b.t.Fatalf("%s: not loaded within %v", what, patience)
	}
}

func (b *browser) text(id string) string {
	b.t.Helper()
	return b.script(fmt.Sprintf("document.getElementById(%q).textContent", id))
}

// sees checks what the page shows.
func (b *browser) sees(user, items string) {
	b.t.Helper()
	if gotUser, gotItems := b.text("user"), b.text("items"); gotUser != user || gotItems != items {
		b.t.Errorf("the page is for %q with %q, want %q with %q", gotUser, gotItems, user, items)
	}
}

// A person logs in with a browser, and the session outlives a reload and the
// death of the server's process; after the logout neither the browser has a
// cookie nor is the old one worth anything.
func TestBrowserSession(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sessions.db")
	first := startShop(t, file)
	srv, to := front(t)
	to(first.Addr)
	b := open(t, srv)

	b.visit(home + "/static")
	if kept := b.cookies(); len(kept) != 0 {
		t.Errorf("a page that does not use the session has set %v", kept)
	}
	b.visit(home + "/")
	b.sees("", "")
	if kept := b.cookies(); len(kept) != 0 {
		t.Errorf("a session that is only read has set %v", kept)
	}

	// A guest has a basket, and keeps it as somebody under another id.
	b.submit("add", "item", "pen")
	b.sees("", "pen;")
	guest := b.sessionCookie()
	b.submit("login", "user", "ann")
	b.sees("ann", "pen;")
	ann := b.sessionCookie()
	if ann.Value == guest.Value {
		t.Error("the login has kept the id")
	}
	if !ann.HTTPOnly || !ann.Secure || !ann.Session || ann.SameSite != "Lax" || ann.Path != "/" || ann.Domain != "shop.example" {
		t.Errorf("the cookie is %+v", ann)
	}
	if seen := b.script("document.cookie"); seen != "" {
		t.Errorf("scripts see %q", seen)
	}
	b.submit("add", "item", "ink")
	b.reload()
	b.sees("ann", "pen;ink;")

	// Another process with the same sessions.
	before := b.text("pid")
	first.Stop()
	second := startShop(t, file)
	to(second.Addr)
	b.reload()
	b.sees("ann", "pen;ink;")
	if after := b.text("pid"); after == before {
		t.Errorf("process %s has answered again", after)
	}
	if now := b.sessionCookie(); now.Value != ann.Value {
		t.Error("the restart has changed the cookie")
	}

	// A form on another site is not the person's will.
	b.visit("https://evil.example/static")
	b.script(`{ const f = document.createElement("form"); f.method = "post"; f.action = "https://shop.example/logout"; document.body.append(f); f.submit() }`)
	b.wait("form of another site")
	b.visit(home + "/")
	b.sees("ann", "pen;ink;")

	// Whoever brings a cookie is its session, and the id of before the login is
	// none any more.
	b.give(guest)
	b.visit(home + "/")
	b.sees("", "")
	b.give(ann)
	b.visit(home + "/")
	b.sees("ann", "pen;ink;")

	b.submit("logout", "", "")
	b.sees("", "")
	for name := range b.cookies() {
		t.Errorf("%s is left after the logout", name)
	}
	b.reload()
	b.sees("", "")

	// The old ids again, as a thief would send them.
	for name, c := range map[string]cookie{"before the login": guest, "after it": ann} {
		b.give(c)
		b.visit(home + "/")
		if user, items := b.text("user"), b.text("items"); user != "" || items != "" {
			t.Errorf("the id of %s: %q with %q", name, user, items)
		}
	}
}

// give leaves the browser with this cookie alone.
func (b *browser) give(c cookie) {
	b.t.Helper()
	b.clear()
	b.must("", "Storage.setCookies", object{"cookies": []object{{
		"name": c.Name, "value": c.Value, "url": home, "path": "/", "secure": true, "httpOnly": true,
	}}}, nil)
}

// sessionCookie returns the one cookie that the browser has.
func (b *browser) sessionCookie() cookie {
	b.t.Helper()
	kept := b.cookies()
	for name, c := range kept {
		if len(kept) == 1 && strings.HasPrefix(name, "__Host-Http-") {
			return c
		}
	}
	b.t.Fatalf("the browser has %v", kept)
	return cookie{}
}

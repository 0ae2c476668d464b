package session_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"example.com/plainware/cookies/session"
	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

// cart is what the sessions of these tests hold.
type cart struct {
	Items []string `json:"items,omitempty"`
	Theme string   `json:"theme,omitempty"`
	Count int      `json:"count,omitempty"`
}

// watched is a store that counts calls and can fail.
type watched struct {
	store.Store
	mem    *store.Memory
	reads  atomic.Int64
	writes atomic.Int64

	mu    sync.Mutex
	fault func(storetest.Call) storetest.Fault
}

func newStore(t testing.TB) *watched {
	t.Helper()
	mem, err := store.NewMemory(store.MemoryConfig{Registers: 64})
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{mem: mem}
	w.Store = storetest.Faulty(mem, func(c storetest.Call) storetest.Fault {
		switch c.Method {
		case "Get":
			w.reads.Add(1)
		case "Put", "CompareAndSwap", "Delete", "Touch":
			w.writes.Add(1)
		}
		w.mu.Lock()
		fault := w.fault
		w.mu.Unlock()
		if fault == nil {
			return storetest.Fault{}
		}
		return fault(c)
	})
	return w
}

// Unwrap leads store.Keep to the faulty store.
func (w *watched) Unwrap() store.Store { return w.Store }

// fail makes the calls of the named methods fail; without names, none.
func (w *watched) fail(methods ...string) {
	w.inject(func(c storetest.Call) storetest.Fault {
		for _, m := range methods {
			if m == c.Method {
				return storetest.Fault{Before: errDown}
			}
		}
		return storetest.Fault{}
	})
}

func (w *watched) inject(f func(storetest.Call) storetest.Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
}

// counts returns the reads and writes that f makes.
func (w *watched) counts(f func()) (reads, writes int64) {
	r, wr := w.reads.Load(), w.writes.Load()
	f()
	return w.reads.Load() - r, w.writes.Load() - wr
}

// dump returns all keys with their values.
func (w *watched) dump(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for key, err := range w.mem.Scan(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if v, ok, _ := w.mem.Get(t.Context(), key); ok {
			all[key] = v
		}
	}
	return all
}

var errDown = errors.New("connection refused by 10.0.0.7")

// otherProgram has a number where the sessions of newManager have a cart, in the
// same store under the same name. It answers the request of a browser.
func otherProgram(t testing.TB, c session.Config[int]) func(*browser, func(http.ResponseWriter, *session.Session[int])) *httptest.ResponseRecorder {
	t.Helper()
	c.Name = "test"
	m, err := session.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return func(b *browser, f func(http.ResponseWriter, *session.Session[int])) *httptest.ResponseRecorder {
		r, w := httptest.NewRequest("POST", "/", nil), httptest.NewRecorder()
		r.Header.Set("Cookie", b.cookie)
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, m.MustFrom(r.Context())) })).ServeHTTP(w, r)
		return w
	}
}

func newManager(t testing.TB, c session.Config[cart]) *session.Manager[cart] {
	t.Helper()
	if c.Store == nil {
		c.Store = newStore(t)
	}
	if c.Name == "" {
		c.Name = "test"
	}
	m, err := session.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

type handler func(w http.ResponseWriter, r *http.Request, s *session.Session[cart])

// browser keeps the cookie of one person.
type browser struct {
	t      testing.TB
	m      *session.Manager[cart]
	cookie string // name=value, or "" for none
}

func newBrowser(t testing.TB, m *session.Manager[cart]) *browser { return &browser{t: t, m: m} }

// with returns another browser with the same cookie.
func (b *browser) with(cookie string) *browser { return &browser{b.t, b.m, cookie} }

// send makes one request, and does with its cookie what a browser does.
func (b *browser) send(h handler) *http.Response {
	b.t.Helper()
	return b.sendCtx(b.t.Context(), h)
}

func (b *browser) sendCtx(ctx context.Context, h handler) *http.Response {
	b.t.Helper()
	r := httptest.NewRequestWithContext(ctx, "GET", "https://shop.example/", nil)
	if b.cookie != "" {
		r.Header.Set("Cookie", b.cookie)
	}
	rec := httptest.NewRecorder()
	b.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h(w, r, b.m.MustFrom(r.Context()))
	})).ServeHTTP(rec, r)
	res := rec.Result()
	b.keep(res)
	return res
}

func (b *browser) keep(res *http.Response) {
	for _, c := range res.Cookies() {
		if !strings.HasSuffix(c.Name, "sid") {
			continue
		}
		b.cookie = ""
		if c.MaxAge >= 0 {
			b.cookie = c.Name + "=" + c.Value
		}
	}
}

// id is the value of the cookie.
func (b *browser) id() string {
	_, id, _ := strings.Cut(b.cookie, "=")
	return id
}

// state is what a request sees of the session.
type state struct {
	cart
	exists bool
	user   string
	log    string
}

func (b *browser) load() (st state) {
	b.t.Helper()
	b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) { st = read(b.t, s) })
	return st
}

func read(t testing.TB, s *session.Session[cart]) (st state) {
	t.Helper()
	var err [3]error
	st.cart, err[0] = s.Load()
	st.exists, err[1] = s.Exists()
	st.user, err[2] = s.UserID()
	if err := errors.Join(err[:]...); err != nil {
		t.Error(err)
	}
	st.log = s.LogID()
	return st
}

func (b *browser) add(item string) *http.Response {
	b.t.Helper()
	return b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		must(b.t, s.Update(func(c *cart) error { c.Items = append(c.Items, item); return nil }))
	})
}

func (b *browser) login(user string) *http.Response {
	b.t.Helper()
	return b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) { must(b.t, s.Login(user)) })
}

func (b *browser) rotate() *http.Response {
	b.t.Helper()
	return b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) { must(b.t, s.Rotate()) })
}

func (b *browser) logout() *http.Response {
	b.t.Helper()
	return b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) { must(b.t, s.Logout()) })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func (b *browser) wantItems(want ...string) {
	b.t.Helper()
	if got := b.load(); !got.exists || strings.Join(got.Items, " ") != strings.Join(want, " ") {
		b.t.Errorf("session %+v, want one with %q", got, want)
	}
}

func (b *browser) wantNone() {
	b.t.Helper()
	if got := b.load(); got.exists || got.user != "" || len(got.Items) != 0 || got.log != "" {
		b.t.Errorf("session %+v, want none", got)
	}
}

// during runs a request of b whose handler calls begin, waits while meanwhile
// runs, and then returns. It returns the response.
func (b *browser) during(begin handler, meanwhile func()) *http.Response {
	b.t.Helper()
	begun, proceed := make(chan struct{}), make(chan struct{})
	done := make(chan *http.Response)
	go func() {
		done <- b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			begin(w, r, s)
			close(begun)
			<-proceed
		})
	}()
	<-begun
	meanwhile()
	close(proceed)
	return <-done
}

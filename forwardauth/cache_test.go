package forwardauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/forwardauth"
	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

func memory(t testing.TB) *store.Memory {
	t.Helper()
	mem, err := store.NewMemory(store.MemoryConfig{Registers: 64})
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

func cachedBy(s store.Store) *forwardauth.CacheConfig {
	return &forwardauth.CacheConfig{Store: s, Name: "test"}
}

var fresh = []string{"Remote-User: ada", "Remote-Groups: a", "Remote-Groups: b", "Cache-Control: max-age=5"}

// forwardauth 24: whatever the service is told is part of the key.
func TestCacheKey(t *testing.T) { synctest.Test(t, testCacheKey) }

func testCacheKey(t *testing.T) {
	base := func() *http.Request {
		return request("GET", "/a?b=c", "Cookie: s=1", "Authorization: Bearer x", "Accept: text/html", "X-Tenant: 1")
	}
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = []string{value} }
	}
	s := says(200, "", fresh...)
	m := mustNew(t, forwardauth.Config{
		Base: s, CopyHeaders: user(t), Cache: cachedBy(memory(t)), RequestHeaders: []string{"X-Tenant"}, TrustedProxies: prefixes(t, "192.0.2.0/24"),
	})
	serve(m, base())
	for name, c := range map[string]struct {
		change func(*http.Request)
		asks   bool
	}{
		"same":            {func(*http.Request) {}, false},
		"method":          {func(r *http.Request) { r.Method = "POST" }, true},
		"path":            {func(r *http.Request) { r.RequestURI, r.URL.Path = "/a2?b=c", "/a2" }, true},
		"query":           {func(r *http.Request) { r.RequestURI, r.URL.RawQuery = "/a?b=d", "b=d" }, true},
		"empty query":     {func(r *http.Request) { r.RequestURI, r.URL.RawQuery = "/a?", "" }, true},
		"host":            {func(r *http.Request) { r.Host = "other.example" }, true},
		"scheme":          {set("X-Forwarded-Proto", "https"), true},
		"cookie":          {set("Cookie", "s=2"), true},
		"no cookie":       {func(r *http.Request) { delete(r.Header, "Cookie") }, true},
		"empty cookie":    {set("Cookie", ""), true},
		"two cookies":     {func(r *http.Request) { r.Header.Add("Cookie", "s=1") }, true},
		"authorization":   {set("Authorization", "Bearer y"), true},
		"accept":          {set("Accept", "*/*"), true},
		"language":        {set("Accept-Language", "de"), true},
		"user agent":      {set("User-Agent", "x"), true},
		"xhr":             {set("X-Requested-With", "XMLHttpRequest"), true},
		"configured":      {set("X-Tenant", "2"), true},
		"moved value":     {func(r *http.Request) { r.Header["User-Agent"] = r.Header["X-Tenant"]; delete(r.Header, "X-Tenant") }, true},
		"client":          {func(r *http.Request) { r.RemoteAddr = "198.51.100.1:1" }, true},
		"client's client": {set("X-Forwarded-For", "203.0.113.4"), true},
		"port of client":  {func(r *http.Request) { r.RemoteAddr = "192.0.2.7:1" }, false},
		"not forwarded":   {set("X-Other", "1"), false},
		"spoofed":         {set("Remote-User", "evil"), false},
	} {
		before := s.count()
		r := base()
		c.change(r)
		h := serve(m, r)
		if h.ran == nil {
			t.Errorf("%s: status %d", name, h.StatusCode)
			continue
		}
		if asks := s.count() > before; asks != c.asks {
			t.Errorf("%s: asked %v", name, asks)
		}
		id, ok := m.From(h.ran.Context())
		if !ok || id.Cached == c.asks || !slices.Equal(id.Header["Remote-Groups"], []string{"a", "b"}) || !slices.Equal(h.ran.Header["Remote-User"], []string{"ada"}) {
			t.Errorf("%s: identity %+v, the handler got %v", name, id, h.ran.Header)
		}
	}
}

// forwardauth 24: the peer and all of X-Forwarded-For are told, whoever the
// client is, so they are part of the key.
func TestCacheKeyChain(t *testing.T) { synctest.Test(t, testCacheKeyChain) }

func testCacheKeyChain(t *testing.T) {
	s := says(200, "", fresh...)
	m := mustNew(t, forwardauth.Config{Base: s, Cache: cachedBy(memory(t)), TrustedProxies: prefixes(t, "192.0.2.0/24")})
	for i, c := range []struct{ peer, chain string }{
		{"192.0.2.7:1", "203.0.113.4"}, {"192.0.2.8:1", "203.0.113.4"}, {"192.0.2.7:1", "198.51.100.1, 203.0.113.4"},
	} {
		for range 2 {
			r := request("GET", "/", "Cookie: a=b", "X-Forwarded-For: "+c.chain)
			r.RemoteAddr = c.peer
			serve(m, r)
		}
		if s.count() != i+1 {
			t.Errorf("%v: %d questions", c, s.count())
		}
	}
}

// Two configurations on one store do not meet, unless they ask the same.
func TestCacheConfigurations(t *testing.T) { synctest.Test(t, testCacheConfigurations) }

func testCacheConfigurations(t *testing.T) {
	mem, key := memory(t), bytes.Repeat([]byte{1}, 32)
	base := forwardauth.Config{URL: serviceURL, CopyHeaders: user(t)}
	ask := func(change func(*forwardauth.Config)) int {
		c := base
		s := says(200, "", fresh...)
		c.Cache = cachedBy(mem)
		c.Cache.Keys = [][]byte{key}
		c.Base = s
		change(&c)
		serve(mustNew(t, c), request("GET", "/", "Cookie: a=b"))
		return s.count()
	}
	if ask(func(*forwardauth.Config) {}) != 1 || ask(func(*forwardauth.Config) {}) != 0 {
		t.Fatal("the cache does not work")
	}
	for name, change := range map[string]func(*forwardauth.Config){
		"URL":     func(c *forwardauth.Config) { c.URL = "http://auth.example/other" },
		"mode":    func(c *forwardauth.Config) { c.Mode = forwardauth.Nginx },
		"copies":  func(c *forwardauth.Config) { c.CopyHeaders = user(t)[:1] },
		"headers": func(c *forwardauth.Config) { c.RequestHeaders = []string{"X-A"} },
		"cookies": func(c *forwardauth.Config) { c.RequestCookies = []string{"a"} },
		"name":    func(c *forwardauth.Config) { c.Cache.Name = "other" },
	} {
		if ask(change) != 1 {
			t.Errorf("%s: the decision of another was used", name)
		}
	}
	other, third := bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{3}, 32)
	for _, c := range []struct {
		name string
		keys [][]byte
		want int
	}{
		{"key that only reads", [][]byte{third, key}, 0},
		{"key of its own", nil, 1},
		{"other key", [][]byte{other}, 1},
		{"rotated", [][]byte{third, other}, 0},
		{"retired", [][]byte{third}, 1},
	} {
		if got := ask(func(f *forwardauth.Config) { f.Cache.Keys = c.keys }); got != c.want {
			t.Errorf("%s: %d questions, want %d", c.name, got, c.want)
		}
	}
}

// forwardauth 25: what is kept, and for how long.
func TestCacheLifetime(t *testing.T) {
	const never = 0
	for name, c := range map[string]struct {
		status int
		lines  []string
		want   time.Duration
	}{
		"max-age":         {200, []string{"Cache-Control: max-age=5"}, 5 * time.Second},
		"capped":          {200, []string{"Cache-Control: public, max-age=3600"}, 10 * time.Second},
		"age":             {200, []string{"Cache-Control: max-age=9", "Age: 6"}, 3 * time.Second},
		"s-maxage":        {200, []string{"Cache-Control: max-age=9, S-Maxage=4"}, 4 * time.Second},
		"two lines":       {200, []string{"Cache-Control: public", "Cache-Control: max-age=2"}, 2 * time.Second},
		"204":             {204, []string{"Cache-Control: max-age=2"}, 2 * time.Second},
		"vary, sent":      {200, []string{"Cache-Control: max-age=2", "Vary: Cookie, accept", "Vary: X-Forwarded-Uri"}, 2 * time.Second},
		"quoted":          {200, []string{`Cache-Control: max-age="2"`}, 2 * time.Second},
		"old":             {200, []string{"Cache-Control: max-age=5", "Age: 5"}, never},
		"odd age":         {200, []string{"Cache-Control: max-age=5", "Age: -1"}, never},
		"two ages":        {200, []string{"Cache-Control: max-age=5", "Age: 0", "Age: 1"}, never},
		"no max-age":      {200, nil, never},
		"public alone":    {200, []string{"Cache-Control: public"}, never},
		"expires":         {200, []string{"Expires: Fri, 31 Dec 2100 00:00:00 GMT"}, never},
		"zero":            {200, []string{"Cache-Control: max-age=0"}, never},
		"negative":        {200, []string{"Cache-Control: max-age=-1"}, never},
		"not a number":    {200, []string{"Cache-Control: max-age=5x"}, never},
		"huge":            {200, []string{"Cache-Control: max-age=99999999999999999999"}, never},
		"max-age twice":   {200, []string{"Cache-Control: max-age=5, max-age=5"}, never},
		"no-store":        {200, []string{"Cache-Control: max-age=5, No-Store"}, never},
		"no-cache":        {200, []string{"Cache-Control: no-cache=\"a\", max-age=5"}, never},
		"private":         {200, []string{"Cache-Control: private, max-age=5"}, never},
		"private fields":  {200, []string{"Cache-Control: private=\"a\", max-age=5"}, never},
		"cookie":          {200, []string{"Cache-Control: max-age=5", "Set-Cookie: a=b"}, never},
		"vary all":        {200, []string{"Cache-Control: max-age=5", "Vary: *"}, never},
		"vary, not sent":  {200, []string{"Cache-Control: max-age=5", "Vary: Cookie, Origin"}, never},
		"vary, connected": {200, []string{"Cache-Control: max-age=5", "Connection: Cache-Control"}, never},
		"denied":          {403, []string{"Cache-Control: max-age=5"}, never},
		"redirect":        {302, []string{"Cache-Control: max-age=5"}, never},
		"error":           {500, []string{"Cache-Control: max-age=5"}, never},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := says(c.status, "", c.lines...)
				m := mustNew(t, forwardauth.Config{Base: s, Cache: cachedBy(memory(t))})
				start := time.Now()
				var kept time.Duration
				for s.count() < 2 && kept < time.Minute {
					kept = time.Since(start)
					serve(m, request("GET", "/", "Cookie: a=b"))
					time.Sleep(time.Second)
				}
				if c.want == never {
					c.want = time.Second // the second request is one too many
				}
				if kept != c.want {
					t.Errorf("kept for %v, want %v", kept, c.want)
				}
			})
		})
	}
}

// forwardauth 25: an answer that varies with what is not part of the key is not
// kept: with AnyClient the client's address, and the marks of a loop.
func TestCacheVary(t *testing.T) { synctest.Test(t, testCacheVary) }

func testCacheVary(t *testing.T) {
	for _, c := range []struct {
		name string
		any  bool
		want int
	}{
		{"X-Forwarded-For", false, 1}, {"X-Real-IP", false, 1}, {"X-Forwardauth-Loop", false, 2}, {"Accept-Encoding", false, 1},
		{"X-Forwarded-For", true, 2}, {"X-Real-IP", true, 2}, {"X-Forwardauth-Loop", true, 2}, {"X-Forwarded-Host", true, 1},
	} {
		s := says(200, "", "Cache-Control: max-age=5", "Vary: "+c.name)
		cache := cachedBy(memory(t))
		cache.AnyClient = c.any
		m := mustNew(t, forwardauth.Config{Base: s, Cache: cache})
		for range 2 {
			serve(m, request("GET", "/", "Cookie: a=b"))
		}
		if s.count() != c.want {
			t.Errorf("%s, AnyClient %v: %d questions, want %d", c.name, c.any, s.count(), c.want)
		}
	}
}

// forwardauth 25: a decision that another process has kept for longer than
// MaxTTL here is none.
func TestCacheLongerKept(t *testing.T) { synctest.Test(t, testCacheLongerKept) }

func testCacheLongerKept(t *testing.T) {
	mem, key := memory(t), bytes.Repeat([]byte{1}, 32)
	ask := func(ttl time.Duration) int {
		s := says(200, "", "Cache-Control: max-age=3600")
		c := cachedBy(mem)
		c.Keys, c.MaxTTL = [][]byte{key}, ttl
		serve(mustNew(t, forwardauth.Config{Base: s, Cache: c}), request("GET", "/", "Cookie: a=b"))
		return s.count()
	}
	for _, c := range []struct {
		ttl  time.Duration
		want int
	}{{time.Hour, 1}, {time.Hour, 0}, {0, 1}, {time.Hour, 0}} {
		if got := ask(c.ttl); got != c.want {
			t.Errorf("MaxTTL %v: %d questions, want %d", c.ttl, got, c.want)
		}
	}
}

// forwardauth 26: nobody in particular is not cached, and an entry that was not
// written by a holder of the key is none.
func TestCacheEntries(t *testing.T) { synctest.Test(t, testCacheEntries) }

func testCacheEntries(t *testing.T) {
	s := says(200, "", fresh...)
	m := mustNew(t, forwardauth.Config{Base: s, Cache: cachedBy(memory(t)), MaxBody: 10})
	for range 3 {
		serve(m, request("GET", "/", "X-A: b"))
	}
	if s.count() != 3 {
		t.Errorf("anonymous: %d questions", s.count())
	}
	for range 2 {
		r := request("POST", "/", "Cookie: a=b")
		r.Body, r.ContentLength = newBody("x"), 1
		serve(m, r)
	}
	if s.count() != 5 {
		t.Errorf("with a body: %d questions", s.count())
	}

	// Every bit of an entry counts, and so does the key it stands under.
	mem := memory(t)
	s = says(200, "", fresh...)
	c := forwardauth.Config{Base: s, CopyHeaders: user(t), Cache: cachedBy(mem)}
	m = mustNew(t, c)
	ask := func(path string) *http.Request { return serve(m, request("GET", path, "Cookie: a=b")).ran }
	ask("/")
	var key string
	for k, err := range mem.Scan(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		key = k
	}
	if !strings.HasPrefix(key, "plainware/forwardauth/1/test/") {
		t.Fatalf("the key is %q", key)
	}
	good, _, err := mem.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	put := func(k string, entry []byte) {
		if err := mem.Put(t.Context(), k, entry, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		put(key, bad)
		before := s.count()
		if ask("/"); s.count() != before+1 {
			t.Fatalf("an entry with byte %d changed was used", i)
		}
	}
	for _, bad := range [][]byte{nil, {1}, good[:len(good)-1], append(slices.Clone(good), 0), good[:40]} {
		put(key, bad)
		before := s.count()
		if ask("/"); s.count() != before+1 {
			t.Fatalf("%d bytes were used", len(bad))
		}
	}
	ask("/other")
	for k, err := range mem.Scan(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		put(k, good)
	}
	before := s.count()
	if ask("/other"); s.count() != before+1 {
		t.Error("the entry of another request was used")
	}
	if bytes.Contains(good, []byte("a=b")) || strings.Contains(key, "a=b") {
		t.Error("the store has the cookie")
	}
}

// An old entry that is written back has expired all the same.
func TestCacheReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memory(t)
		s := says(200, "", fresh...)
		m := mustNew(t, forwardauth.Config{Base: s, Cache: cachedBy(mem)})
		serve(m, request("GET", "/", "Cookie: a=b"))
		for k := range mem.Scan(t.Context(), "") {
			entry, _, _ := mem.Get(t.Context(), k)
			if err := mem.Put(t.Context(), k, entry, 0); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(4 * time.Second)
		serve(m, request("GET", "/", "Cookie: a=b"))
		if s.count() != 1 {
			t.Errorf("%d questions while fresh", s.count())
		}
		time.Sleep(2 * time.Second)
		serve(m, request("GET", "/", "Cookie: a=b"))
		if s.count() != 2 {
			t.Errorf("%d questions", s.count())
		}
	})
}

// forwardauth 27: a hundred who ask the same at once are answered by one
// question, also when the one who asked has left.
func TestSingleFlight(t *testing.T) {
	for name, c := range map[string]struct {
		answer func() (*http.Response, error)
		leaves bool
		status int
		asked  int
	}{
		"allowed":          {func() (*http.Response, error) { return response(200, "", fresh...), nil }, false, 200, 1},
		"leader leaves":    {func() (*http.Response, error) { return response(200, "", fresh...), nil }, true, 200, 1},
		"denied":           {func() (*http.Response, error) { return response(403, "no", "Location: /x"), nil }, false, 403, 1},
		"down":             {func() (*http.Response, error) { return nil, errors.New("down") }, false, 503, 1},
		"not to be shared": {func() (*http.Response, error) { return response(200, "", "Remote-User: ada"), nil }, false, 200, 100},
		"denied, cookie":   {func() (*http.Response, error) { return response(403, "", "Set-Cookie: a=b"), nil }, false, 403, 100},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &service{answer: func(r *http.Request) (*http.Response, error) {
					select {
					case <-time.After(time.Second):
						return c.answer()
					case <-r.Context().Done():
						return nil, r.Context().Err()
					}
				}}
				m := mustNew(t, forwardauth.Config{Base: s, CopyHeaders: user(t), Cache: cachedBy(memory(t))})
				leader, leave := context.WithCancel(t.Context())
				defer leave()
				var wg sync.WaitGroup
				var right, left atomic.Int64
				for i := range 100 {
					r := request("GET", "/", "Cookie: a=b")
					if i == 0 {
						r = r.WithContext(leader)
					}
					wg.Go(func() {
						h := serve(m, r)
						if c.leaves && i == 0 {
							if h.StatusCode == 499 && h.ran == nil {
								left.Add(1)
							}
							return
						}
						if h.StatusCode == c.status && (h.ran == nil || h.ran.Header.Get("Remote-User") == "ada") {
							right.Add(1)
						}
					})
					if i == 0 {
						synctest.Wait()
					}
				}
				synctest.Wait()
				want := int64(100)
				if c.leaves {
					leave()
					synctest.Wait() // who leaves does so at once
					if want--; left.Load() != 1 || right.Load() != 0 {
						t.Errorf("%d have left, %d right answers", left.Load(), right.Load())
					}
				}
				wg.Wait()
				if got := right.Load(); got != want || s.count() != c.asked {
					t.Errorf("%d right answers, want %d; %d questions, want %d", got, want, s.count(), c.asked)
				}
			})
		})
	}
}

// When all have left, the question ends, and the next one asks anew.
func TestSingleFlightAllLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int64
		s := &service{answer: func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			ended.Add(1)
			return nil, r.Context().Err()
		}}
		m := mustNew(t, forwardauth.Config{Base: s, Cache: cachedBy(memory(t)), Timeout: time.Hour})
		ctx, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if h := serve(m, request("GET", "/", "Cookie: a=b").WithContext(ctx)); h.StatusCode != 499 || h.ran != nil {
					t.Errorf("status %d", h.StatusCode)
				}
			})
			synctest.Wait()
		}
		leave()
		wg.Wait()
		synctest.Wait()
		if ended.Load() != 1 || s.count() != 1 {
			t.Errorf("%d ended, %d questions", ended.Load(), s.count())
		}
		s.answer = says(200, "").answer
		if h := serve(m, request("GET", "/", "Cookie: a=b")); h.StatusCode != 200 {
			t.Errorf("status %d", h.StatusCode)
		}
	})
}

// A Base that panics takes down its own request, and nobody waits for ever.
func TestSingleFlightPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var first atomic.Bool
		s := &service{answer: func(*http.Request) (*http.Response, error) {
			if first.CompareAndSwap(false, true) {
				time.Sleep(time.Second)
				panic("base")
			}
			return response(200, ""), nil
		}}
		m := mustNew(t, forwardauth.Config{Base: s, Cache: cachedBy(memory(t))})
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() {
				if v := recover(); v != "base" {
					t.Errorf("recovered %v", v)
				}
			}()
			serve(m, request("GET", "/", "Cookie: a=b"))
		})
		synctest.Wait()
		if h := serve(m, request("GET", "/", "Cookie: a=b")); h.StatusCode != 200 {
			t.Errorf("status %d", h.StatusCode)
		}
		wg.Wait()
	})
}

// Where the request has gone that a panic would take down, the log has it.
func TestSingleFlightPanicIsLogged(t *testing.T) {
	for _, v := range []any{"base", http.ErrAbortHandler} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			m := mustNew(t, forwardauth.Config{
				Cache: cachedBy(memory(t)), Logger: slog.New(slog.NewTextHandler(&log, nil)),
				Base: &service{answer: func(*http.Request) (*http.Response, error) {
					time.Sleep(time.Second)
					panic(v)
				}},
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if h := serve(m, request("GET", "/", "Cookie: a=hunter2").WithContext(ctx)); h.StatusCode != 503 {
				t.Errorf("status %d", h.StatusCode)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if got := log.String(); strings.Contains(got, "panic=base") != (v == "base") || strings.Contains(got, "hunter2") {
				t.Errorf("the log has %q", got)
			}
		})
	}
}

// A panic is raised or logged, and one of the two, also where the request ends at
// the moment at which its question does.
func TestSingleFlightPanicAtTheEnd(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			ctx, leave := context.WithCancel(t.Context())
			m := mustNew(t, forwardauth.Config{
				Cache: cachedBy(memory(t)), Logger: slog.New(slog.NewTextHandler(&log, nil)),
				Base: &service{answer: func(*http.Request) (*http.Response, error) {
					time.Sleep(time.Second)
					leave()
					panic("base") // before who has left gets to run, mostly
				}},
			})
			var raised any
			func() {
				defer func() { raised = recover() }()
				serve(m, request("GET", "/", "Cookie: a=b").WithContext(ctx))
			}()
			synctest.Wait()
			if logged := strings.Contains(log.String(), "panic=base"); logged == (raised != nil) {
				t.Errorf("raised %v, logged %v", raised, logged)
			}
		})
	}
}

// forwardauth 28: clients that leave end what the store does for them, and do
// not fill the log; a store that is too slow by itself does.
func TestStoreAndClientsWhoLeave(t *testing.T) {
	for _, method := range []string{"Get", "Put"} {
		for _, timeout := range []time.Duration{0, -1} {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				c := cachedBy(storetest.Faulty(memory(t), func(c storetest.Call) storetest.Fault { return storetest.Fault{Stall: c.Method == method} }))
				c.Timeout = timeout
				m := mustNew(t, forwardauth.Config{Base: says(200, "", fresh...), Cache: c, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				ctx, leave := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() { serve(m, request("GET", "/", "Cookie: a=b").WithContext(ctx)) })
				}
				synctest.Wait()
				start := time.Now()
				leave()
				wg.Wait()
				synctest.Wait() // a Put that goes on would be waited for, and in vain if nothing bounds it
				if log.Len() > 0 || time.Since(start) > 0 {
					t.Errorf("%s: after %v the log has %q", method, time.Since(start), log.String())
				}
				if timeout < 0 {
					return
				}
				start = time.Now()
				if h := serve(m, request("GET", "/", "Cookie: a=b")); h.StatusCode != 200 || time.Since(start) != 250*time.Millisecond {
					t.Errorf("%s: status %d after %v", method, h.StatusCode, time.Since(start))
				}
				want := map[string]string{"Get": "reading from", "Put": "writing to"}[method]
				if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, want) {
					t.Errorf("%s: the log has %q", method, got)
				}
			})
		}
	}
}

// Those who share an error have one each: an ErrorHandler may change it.
func TestSingleFlightErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answer: func(*http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return nil, hint{errors.New("down"), time.Minute}
		}}
		var seen sync.Map
		m := mustNew(t, forwardauth.Config{Base: s, Cache: cachedBy(memory(t)), ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			e := err.(*forwardauth.Error)
			if _, again := seen.LoadOrStore(e, true); again || e.Err.Error() != "down" || e.RetryAfter != time.Minute {
				t.Errorf("seen before %v: %+v", again, e)
			}
			e.Err, e.RetryAfter = errors.New(r.Header.Get("Cookie")), 0
			forwardauth.WriteError(w, r, e)
		}})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { serve(m, request("GET", "/", "Cookie: a=b")) })
		}
		wg.Wait()
		if s.count() != 1 {
			t.Errorf("%d questions", s.count())
		}
	})
}

// forwardauth 28: a store that fails, stalls or lies costs a question, and
// nothing else.
func TestStoreFailure(t *testing.T) {
	for name, fault := range map[string]storetest.Fault{
		"before": {Before: errors.New("down")},
		"after":  {After: errors.New("down")},
		"stall":  {Stall: true},
		"late":   {Late: time.Minute},
	} {
		for _, status := range []int{200, 403} {
			t.Run(fmt.Sprint(name, status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := says(status, "", fresh...)
					var log bytes.Buffer
					m := mustNew(t, forwardauth.Config{
						Base: s, CopyHeaders: user(t), Logger: slog.New(slog.NewTextHandler(&log, nil)),
						Cache: cachedBy(storetest.Faulty(memory(t), func(storetest.Call) storetest.Fault { return fault })),
					})
					start := time.Now()
					for range 2 {
						if h := serve(m, request("GET", "/", "Cookie: a=hunter2")); h.StatusCode != status {
							t.Errorf("status %d", h.StatusCode)
						}
					}
					if s.count() != 2 || time.Since(start) > time.Second {
						t.Errorf("%d questions in %v", s.count(), time.Since(start))
					}
					if !strings.Contains(log.String(), "decision cache failed") || strings.Contains(log.String(), "hunter2") {
						t.Errorf("the log has %q", log.String())
					}
				})
			})
		}
	}
}

func TestAnyClient(t *testing.T) { synctest.Test(t, testAnyClient) }

func testAnyClient(t *testing.T) {
	for _, any := range []bool{false, true} {
		s := says(200, "", fresh...)
		c := cachedBy(memory(t))
		c.AnyClient = any
		m := mustNew(t, forwardauth.Config{Base: s, Cache: c})
		for _, addr := range []string{"192.0.2.1:1", "192.0.2.2:1"} {
			r := request("GET", "/", "Cookie: a=b")
			r.RemoteAddr = addr
			serve(m, r)
		}
		if (s.count() == 1) != any {
			t.Errorf("%v: %d questions", any, s.count())
		}
	}
}

// forwardauth 27: those who share a denial each carry it out for themselves: a
// redirect to sign in is made of the one answer many times at once.
func TestSingleFlightDenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask := make(chan struct{})
		s := &service{answer: func(*http.Request) (*http.Response, error) {
			<-ask
			return response(401, "Unauthorized\n", "Content-Type: text/plain"), nil
		}}
		m := mustNew(t, forwardauth.Config{Base: s, CopyHeaders: user(t), Cache: cachedBy(memory(t)), SignIn: "/login"})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				h := serve(m, request("GET", "/a", "Cookie: a=1", "Accept: text/html"))
				if h.StatusCode != 302 || h.Header.Get("Location") == "" || h.body != "" || h.ran != nil {
					t.Errorf("status %d, header %v, body %q", h.StatusCode, h.Header, h.body)
				}
			})
		}
		synctest.Wait()
		close(ask)
		wg.Wait()
		if s.count() != 1 {
			t.Errorf("%d questions", s.count())
		}
	})
}

// In JSON mode the document is part of the key, so the client is not in it.
func TestAnyClientJSON(t *testing.T) { synctest.Test(t, testAnyClientJSON) }

func testAnyClientJSON(t *testing.T) {
	for _, any := range []bool{false, true} {
		s := says(200, `{"result": true}`, fresh...)
		c := cachedBy(memory(t))
		c.AnyClient = any
		m := mustNew(t, forwardauth.Config{Mode: forwardauth.JSON, Base: s, Cache: c})
		for _, addr := range []string{"192.0.2.1:1", "192.0.2.2:1"} {
			r := request("GET", "/", "Cookie: a=b")
			r.RemoteAddr = addr
			serve(m, r)
		}
		if (s.count() == 1) != any || strings.Contains(s.bodies[0], "192.0.2.1") == any {
			t.Errorf("%v: %d questions, the first is %s", any, s.count(), s.bodies[0])
		}
	}
}

// forwardauth 25: what has a cookie is not kept, though in JSON mode the fields of
// the response are not those of the decision.
func TestCacheCookieJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := says(200, `{"result": true}`, append(fresh, "Set-Cookie: a=b")...)
		m := mustNew(t, forwardauth.Config{Mode: forwardauth.JSON, Base: s, Cache: cachedBy(memory(t))})
		for range 2 {
			serve(m, request("GET", "/", "Cookie: a=b"))
		}
		if s.count() != 2 {
			t.Errorf("%d questions", s.count())
		}
	})
}

// forwardauth 27: a question that hangs takes along those who wait for it, each
// for as long as it has time, and nobody who comes later, though Timeout ends
// nothing.
func TestHungQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		s := &service{answer: func(r *http.Request) (*http.Response, error) {
			if asked.Add(1) == 1 { // on a connection that is black-holed
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return response(200, "", fresh...), nil
		}}
		m := mustNew(t, forwardauth.Config{Base: s, Cache: cachedBy(memory(t)), Timeout: -1})
		var wg sync.WaitGroup
		var refused atomic.Int64
		for i := range 30 { // there is always one who waits
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				defer cancel()
				start := time.Now()
				if serve(m, request("GET", "/", "Cookie: a=b").WithContext(ctx)).StatusCode != 200 {
					refused.Add(1)
				}
				if took := time.Since(start); took > 1500*time.Millisecond {
					t.Errorf("request %d came back after %v", i, took)
				}
			})
			time.Sleep(time.Second)
		}
		wg.Wait()
		if refused.Load() != 3 {
			t.Errorf("%d refused", refused.Load())
		}
	})
}

// forwardauth 27: who asks waits no longer than its own time, and the others
// get their answer.
func TestLeaderHasItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answer: func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return response(200, "", fresh...), r.Context().Err()
		}}
		m := mustNew(t, forwardauth.Config{Base: s, Cache: cachedBy(memory(t))})
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			r := request("GET", "/", "Cookie: a=b").WithContext(ctx)
			if h := serve(m, r); h.StatusCode != 503 || time.Since(start) != 100*time.Millisecond {
				t.Errorf("status %d after %v", h.StatusCode, time.Since(start))
			}
			// Whoever is outside may do with the request what it wants by now.
			clear(r.Header)
		})
		synctest.Wait()
		if h := serve(m, request("GET", "/", "Cookie: a=b")); h.StatusCode != 200 || time.Since(start) != time.Second {
			t.Errorf("status %d after %v", h.StatusCode, time.Since(start))
		}
		wg.Wait()
		if s.count() != 1 {
			t.Errorf("%d questions", s.count())
		}
	})
}

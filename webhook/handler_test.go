package webhook_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
	"example.com/plainware/webhook"
)

// endpoint is a verifier with a replay guard in front of a handler that can be
// told what to do.
type endpoint struct {
	t      *testing.T
	v      *webhook.Verifier
	handle func(http.ResponseWriter, *http.Request)
	ran    atomic.Int32
	log    bytes.Buffer
}

func newEndpoint(t *testing.T, s store.Store, edit func(*webhook.Config)) *endpoint {
	t.Helper()
	e := &endpoint{t: t, handle: func(http.ResponseWriter, *http.Request) {}}
	c := config(webhook.GitHub(), secret)
	c.Store, c.Name, c.Logger = s, "gh", slog.New(slog.NewTextHandler(&e.log, nil))
	if edit != nil {
		edit(&c)
	}
	e.v = newVerifier(t, c)
	return e
}

// send sends a delivery whose body is text and expects a status.
func (e *endpoint) send(text string, want int, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	e.t.Helper()
	r := signed(e.t, webhook.GitHub(), webhook.Secret(secret), webhook.Outgoing{Body: []byte(text)})
	for _, f := range edit {
		f(r)
	}
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if v := recover(); v != nil {
				w.WriteHeader(599) // what tells a panic here
			}
		}()
		e.v.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			e.ran.Add(1)
			e.handle(w, r)
		})).ServeHTTP(w, r)
	}()
	if w.Code != want {
		e.t.Errorf("%q: status %d, want %d", text, w.Code, want)
	}
	return w
}

func (e *endpoint) wantRuns(n int32) {
	e.t.Helper()
	if got := e.ran.Load(); got != n {
		e.t.Errorf("the handler ran %d times, want %d", got, n)
	}
}

// webhook 19: the repetition of a delivery that was handled is answered with
// 200 and an empty body, and not handled.
// webhook 20: also with another ID in a header that is not signed.
func TestReplay(t *testing.T) {
	var rejected []error
	e := newEndpoint(t, newMemory(t), func(c *webhook.Config) {
		c.OnReject = func(_ *http.Request, err error) { rejected = append(rejected, err) }
	})
	e.handle = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(202); io.WriteString(w, "taken") }
	id := func(id string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("X-Github-Delivery", id) }
	}
	e.send("a", 202, id("1"))
	if w := e.send("a", 200, id("1")); w.Body.Len() != 0 {
		t.Errorf("body %q", w.Body)
	}
	e.send("a", 200, id("2"))
	e.wantRuns(1)
	e.send("b", 202)
	e.wantRuns(2)
	if len(rejected) != 2 || !errors.Is(rejected[0], webhook.ErrDuplicate) {
		t.Errorf("OnReject got %v", rejected)
	}
}

// webhook 21: while the handler runs, a repetition gets 409 with Retry-After.
func TestInFlight(t *testing.T) {
	for _, p := range memnet.Protos() {
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, newMemory(t), nil)
				var runs atomic.Int32
				s := memnet.Serve(t, p, &http.Server{Handler: e.v.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					runs.Add(1)
					time.Sleep(time.Second)
				}))})
				send := func() *http.Response {
					o := &webhook.Outgoing{Body: []byte(event)}
					if err := webhook.Sign(webhook.GitHub(), o, webhook.Secret(secret)); err != nil {
						t.Error(err)
					}
					r, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL, bytes.NewReader(o.Body))
					r.Header = o.Header
					res, err := s.Client.Do(r)
					if err != nil {
						t.Error(err)
						return &http.Response{}
					}
					res.Body.Close()
					return res
				}
				first := make(chan int)
				go func() { first <- send().StatusCode }()
				time.Sleep(time.Second / 2)
				if res := send(); res.StatusCode != 409 || res.Header.Get("Retry-After") != "5" {
					t.Errorf("status %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
				}
				if code := <-first; code != 200 {
					t.Errorf("first: status %d", code)
				}
				if res := send(); res.StatusCode != 200 || runs.Load() != 1 {
					t.Errorf("status %d, %d runs", res.StatusCode, runs.Load())
				}
			})
		})
	}
}

// webhook 22: after a failure or a panic the next delivery is handled.
func TestReleased(t *testing.T) {
	e := newEndpoint(t, newMemory(t), nil)
	for _, code := range []int{500, 503, 400, 404, 429} {
		e.handle = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
		e.send("a", code)
	}
	e.handle = func(w http.ResponseWriter, r *http.Request) { panic("no") }
	e.send("a", 599)
	e.handle = func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }
	e.send("a", 599)
	e.wantRuns(7)
	// A redirect is a failure to providers, and what a mux answers that has not
	// found the handler: were it taken for done, the event would be lost.
	for _, code := range []int{301, 302, 303, 304, 307, 308} {
		e.handle = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
		e.send("a", code)
	}
	e.wantRuns(13)
	for i, code := range []int{200, 201, 202, 204, 299} {
		text := string(rune('b' + i))
		e.handle = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
		e.send(text, code)
		e.send(text, 200)
	}
	e.wantRuns(18)
}

// webhook 22: a delivery that an inner mux redirects to a handler is not done
// before that handler has run.
func TestRedirectIsNotDone(t *testing.T) {
	ran := 0
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hooks/", func(http.ResponseWriter, *http.Request) { ran++ })
	c := config(webhook.GitHub(), secret)
	c.Store, c.Name = newMemory(t), "x"
	h := newVerifier(t, c).Handler(mux)
	for _, path := range []string{"/hooks", "/hooks/", "/hooks/"} { // the last is a repetition
		r := signed(t, webhook.GitHub(), webhook.Secret(secret), webhook.Outgoing{})
		r.URL.Path, r.RequestURI = path, path
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if redirected := w.Code/100 == 3; redirected != (path == "/hooks") {
			t.Errorf("%s: status %d", path, w.Code)
		}
	}
	if ran != 1 {
		t.Errorf("the handler ran %d times", ran)
	}
}

// webhook 23: a handler that took longer than its lease does not undo what
// another one, which took over, has done.
func TestLeaseLost(t *testing.T) {
	for _, late := range []int{200, 500} {
		for _, lateFirst := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, newMemory(t), func(c *webhook.Config) { c.Lease = time.Second })
				// run sends the delivery to a handler that waits for its status.
				run := func(want int) (end func()) {
					status, done := make(chan int), make(chan struct{})
					e.handle = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(<-status) }
					go func() { e.send("a", want); close(done) }()
					synctest.Wait()
					return func() { status <- want; <-done }
				}
				endLate := run(late)
				time.Sleep(2 * time.Second)
				endSecond := run(200)
				e.wantRuns(2)
				if lateFirst {
					endLate()
					e.send("a", 409)
					endSecond()
				} else {
					endSecond()
					e.send("a", 200)
					endLate()
				}
				e.send("a", 200)
				e.wantRuns(2)
				if !strings.Contains(e.log.String(), "longer than the lease") {
					t.Errorf("log %q", e.log.String())
				}
			})
		}
	}
}

// webhook 23: a delivery that was handled after its lease is remembered, if nobody
// has taken over.
func TestLeaseOver(t *testing.T) {
	for _, failing := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int32
			s := storetest.Faulty(newMemory(t), func(c storetest.Call) storetest.Fault {
				if c.Method == "CompareAndSwap" && n.Add(1) == 3 && failing {
					return storetest.Fault{Before: errors.New("connection refused")}
				}
				return storetest.Fault{}
			})
			e := newEndpoint(t, s, func(c *webhook.Config) { c.Lease = time.Second })
			e.handle = func(http.ResponseWriter, *http.Request) { time.Sleep(2 * time.Second) }
			e.send("a", 200)
			want, runs := "longer than the lease; nobody else has the delivery", int32(1)
			if failing {
				want, runs = "connection refused", 2
			}
			if !strings.Contains(e.log.String(), want) || strings.Contains(e.log.String(), "handled twice") {
				t.Errorf("log %q", e.log.String())
			}
			e.send("a", 200)
			e.wantRuns(runs)

			// One that has failed is handled again.
			e.handle = func(w http.ResponseWriter, _ *http.Request) { time.Sleep(2 * time.Second); w.WriteHeader(500) }
			e.send("b", 500)
			e.send("b", 500)
			e.wantRuns(runs + 2)
		})
	}
}

// webhook 35: what became of a delivery is told to the store when its client is
// gone, too.
func TestClientLeavesHandler(t *testing.T) {
	for _, code := range []int{200, 500} {
		e := newEndpoint(t, newMemory(t), nil)
		ctx, leave := context.WithCancel(t.Context())
		e.handle = func(w http.ResponseWriter, _ *http.Request) { leave(); w.WriteHeader(code) }
		e.send("a", code, func(r *http.Request) { *r = *r.WithContext(ctx) })
		e.handle = func(http.ResponseWriter, *http.Request) {}
		e.send("a", 200)
		e.wantRuns(map[int]int32{200: 1, 500: 2}[code])
		if e.log.Len() > 0 {
			t.Errorf("log %q", e.log.String())
		}
	}
}

// Where a store is required because the body is not protected, a delivery that
// the store has forgotten does not pass with another event: it is too old.
func TestForgottenIsTooOld(t *testing.T) {
	key := signer(t, webhook.RSASHA256)
	for _, c := range []struct {
		scheme webhook.Scheme
		sign   webhook.Key
		verify webhook.Key
		keep   time.Duration
		window time.Duration
	}{
		{webhook.Mailgun(), webhook.Secret(secret), webhook.Secret(secret), 0, 4 * 24 * time.Hour},
		{webhook.Mailgun(), webhook.Secret(secret), webhook.Secret(secret), 24 * time.Hour, 12 * time.Hour},
		{webhook.PayPal("WH-1", nil), webhook.PrivateKey(key), webhook.PublicKey(key.Public()), 0, 4 * 24 * time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			v := newVerifier(t, webhook.Config{Scheme: c.scheme, Keys: []webhook.Key{c.verify}, Store: newMemory(t), Name: "x", Keep: c.keep})
			start := time.Now()
			// Of a sender whose clock is ahead by all that is allowed.
			r := signed(t, c.scheme, c.sign, webhook.Outgoing{Body: []byte(`{"event-data":{"id":"1"}}`), Time: start.Add(c.window)})
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			forged := string(body)
			if c.scheme.Name == "mailgun" {
				forged = strings.Replace(forged, `"id":"1"`, `"id":"2"`, 1)
			}
			if _, _, ran := serve(t, v, with(r, string(body))); !ran {
				t.Error("the true one was refused")
			}
			for _, after := range []time.Duration{0, c.window, 2*c.window - time.Second} {
				time.Sleep(after - time.Since(start))
				if res, _, ran := serve(t, v, with(r, forged)); ran || res.StatusCode != 200 {
					t.Errorf("%s after %v: status %d, handler ran: %v", c.scheme.Name, after, res.StatusCode, ran)
				}
			}
			for _, after := range []time.Duration{2*c.window + time.Second, 20 * c.window} {
				time.Sleep(after - time.Since(start))
				refused(t, v, with(r, forged), 401)
			}
		})
	}
}

// A delivery of a process that died is handled again after the lease, and
// forgotten after Keep.
func TestLeaseAndKeepEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, newMemory(t), func(c *webhook.Config) { c.Keep = time.Hour })
		e.send("a", 200)
		time.Sleep(time.Hour - time.Second)
		e.send("a", 200)
		e.wantRuns(1)
		time.Sleep(2 * time.Second)
		e.send("a", 200)
		e.wantRuns(2)
	})
}

// webhook 21: a claim that ends between the two questions about it is taken.
func TestClaimEndsMeanwhile(t *testing.T) {
	mem := newMemory(t)
	var gets atomic.Int32
	s := storetest.Faulty(mem, func(c storetest.Call) storetest.Fault {
		if c.Method == "Get" && gets.Add(1) == 1 {
			if err := mem.Delete(t.Context(), c.Key); err != nil {
				t.Error(err)
			}
		}
		return storetest.Fault{}
	})
	e := newEndpoint(t, s, nil)
	e.handle = func(w http.ResponseWriter, r *http.Request) {
		if e.ran.Load() == 1 {
			e.send("a", 200) // while the first runs, and its claim goes
		}
	}
	e.send("a", 200)
	e.wantRuns(2)
}

// webhook 24: without an answer of the store the handler does not run.
func TestStoreFails(t *testing.T) {
	down := errors.New("connection refused")
	for name, f := range map[string]storetest.Fault{"before": {Before: down}, "after": {After: down}} {
		t.Run(name, func(t *testing.T) {
			var broken atomic.Bool
			broken.Store(true)
			s := storetest.Faulty(newMemory(t), func(c storetest.Call) storetest.Fault {
				if c.Method == "CompareAndSwap" && broken.CompareAndSwap(true, false) {
					return f
				}
				return storetest.Fault{}
			})
			e := newEndpoint(t, s, nil)
			if w := e.send("a", 503); w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "refused") {
				t.Errorf("%v %s", w.Header(), w.Body)
			}
			e.wantRuns(0)
			e.send("a", 200) // what the failed call may have claimed was given back
			e.wantRuns(1)
		})
	}
	t.Run("at the end", func(t *testing.T) {
		var n atomic.Int32
		s := storetest.Faulty(newMemory(t), func(c storetest.Call) storetest.Fault {
			if c.Method == "CompareAndSwap" && n.Add(1) == 2 {
				return storetest.Fault{Before: down}
			}
			return storetest.Fault{}
		})
		e := newEndpoint(t, s, nil)
		e.send("a", 200)
		e.send("a", 409)
		if !strings.Contains(e.log.String(), "refused") {
			t.Errorf("log %q", e.log.String())
		}
	})
	t.Run("reading", func(t *testing.T) {
		s := storetest.Faulty(newMemory(t), func(c storetest.Call) storetest.Fault {
			if c.Method == "Get" {
				return storetest.Fault{Before: down}
			}
			return storetest.Fault{}
		})
		e := newEndpoint(t, s, nil)
		e.send("a", 200)
		e.send("a", 503)
		e.wantRuns(1)
	})
}

// webhook 35: a client that leaves in the middle of the body starts nothing
// and leaves no claim.
func TestClientLeaves(t *testing.T) {
	for _, p := range memnet.Protos() {
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := newMemory(t)
				e := newEndpoint(t, mem, nil)
				s := memnet.Serve(t, p, &http.Server{Handler: e.v.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					e.ran.Add(1)
				}))})
				ctx, leave := context.WithCancel(t.Context())
				o := &webhook.Outgoing{Body: []byte(event)}
				if err := webhook.Sign(webhook.GitHub(), o, webhook.Secret(secret)); err != nil {
					t.Fatal(err)
				}
				body, w := io.Pipe()
				r, _ := http.NewRequestWithContext(ctx, "POST", s.URL, body)
				r.Header = o.Header
				r.ContentLength = int64(len(event))
				go func() {
					w.Write([]byte(event[:5]))
					time.Sleep(time.Second)
					leave()
					w.CloseWithError(io.ErrClosedPipe)
				}()
				if res, err := s.Client.Do(r); err == nil {
					t.Errorf("status %d", res.StatusCode)
				}
				synctest.Wait()
				e.wantRuns(0)
				if n := mem.Stats().Values; n != 0 {
					t.Errorf("%d values in the store", n)
				}
			})
		})
	}
}

// The body of a delivery was read before the guard was asked, so that its
// connection can be used again, for the next attempt above all.
func TestConnectionIsKept(t *testing.T) {
	down := false
	s := storetest.Faulty(newMemory(t), func(storetest.Call) storetest.Fault {
		if down {
			return storetest.Fault{Before: errors.New("connection refused")}
		}
		return storetest.Fault{}
	})
	e := newEndpoint(t, s, nil)
	e.handle = func(http.ResponseWriter, *http.Request) {
		if w := e.send("a", 409); w.Header().Get("Connection") != "" {
			t.Errorf("409: %v", w.Header())
		}
	}
	e.send("a", 200)
	down = true
	if w := e.send("b", 503); w.Header().Get("Connection") != "" {
		t.Errorf("503: %v", w.Header())
	}
	if w := e.send("b", 401, func(r *http.Request) { r.Header.Del("X-Hub-Signature-256") }); w.Header().Get("Connection") != "close" {
		t.Errorf("401 with a body that was not read: %v", w.Header())
	}
}

// Endpoints of another name, and deliveries with another Key, are strangers.
func TestNames(t *testing.T) {
	mem := newMemory(t)
	a, b := newEndpoint(t, mem, nil), newEndpoint(t, mem, func(c *webhook.Config) { c.Name = "other" })
	again := newEndpoint(t, mem, nil)
	constant := newEndpoint(t, mem, func(c *webhook.Config) { c.Key = func(d *webhook.Delivery) string { return string(d.Body[:1]) } })
	a.send("x", 200)
	b.send("x", 200)
	again.send("x", 200)
	again.wantRuns(0)
	b.wantRuns(1)
	constant.send("x1", 200)
	constant.send("x2", 200)
	constant.send("y", 200)
	constant.wantRuns(2)
}

// webhook 25: nor are deliveries of two schemes with the same Key.
func TestKeyHasScheme(t *testing.T) {
	mem := newMemory(t)
	for _, s := range []webhook.Scheme{webhook.GitHub(), webhook.Gitea()} {
		c := config(s, secret)
		c.Store, c.Name, c.Key = mem, "x", func(*webhook.Delivery) string { return "one" }
		v := newVerifier(t, c)
		for _, first := range []bool{true, false} {
			if _, _, ran := serve(t, v, signed(t, s, webhook.Secret(secret), webhook.Outgoing{})); ran != first {
				t.Errorf("%s: handler ran: %v", s.Name, ran)
			}
		}
	}
}

// A Key that has nothing to say of some deliveries, as Slack's slash commands
// have no event_id, does not make them one.
func TestKeyOfNothing(t *testing.T) {
	s := webhook.Slack()
	c := config(s, secret)
	c.Store, c.Name = newMemory(t), "slack"
	c.Key = func(d *webhook.Delivery) string { id, _ := d.EventID(); return id }
	v := newVerifier(t, c)
	send := func(body string, at int64) bool {
		_, _, ran := serve(t, v, signed(t, s, webhook.Secret(secret), webhook.Outgoing{Body: []byte(body), Time: time.Now().Add(time.Duration(at) * time.Second)}))
		return ran
	}
	for body, want := range map[string]bool{"command=%2Fdeploy&text=a": true, "command=%2Fdeploy&text=b": true, `{"event_id":"1"}`: false} {
		if !send(body, 0) {
			t.Errorf("%s was not handled", body)
		}
		if ran := send(body, 1); ran != want { // signed anew
			t.Errorf("%s the second time: %v", body, ran)
		}
	}
}

// The delivery is in the context: the instance's own, and the innermost.
func TestContext(t *testing.T) {
	outer, inner := newVerifier(t, config(webhook.GitHub(), secret)), newVerifier(t, config(webhook.Gitea(), secret))
	r := signed(t, webhook.GitHub(), webhook.Secret(secret), webhook.Outgoing{})
	r.Header.Set("X-Gitea-Signature", strings.TrimPrefix(r.Header.Get("X-Hub-Signature-256"), "sha256="))
	ran := false
	outer.Handler(inner.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ran = true
		a, ok1 := outer.From(r.Context())
		b, ok2 := inner.From(r.Context())
		c, ok3 := webhook.FromContext(r.Context())
		if !ok1 || !ok2 || !ok3 || a.Scheme != "github" || b.Scheme != "gitea" || c != b || string(a.Body) != event {
			t.Errorf("%+v, %+v, %+v", a, b, c)
		}
	}))).ServeHTTP(httptest.NewRecorder(), r)
	if !ran {
		t.Error("the handler did not run")
	}
	if _, ok := outer.From(context.Background()); ok {
		t.Error("a delivery in an empty context")
	}
	if _, ok := webhook.FromContext(context.Background()); ok {
		t.Error("a delivery in an empty context")
	}
	d := &webhook.Delivery{Scheme: "test"}
	if got, ok := webhook.FromContext(webhook.NewContext(t.Context(), d)); !ok || got != d || d.ReplayKey() == [32]byte{} {
		t.Errorf("%+v", got)
	}
}

func TestNilHandler(t *testing.T) {
	defer func() {
		if v := recover(); v != "webhook: nil handler" {
			t.Errorf("panic %v", v)
		}
	}()
	newVerifier(t, config(webhook.GitHub(), secret)).Handler(nil)
}

// What New was given can be changed afterwards.
func TestConfigIsCopied(t *testing.T) {
	c := config(webhook.GitHub(), secret)
	v := newVerifier(t, c)
	c.Keys[0] = webhook.Secret(secret2)
	if _, err := v.Verify(signed(t, webhook.GitHub(), webhook.Secret(secret), webhook.Outgoing{})); err != nil {
		t.Error(err)
	}
}

func TestErrorHandler(t *testing.T) {
	c := config(webhook.GitHub(), secret)
	c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		if !errors.Is(err, webhook.ErrNoSignature) || w.Header().Get("Www-Authenticate") != "Signature" {
			t.Errorf("%v, %v", err, w.Header())
		}
		w.WriteHeader(418)
	}
	refused(t, newVerifier(t, c), httptest.NewRequest("POST", "/", strings.NewReader(event)), 418)
}

package session_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/cookies/session"
	"example.com/plainware/store/storetest"
)

// Two processes with one store, a few requests of one person at the same time,
// and a store that takes its time with each call and in every third run fails
// now and then: whoever was told that something is done finds it done.
func TestModel(t *testing.T) {
	for seed := range uint64(600) {
		synctest.Test(t, func(t *testing.T) { newModel(t, seed).run() })
		if t.Failed() {
			t.Fatal("seed", seed)
		}
	}
}

// model is one run of TestModel.
type model struct {
	t      *testing.T
	st     *watched
	c      session.Config[cart]
	faulty bool
	old    []string // cookies from before the requests
	done   []outcome

	mu  sync.Mutex
	rng *rand.Rand
}

// outcome is what became of one request.
type outcome struct {
	op      string
	b       *browser // with the cookie that it has afterwards
	had, ok bool     // it had the session; it was told that all is well
}

func (o outcome) String() string { return fmt.Sprintf("%s (had %v, ok %v)", o.op, o.had, o.ok) }

func newModel(t *testing.T, seed uint64) *model {
	m := &model{t: t, st: newStore(t), faulty: seed%3 == 1, rng: rand.New(rand.NewPCG(seed, 1))}
	m.c = session.Config[cart]{Store: m.st, DestroyOnReuse: m.n(4) == 0}
	if m.n(2) == 0 {
		m.c.Grace = -1
	}
	if m.n(3) == 0 {
		m.c.RotateEvery = 11 * time.Second
	}
	return m
}

// n returns a number below limit.
func (m *model) n(limit int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(limit)
}

func (m *model) nap(limit int) { time.Sleep(time.Duration(m.n(limit)) * time.Millisecond) }

func (m *model) run() {
	managers := []*session.Manager[cart]{newManager(m.t, m.c), newManager(m.t, m.c)}
	b := newBrowser(m.t, managers[0])
	b.login("ann")
	b.add("pen")
	if m.c.RotateEvery > 0 {
		time.Sleep(12 * time.Second)
	}
	m.old = []string{b.cookie, b.cookie}
	if m.c.RotateEvery == 0 && m.c.Grace >= 0 && m.n(2) == 0 {
		b.rotate() // so that some come with the old id
		m.old[1] = b.cookie
	}
	m.st.inject(func(storetest.Call) storetest.Fault {
		m.nap(5)
		switch {
		case !m.faulty || m.n(12) != 0:
			return storetest.Fault{}
		case m.n(2) == 0:
			return storetest.Fault{Before: errDown}
		}
		return storetest.Fault{After: errDown}
	})
	ops := []string{"update", "rotate", "logout", "login", "load", "update, rotate", "stream, update", "stream, logout", "revoke"}
	if m.n(2) == 0 { // two of them meet more often so
		ops = []string{ops[m.n(len(ops))], ops[m.n(len(ops))]}
	}
	m.done = make([]outcome, 2+m.n(3))
	var wg sync.WaitGroup
	for i := range m.done {
		o := &m.done[i]
		*o = outcome{op: ops[m.n(len(ops))], b: b.with(m.old[m.n(2)])}
		o.b.m = managers[i%2]
		start := time.Duration(m.n(10)) * time.Millisecond
		wg.Go(func() {
			time.Sleep(start)
			m.request(o)
		})
	}
	wg.Wait()
	m.st.inject(nil)
	m.check()
}

// request makes the request of o.
func (m *model) request(o *outcome) {
	var err error
	res := o.b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		if o.had, err = s.Exists(); err != nil {
			return
		}
		for part := range strings.SplitSeq(o.op, ", ") {
			m.nap(20)
			switch part {
			case "update":
				if o.had {
					err = s.Update(func(c *cart) error { c.Count++; return nil })
				}
			case "rotate":
				err = s.Rotate()
			case "logout":
				err = s.Logout()
			case "login":
				err = s.Login("ann")
			case "revoke":
				err = o.b.m.RevokeUser(r.Context(), "ann")
			case "stream":
				err = http.NewResponseController(w).Flush()
			}
			if err != nil {
				return
			}
		}
	})
	o.ok = err == nil && res.StatusCode == http.StatusOK
}

// check compares what there is with what the requests were told.
func (m *model) check() {
	failed, updates, ends, logins, revokes, strangers := 0, 0, 0, 0, 0, 0
	loginFailed := false
	for _, o := range m.done {
		if !o.had {
			strangers++
		}
		switch {
		case !o.ok:
			failed++
			loginFailed = loginFailed || o.op == "login"
		case o.op == "login":
			logins++
		case o.op == "revoke":
			revokes++
			ends++
		case strings.Contains(o.op, "logout") && o.had:
			ends++
		case strings.Contains(o.op, "update") && o.had:
			updates++
		}
	}
	records := 0
	for key, value := range m.st.dump(m.t) {
		if !strings.Contains(key, "/user/") && value[1] == 0 {
			records++
		}
	}
	wrong := func(format string, args ...any) {
		m.t.Helper()
		m.t.Errorf("%s; Grace %v, RotateEvery %v, DestroyOnReuse %v, faults %v: %v", fmt.Sprintf(format, args...),
			m.c.Grace, m.c.RotateEvery, m.c.DestroyOnReuse, m.faulty, m.done)
	}
	if logins > 0 || ends > 0 && !loginFailed {
		for _, cookie := range m.old {
			if m.done[0].b.with(cookie).load().exists {
				wrong("an old id lives after a Login or a Logout")
			}
		}
	}
	if ends > 0 && logins == 0 && !loginFailed {
		for _, o := range m.done {
			if o.b.load().exists {
				wrong("the session lives after a Logout")
			}
		}
		if !m.faulty && revokes == 0 && records != 0 {
			wrong("after a Logout %d records are left", records)
		}
	}
	if m.faulty {
		return
	}
	for _, o := range m.done {
		if o.op == "login" && ends == 0 && o.b.load().user != "ann" {
			wrong("a Login is lost")
		}
	}
	if ends+logins > 0 || m.c.DestroyOnReuse {
		return
	}
	count := -1
	for _, o := range m.done {
		if got := o.b.load(); got.exists {
			count = max(count, got.Count)
		}
	}
	switch {
	case failed > 0:
		wrong("a request failed")
	case records > 1:
		wrong("%d records", records)
	case strangers > 0 && m.c.Grace >= 0 && m.c.RotateEvery == 0:
		wrong("a request came within Grace and had no session")
	case strangers == 0 && count != updates:
		wrong("%d updates count, %d were made", count, updates)
	}
}

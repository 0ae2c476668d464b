package upstream_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/internal/interop/front"
	"example.com/plainware/upstream"
)

// soakTime is how long the soak test runs over each pair of versions of HTTP,
// by the environment variable PLAINWARE_SOAK. Unset is half a second.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	s := os.Getenv("PLAINWARE_SOAK")
	if s == "" {
		return 500 * time.Millisecond
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("PLAINWARE_SOAK: %v", err)
	}
	return d
}

// usage is what a program holds.
type usage struct {
	goroutines, files int
	heap              uint64
}

func usageNow(t *testing.T) usage {
	t.Helper()
	for range 3 { // the pools are empty after two
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{goroutines: runtime.NumGoroutine(), heap: m.HeapInuse}
	if dir, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.files = len(dir)
	}
	return u
}

// left waits until the program holds what it did before, and returns what that
// is. Where it does not within 20 s, the test fails with all goroutines.
func left(t *testing.T, before usage) usage {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		after := usageNow(t)
		if after.goroutines <= before.goroutines && after.files <= before.files+2 && after.heap < before.heap+8<<20 {
			return after
		}
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("before %+v, after %+v\n%s", before, after, buf[:runtime.Stack(buf, true)])
		}
	}
}

// Back ends are killed, stalled, reset and restarted under load. No client sees
// anything but correct answers, stated refusals and answers that visibly end
// early; nothing is done twice that must not be; the Pool recovers; and in
// the end goroutines, descriptors and memory are what they were.
func TestSoakFaults(t *testing.T) {
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) {
			front.Each(t, func(t *testing.T, start func(*testing.T, http.Handler) front.Server) {
				before := usageNow(t)
				t.Run("load", func(t *testing.T) { soak(t, scheme, start) }) // ends with its servers
				after := left(t, before)
				t.Logf("before %+v, after %+v", before, after)
			})
		})
	}
}

func soak(t *testing.T, scheme string, start func(*testing.T, http.Handler) front.Server) {
	book := &ledger{done: make(map[string]int)}
	var back []*faulty
	var urls []string
	for range 4 {
		f := newFaulty(t, soakHandler(book))
		back = append(back, f)
		urls = append(urls, scheme+"://"+f.addr)
	}
	const attempts = 2
	pool := newPool(t, upstream.Config{
		Retry:     upstream.Retry{Attempts: attempts, Budget: -1},
		Conns:     upstream.Conns{HeaderTimeout: 400 * time.Millisecond, DialTimeout: 400 * time.Millisecond, MaxInFlight: 64},
		Check:     &upstream.Check{Path: "/healthz", Interval: 100 * time.Millisecond, UnhealthyInterval: 50 * time.Millisecond, Timeout: 300 * time.Millisecond},
		Outlier:   upstream.Outlier{BaseTime: 200 * time.Millisecond, MaxTime: 400 * time.Millisecond},
		SlowStart: 200 * time.Millisecond,
	}, urls...)
	var tally soakTally
	s := start(t, tally.aborts(t, newProxy(t, pool)))
	t.Cleanup(s.Client.CloseIdleConnections)

	over := make(chan struct{})
	var wg sync.WaitGroup
	for i, f := range back {
		if i == 0 {
			continue // one is left in peace, so that there always is an answer
		}
		wg.Go(func() { faults(t, f, over) })
	}
	for worker := range 8 {
		wg.Go(func() {
			for n := 0; !t.Failed(); n++ {
				select {
				case <-over:
					return
				default:
				}
				tally.request(t, s, book, fmt.Sprintf("w%d-%d", worker, n), n)
			}
		})
	}
	time.Sleep(soakTime(t))
	close(over)
	wg.Wait()
	t.Log(&tally)

	// All of them are back, and everything is answered.
	deadline := time.Now().Add(20 * time.Second)
	for good := 0; good < 50 && !t.Failed(); {
		res, _, err := s.Get(t, "/bytes?id=after&n=100", nil)
		if healthy, total := pool.Healthy(); err == nil && res.StatusCode == 200 && healthy == total {
			good++
		} else {
			good = 0
			time.Sleep(20 * time.Millisecond)
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not recover: %v, %s", err, line(res))
		}
	}
	for b := range pool.Backends() {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			active := 0
			for b2 := range pool.Backends() {
				if b2.Target.ID == b.Target.ID {
					active = b2.Active + b2.Queued
				}
			}
			if active == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d requests have not ended", b.Target.ID, active)
			}
		}
	}
	for _, id := range book.most(attempts + 2) {
		t.Errorf("%s was done %d times", id, book.times(id))
	}
}

// faults does something to a back end every now and then, and leaves it well.
func faults(t *testing.T, f *faulty, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-time.After(20*time.Millisecond + rand.N(200*time.Millisecond)):
		}
		var err error
		switch rand.N(4) {
		case 0:
			f.kill()
			time.Sleep(rand.N(300 * time.Millisecond))
			err = f.start()
		case 1:
			f.stall(rand.N(700 * time.Millisecond))
		case 2:
			f.reset()
		case 3:
			err = f.restart()
		}
		if err != nil {
			t.Errorf("the test's own back end: %v", err)
			return
		}
	}
}

// soakHandler answers with what is asked for, and takes down what it did.
func soakHandler(book *ledger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		w.Write(pattern(r.FormValue("id"), n))
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("id")
		for i := range 10 {
			fmt.Fprintf(w, "%s %d\n", id, i)
			http.NewResponseController(w).Flush()
			time.Sleep(rand.N(4 * time.Millisecond))
		}
	})
	mux.HandleFunc("/do", func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("id")
		b, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(b, pattern(id, len(b))) {
			if err == nil {
				book.add("wrong body of " + id)
			}
			panic(http.ErrAbortHandler)
		}
		book.add(r.Method + " " + id)
		w.Write(b)
	})
	return mux
}

// pattern is n bytes that say whose they are.
func pattern(id string, n int) []byte {
	return bytes.Repeat([]byte(id+"."), n/(len(id)+1)+1)[:n]
}

// soakTally counts what clients saw.
type soakTally struct {
	whole, refused, cut, left atomic.Int64

	kinds   sync.Map // how many were refused, *atomic.Int64 by code
	aborted sync.Map // IDs of the requests whose response was broken off
}

// aborts takes down which responses are broken off on purpose. Any other panic
// is a mistake.
func (s *soakTally) aborts(t *testing.T, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				if v != http.ErrAbortHandler {
					t.Errorf("panic: %v", v)
				}
				s.aborted.Store(r.URL.Query().Get("id"), true)
				panic(http.ErrAbortHandler)
			}
		}()
		h.ServeHTTP(w, r)
	})
}

func (s *soakTally) String() string {
	kinds := make(map[string]int64) // which are printed in order
	s.kinds.Range(func(code, n any) bool {
		kinds[code.(string)] = n.(*atomic.Int64).Load()
		return true
	})
	return fmt.Sprintf("%d whole, %d refused %v, %d cut, %d left by the client", s.whole.Load(), s.refused.Load(), kinds, s.cut.Load(), s.left.Load())
}

// request sends one request of the kind that n says and judges what comes.
func (s *soakTally) request(t *testing.T, f front.Server, book *ledger, id string, n int) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	method, path, want := "GET", "", ""
	var body []byte
	switch n % 5 {
	case 0:
		size := []int{0, 100, 5000, 300_000}[n/5%4]
		path, want = fmt.Sprintf("/bytes?id=%s&n=%d", id, size), string(pattern(id, size))
	case 1:
		var b strings.Builder
		for i := range 10 {
			fmt.Fprintf(&b, "%s %d\n", id, i)
		}
		path, want = "/stream?id="+id, b.String()
	case 2, 3:
		method = []string{"POST", "PUT"}[n%5-2]
		body = pattern(id, []int{1, 3000, 100_000}[n/5%3])
		path, want = "/do?id="+id, string(body)
	case 4:
		path = "/stream?id=" + id
		time.AfterFunc(rand.N(20*time.Millisecond), cancel) // the client leaves
	}
	req, err := http.NewRequestWithContext(ctx, method, f.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	res, got, err := do(f.Client, req)
	once := method + " " + id
	// One that is broken off early has nothing of its header sent.
	_, aborted := s.aborted.LoadAndDelete(id)
	switch {
	case n%5 == 4:
		s.left.Add(1)
	case err != nil && !aborted:
		t.Errorf("%s %s: failed and was not broken off: %s, %v", method, path, line(res), err)
	case err != nil:
		s.cut.Add(1)
	case res.StatusCode == 200 && got == want:
		s.whole.Add(1)
		if body != nil && book.times(once) == 0 {
			t.Errorf("%s was answered and never done", once)
		}
	case res.StatusCode == 200:
		t.Errorf("%s %s: %d bytes that are not the answer, want %d: %.60q", method, path, len(got), len(want), got)
	default:
		var p struct{ Code string }
		if err := json.Unmarshal([]byte(got), &p); err != nil || res.StatusCode < 502 || res.StatusCode > 504 || !strings.HasPrefix(p.Code, "upstream_") {
			t.Errorf("%s %s: %s, %.200q", method, path, line(res), got)
		}
		s.refused.Add(1)
		n, _ := s.kinds.LoadOrStore(p.Code, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	}
	if method == "POST" && book.times(once) > 1 {
		t.Errorf("%s was done %d times", once, book.times(once))
	}
	if book.times("wrong body of "+id) > 0 {
		t.Errorf("%s arrived with another body", once)
	}
}

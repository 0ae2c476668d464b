package timeout_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// stress is a handler of many moods, and the tally of what came of it.
type stress struct {
	t       *testing.T
	handler http.Handler

	late, whole, refused, cut atomic.Int64
}

// stressLimit is about as long as the handlers take.
const stressLimit = 20 * time.Millisecond

var stressBody = strings.Repeat("0123456789", 500)

func newStress(t *testing.T) *stress {
	s := &stress{t: t}
	h := newMiddleware(t, timeout.Config{
		Limits: timeout.Limits{
			Total: stressLimit, FirstByte: stressLimit - time.Millisecond,
			ReadIdle: stressLimit, WriteIdle: stressLimit, Grace: 2 * time.Millisecond,
		},
		OnLate: func(*http.Request, timeout.Late) { s.late.Add(1) },
	}).Handler(http.HandlerFunc(moody))
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		for _, header := range []http.Header{r.Header, w.Header()} { // as a logger does
			for k, v := range header {
				_ = k + v[0]
			}
		}
	})
	return s
}

func moody(w http.ResponseWriter, r *http.Request) {
	var seed uint64
	fmt.Sscan(r.URL.Query().Get("seed"), &seed)
	rng := rand.New(rand.NewPCG(seed, 32))
	pause := func(most time.Duration) { time.Sleep(time.Duration(rng.Int64N(int64(most)))) }
	w.Header().Set("X-Handler", "1")
	io.Copy(io.Discard, r.Body)
	pause(stressLimit * 3 / 2)
	switch rng.IntN(6) {
	case 0:
		io.WriteString(w, "small")
		pause(stressLimit)
	case 1:
		io.WriteString(w, stressBody)
		pause(stressLimit)
		io.WriteString(w, stressBody)
	case 2:
		for range 5 {
			io.WriteString(w, "event")
			http.NewResponseController(w).Flush()
			pause(stressLimit / 4)
		}
	case 3:
		w.WriteHeader(http.StatusEarlyHints)
		pause(stressLimit)
		w.WriteHeader(http.StatusNotFound)
	case 4:
		<-r.Context().Done()
		r.Header.Set("X-Late", "1")
		w.Header().Set("X-Late", "1")
		http.Error(w, "too late", http.StatusInternalServerError)
	case 5:
		panic(http.ErrAbortHandler)
	}
}

// count judges one response: whole, the refusal, or visibly cut.
func (s *stress) count(seed int, status int, h http.Header, body string, err error) {
	fromHandler := h.Get("X-Handler") == "1"
	switch {
	case err != nil:
		s.cut.Add(1)
	case status == 503 && !fromHandler && strings.HasPrefix(body, `{"type":`) && strings.HasSuffix(body, "}\n"):
		s.refused.Add(1)
	case status == 200 && fromHandler && (body == "small" || body == stressBody+stressBody || body == "eventeventeventeventevent"),
		status == 404 && fromHandler && body == "":
		s.whole.Add(1)
	default:
		s.t.Errorf("seed %d: %d, %v, %.100q", seed, status, h, body)
	}
}

// finalOnly keeps informational responses from a recorder, which would take
// them for the final one.
type finalOnly struct{ *httptest.ResponseRecorder }

func (w finalOnly) WriteHeader(code int) {
	if code >= 200 {
		w.ResponseRecorder.WriteHeader(code)
	}
}

func (s *stress) check() {
	if s.whole.Load() == 0 || s.refused.Load() == 0 || s.cut.Load() == 0 || s.late.Load() == 0 {
		s.t.Errorf("%d whole, %d refused, %d cut, %d late", s.whole.Load(), s.refused.Load(), s.cut.Load(), s.late.Load())
	}
}

// inParallel calls f with each seed below n, from 50 goroutines.
func inParallel(n int, f func(seed int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for {
				seed := int(next.Add(1)) - 1
				if seed >= n {
					return
				}
				f(seed)
			}
		})
	}
	wg.Wait()
}

// timeout 32: of 10,000 requests whose handlers take about as long as they may,
// most of them without a network, each is answered whole, with the refusal, or
// visibly cut; and when they are over no goroutine is left.
func TestStress(t *testing.T) {
	t.Run("handler", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			before := len(goroutines())
			s := newStress(t)
			inParallel(9000, func(seed int) {
				w := httptest.NewRecorder()
				r := httptest.NewRequestWithContext(t.Context(), "POST", fmt.Sprint("/?seed=", seed), strings.NewReader("body"))
				var err error
				func() {
					defer func() {
						if v := recover(); v != nil {
							err = v.(error)
						}
					}()
					s.handler.ServeHTTP(finalOnly{w}, r)
				}()
				s.count(seed, w.Code, w.Result().Header, w.Body.String(), err)
			})
			s.check()
			time.Sleep(time.Minute)
			synctest.Wait()
			if after := goroutines(); len(after) > before {
				t.Errorf("%d goroutines, %d before:\n%s", len(after), before, strings.Join(after, "\n\n"))
			}
		})
	})
	inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
		s := newStress(t)
		srv, _ := serveLogged(t, p, s.handler)
		synctest.Wait()
		before := len(goroutines())
		inParallel(500, func(seed int) {
			req, err := http.NewRequestWithContext(t.Context(), "POST", fmt.Sprintf("%s/?seed=%d", srv.URL, seed), strings.NewReader("body"))
			if err != nil {
				t.Error(err)
				return
			}
			req.GetBody = nil // the transport must not try again
			res, err := srv.Transport.RoundTrip(req)
			if err != nil {
				s.count(seed, 0, nil, "", err)
				return
			}
			text, err := io.ReadAll(res.Body)
			res.Body.Close()
			s.count(seed, res.StatusCode, res.Header, string(text), err)
		})
		s.check()
		srv.Transport.CloseIdleConnections()
		time.Sleep(time.Minute)
		synctest.Wait()
		if after := goroutines(); len(after) > before {
			t.Errorf("%d goroutines, %d before:\n%s", len(after), before, strings.Join(after, "\n\n"))
		}
	})
}

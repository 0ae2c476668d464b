package chain_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/internal/interop/front"
	"example.com/plainware/reqid"
	"example.com/plainware/timeout"
)

// soakEnv is how long each soak test runs over each version of HTTP, as a
// duration. Unset is half a second.
const soakEnv = "PLAINWARE_SOAK"

func soakTime(t *testing.T) time.Duration {
	t.Helper()
	s := os.Getenv(soakEnv)
	if s == "" {
		return 500 * time.Millisecond
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("%s: %v", soakEnv, err)
	}
	return d
}

func requestID(t *testing.T, body, want string) {
	t.Helper()
	var p struct {
		ID string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil || p.ID != want {
		t.Errorf("%q, %v; want request_id %s", body, err, want)
	}
}

// timeout 32: handlers that finish around the limit, streaming or not. Every
// answer is whole, refused or visibly cut, and has its own request's ID.
func TestSoakAroundTheLimit(t *testing.T) {
	const (
		limit = 25 * time.Millisecond
		part  = "0123456789abcdef"
		parts = 8
	)
	front.Each(t, func(t *testing.T, start func(*testing.T, http.Handler) front.Server) {
		ids, err := reqid.New(reqid.Config{})
		if err != nil {
			t.Fatal(err)
		}
		var running atomic.Int64
		tmo, err := timeout.New(timeout.Config{Limits: timeout.Limits{Total: limit, ReadIdle: limit, WriteIdle: time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		s := start(t, ids.Handler(tmo.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Add(1)
			defer running.Add(-1)
			stream := r.URL.Path == "/stream"
			pace := rand.N(2*limit) / parts
			io.Copy(io.Discard, r.Body)
			for range parts {
				io.WriteString(w, part)
				if stream {
					http.NewResponseController(w).Flush()
				}
				select {
				case <-time.After(pace):
				case <-r.Context().Done():
					if !stream {
						continue // writes on, which must not be seen
					}
					return
				}
			}
		}))))

		var whole, refused, cut atomic.Int64
		begun, d := time.Now(), soakTime(t)
		// On, where the machine is too busy, until every kind has come up.
		over := func() bool {
			if time.Since(begun) < d {
				return false
			}
			all := whole.Load() > 0 && refused.Load() > 0 && cut.Load() > 0
			return all || time.Since(begun) > d+time.Minute
		}
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				for n := 0; !over() && !t.Failed(); n++ {
					id := fmt.Sprintf("w%d-%d", worker, n)
					path := []string{"/plain", "/stream"}[n%2]
					status, body, err := post(t, s, path, id)
					switch {
					case err != nil:
						cut.Add(1)
					case status == http.StatusOK && body == strings.Repeat(part, parts):
						whole.Add(1)
					case status == http.StatusServiceUnavailable, status == http.StatusRequestTimeout:
						requestID(t, body, id)
						refused.Add(1)
					default:
						t.Errorf("%s: status %d, %q", id, status, body)
					}
				}
			})
		}
		wg.Wait()
		t.Logf("%d whole, %d refused, %d cut", whole.Load(), refused.Load(), cut.Load())
		if whole.Load() == 0 || refused.Load() == 0 || cut.Load() == 0 {
			t.Error("not all three kinds of answer came up")
		}
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(10 * time.Second); running.Load() > 0; <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("%d handlers still run", running.Load())
			}
		}
	})
}

// post sends a small body under an ID. An error of a stream that was cut, or of
// a connection that was closed for it, is no failure of the test.
func post(t *testing.T, s front.Server, path, id string) (int, string, error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, strings.NewReader("body"))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("X-Request-Id", id)
	res, err := s.Client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	if got := res.Header.Get("X-Request-Id"); got != id {
		t.Errorf("sent %s, answered %s", id, got)
		return 0, "", errors.New("mixed up")
	}
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

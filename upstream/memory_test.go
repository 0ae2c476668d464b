package upstream_test

import (
	"io"
	"net/http"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"testing"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// live is the memory that objects of the heap take, those included that nobody
// has swept yet.
func live() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// zeros is a body of n bytes that looks at the heap now and then.
type zeros struct {
	n, next int64
	peak    uint64
}

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	if z.n <= z.next {
		z.peak, z.next = max(z.peak, live()), z.n-1<<20
	}
	n := min(int64(len(p)), z.n)
	clear(p[:n])
	z.n -= n
	return int(n), nil
}

func (z *zeros) Close() error { return nil }

// upstream 85, 87: 100 MiB pass in either direction in memory that does not
// depend on their number, whether or not the length is known. HTTP/2, whose
// frames are slow under the race detector, has to make do with less.
func TestConstantMemory(t *testing.T) {
	const bound = 16 << 20 // the collector's own slack, for three parties in one process
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	for _, p := range []memnet.Proto{memnet.HTTP1, memnet.H2C} {
		t.Run(p.String(), func(t *testing.T) {
			size := int64(100 << 20)
			if p != memnet.HTTP1 {
				size = 32 << 20
			}
			url := map[memnet.Proto]string{memnet.HTTP1: "http://a", memnet.H2C: "h2c://a"}[p]
			cfg, _ := serveFor(t, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					n, _ := io.Copy(io.Discard, r.Body)
					if n != size {
						panic(http.ErrAbortHandler)
					}
					return
				}
				if r.URL.Path == "/known" {
					w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
				}
				io.Copy(w, io.LimitReader(&zeros{n: size}, size))
			})}, url)
			s := memnet.Serve(t, p, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{Transport: newPool(t, cfg)})})
			for name, c := range map[string]struct {
				method string
				length int64
			}{"/known": {"GET", 0}, "/unknown": {"GET", 0}, "/up": {"POST", size}} {
				body := &zeros{n: size, next: size}
				req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+name, nil)
				if err != nil {
					t.Fatal(err)
				}
				if c.method == http.MethodPost {
					req.Body, req.ContentLength = body, c.length
				}
				debug.FreeOSMemory()
				before := live()
				res, err := s.Transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				peak := body.peak
				buf := make([]byte, 32<<10)
				total, next := int64(0), int64(0)
				for err == nil {
					var n int
					n, err = res.Body.Read(buf)
					if total += int64(n); total >= next {
						peak, next = max(peak, live()), total+1<<20
					}
				}
				res.Body.Close()
				if err != io.EOF || res.StatusCode != 200 || c.method == http.MethodGet && total != size {
					t.Fatalf("%s: %s, %d bytes, %v", name, res.Status, total, err)
				}
				if peak > before && peak-before > bound {
					t.Errorf("%s: the heap has grown by %d KiB", name, (peak-before)>>10)
				}
			}
		})
	}
}

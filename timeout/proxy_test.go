package timeout_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// proxied serves backend over p behind a ReverseProxy behind the middleware.
// Everything of it is timed, the events of a stream above all.
func proxied(t *testing.T, p memnet.Proto, l timeout.Limits, backend http.HandlerFunc) *memnet.Server {
	t.Helper()
	back := serve(t, p, backend)
	target, err := url.Parse(back.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = back.Transport
	front, _ := serveLogged(t, p, newMiddleware(t, timeout.Config{Limits: l}).Handler(proxy))
	return front
}

// A minute for nothing is more than the handlers below take, and less than the
// events do.
var proxyLimits = timeout.Limits{FirstByte: time.Minute, ReadIdle: time.Minute, WriteIdle: time.Minute}

// timeout 31: events pass a proxy one by one, for much longer than any idle
// limit.
func TestProxyEvents(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := proxied(t, p, proxyLimits, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 5 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				http.NewResponseController(w).Flush()
				time.Sleep(2 * time.Minute)
			}
		})
		start := time.Now()
		res, err := s.Client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		br := bufio.NewReader(res.Body)
		for i := range 5 {
			line, err := br.ReadString('\n')
			if want := fmt.Sprintf("data: %d\n", i); line != want || err != nil || time.Since(start) != time.Duration(i)*2*time.Minute {
				t.Fatalf("got %q, %v after %v", line, err, time.Since(start))
			}
			br.ReadString('\n')
		}
		if rest, err := io.ReadAll(br); len(rest) != 0 || err != nil {
			t.Errorf("at the end %q, %v", rest, err)
		}
	})
}

// timeout 31: a connection is upgraded through a proxy and lives on, until
// either end closes it.
func TestProxyUpgrade(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
		s := proxied(t, p, proxyLimits, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "websocket" {
				t.Errorf("the backend sees %v", r.Header)
			}
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			io.Copy(c, rw)
		})
		c, br := dial(t, s, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %v, %v", res, err)
		}
		for i := range 3 {
			time.Sleep(2 * time.Minute)
			fmt.Fprintf(c, "message %d\n", i)
			if line, err := br.ReadString('\n'); line != fmt.Sprintf("message %d\n", i) || err != nil {
				t.Errorf("got %q, %v", line, err)
			}
		}
		c.Close()
	})
}

// timeout 31: trailers pass as gRPC sends them: declared, undeclared, and in an
// answer that has nothing else.
func TestProxyTrailers(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := proxied(t, p, proxyLimits, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			if got, err := io.ReadAll(r.Body); string(got) != "call" || err != nil {
				t.Errorf("the backend read %q, %v", got, err)
			}
			if r.URL.Path == "/message" {
				for range 3 {
					w.Write([]byte{0, 0, 0, 0, 1, 'x'})
					http.NewResponseController(w).Flush()
					time.Sleep(time.Second)
				}
			}
			w.Header().Set("Grpc-Status", "0")
			w.Header().Set(http.TrailerPrefix+"Grpc-Message", "ok")
		})
		for path, size := range map[string]int{"/message": 18, "/only": 0} {
			req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+path, io.MultiReader(strings.NewReader("call")))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Te", "trailers")
			res, err := s.Transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			res.Body.Close()
			if len(text) != size || err != nil || res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "ok" {
				t.Errorf("%s: %d bytes, %v, trailer %v", path, len(text), err, res.Trailer)
			}
		}
	})
}

// timeout 31: informational responses pass, and the final one after them.
func TestProxyInformational(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := proxied(t, p, proxyLimits, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusProcessing)
			w.Header().Del("Link")
			w.WriteHeader(http.StatusAccepted)
		})
		var interim []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			interim = append(interim, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		}})
		req, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := askWith(t, s, req)
		if !slices.Equal(interim, []string{"103 </a.css>", "102 </a.css>"}) || r.status != http.StatusAccepted || r.header.Get("Link") != "" {
			t.Errorf("got %v and %+v", interim, r)
		}
	})
}

// A proxy whose backend is too slow is answered for, one whose backend stops in
// the middle is cut, and the call to the backend is cancelled in both.
func TestProxyTooSlow(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		gone := make(chan struct{}, 2)
		s := proxied(t, p, timeout.Limits{Total: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/stops" {
				io.WriteString(w, "part")
				http.NewResponseController(w).Flush()
			}
			<-r.Context().Done()
			gone <- struct{}{}
		})
		if r := ask(t, s, "GET", "/slow", nil); !r.isProblem(503, "timeout_total") || r.after != time.Second {
			t.Errorf("slow: got %+v", r)
		}
		<-gone
		if r := ask(t, s, "GET", "/stops", nil); r.status != 200 || r.body != "part" || r.cut == nil {
			t.Errorf("stops: got %+v", r)
		}
		<-gone
	})
}

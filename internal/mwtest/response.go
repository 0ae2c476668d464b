package mwtest

import (
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"

	"example.com/plainware/internal/memnet"
)

var responseRules = []rule{
	{"response", "status, headers, body and Content-Length arrive as without the middleware", all, checkResponse},
	{"bodyless", "HEAD, 204 and 304 have no body and keep their headers", all, checkBodyless},
	{"response trailers", "trailers arrive, declared ones and those with http.TrailerPrefix", all, checkResponseTrailers},
	{"early hints", "a 103 passes through once and does not count as the status", all, checkEarlyHints},
	{"switching protocols", "101 is a final status, after which the connection belongs to the handler", http1, checkSwitching},
	{"large bodies", "8 MiB pass unchanged in both directions", both, checkLarge},
}

func checkResponse(e *env) {
	handlers := []struct {
		what string
		h    http.HandlerFunc
	}{
		{"a handler that does nothing", func(w http.ResponseWriter, r *http.Request) {}},
		{"a header and nothing else", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-A", "1")
			w.Header()["X-B"] = []string{"2", "3"}
		}},
		{"a body without WriteHeader", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "<html>sniffed</html>")
		}},
		{"an empty Write", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-A", "1")
			if n, err := w.Write(nil); n != 0 || err != nil {
				e.errorf("an empty Write: %d, %v", n, err)
			}
		}},
		{"status 201 with a body", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Location", "/1")
			w.WriteHeader(http.StatusCreated)
			if n, err := io.WriteString(w, `{}`); n != 2 || err != nil {
				e.errorf("WriteString: %d, %v", n, err)
			}
		}},
		{"status 500 without a body", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
		}},
		{"an unregistered status", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(799) }},
		{"a header set after the status", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			w.Header().Set("X-Late", "1")
			io.WriteString(w, "body")
		}},
		{"a second status", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			w.WriteHeader(http.StatusOK)
		}},
		{"its own Content-Length", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "12")
			io.WriteString(w, "345")
		}},
		{"a Content-Length for a long body", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "40000")
			io.WriteString(w, strings.Repeat("0123456789", 4000))
		}},
		{"no Content-Type and no Date", func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			w.Header()["Date"] = nil
			io.WriteString(w, "<html>not sniffed</html>")
		}},
		{"many small writes", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			for i := range 2000 {
				if n, err := fmt.Fprintf(w, "%06d\n", i); n != 7 || err != nil {
					e.errorf("write %d: %d, %v", i, n, err)
					break
				}
			}
		}},
		{"a HTTP/1.1 connection that the handler closes", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			io.WriteString(w, "bye")
		}},
	}
	// One instance serves them all, as it would in a program.
	pick := func(w http.ResponseWriter, r *http.Request) {
		var i int
		fmt.Sscan(strings.TrimPrefix(r.URL.Path, "/"), &i)
		handlers[i].h(w, r)
	}
	plain, s := e.serve(http.HandlerFunc(pick)), e.serve(e.wrap(pick))
	for i, h := range handlers {
		want, got := e.compare(h.what, plain, s, e.get("GET", fmt.Sprint("/", i)))
		// The server reports misuse of its writer there, with the line of
		// the caller, which is another one below a wrapper.
		if strings.Count(got, "\n") != strings.Count(want, "\n") {
			e.errorf("%s: the server logged %q, and %q without the middleware", h.what, got, want)
		}
	}
}

func checkBodyless(e *env) {
	length := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "4")
		io.WriteString(w, "body")
	}
	automatic := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "body") }
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"1"`)
			w.WriteHeader(code)
		}
	}
	e.same("HEAD with Content-Length", length, e.get("HEAD", "/"))
	e.same("HEAD without Content-Length", automatic, e.get("HEAD", "/"))
	e.same("GET with status 204", status(http.StatusNoContent), e.get("GET", "/"))
	e.same("GET with status 304", status(http.StatusNotModified), e.get("GET", "/"))
	e.same("HEAD with status 304", status(http.StatusNotModified), e.get("HEAD", "/"))
}

func checkResponseTrailers(e *env) {
	e.same("trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum, X-None")
		io.WriteString(w, "body")
		http.NewResponseController(w).Flush()
		w.Header().Set("X-Sum", "declared")
		w.Header().Set(http.TrailerPrefix+"X-Grpc", "undeclared")
	}, e.get("GET", "/"))
	e.same("trailers of a response that is never flushed", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "body")
		w.Header().Set("X-Sum", "declared")
	}, e.get("GET", "/"))
}

func checkEarlyHints(e *env) {
	e.same("103 and then 404", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("X-After", "1")
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, "not here")
	}, e.get("GET", "/"))
	e.same("103 and then a body without WriteHeader", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "here")
	}, e.get("GET", "/"))

	// An interim response is of use only before the handler is done.
	seen := make(chan struct{}, 10)
	s := e.serve(e.wrap(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		if !wait(seen) {
			e.errorf("a 103 does not reach the client while the handler works")
		}
	}))
	trace := &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		seen <- struct{}{}
		return nil
	}}
	r := e.request(s, "GET", "/", nil)
	res, err := s.Transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err != nil {
		e.errorf("103 and then nothing: %v", err)
		return
	}
	res.Body.Close()
}

func checkSwitching(e *env) {
	for _, hijack := range []bool{false, true} {
		s := e.serve(e.wrap(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "echo")
			w.WriteHeader(http.StatusSwitchingProtocols)
			if !hijack {
				return
			}
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				e.errorf("Hijack after 101: %v", err)
				return
			}
			defer c.Close()
			io.WriteString(c, "echo speaks")
		}))
		c, br := e.raw(s, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			e.errorf("the answer to an upgrade: %v", err)
			continue
		}
		if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != "echo" {
			e.errorf("the answer to an upgrade has status %d and Upgrade %q", res.StatusCode, res.Header.Get("Upgrade"))
		}
		want := ""
		if hijack {
			want = "echo speaks"
		} else {
			c.(*memnet.Conn).CloseWrite()
		}
		if rest, err := io.ReadAll(br); string(rest) != want || err != nil {
			e.errorf("after the 101 the connection carried %q, %v; want %q", rest, err, want)
		}
	}
}

func checkLarge(e *env) {
	size := e.largeSize()
	s := e.serve(e.wrap(func(w http.ResponseWriter, r *http.Request) {
		sum := crc32.NewIEEE()
		n, err := io.Copy(sum, r.Body)
		w.Header().Set("X-Up", fmt.Sprint(n, " ", err, " ", sum.Sum32()))
		if n, err := io.Copy(w, &filler{left: size}); n != int64(size) || err != nil {
			e.errorf("writing the response: %d bytes, %v", n, err)
		}
	}))
	want := fillerSum(size)
	res, err := s.Transport.RoundTrip(e.request(s, "POST", "/", &filler{left: size}))
	if err != nil {
		e.errorf("%v", err)
		return
	}
	defer res.Body.Close()
	sum := crc32.NewIEEE()
	n, err := io.Copy(sum, res.Body)
	if n != int64(size) || err != nil || sum.Sum32() != want {
		e.errorf("down: %d bytes, %v; the bytes are right: %t", n, err, sum.Sum32() == want)
	}
	if got, want := res.Header.Get("X-Up"), fmt.Sprint(size, " <nil> ", want); got != want {
		e.errorf("up: size, error and sum are %q, want %q", got, want)
	}
}

// largeSize is far beyond every buffer and flow-control window on the way.
const largeSize = 8<<20 + 11

func (e *env) largeSize() int {
	if e.large != 0 {
		return e.large
	}
	return largeSize
}

// filler is a body whose bytes do not repeat at the size of any buffer.
type filler struct {
	left int
	at   int
}

var fillerText = func() []byte {
	b := make([]byte, 64<<10+7)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}()

// fillerSum is the checksum of a filler of that size.
func fillerSum(size int) uint32 {
	sum := crc32.NewIEEE()
	io.Copy(sum, &filler{left: size})
	return sum.Sum32()
}

func (f *filler) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), f.left)], fillerText[f.at%len(fillerText):])
	f.at += n
	f.left -= n
	return n, nil
}

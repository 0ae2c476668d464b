package mwtest

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"time"

	"example.com/plainware/internal/memnet"
)

var receiveRules = []rule{
	{"status", "every status is a response, with its header and body", all, checkStatus},
	{"interim responses", "1xx responses reach the caller's httptrace", all, checkInterim},
	{"received trailers", "trailers of the response arrive, declared or not", all, checkReceivedTrailers},
	{"streamed download", "the header and each flushed part arrive while the server goes on", all, checkDownload},
	{"early close", "closing the response's body early tells the server", all, checkEarlyClose},
	{"upgrade", "the body of a 101 can be written to", http1, checkUpgrade},
	{"large download", "8 MiB arrive unchanged", both, checkLargeDownload},
	{"idle connections", "http.Client.CloseIdleConnections reaches the base", http1, checkIdle},
	{"two transports", "two instances in one process do not affect each other, nor do concurrent calls", both, checkTwoTransports},
	{"goroutines", "no goroutine is left after calls of every kind", both, checkTransportGoroutines},
}

func checkStatus(e *env) {
	h := func(w http.ResponseWriter, r *http.Request) {
		var code int
		fmt.Sscanf(r.URL.Path, "/%d", &code)
		w.Header().Set("Location", "/elsewhere")
		w.Header().Set("Www-Authenticate", "Basic")
		w.Header()["X-Many"] = []string{"1", "2"}
		w.WriteHeader(code)
		if code != http.StatusNoContent && code != http.StatusNotModified {
			io.WriteString(w, "the body")
		}
	}
	for _, code := range []int{200, 201, 204, 206, 301, 302, 304, 307, 400, 401, 404, 407, 408, 413, 421, 425, 429, 500, 501, 502, 503, 504, 599, 799} {
		e.sameThrough(fmt.Sprint("status ", code), h, e.get("GET", fmt.Sprint("/", code)))
	}
	e.sameThrough("HEAD", h, e.get("HEAD", "/200"))
}

func checkInterim(e *env) {
	e.sameThrough("two 1xx responses", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		w.WriteHeader(http.StatusNotFound)
	}, e.get("GET", "/"))
}

func checkReceivedTrailers(e *env) {
	e.sameThrough("an undeclared trailer alone", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "body")
		http.NewResponseController(w).Flush()
		w.Header().Set(http.TrailerPrefix+"X-Grpc", "undeclared")
	}, e.get("GET", "/"))
	e.sameThrough("trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "body")
		http.NewResponseController(w).Flush()
		w.Header().Set("X-Sum", "declared")
		w.Header().Set(http.TrailerPrefix+"X-Grpc", "undeclared")
	}, e.get("GET", "/"))
}

func checkDownload(e *env) {
	seen := make(chan struct{})
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, event := range []string{"", "one\n", "two\n"} {
			io.WriteString(w, event)
			http.NewResponseController(w).Flush()
			if !wait(seen) {
				e.errorf("the caller does not see %q while the server waits", event)
				return
			}
		}
	}))
	res, err := e.through(s).RoundTrip(e.request(s, "GET", "/", nil))
	if err != nil {
		e.errorf("%v", err)
		return
	}
	defer res.Body.Close()
	tell := func() {
		select {
		case seen <- struct{}{}:
		case <-time.After(patience): // the handler has given up
		}
	}
	tell()
	for _, want := range []string{"one\n", "two\n"} {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
			e.errorf("the caller read %q, %v; want %q", got, err, want)
			return
		}
		tell()
	}
}

func checkEarlyClose(e *env) {
	left := make(chan struct{})
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(left)
		buf := make([]byte, 32<<10)
		for range endless / len(buf) {
			if _, err := w.Write(buf); err != nil {
				return
			}
		}
		e.errorf("the server could write all of a body that was closed early")
	}))
	smallWindow(s)
	res, err := e.through(s).RoundTrip(e.request(s, "GET", "/", nil))
	if err != nil {
		e.errorf("%v", err)
		return
	}
	io.ReadFull(res.Body, make([]byte, 10_000))
	start := time.Now()
	res.Body.Close()
	if !wait(left) {
		e.errorf("the server still writes after the body was closed")
	}
	if d := time.Since(start); d > time.Second {
		e.errorf("the server learns after %v that the body was closed", d)
	}
}

func checkUpgrade(e *env) {
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			e.errorf("%v", err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(c, io.LimitReader(rw, 4))
	}))
	r := e.request(s, "GET", "/", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "echo")
	res, err := e.through(s).RoundTrip(r)
	if err != nil {
		e.errorf("%v", err)
		return
	}
	defer res.Body.Close()
	rw, ok := res.Body.(io.ReadWriteCloser)
	if res.StatusCode != http.StatusSwitchingProtocols || !ok {
		e.errorf("status %d with a body of type %T", res.StatusCode, res.Body)
		return
	}
	io.WriteString(rw, "ping")
	if got, err := io.ReadAll(rw); string(got) != "ping" || err != nil {
		e.errorf("the echo is %q, %v", got, err)
	}
}

func checkLargeDownload(e *env) {
	size := e.largeSize()
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, &filler{left: size})
	}))
	res, err := e.through(s).RoundTrip(e.request(s, "GET", "/", nil))
	if err != nil {
		e.errorf("%v", err)
		return
	}
	defer res.Body.Close()
	sum := crc32.NewIEEE()
	n, err := io.Copy(sum, res.Body)
	if want := fillerSum(size); n != int64(size) || err != nil || sum.Sum32() != want {
		e.errorf("%d bytes, %v; the bytes are right: %t", n, err, sum.Sum32() == want)
	}
}

func checkIdle(e *env) {
	b := &base{send: ok}
	c := &http.Client{Transport: e.tr.New(e.t, b)}
	c.CloseIdleConnections()
	if b.idle == 0 {
		e.errorf("the base's CloseIdleConnections is not called")
	}
	// A base need not have the method.
	c = &http.Client{Transport: e.tr.New(e.t, struct{ http.RoundTripper }{b})}
	c.CloseIdleConnections()
}

func checkTwoTransports(e *env) {
	var clients []*http.Client
	var servers []*memnet.Server
	for _, name := range []string{"a", "b"} {
		s := e.serve(say(name))
		servers = append(servers, s)
		clients = append(clients, &http.Client{Transport: e.through(s)})
	}
	done := make(chan struct{})
	const n = 16
	for i := range 2 * n {
		go func() {
			defer func() { done <- struct{}{} }()
			s, name := servers[i%2], string("ab"[i%2])
			r := e.request(s, "GET", "/", nil)
			r.Header.Set("X-Echo", fmt.Sprint(i))
			a, err := e.fetch(clients[i%2].Transport, r)
			if want := fmt.Sprint(name, " ", i); err != nil || a.Body != want {
				e.errorf("the answer to instance %s is %q, %v; want %q", name, a.Body, err, want)
			}
		}()
	}
	for range 2 * n {
		<-done
	}
}

func checkTransportGoroutines(e *env) {
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/body":
			b, _ := io.ReadAll(r.Body)
			w.Write(b)
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/stream":
			for range endless / 4096 {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		case "/wait":
			wait(r.Context().Done())
		}
	}))
	tr := e.through(s)
	before := goroutines()
	for _, path := range []string{"/", "/body", "/abort", "/stream", "/wait"} {
		ctx, cancel := context.WithTimeout(e.t.Context(), time.Second)
		r := e.request(s, "POST", path, strings.NewReader("the body")).WithContext(ctx)
		if res, err := tr.RoundTrip(r); err == nil {
			res.Body.Read(make([]byte, 100))
			res.Body.Close()
		}
		cancel()
	}
	s.Transport.CloseIdleConnections()
	s.HTTP.Close()
	for _, g := range newGoroutines(before) {
		e.errorf("left behind:\n%s", g)
	}
}

package mwtest

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
)

var sendRules = []rule{
	{"sent request", "the server gets the request that the caller made", all, checkSent},
	{"untouched request", "the caller's request is not modified, during the call or after it, and can be used again", http1, checkSendUntouched},
	{"body closed", "the request's body is closed whatever happens", http1, checkBodyClosed},
	{"invalid request", "a request that cannot be sent gives an error, no panic, and its body is closed", http1, checkInvalid},
	{"error", "there is an error exactly when there is no response, and the base's error can be recognised", http1, checkError},
	{"cancellation", "the end of the context ends the call at once, with the context's error", both, checkCancellation},
	{"request context", "the base sees the values of the caller's context", http1, checkSendContext},
	{"streamed upload", "the server reads the first bytes of a body while the rest is not written yet", all, checkUpload},
	{"sent trailers", "trailers of the request arrive", all, checkSentTrailers},
	{"get body", "the base can ask for the body again, so that redirects and retries work", http1, checkGetBody},
	{"large upload", "8 MiB arrive unchanged", both, checkLargeUpload},
}

func checkSent(e *env) {
	e.sameThrough("what the server sees", func(w http.ResponseWriter, r *http.Request) {
		h := maps.Clone(r.Header)
		for _, name := range e.tr.RequestHeaders {
			h.Del(name)
		}
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s host=%s length=%d coding=%v header=%s body=%q %v",
			r.Method, r.RequestURI, r.Host, r.ContentLength, r.TransferEncoding, headerText(h, nil), body, err)
	}, func(s *memnet.Server) *http.Request {
		r := e.request(s, "PATCH", "/a%2Fb/c?q=1&q=%20", strings.NewReader("the body"))
		r.Host = "name.example"
		r.Header["X-Many"] = []string{"1", "", "2"}
		r.Header.Set("Cookie", "a=b")
		r.Header.Set("User-Agent", "mwtest")
		return r
	})
}

// sendState is the whole of a client's request in a form that can be
// compared.
func sendState(r *http.Request) string {
	return fmt.Sprintf("method=%s url=%p %v header=%p %s body=%p getbody=%t length=%d coding=%v close=%t host=%s form=%v trailer=%p %v context=%p",
		r.Method, r.URL, *r.URL, r.Header, headerText(r.Header, nil), r.Body, r.GetBody != nil, r.ContentLength,
		r.TransferEncoding, r.Close, r.Host, r.Form, r.Trailer, r.Trailer, r.Context())
}

func checkSendUntouched(e *env) {
	var r *http.Request
	var before string
	var seen []string
	b := &base{send: func(sent *http.Request) (*http.Response, error) {
		if during := sendState(r); during != before {
			e.errorf("while the base sends it the request is\n%s, it was\n%s", during, before)
		}
		seen = append(seen, sent.Header.Get("X-Turn"))
		time.Sleep(time.Millisecond) // the caller's reader gets its turn
		return ok(sent)
	}}
	tr := e.tr.New(e.t, b)
	r = e.request(&memnet.Server{URL: "http://name.example"}, "POST", "/path?q=1", strings.NewReader("the body"))
	for turn := range 3 {
		// Once the body of the response is closed the request is the
		// caller's again.
		r.Header.Set("X-Turn", fmt.Sprint(turn))
		r.Header["X-Many"] = []string{"1", "2"}
		r.Body, _ = r.GetBody()
		before = sendState(r)
		stop := make(chan struct{})
		var reader sync.WaitGroup
		if !e.noRaces { // the caller may read it at any time
			reader.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Microsecond):
						headerText(r.Header, nil)
					}
				}
			})
		}
		if err := e.roundTrip(tr, r); err != nil {
			e.errorf("%v", err)
		}
		close(stop)
		reader.Wait()
		if after := sendState(r); after != before {
			e.errorf("after the call the request is\n%s, it was\n%s", after, before)
		}
	}
	if got := strings.Join(seen, " "); got != "0 1 2" {
		e.errorf("the base saw X-Turn %q in three calls, want 0, 1 and 2", got)
	}
}

func checkBodyClosed(e *env) {
	failed := errors.New("base failed")
	for what, send := range map[string]func(*http.Request) (*http.Response, error){
		"a base that reads the body": ok,
		"a base that does not read the body": func(r *http.Request) (*http.Response, error) {
			res, err := ok(&http.Request{})
			res.Request = r
			return res, err
		},
		"a base that fails":                   func(*http.Request) (*http.Response, error) { return nil, failed },
		"a base that fails after half a body": func(r *http.Request) (*http.Response, error) { r.Body.Read(make([]byte, 4)); return nil, failed },
	} {
		body := &readCloser{Reader: strings.NewReader("the body")}
		r := e.request(&memnet.Server{URL: "http://name.example"}, "POST", "/", body)
		r.ContentLength = 8
		e.roundTrip(e.tr.New(e.t, &base{send: send}), r)
		synctest.Wait() // it may be closed a moment after the call
		if !body.closed.Load() {
			e.errorf("%s: the body is not closed", what)
		}
	}
}

func checkInvalid(e *env) {
	s := e.serve(http.NotFoundHandler())
	ended, cancel := context.WithCancel(e.t.Context())
	cancel()
	late, cancel := context.WithDeadline(e.t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, tc := range []struct {
		what  string
		spoil func(*http.Request) *http.Request
	}{
		{"a nil URL", func(r *http.Request) *http.Request { r.URL = nil; return r }},
		{"no host", func(r *http.Request) *http.Request { r.URL = &url.URL{Scheme: "http", Path: "/"}; return r }},
		{"an unknown scheme", func(r *http.Request) *http.Request { r.URL.Scheme = "gopher"; return r }},
		{"a nil Header", func(r *http.Request) *http.Request { r.Header = nil; return r }},
		{"an invalid header name", func(r *http.Request) *http.Request { r.Header["bad name"] = []string{"x"}; return r }},
		{"an invalid header value", func(r *http.Request) *http.Request { r.Header["X"] = []string{"a\nb"}; return r }},
		{"an invalid method", func(r *http.Request) *http.Request { r.Method = "NO WAY"; return r }},
		{"a cancelled context", func(r *http.Request) *http.Request { return r.WithContext(ended) }},
		{"a deadline gone by", func(r *http.Request) *http.Request { return r.WithContext(late) }},
		{"an unreachable server", func(r *http.Request) *http.Request { s.Listener.Close(); return r }},
	} {
		body := &readCloser{Reader: strings.NewReader("the body")}
		r := e.request(s, "POST", "/", body)
		r.ContentLength = 8
		e.tryInvalid(tc.what, tc.spoil(r), s.NewTransport()) // without an idle connection
		synctest.Wait()
		if !body.closed.Load() {
			e.errorf("%s: the body is not closed", tc.what)
		}
	}
}

func (e *env) tryInvalid(what string, r *http.Request, base http.RoundTripper) {
	defer func() {
		if v := recover(); v != nil {
			e.errorf("%s: panic: %v", what, v)
		}
	}()
	if err := e.roundTrip(e.tr.New(e.t, base), r); err == nil {
		e.errorf("%s: no error", what)
	}
}

func checkError(e *env) {
	failed := errors.New("base failed")
	tr := e.tr.New(e.t, &base{send: func(r *http.Request) (*http.Response, error) { return nil, failed }})
	r := e.request(&memnet.Server{URL: "http://name.example"}, "GET", "/", nil)
	if err := e.roundTrip(tr, r); !errors.Is(err, failed) {
		e.errorf("the base failed with its own error, the caller gets %v", err)
	}
}

func checkCancellation(e *env) {
	begun := make(chan struct{}, 1)
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			io.WriteString(w, "begun")
			http.NewResponseController(w).Flush()
		}
		begun <- struct{}{}
		wait(r.Context().Done())
	}))
	tr := e.through(s)

	ctx, cancel := context.WithCancel(e.t.Context())
	go func() {
		<-begun
		cancel()
	}()
	start := time.Now()
	err := e.roundTrip(tr, e.request(s, "GET", "/", nil).WithContext(ctx))
	if !errors.Is(err, context.Canceled) || time.Since(start) != 0 {
		e.errorf("a call cancelled at once returned %v after %v", err, time.Since(start))
	}
	cancel()

	ctx, cancel = context.WithTimeout(e.t.Context(), time.Second)
	start = time.Now()
	err = e.roundTrip(tr, e.request(s, "GET", "/", nil).WithContext(ctx))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Second {
		e.errorf("a call with a deadline of 1s returned %v after %v", err, time.Since(start))
	}
	cancel()
	<-begun

	ctx, cancel = context.WithCancel(e.t.Context())
	defer cancel()
	res, err := tr.RoundTrip(e.request(s, "GET", "/body", nil).WithContext(ctx))
	if err != nil {
		e.errorf("%v", err)
		return
	}
	defer res.Body.Close()
	<-begun
	start = time.Now()
	time.AfterFunc(time.Second, cancel)
	if _, err := io.ReadAll(res.Body); !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
		e.errorf("reading a body, cancelled after 1s, returned %v after %v", err, time.Since(start))
	}
}

func checkSendContext(e *env) {
	type key struct{}
	tr := e.tr.New(e.t, &base{send: func(r *http.Request) (*http.Response, error) {
		if r.Context().Value(key{}) != "value" {
			e.errorf("the base does not see a value of the caller's context")
		}
		return ok(r)
	}})
	r := e.request(&memnet.Server{URL: "http://name.example"}, "GET", "/", nil)
	if err := e.roundTrip(tr, r.WithContext(context.WithValue(r.Context(), key{}, "value"))); err != nil {
		e.errorf("%v", err)
	}
}

func checkUpload(e *env) {
	got := make(chan struct{})
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := make([]byte, 5)
		io.ReadFull(r.Body, first)
		close(got)
		rest, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %v", first, rest, err)
	}))
	pr, pw := io.Pipe()
	go func() {
		io.WriteString(pw, "first")
		if !wait(got) {
			e.errorf("the first bytes do not arrive before the last are written")
		}
		io.WriteString(pw, "last")
		pw.Close()
	}()
	r := e.request(s, "POST", "/", pr)
	a, err := e.fetch(e.through(s), r.WithContext(context.WithoutCancel(r.Context())))
	if want := "first last <nil>"; err != nil || a.Body != want {
		e.errorf("the server read %q, %v; want %q", a.Body, err, want)
	}
	pr.Close()
}

func checkSentTrailers(e *env) {
	e.sameThrough("request trailers", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v %v", body, err, r.Trailer)
	}, func(s *memnet.Server) *http.Request {
		// The value is set when the body has been read, as callers do who
		// compute it on the way.
		r := e.request(s, "POST", "/", nil)
		body := strings.NewReader("the body")
		r.Trailer = http.Header{"X-Sum": nil}
		trailer := r.Trailer
		r.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
			n, err := body.Read(p)
			if err == io.EOF {
				trailer.Set("X-Sum", "42")
			}
			return n, err
		}))
		r.ContentLength = -1
		return r
	})
}

func checkGetBody(e *env) {
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/next", http.StatusTemporaryRedirect)
			return
		}
		w.Write(body)
	}))
	look := readAhead{base: s.Transport, e: e}
	c := &http.Client{Transport: e.tr.New(e.t, look)}
	res, err := c.Do(e.request(s, "POST", "/", strings.NewReader("the body")))
	if err != nil {
		e.errorf("a redirect with a body: %v", err)
		return
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); string(body) != "the body" || err != nil {
		e.errorf("after a redirect the server read %q, %v", body, err)
	}
}

// readAhead is a base that makes use of GetBody.
type readAhead struct {
	base http.RoundTripper
	e    *env
}

func (b readAhead) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.GetBody == nil || r.ContentLength != 8 {
		b.e.errorf("the base gets a request with GetBody: %t, ContentLength %d", r.GetBody != nil, r.ContentLength)
	} else if again, err := r.GetBody(); err != nil {
		b.e.errorf("GetBody: %v", err)
	} else if body, err := io.ReadAll(again); string(body) != "the body" || err != nil {
		b.e.errorf("GetBody gives %q, %v", body, err)
	}
	return b.base.RoundTrip(r)
}

func checkLargeUpload(e *env) {
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sum := crc32.NewIEEE()
		n, err := io.Copy(sum, r.Body)
		fmt.Fprint(w, n, " ", err, " ", sum.Sum32())
	}))
	size := e.largeSize()
	a, err := e.fetch(e.through(s), e.request(s, "POST", "/", &filler{left: size}))
	if want := fmt.Sprint(size, " <nil> ", fillerSum(size)); err != nil || a.Body != want {
		e.errorf("size, error and sum are %q, %v; want %q", a.Body, err, want)
	}
}

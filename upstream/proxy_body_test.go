package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// probing is the body of a response during which a Transport asks whether the
// request body goes on, as that of net/http does after the announced length.
type probing struct {
	body  io.Reader // of the request
	reads int
	got   error // what the request body said
}

func (p *probing) Read(b []byte) (int, error) {
	p.reads++
	switch p.reads {
	case 1:
		return copy(b, "first "), nil
	case 2:
		// The header and the first bytes are with the client, and a server of
		// HTTP/1 has closed the request body.
		_, p.got = p.body.Read(make([]byte, 1))
		return copy(b, "second"), nil
	}
	return 0, io.EOF
}

func (p *probing) Close() error { return nil }

// unended leaves the end of a body to a Read of its own, as wrappers of bodies
// may.
type unended struct{ io.ReadCloser }

func (u unended) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// upstream 64: a request body that was read to its announced length is at its
// end, also when the response has begun meanwhile: an error there would make the
// Transport break the response off.
func TestRequestBodyEnd(t *testing.T) {
	for name, wrap := range map[string]func(io.ReadCloser) io.ReadCloser{
		"with the last bytes":  func(b io.ReadCloser) io.ReadCloser { return b },
		"after the last bytes": func(b io.ReadCloser) io.ReadCloser { return unended{b} },
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				answer := &probing{got: errors.New("not asked")}
				proxy := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
					if _, err := io.ReadFull(r.Body, make([]byte, r.ContentLength)); err != nil {
						t.Error(err)
					}
					answer.body = r.Body
					res := response(200, "")
					res.Body, res.ContentLength = answer, -1
					return res, nil
				})})
				s := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					r.Body = wrap(r.Body)
					proxy.ServeHTTP(w, r)
				})})
				res, err := s.Client.Post(s.URL, "", strings.NewReader("the body"))
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if got, err := io.ReadAll(res.Body); string(got) != "first second" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
				if answer.got != io.EOF {
					t.Errorf("after its last byte the request body says %v", answer.got)
				}
			})
		})
	}
}

// upstream 64: a back end may end its response while the client's stream is
// open, as one of gRPC does that refuses a call. The client sees that end, with
// its trailers, without having to send or to end anything.
func TestResponseEndsBeforeRequest(t *testing.T) {
	for _, front := range memnet.Protos() {
		for _, back := range []memnet.Proto{memnet.HTTP2, memnet.H2C} {
			t.Run(front.String()+" to "+back.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := frontOf(t, front, back, upstream.ProxyConfig{}, func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("Trailer", "X-Status")
						r.Body.Read(make([]byte, 1))
						io.WriteString(w, "enough")
						http.NewResponseController(w).Flush()
						w.Header().Set("X-Status", "refused")
					})
					body, more := io.Pipe()
					defer more.Close()
					go more.Write([]byte("x"))
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					req, err := http.NewRequestWithContext(ctx, "POST", s.URL, body)
					if err != nil {
						t.Fatal(err)
					}
					res, err := s.Transport.RoundTrip(req)
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					if got, err := io.ReadAll(res.Body); string(got) != "enough" || err != nil {
						t.Errorf("%q, %v", got, err)
					}
					if got := res.Trailer.Get("X-Status"); got != "refused" {
						t.Errorf("trailer %q", got)
					}
				})
			})
		}
	}
}

// upstream 64, 84: a body that something outside of the proxy has put in the
// place of the client's is closed when the answer comes before its end, since no
// deadline of the connection reaches it. One that does not end even so is left.
func TestForeignBody(t *testing.T) {
	for name, test := range map[string]struct {
		stubborn bool // closing the body does not end its Read
		waits    bool // as net/http's Transport of HTTP/2 waits for its Read
		most     time.Duration
	}{
		"closed":           {false, false, time.Second},
		"closed, waiting":  {false, true, time.Second},
		"cannot be closed": {true, false, 6 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pr, pw := io.Pipe()
				defer pw.Close()
				var body io.ReadCloser = pr
				if test.stubborn {
					body = io.NopCloser(pr)
				}
				h := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
					ended := make(chan struct{})
					go func() {
						defer close(ended)
						r.Body.Read(make([]byte, 1))
					}()
					time.Sleep(time.Millisecond)
					res := response(413, "early")
					if test.waits {
						res.Body = &waitingBody{res.Body, ended}
					}
					return res, nil
				})})
				s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					r2 := r.WithContext(r.Context())
					r2.Body, r2.ContentLength = body, -1
					h.ServeHTTP(w, r2)
				})})
				c, err := s.Listener.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n1234")
				start := time.Now()
				c.SetReadDeadline(start.Add(time.Hour))
				got := make([]byte, len("HTTP/1.1 413"))
				io.ReadFull(c, got)
				if took := time.Since(start); string(got) != "HTTP/1.1 413" || took > test.most {
					t.Errorf("after %v: %q", took, got)
				}
			})
		})
	}
}

// waitingBody is not closed before something has ended.
type waitingBody struct {
	io.ReadCloser
	ended chan struct{}
}

func (b *waitingBody) Close() error {
	<-b.ended
	return b.ReadCloser.Close()
}

// upstream 86: a body that a layer outside has put in the place of the client's may
// panic. It does so where that layer, or the server, can recover from it, or breaks
// off the response that has begun, and not in a goroutine of the Transport's.
func TestRequestBodyPanics(t *testing.T) {
	backs := map[string]memnet.Proto{"http": memnet.HTTP1, "h2c": memnet.H2C}
	for scheme, back := range backs {
		for _, begun := range []bool{false, true} {
			inBubbles(t, memnet.Protos(), func(t *testing.T, front memnet.Proto) {
				cfg, _ := serveFor(t, back, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					http.NewResponseController(w).EnableFullDuplex()
					if begun {
						http.NewResponseController(w).Flush()
					}
					io.Copy(io.Discard, r.Body)
				})}, scheme+"://a")
				p := newPool(t, cfg)
				h := newProxy(t, upstream.ProxyConfig{Transport: p})
				var recovered any
				s := memnet.Serve(t, front, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer func() {
						recovered = recover()
						panic(http.ErrAbortHandler)
					}()
					r.Body = &panicBody{ReadCloser: r.Body}
					h.ServeHTTP(w, r)
				})})
				req, err := http.NewRequestWithContext(t.Context(), "PUT", s.URL, strings.NewReader("body"))
				if err != nil {
					t.Fatal(err)
				}
				if status, _, _, err := send(s.Transport, req); err == nil {
					t.Errorf("status %d", status)
				}
				synctest.Wait()
				want := any("body")
				if begun {
					want = http.ErrAbortHandler
				}
				if recovered != want {
					t.Errorf("%s, begun %v: recovered %v", scheme, begun, recovered)
				}
				if s := only(t, p); s.Active != 0 || s.Failed() != 0 {
					t.Errorf("%s, begun %v: %d active, %d failed", scheme, begun, s.Active, s.Failed())
				}
			})
		}
	}
}

// panicBody panics when the back end has had a second for its response.
type panicBody struct{ io.ReadCloser }

func (*panicBody) Read([]byte) (int, error) {
	time.Sleep(time.Second)
	panic("body")
}

package timeout_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// The frame types of HTTP/2 (RFC 9113 section 6) that the tests need.
const (
	frameData     = 0
	frameHeaders  = 1
	frameReset    = 3
	frameSettings = 4
)

type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

// closedWindow is an HTTP/2 client that sends one GET and will not take a byte of
// its body: the initial window of its streams is zero.
type closedWindow struct {
	conn  net.Conn
	start time.Time
}

func dialClosedWindow(t *testing.T, s *memnet.Server) *closedWindow {
	t.Helper()
	conn, err := s.Listener.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &closedWindow{conn, time.Now()}
	io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	c.write(t, frame{kind: frameSettings, payload: []byte{0, 4, 0, 0, 0, 0}})           // SETTINGS_INITIAL_WINDOW_SIZE 0
	header := append([]byte{0x82, 0x86, 0x84, 0x41, byte(len("x"))}, "x"...)            // GET, http, /, and the authority as a literal (RFC 7541)
	c.write(t, frame{kind: frameHeaders, flags: 0x1 | 0x4, stream: 1, payload: header}) // END_STREAM, END_HEADERS
	return c
}

func (c *closedWindow) write(t *testing.T, f frame) {
	t.Helper()
	b := make([]byte, 9, 9+len(f.payload))
	binary.BigEndian.PutUint32(b, uint32(len(f.payload))<<8)
	b[3], b[4] = f.kind, f.flags
	binary.BigEndian.PutUint32(b[5:], f.stream)
	if _, err := c.conn.Write(append(b, f.payload...)); err != nil {
		t.Fatal(err)
	}
}

// end reads until the server is done with the stream, and returns what it
// sent for it and when it ended.
func (c *closedWindow) end(t *testing.T) (sent []frame, after time.Duration) {
	t.Helper()
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(c.conn, head); err != nil {
			t.Fatalf("after %v and %v: %v", time.Since(c.start), sent, err)
		}
		f := frame{kind: head[3], flags: head[4], stream: binary.BigEndian.Uint32(head[5:]),
			payload: make([]byte, binary.BigEndian.Uint32(head)>>8)}
		if _, err := io.ReadFull(c.conn, f.payload); err != nil {
			t.Fatal(err)
		}
		if f.stream != 1 {
			continue
		}
		sent = append(sent, f)
		if f.kind == frameReset || f.kind <= frameHeaders && f.flags&0x1 != 0 {
			return sent, time.Since(c.start)
		}
	}
}

// A client of HTTP/2 whose window is closed holds nothing up for longer than
// WriteIdle: no write of the handler's, not the last buffer when the handler has
// returned, and not the refusal itself, for which there is a limit even without
// WriteIdle.
func TestClosedWindow(t *testing.T) {
	for name, c := range map[string]struct {
		limits  timeout.Limits
		handler http.HandlerFunc
		after   time.Duration
	}{
		"write": {timeout.Limits{WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			_, err := w.Write(make([]byte, 10<<10))
			if _, ok := errors.AsType[*timeout.Error](err); !ok {
				panic(err)
			}
		}, time.Second},
		"flush": {timeout.Limits{WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "x")
			if _, ok := errors.AsType[*timeout.Error](http.NewResponseController(w).Flush()); !ok {
				panic("the flush did not fail")
			}
		}, time.Second},
		"last buffer":          {timeout.Limits{WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") }, time.Second},
		"last, held back long": {timeout.Limits{WriteIdle: time.Second, Total: time.Minute}, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 2048)) }, time.Second},
		"write, then total": {timeout.Limits{Total: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			w.Write(make([]byte, 10<<10))
		}, time.Second},
		"refusal":                    {timeout.Limits{Total: time.Second, WriteIdle: 2 * time.Second}, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 3 * time.Second},
		"refusal, without WriteIdle": {timeout.Limits{Total: time.Second}, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 6 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, []memnet.Proto{memnet.H2C}, func(t *testing.T, p memnet.Proto) {
				done := make(chan struct{})
				h := hard(t, c.limits, c.handler)
				s, logged := serveLogged(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer close(done)
					h.ServeHTTP(w, r)
				}))
				sent, after := dialClosedWindow(t, s).end(t)
				for _, f := range sent {
					if f.kind == frameData && len(f.payload) > 0 {
						t.Errorf("the server sent %d bytes past the window", len(f.payload))
					}
				}
				if sent[len(sent)-1].kind != frameReset || after < c.after || after > c.after+50*time.Millisecond {
					t.Errorf("the stream ended with %v after %v", sent[len(sent)-1], after)
				}
				<-done
				if logged.String() != "" {
					t.Errorf("the log is\n%s", logged)
				}
			})
		})
	}
}

// The same for HTTP/1.1 and a client that does not read, on a connection that
// takes 16 bytes.
func TestClosedConnection(t *testing.T) {
	for name, c := range map[string]struct {
		limits  timeout.Limits
		handler http.HandlerFunc
		after   time.Duration
	}{
		"flush":       {timeout.Limits{WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) { http.NewResponseController(w).Flush() }, time.Second},
		"last buffer": {timeout.Limits{WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 2000)) }, time.Second},
		"early hints": {timeout.Limits{WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", string(make([]byte, 200)))
			w.WriteHeader(http.StatusEarlyHints)
		}, time.Second},
		"early hints, total": {timeout.Limits{Total: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", string(make([]byte, 200)))
			w.WriteHeader(http.StatusEarlyHints)
		}, time.Second},
		"refusal": {timeout.Limits{Total: time.Second, WriteIdle: 2 * time.Second}, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 3 * time.Second},
		"cut with a full buffer": {timeout.Limits{Total: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "x")
			go http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
				ended := make(chan time.Duration, 1)
				start := time.Now()
				s := memnet.Config{Buffer: 16}.Listen().Serve(t, p, &http.Server{
					Handler: hard(t, c.limits, c.handler),
					ConnState: func(_ net.Conn, state http.ConnState) {
						if state == http.StateClosed {
							ended <- time.Since(start)
						}
					},
				})
				dial(t, s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				if after := <-ended; after < c.after || after > c.after+50*time.Millisecond {
					t.Errorf("the connection was closed after %v", after)
				}
			})
		})
	}
}

package upstream_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"example.com/plainware/upstream"
)

// h2conn is a connection of a back end that writes HTTP/2 frames as it likes.
type h2conn struct {
	net.Conn
	*http2.Framer
	settings []http2.Setting // its own, in place of none
}

// block encodes a header block.
func block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

func (c *h2conn) headers(id uint32, end bool, fields ...string) {
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(fields...), EndHeaders: true, EndStream: end})
}

// good is the answer of a back end that means well.
func (c *h2conn) good(id uint32) {
	c.headers(id, false, ":status", "200", "content-length", "2")
	c.WriteData(id, true, []byte("ok"))
}

// connectionFields answers with fields of one connection, which HTTP/2 has not
// (RFC 9113 section 8.2.2).
func (c *h2conn) connectionFields(id uint32) {
	c.headers(id, false, ":status", "200", "transfer-encoding", "chunked", "connection", "close, x-a", "x-a", "1", "keep-alive", "timeout=5")
	c.WriteData(id, true, []byte("ok"))
}

// raw writes a frame of any type with any contents.
func (c *h2conn) raw(length int, typ, flags byte, id uint32, payload []byte) {
	b := binary.BigEndian.AppendUint32([]byte{byte(length >> 16), byte(length >> 8), byte(length), typ, flags}, id)
	c.Write(append(b, payload...))
}

// hostile is a back end whose first connection does what answer says with each
// request, and whose later ones mean well.
type hostile struct {
	addr     string
	conns    atomic.Int32
	requests atomic.Int32
}

func newHostile(t *testing.T, settings []http2.Setting, answer func(c *h2conn, id uint32)) *hostile {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{addr: l.Addr().String()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			first := h.conns.Add(1) == 1
			wg.Go(func() {
				defer c.Close()
				h2 := &h2conn{Conn: c, Framer: http2.NewFramer(c, c)}
				if !first {
					h.serve(h2, (*h2conn).good)
					return
				}
				h2.settings = settings
				h.serve(h2, answer)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return h
}

// serve answers when a request has come completely.
func (h *hostile) serve(c *h2conn, answer func(*h2conn, uint32)) {
	if _, err := io.ReadFull(c.Conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	c.WriteSettings(c.settings...)
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.WritePing(true, f.Data)
			}
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				h.requests.Add(1)
				answer(c, f.StreamID)
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				h.requests.Add(1)
				answer(c, f.StreamID)
			}
		}
	}
}

// What a client may see of a hostile back end.
const (
	whole   = "whole"   // 200 and the body as it was sent
	refused = "refused" // 502, 503 or 504
	cut     = "cut"     // an answer that the client sees is not whole
)

// Whatever frames a back end sends, the client gets a correct answer, a stated
// refusal, or an answer that visibly ends early; and the next request, on a
// new connection, is answered.
func TestHostileH2(t *testing.T) {
	const window = http2.SettingInitialWindowSize
	crossing := []string{"Connection", "Keep-Alive", "Transfer-Encoding"}
	if showsConnection(t) {
		crossing = append(crossing, "X-A")
	}
	for _, c := range []struct {
		name     string
		settings []http2.Setting
		answer   func(c *h2conn, id uint32)
		get      []string // what may come of a GET
		post     []string // and of a POST, which is sent again only if it was refused
	}{
		// upstream 78: what is refused may be sent again, whatever its method.
		{"REFUSED_STREAM", nil, func(c *h2conn, id uint32) { c.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
			[]string{refused}, []string{refused}}, // the only back end refuses again
		{"GOAWAY before the stream", nil, func(c *h2conn, id uint32) {
			c.WriteGoAway(id-1, http2.ErrCodeNo, nil)
		}, []string{whole}, []string{whole}},
		{"GOAWAY, then the end", nil, func(c *h2conn, id uint32) {
			c.WriteGoAway(id, http2.ErrCodeNo, nil)
			c.Close()
		}, []string{whole, refused}, []string{refused}},
		{"GOAWAY with an error", nil, func(c *h2conn, id uint32) {
			c.WriteGoAway(id, http2.ErrCodeEnhanceYourCalm, nil)
			c.Close()
		}, []string{whole, refused}, []string{refused}},
		{"RST_STREAM in place of an answer", nil, func(c *h2conn, id uint32) { c.WriteRSTStream(id, http2.ErrCodeInternal) },
			[]string{refused}, []string{refused}},
		// upstream 63: a body cut short never looks complete.
		{"RST_STREAM in the body", nil, func(c *h2conn, id uint32) {
			c.headers(id, false, ":status", "200", "content-length", "9")
			c.WriteData(id, false, []byte("part"))
			c.WriteRSTStream(id, http2.ErrCodeInternal)
		}, []string{cut, refused}, []string{cut, refused}},
		{"RST_STREAM with NO_ERROR in the body", nil, func(c *h2conn, id uint32) {
			c.headers(id, false, ":status", "200")
			c.WriteData(id, false, []byte("part"))
			c.WriteRSTStream(id, http2.ErrCodeNo)
		}, []string{cut, refused}, []string{cut, refused}},
		{"the connection ends in the body", nil, func(c *h2conn, id uint32) {
			c.headers(id, false, ":status", "200")
			c.WriteData(id, false, []byte("part"))
			c.Close()
		}, []string{cut}, []string{cut}},
		{"less than content-length", nil, func(c *h2conn, id uint32) {
			c.headers(id, false, ":status", "200", "content-length", "9")
			c.WriteData(id, true, []byte("part"))
		}, []string{cut, refused}, []string{cut, refused}},
		{"more than content-length", nil, func(c *h2conn, id uint32) {
			c.headers(id, false, ":status", "200", "content-length", "2")
			c.WriteData(id, true, []byte("more than that"))
		}, []string{cut, refused, whole}, []string{cut, refused, whole}},
		// upstream 66: framing fields that contradict each other do not get
		// to a client of HTTP/1.
		{"two content-lengths", nil, func(c *h2conn, id uint32) {
			c.headers(id, false, ":status", "200", "content-length", "2", "content-length", "20")
			c.WriteData(id, true, []byte("ok"))
		}, []string{whole, cut, refused}, []string{whole, cut, refused}},
		{"content-length that is no number", nil, func(c *h2conn, id uint32) {
			c.headers(id, false, ":status", "200", "content-length", "0x2")
			c.WriteData(id, true, []byte("ok"))
		}, []string{whole, cut, refused}, []string{whole, cut, refused}},
		{"transfer-encoding and connection", nil, (*h2conn).connectionFields, []string{whole, refused}, []string{whole, refused}},
		{"no status", nil, func(c *h2conn, id uint32) { c.headers(id, true, "x", "y") }, []string{refused}, []string{refused}},
		{"status that is none", nil, func(c *h2conn, id uint32) { c.headers(id, true, ":status", "9x") }, []string{refused}, []string{refused}},
		{"pseudo-field of a request", nil, func(c *h2conn, id uint32) { c.headers(id, true, ":status", "200", ":path", "/") },
			[]string{refused}, []string{refused}},
		{"uppercase name", nil, func(c *h2conn, id uint32) { c.headers(id, true, ":status", "200", "X-Upper", "1") },
			[]string{refused}, []string{refused}},
		{"line break in a value", nil, func(c *h2conn, id uint32) { c.headers(id, true, ":status", "200", "x-a", "1\r\nx-b: 2") },
			[]string{refused}, []string{refused}},
		// upstream 28: a 101 that nobody asked for; HTTP/2 has none.
		{"101", nil, func(c *h2conn, id uint32) { c.headers(id, false, ":status", "101", "upgrade", "websocket") },
			[]string{refused}, []string{refused}},
		// upstream 34: informational responses without end.
		{"103 for ever", nil, func(c *h2conn, id uint32) {
			for range 1000 {
				c.headers(id, false, ":status", "103", "link", "</a>")
			}
			c.good(id)
		}, []string{refused}, []string{refused}},
		{"interim with END_STREAM", nil, func(c *h2conn, id uint32) { c.headers(id, true, ":status", "103") }, []string{refused}, []string{refused}},
		// upstream 67: a frame size of 0.
		{"MAX_FRAME_SIZE of 0", []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 0}}, (*h2conn).good, []string{whole, refused}, []string{whole, refused}},
		{"window beyond 2^31", []http2.Setting{{ID: window, Val: 1 << 31}}, (*h2conn).good, []string{whole, refused}, []string{whole, refused}},
		{"WINDOW_UPDATE of 0", nil, func(c *h2conn, id uint32) {
			c.raw(4, byte(http2.FrameWindowUpdate), 0, id, make([]byte, 4))
			c.good(id)
		}, []string{whole, refused, cut}, []string{whole, refused, cut}},
		{"WINDOW_UPDATE overflow", nil, func(c *h2conn, id uint32) {
			c.WriteWindowUpdate(0, 1<<31-1)
			c.WriteWindowUpdate(0, 1<<31-1)
		}, []string{whole, refused}, []string{refused}},
		{"PUSH_PROMISE", nil, func(c *h2conn, id uint32) {
			c.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: block(":method", "GET", ":path", "/"), EndHeaders: true})
			c.good(id)
		}, []string{whole, refused}, []string{refused}},
		{"DATA before HEADERS", nil, func(c *h2conn, id uint32) { c.WriteData(id, true, []byte("x")) }, []string{refused}, []string{refused}},
		{"DATA on another stream", nil, func(c *h2conn, id uint32) { c.WriteData(id+100, true, []byte("x")) }, []string{whole, refused}, []string{refused}},
		{"DATA after the end", nil, func(c *h2conn, id uint32) {
			c.good(id)
			c.WriteData(id, true, []byte("more"))
		}, []string{whole}, []string{whole}},
		{"frame longer than allowed", nil, func(c *h2conn, id uint32) { c.raw(1<<24-1, 0, 0, id, make([]byte, 1<<20)) },
			[]string{whole, refused}, []string{refused}},
		{"padding longer than the frame", nil, func(c *h2conn, id uint32) { c.raw(1, byte(http2.FrameData), 8, id, []byte{200}) },
			[]string{whole, refused}, []string{refused}},
		{"CONTINUATION from nowhere", nil, func(c *h2conn, id uint32) { c.raw(0, byte(http2.FrameContinuation), 4, id, nil) },
			[]string{whole, refused}, []string{refused}},
		{"HPACK that is none", nil, func(c *h2conn, id uint32) {
			c.raw(4, byte(http2.FrameHeaders), 4, id, []byte{0xff, 0xff, 0xff, 0xff})
		}, []string{whole, refused}, []string{refused}},
		{"unknown frames", nil, func(c *h2conn, id uint32) {
			c.raw(3, 0xbe, 0xff, id, []byte("abc"))
			c.good(id)
		}, []string{whole}, []string{whole}},
		{"HTTP/1.1", nil, func(c *h2conn, id uint32) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") },
			[]string{whole, refused}, []string{refused}},
		// upstream 72: header blocks without end stay inside the limit.
		{"CONTINUATION flood", nil, func(c *h2conn, id uint32) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", "200")})
			for i := 0; i < 1<<14; i++ {
				if c.WriteContinuation(id, false, block("x-a", strings.Repeat("a", 4000))) != nil {
					return
				}
			}
		}, []string{whole, refused}, []string{refused}},
		{"empty DATA flood", nil, func(c *h2conn, id uint32) {
			c.headers(id, false, ":status", "200")
			for range 20_000 {
				if c.WriteData(id, false, nil) != nil {
					return
				}
			}
			c.WriteData(id, true, []byte("ok"))
		}, []string{whole, refused, cut}, []string{whole, refused, cut}},
		{"PING and SETTINGS flood", nil, func(c *h2conn, id uint32) {
			go io.Copy(io.Discard, c.Conn) // else both wait for each other
			for i := range 20_000 {
				if c.WritePing(false, [8]byte{byte(i)}) != nil || c.WriteSettings() != nil {
					return
				}
			}
			c.good(id)
			c.Close()
		}, []string{whole, refused, cut}, []string{whole, refused, cut}},
		{"silence", nil, func(*h2conn, uint32) {}, []string{refused}, []string{refused}},
	} {
		t.Run(c.name, func(t *testing.T) {
			patience := 20 * time.Second // a busy machine may take its time for an answer
			if c.name == "silence" {
				patience = time.Second
			}
			for method, want := range map[string][]string{"GET": c.get, "POST": c.post} {
				h := newHostile(t, c.settings, c.answer)
				pool := newPool(t, upstream.Config{
					Conns:   upstream.Conns{HeaderTimeout: patience},
					Retry:   upstream.Retry{Budget: -1},
					Outlier: upstream.Outlier{Off: true},
				}, "h2c://"+h.addr)
				front := serve(t, newProxy(t, pool), false)
				client := newClient(t, false)
				got, text := outcome(t, client, method, front.url)
				if !slices.Contains(want, got) {
					t.Errorf("%s: %s, want %v: %s", method, got, want, text)
				}
				if method == "POST" && got == refused && h.requests.Load() > 1 && c.name != "REFUSED_STREAM" {
					t.Errorf("the POST was sent %d times", h.requests.Load())
				}
				for _, field := range crossing {
					if strings.Contains(text, "\n"+field+":") {
						t.Errorf("%s: %s, a field of one connection, has crossed: %s", method, field, text)
					}
				}
				if h.conns.Load() > 1 || c.name == "silence" {
					continue // it means well already, or takes a second each time
				}
				// The connection may still be there. A new one is good.
				pool.CloseIdleConnections()
				for range 3 {
					if got, _ = outcome(t, client, "GET", front.url); h.conns.Load() > 1 {
						break
					}
					pool.CloseIdleConnections()
				}
				if got != whole {
					t.Errorf("%s: after it, %s", method, got)
				}
			}
		})
	}
}

// showsConnection reports whether net/http lets a Connection field of an
// HTTP/2 response through. Since the fix of go.dev/issue/81115 it drops it, and
// what else the field had named cannot be told from any other field.
func showsConnection(t *testing.T) bool {
	t.Helper()
	h := newHostile(t, nil, (*h2conn).connectionFields)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+h.addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, _, err := do(&http.Client{Transport: transport}, req)
	if err != nil {
		t.Fatal(err)
	}
	return res.Header.Get("Connection") != ""
}

// outcome sends a request and says what came of it.
func outcome(t *testing.T, c *http.Client, method, url string) (string, string) {
	t.Helper()
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader("body")
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	res, got, err := do(c, req)
	text := line(res) + " " + got
	if res != nil {
		var b strings.Builder
		res.Header.Write(&b)
		text += "\n" + b.String()
	}
	switch {
	case err != nil:
		return cut, text + err.Error()
	case res.StatusCode >= 502 && res.StatusCode <= 504:
		return refused, text
	case res.StatusCode == 200 && got == "ok":
		return whole, text
	}
	return "wrong", text
}

// upstream 71: streams that clients open and cancel at once do not pile up at
// the back end beyond the limit in flight.
func TestRapidReset(t *testing.T) {
	var most, now atomic.Int32
	back := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for n := now.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		<-r.Context().Done()
		now.Add(-1)
	}), false)
	const limit = 20
	pool := newPool(t, upstream.Config{Conns: upstream.Conns{MaxInFlight: limit}}, "h2c://"+back.addr)
	front := serve(t, newProxy(t, pool), false)
	c, err := net.Dial("tcp", front.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	f.WriteSettings()
	go io.Copy(io.Discard, c)
	head := block(":method", "GET", ":scheme", "http", ":authority", "x", ":path", "/")
	for i := range 2000 {
		id := uint32(2*i + 1)
		if f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndHeaders: true, EndStream: true}) != nil ||
			f.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break // the server in front has had enough
		}
	}
	for deadline := time.Now().Add(10 * time.Second); now.Load() > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests go on", now.Load())
		}
	}
	// One that is cancelled may end at the back end a moment later than here.
	if m := most.Load(); m > 2*limit {
		t.Errorf("%d requests at a time, the limit is %d", m, limit)
	}
}

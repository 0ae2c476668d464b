package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A chatter is somebody at the chat.
type chatter interface {
	say(t *testing.T, line string)
	hear(t *testing.T) string
	ended(t *testing.T) int // waits for the code of the Close frame
}

// chatters enter over each of the protocols.
var chatters = map[string]func(t *testing.T, g *instance) chatter{
	"HTTP/1.1": enterHTTP1,
	"HTTP/2":   enterHTTP2,
}

type chatterHTTP1 struct {
	*websocket.Conn
	ctx context.Context
}

func enterHTTP1(t *testing.T, g *instance) chatter {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	conn, res, err := websocket.Dial(ctx, g.url+chatRoute, &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {g.url}}, // as the page does
	})
	if err != nil {
		t.Fatal(err)
	}
	if id := res.Header.Get("X-Request-Id"); len(id) != 36 {
		t.Errorf("X-Request-Id %q", id)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return chatterHTTP1{conn, ctx}
}

func (c chatterHTTP1) say(t *testing.T, line string) {
	t.Helper()
	if err := c.Write(c.ctx, websocket.MessageText, []byte(line)); err != nil {
		t.Fatal(err)
	}
}

func (c chatterHTTP1) hear(t *testing.T) string {
	t.Helper()
	_, line, err := c.Read(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

func (c chatterHTTP1) ended(t *testing.T) int {
	t.Helper()
	_, line, err := c.Read(c.ctx)
	closed, ok := errors.AsType[websocket.CloseError](err)
	if !ok {
		t.Fatalf("read %q, %v", line, err)
	}
	return int(closed.Code)
}

// chatterHTTP2 speaks extended CONNECT (RFC 8441), which net/http's transport does
// not, and short frames. It reads from the one stream that its connection has.
type chatterHTTP2 struct {
	io.Reader
	framer *http2.Framer
}

const streamID = 1

func enterHTTP2(t *testing.T, g *instance) chatter {
	t.Helper()
	conn := dial(t, g)
	io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.WriteSettings()

	// Nothing is sent before the server has said that it knows how.
	if s, ok := readFrame(t, framer).(*http2.SettingsFrame); !ok || s.IsAck() {
		t.Fatalf("got %v, want SETTINGS", s)
	} else if v, ok := s.Value(http2.SettingEnableConnectProtocol); !ok || v != 1 {
		t.Fatalf("no extended CONNECT in %v", s)
	}
	framer.WriteSettingsAck()
	var head bytes.Buffer
	fields := hpack.NewEncoder(&head)
	host := strings.TrimPrefix(g.url, "http://")
	for _, f := range [][2]string{
		{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "http"}, {":path", chatRoute},
		{":authority", host}, {"sec-websocket-version", "13"}, {"origin", g.url},
	} {
		fields.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: head.Bytes(), EndHeaders: true})
	for {
		if h, ok := readFrame(t, framer).(*http2.MetaHeadersFrame); ok {
			if status := h.PseudoValue("status"); status != "200" {
				t.Fatalf("status %s", status)
			}
			break
		}
	}
	data, w := io.Pipe()
	go func() {
		for {
			f, err := framer.ReadFrame()
			if d, ok := f.(*http2.DataFrame); ok {
				w.Write(d.Data()) // fails only when the test is over
			}
			if err != nil || f.Header().StreamID == streamID && f.Header().Flags.Has(http2.FlagDataEndStream) {
				w.Close()
				return
			}
		}
	}()
	t.Cleanup(func() { data.Close() })
	return chatterHTTP2{data, framer}
}

func readFrame(t *testing.T, framer *http2.Framer) http2.Frame {
	t.Helper()
	f, err := framer.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const frameText, frameClose = 1, 8

func (c chatterHTTP2) say(t *testing.T, line string) { c.send(t, frameText, line) }

func (c chatterHTTP2) send(t *testing.T, op byte, payload string) {
	t.Helper()
	mask := []byte{1, 2, 3, 4}
	frame := append([]byte{0x80 | op, 0x80 | byte(len(payload))}, mask...)
	for i := range len(payload) {
		frame = append(frame, payload[i]^mask[i%4])
	}
	if err := c.framer.WriteData(streamID, false, frame); err != nil {
		t.Fatal(err)
	}
}

func (c chatterHTTP2) frame(t *testing.T) (op byte, payload []byte) {
	t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatal(err)
	}
	payload = make([]byte, head[1])
	if _, err := io.ReadFull(c, payload); err != nil {
		t.Fatal(err)
	}
	return head[0] & 0xF, payload
}

func (c chatterHTTP2) hear(t *testing.T) string {
	t.Helper()
	op, payload := c.frame(t)
	if op != frameText {
		t.Fatalf("got opcode %d, %q", op, payload)
	}
	return string(payload)
}

func (c chatterHTTP2) ended(t *testing.T) int {
	t.Helper()
	op, payload := c.frame(t)
	if op != frameClose || len(payload) < 2 {
		t.Fatalf("got opcode %d, %q", op, payload)
	}
	c.send(t, frameClose, string(payload))
	return int(binary.BigEndian.Uint16(payload))
}

// People of both protocols hear each other, and who comes later hears what was
// said. When the gateway stops, their clients are told to come again.
func TestChat(t *testing.T) {
	for name, enter := range chatters {
		t.Run(name, func(t *testing.T) {
			g := start(t)
			ann, bob := enter(t, g), enterHTTP1(t, g)
			for _, line := range []string{"hello", "is anybody here?"} {
				ann.say(t, line)
				if got := ann.hear(t); got != line {
					t.Errorf("she hears %q", got)
				}
				if got := bob.hear(t); got != line {
					t.Errorf("he hears %q", got)
				}
			}
			bob.say(t, "yes")
			if got := ann.hear(t); got != "yes" {
				t.Errorf("she hears %q", got)
			}
			if got := bob.hear(t); got != "yes" {
				t.Errorf("he hears %q", got)
			}
			late := enter(t, g)
			for _, want := range []string{"hello", "is anybody here?", "yes"} {
				if got := late.hear(t); got != want {
					t.Errorf("who is late hears %q, want %q", got, want)
				}
			}

			began, stopped := time.Now(), make(chan struct{})
			go func() { defer close(stopped); g.stop() }()
			for _, who := range []chatter{ann, bob, late} {
				if code := who.ended(t); code != 1012 {
					t.Errorf("closed with %d, want 1012", code)
				}
			}
			<-stopped
			if took := time.Since(began); took >= defaultGrace {
				t.Errorf("stopping took %v", took)
			}
			left := g.log.line(t, "chat left", "")
			if left["end"] != "drained" {
				t.Errorf("log: %v", left)
			}
			want := 101.0
			if name == "HTTP/2" {
				want = 200.0
			}
			if !strings.Contains(g.log.String(), `"route":"/chat"`) || !inLog(t, g, "/chat", want) {
				t.Errorf("log:\n%s", g.log)
			}
		})
	}
}

// inLog reports whether there is a request to path with this status.
func inLog(t *testing.T, g *instance, path string, status float64) bool {
	t.Helper()
	for l := range strings.Lines(g.log.String()) {
		m := answer{body: l}.decode(t)
		if m["msg"] == "request" && m["path"] == path && m["status"] == status {
			return true
		}
	}
	return false
}

// The page is for who opens it with a browser. Pages of others get no WebSocket.
func TestChatPage(t *testing.T) {
	g := start(t)
	overBoth(t, func(t *testing.T, client *http.Client) {
		res := get(t, client, g.url+chatRoute)
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(res.body, "new WebSocket(") {
			t.Errorf("got %d %v %q", res.StatusCode, res.Header, res.body)
		}
		if res := do(t, client, request(t, "POST", g.url+chatRoute, nil)); res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST: %d %v", res.StatusCode, res.Header)
		}
	})
	_, res, err := websocket.Dial(t.Context(), g.url+chatRoute, &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {"http://evil.example"}},
	})
	if err == nil || res == nil || res.StatusCode != 403 {
		t.Errorf("another origin: %v %v", res, err)
	}
}

// What would hurt others goes no further.
func TestChatRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind websocket.MessageType
		said []byte
		want websocket.StatusCode
	}{
		{"binary", websocket.MessageBinary, []byte("x"), websocket.StatusUnsupportedData},
		{"too long", websocket.MessageText, bytes.Repeat([]byte("x"), maxLine+1), websocket.StatusMessageTooBig},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := start(t)
			other, c := enterHTTP1(t, g), enterHTTP1(t, g).(chatterHTTP1)
			if err := c.Write(c.ctx, tt.kind, tt.said); err != nil {
				t.Fatal(err)
			}
			if code := c.ended(t); code != int(tt.want) {
				t.Errorf("closed with %d, want %d", code, tt.want)
			}
			other.say(t, "still here")
			if got := other.hear(t); got != "still here" {
				t.Errorf("heard %q", got)
			}
		})
	}
	t.Run("no UTF-8", func(t *testing.T) {
		g := start(t)
		c := enterHTTP1(t, g)
		c.say(t, "caf\xe9")
		if got := c.hear(t); got != "caf\uFFFD" {
			t.Errorf("heard %q", got)
		}
	})
}

// Who takes nothing is left behind, and nobody waits for them. The room keeps
// no more lines than it says.
func TestRoom(t *testing.T) {
	r := newRoom()
	slow := make(chan string, maxBehind)
	if _, ok := r.enter(slow); !ok {
		t.Fatal("the room is closed")
	}
	for range maxBehind + 1 {
		r.say("line")
	}
	n := 0
	for range slow { // it was closed
		n++
	}
	if n != maxBehind {
		t.Errorf("%d lines, want %d", n, maxBehind)
	}
	late := make(chan string)
	last, _ := r.enter(late)
	if len(last) != maxKept {
		t.Errorf("%d lines are kept, want %d", len(last), maxKept)
	}
	r.leave(slow)
	r.leave(late)
	r.close()
	if _, ok := r.enter(late); ok {
		t.Error("somebody has entered a closed room")
	}
}

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

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A chatter is somebody with a WebSocket.
type chatter interface {
	say(t *testing.T, line string)
	hear(t *testing.T) string
	ended(t *testing.T) int // waits for the code of the Close frame
}

type chatterHTTP1 struct {
	*websocket.Conn
	ctx context.Context
}

// connectHTTP1 asks for a WebSocket, and returns the answer as well, which is an
// error's too.
func connectHTTP1(t *testing.T, g *instance, path, origin string) (chatterHTTP1, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	conn, res, err := websocket.Dial(ctx, g.url+path, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
	if err == nil {
		t.Cleanup(func() { conn.CloseNow() })
	}
	return chatterHTTP1{conn, ctx}, res, err
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

// connectHTTP2 asks for a WebSocket, and returns the answer as well.
func connectHTTP2(t *testing.T, g *instance, path, origin string) (chatterHTTP2, *http2.MetaHeadersFrame) {
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
		{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "http"}, {":path", path},
		{":authority", host}, {"sec-websocket-version", "13"}, {"origin", origin},
	} {
		fields.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: head.Bytes(), EndHeaders: true})
	var answer *http2.MetaHeadersFrame
	for answer == nil {
		answer, _ = readFrame(t, framer).(*http2.MetaHeadersFrame)
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
	return chatterHTTP2{data, framer}, answer
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

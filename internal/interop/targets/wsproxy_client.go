package targets

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The messages of a round trip.
var ping, pong = clientFrame(128), serverFrame(128)

// clientFrame is a binary frame under a mask of zeros, and serverFrame one
// without a mask (RFC 6455 section 5.2).
func clientFrame(n int) []byte {
	b := append(head(0x80, n), make([]byte, 4)...)
	return append(b, make([]byte, n)...)
}

func serverFrame(n int) []byte { return append(head(0, n), make([]byte, n)...) }

func head(mask byte, n int) []byte {
	if n < 1<<16 {
		return binary.BigEndian.AppendUint16([]byte{0x82, mask | 126}, uint16(n))
	}
	return binary.BigEndian.AppendUint64([]byte{0x82, mask | 127}, uint64(n))
}

// tunnelBack is a back end that costs little: to /echo it answers each ping
// with a pong, and from /sink it only takes.
type tunnelBack struct {
	l     net.Listener
	taken atomic.Int64
}

func newTunnelBack() (*tunnelBack, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &tunnelBack{l: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go t.serve(c)
		}
	}()
	return t, nil
}

func (t *tunnelBack) Close()       { t.l.Close() }
func (t *tunnelBack) addr() string { return t.l.Addr().String() }

func (t *tunnelBack) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 1<<10)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	sum := sha1.Sum([]byte(req.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	if req.URL.Path == "/sink" {
		buf := make([]byte, 256<<10)
		for {
			n, err := c.Read(buf)
			t.taken.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	buf := make([]byte, len(ping))
	for {
		if _, err := io.ReadFull(r, buf); err != nil {
			return
		}
		if _, err := c.Write(pong); err != nil {
			return
		}
	}
}

// received waits until n more bytes came to /sink.
func (t *tunnelBack) received(b *testing.B, n int) {
	b.Helper()
	for begun := time.Now(); t.taken.Load() < int64(n); {
		if time.Since(begun) > time.Minute {
			b.Fatalf("%d bytes of %d", t.taken.Load(), n)
		}
		time.Sleep(time.Millisecond)
	}
	t.taken.Add(-int64(n))
}

// tunnel is one at the client.
type tunnel interface {
	io.WriteCloser
	roundTrip() error
}

// dial makes what opens the tunnels to one address.
type dial func(addr string) func(path string) (tunnel, error)

// overTCP and overTLS open a connection of HTTP/1.1 for each tunnel.
func overTCP(addr string) func(path string) (tunnel, error) {
	return func(path string) (tunnel, error) { return upgraded(addr, path, false) }
}

func overTLS(addr string) func(path string) (tunnel, error) {
	return func(path string) (tunnel, error) { return upgraded(addr, path, true) }
}

type h1Tunnel struct {
	net.Conn
	buf []byte
}

func upgraded(addr, path string, secure bool) (tunnel, error) {
	var d net.Dialer
	c, err := d.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	if secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", path, addr)
	// Nothing follows the answer before the first ping.
	answer := make([]byte, 0, 1<<10)
	for err == nil && !bytes.HasSuffix(answer, []byte("\r\n\r\n")) {
		var n int
		n, err = c.Read(answer[len(answer):cap(answer)])
		answer = answer[:len(answer)+n]
	}
	if err == nil && !bytes.HasPrefix(answer, []byte("HTTP/1.1 101 ")) {
		err = fmt.Errorf("the answer is %.40q", answer)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &h1Tunnel{c, make([]byte, len(pong))}, nil
}

func (t *h1Tunnel) roundTrip() error {
	if _, err := t.Write(ping); err != nil {
		return err
	}
	_, err := io.ReadFull(t.Conn, t.buf)
	return err
}

// overH2 opens up to a hundred tunnels on a connection of HTTP/2 without TLS.
// They are used one after the other, so that no reader of its own is needed.
func overH2(addr string) func(path string) (tunnel, error) {
	var c *h2Conn
	opened := 0
	return func(path string) (tunnel, error) {
		if opened%100 == 0 {
			var err error
			if c, err = newH2Conn(addr); err != nil {
				return nil, err
			}
		}
		opened++
		return c.open(path)
	}
}

type h2Conn struct {
	conn   net.Conn
	framer *http2.Framer
	next   uint32
	users  int
}

type h2Tunnel struct {
	c  *h2Conn
	id uint32
}

func newH2Conn(addr string) (*h2Conn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &h2Conn{conn: conn, framer: http2.NewFramer(conn, conn), next: 1}
	_, err = io.WriteString(conn, http2.ClientPreface)
	return c, errors.Join(err, c.framer.WriteSettings())
}

func (c *h2Conn) open(path string) (tunnel, error) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "http"}, {":authority", "proxy.example"},
		{":path", path}, {"sec-websocket-version", "13"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}); err != nil {
			return nil, err
		}
	}
	t := &h2Tunnel{c, c.next}
	c.next += 2
	c.users++
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: t.id, BlockFragment: block.Bytes(), EndHeaders: true})
	if err != nil {
		return nil, err
	}
	return t, c.readUntil(t.id, func(f http2.Frame) bool {
		_, ok := f.(*http2.HeadersFrame)
		return ok
	})
}

// readUntil reads frames until done says of one of the stream that it was the
// last.
func (c *h2Conn) readUntil(id uint32, done func(http2.Frame) bool) error {
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = c.framer.WritePing(true, f.Data)
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			err = fmt.Errorf("received %v", f)
		}
		if err != nil {
			return err
		}
		if f.Header().StreamID == id && done(f) {
			return nil
		}
	}
}

func (t *h2Tunnel) Write(p []byte) (int, error) { return len(p), t.c.framer.WriteData(t.id, false, p) }

func (t *h2Tunnel) roundTrip() error {
	if _, err := t.Write(ping); err != nil {
		return err
	}
	left := len(pong)
	return t.c.readUntil(t.id, func(f http2.Frame) bool {
		if d, ok := f.(*http2.DataFrame); ok {
			left -= len(d.Data())
		}
		return left <= 0
	})
}

// Close closes the connection together with the last of its tunnels.
func (t *h2Tunnel) Close() error {
	if t.c.users--; t.c.users > 0 {
		return t.c.framer.WriteRSTStream(t.id, http2.ErrCodeCancel)
	}
	return t.c.conn.Close()
}

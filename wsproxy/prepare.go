package wsproxy

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// What Prepare sets. net/http's own are 1 MiB for both, so that one tunnel whose
// back end does not read takes all of a connection's.
const (
	streamBuffer     = 128 << 10
	connectionBuffer = 1 << 20
	maxStreamBuffer  = 256 << 10

	// What is written at most twice as long as this, with the first bytes gone
	// out and then none, is within WriteStall's default.
	writeByteTimeout = defaultWriteStall / 2
)

// probeTime is for the SETTINGS of a server in this process, and only for not waiting
// without end: a machine that has just started may have other things to do.
const probeTime = 30 * time.Second

// Prepare makes srv fit for WebSockets over HTTP/2, and must be called before srv
// serves. Where they are zero it sets Server.HTTP2.MaxReceiveBufferPerStream to
// 128 KiB and MaxReceiveBufferPerConnection to 1 MiB, so that one tunnel whose
// back end does not read cannot stop the other requests of its connection.
//
// Where it is zero it also sets Server.HTTP2.WriteByteTimeout to 30 s: net/http
// then closes a connection, with all the requests in it, to which not one byte could
// be written for so long. Without it, nothing here can end a tunnel whose client has
// stopped to read its whole connection: a stream of HTTP/2 cannot be reset past a
// write of the connection's that is stuck, and the handler cannot return before. Then
// no limit has an effect on that tunnel, it keeps its place, and Shutdown and
// Close return without its end; http.Server.Close ends it. A negative value
// is left, and means this.
//
// The error says if a value that was set is negative, or too large: more than
// 256 KiB for a stream, or more than half of a connection's. It says also if the
// program's servers do not offer extended CONNECT (RFC 8441), without which
// browsers open another connection with HTTP/1.1: the blank import of
// example.com/plainware/wsproxy/xconnect switches it on. A server without HTTP/2
// is left as it is.
func Prepare(srv *http.Server) error {
	if !servesHTTP2(srv) {
		return nil
	}
	var cfg http.HTTP2Config
	if srv.HTTP2 != nil {
		cfg = *srv.HTTP2 // which may be shared with another server
	}
	cfg.MaxReceiveBufferPerStream = cmp.Or(cfg.MaxReceiveBufferPerStream, streamBuffer)
	cfg.MaxReceiveBufferPerConnection = cmp.Or(cfg.MaxReceiveBufferPerConnection, connectionBuffer)
	cfg.WriteByteTimeout = cmp.Or(cfg.WriteByteTimeout, writeByteTimeout)
	var bad problems
	stream, connection := cfg.MaxReceiveBufferPerStream, cfg.MaxReceiveBufferPerConnection
	if stream < 0 {
		bad.add("Server.HTTP2.MaxReceiveBufferPerStream", "must not be negative", stream)
	}
	if connection < 0 {
		bad.add("Server.HTTP2.MaxReceiveBufferPerConnection", "must not be negative", connection)
	} else if stream > maxStreamBuffer || stream > connection/2 {
		bad.add("Server.HTTP2.MaxReceiveBufferPerStream",
			fmt.Sprintf("must be at most %d, and half of MaxReceiveBufferPerConnection, %d", maxStreamBuffer, connection), stream)
	}
	if err := offersConnect(&cfg); err != nil {
		bad = append(bad, err)
	}
	if len(bad) > 0 {
		return bad.join()
	}
	srv.HTTP2 = &cfg
	return nil
}

// servesHTTP2 reports whether srv is meant to speak HTTP/2.
func servesHTTP2(srv *http.Server) bool {
	if p := srv.Protocols; p != nil {
		return p.HTTP2() || p.UnencryptedHTTP2()
	}
	// Before there was Protocols an empty map was the way to say no.
	_, ok := srv.TLSNextProto["h2"]
	return srv.TLSNextProto == nil || ok
}

// offersConnect starts a server on a pipe and looks at the SETTINGS it sends:
// the switch is one for the whole process and has no other sign.
func offersConnect(cfg *http.HTTP2Config) error {
	client, server := net.Pipe()
	defer client.Close()
	client.SetDeadline(time.Now().Add(probeTime))
	probe := &http.Server{
		Protocols: new(http.Protocols), HTTP2: cfg, Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0),
	}
	probe.Protocols.SetUnencryptedHTTP2(true)
	l := &pipeListener{conn: server, done: make(chan struct{})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		probe.Serve(l)
	}()
	defer func() {
		probe.Close()
		<-served
	}()
	on, err := connectSetting(client)
	if err != nil {
		return fmt.Errorf("wsproxy: HTTP/2: a server of this program sends no SETTINGS: %w", err)
	}
	if !on {
		return errors.New("wsproxy: HTTP/2: extended CONNECT is off (RFC 8441); " +
			"import _ \"example.com/plainware/wsproxy/xconnect\" in package main, and see that GODEBUG does not say http2xconnect=0")
	}
	return nil
}

// connectSetting reports whether the first frame of an HTTP/2 server has
// SETTINGS_ENABLE_CONNECT_PROTOCOL: RFC 9113 section 6.5, RFC 8441 section 3.
func connectSetting(c net.Conn) (bool, error) {
	const hello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, hello)
		sent <- err
	}()
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		c.Close()
		<-sent
		return false, err
	}
	payload := make([]byte, int(head[0])<<16|int(binary.BigEndian.Uint16(head[1:])))
	_, err := io.ReadFull(c, payload)
	go io.Copy(io.Discard, c) // or the server, which writes on, would not read
	<-sent
	if err != nil {
		return false, err
	}
	if head[3] != 0x4 {
		return false, fmt.Errorf("the first frame has type %d", head[3])
	}
	for ; len(payload) >= 6; payload = payload[6:] {
		if binary.BigEndian.Uint16(payload) == 0x8 {
			return binary.BigEndian.Uint32(payload[2:]) == 1, nil
		}
	}
	return false, nil
}

// pipeListener accepts one connection.
type pipeListener struct {
	conn net.Conn
	done chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

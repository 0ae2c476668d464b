package wsproxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "example.com/plainware/wsproxy/xconnect" // for the fronts over HTTP/2
)

// The opcodes of RFC 6455 section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

// frame is one WebSocket frame. Its payload is not masked.
type frame struct {
	fin     bool
	rsv     byte // RSV1 is 4, RSV2 is 2, RSV3 is 1
	op      byte
	masked  bool
	payload []byte
}

func (f frame) String() string {
	if f.op == opClose && len(f.payload) >= 2 {
		return fmt.Sprintf("close %d %q", binary.BigEndian.Uint16(f.payload), f.payload[2:])
	}
	return fmt.Sprintf("frame fin=%t rsv=%d op=%#x %d bytes %.40q", f.fin, f.rsv, f.op, len(f.payload), f.payload)
}

// wire returns the frame as it is sent, under a random mask if it is masked.
func (f frame) wire() []byte { return f.appendTo(make([]byte, 0, 14+len(f.payload))) }

func (f frame) appendTo(b []byte) []byte {
	first := f.rsv<<4 | f.op
	if f.fin {
		first |= 0x80
	}
	b = append(b, first)
	n, masked := len(f.payload), byte(0)
	if f.masked {
		masked = 0x80
	}
	switch {
	case n < 126:
		b = append(b, masked|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(n))
	}
	if !f.masked {
		return append(b, f.payload...)
	}
	var key [4]byte
	rand.Read(key[:])
	b = append(b, key[:]...)
	start := len(b)
	b = append(b, f.payload...)
	applyMask(b[start:], key)
	return b
}

// applyMask puts a mask on, or takes it off (RFC 6455 section 5.3).
func applyMask(p []byte, key [4]byte) {
	repeated := bytes.Repeat(key[:], min(len(p)/4+1, 1<<10))
	for piece := range slices.Chunk(p, len(repeated)) {
		subtle.XORBytes(piece, piece, repeated)
	}
}

// readFrame reads one frame and takes its mask off.
func readFrame(r io.Reader) (frame, error) {
	var head [14]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return frame{}, err
	}
	f := frame{fin: head[0]&0x80 != 0, rsv: head[0] >> 4 & 7, op: head[0] & 15, masked: head[1]&0x80 != 0}
	n, more := uint64(head[1]&0x7f), 0
	switch n {
	case 126:
		more = 2
	case 127:
		more = 8
	}
	key := 0
	if f.masked {
		key = 4
	}
	if _, err := io.ReadFull(r, head[2:2+more+key]); err != nil {
		return f, noEOF(err)
	}
	switch more {
	case 2:
		n = uint64(binary.BigEndian.Uint16(head[2:]))
	case 8:
		n = binary.BigEndian.Uint64(head[2:])
	}
	f.payload = make([]byte, n)
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return f, noEOF(err)
	}
	if f.masked {
		applyMask(f.payload, [4]byte(head[2+more:]))
	}
	return f, nil
}

// noEOF says of an end within a frame what it is.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// closePayload is the body of a Close frame.
func closePayload(code uint16, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, code), reason...)
}

// stream is one end of a tunnel, as a test holds it.
type stream interface {
	io.ReadWriter
	CloseWrite() error // half-close: FIN, END_STREAM or, with TLS, close_notify
	Abort() error      // RST, RST_STREAM
	Close() error
}

// end is a stream on which WebSocket frames are spoken.
type end struct {
	stream
	client bool // its frames are masked, and those of the peer are not
}

// send writes one frame with FIN set.
func (e *end) send(op byte, payload string) error {
	return e.sendFrame(frame{fin: true, op: op, payload: []byte(payload)})
}

func (e *end) sendFrame(f frame) error {
	f.masked = e.client
	_, err := e.Write(f.wire())
	return err
}

func (e *end) sendClose(code uint16, reason string) error {
	return e.sendFrame(frame{fin: true, op: opClose, payload: closePayload(code, reason)})
}

// recv reads one frame. That it is masked as the peer's must be is part of it.
func (e *end) recv() (frame, error) {
	f, err := readFrame(e)
	if err == nil && f.masked == e.client {
		err = fmt.Errorf("masked is %t: %v", f.masked, f)
	}
	return f, err
}

// front is how clients reach a server under test.
type front int

const (
	frontH1 front = iota
	frontH1TLS
	frontH2
	frontH2C
)

func fronts() []front { return []front{frontH1, frontH1TLS, frontH2, frontH2C} }

func (f front) String() string { return [...]string{"h1", "h1TLS", "h2", "h2c"}[f] }

func (f front) tls() bool { return f == frontH1TLS || f == frontH2 }
func (f front) h2() bool  { return f == frontH2 || f == frontH2C }

// protocols are those of a server that serves f alone.
func (f front) protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(!f.h2())
	p.SetHTTP2(f == frontH2)
	p.SetUnencryptedHTTP2(f == frontH2C)
	return p
}

// scheme is that of the requests a client sends.
func (f front) scheme() string {
	if f.tls() {
		return "https"
	}
	return "http"
}

// listener is a net.Listener and the way to it.
type listener interface {
	net.Listener
	Dial(context.Context) (net.Conn, error)
}

// tcpListener listens on the loopback interface, where splice and the wait for
// readiness are real.
type tcpListener struct{ net.Listener }

func listenTCP(t testing.TB) listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return tcpListener{l}
}

func (l tcpListener) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", l.Addr().String())
}

// certificate is one for every test: making it takes longer than using it.
var certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		// A synctest bubble starts in the year 2000.
		NotBefore:             time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:              []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots
})

// server is a running front.
type server struct {
	front front
	l     listener
	HTTP  *http.Server
	done  chan struct{} // closed when Serve has returned
}

// serveFront serves srv over l in the way of f until the test ends.
func serveFront(t testing.TB, f front, l listener, srv *http.Server) *server {
	t.Helper()
	s := &server{front: f, l: l, HTTP: srv, done: make(chan struct{})}
	srv.Protocols = f.protocols()
	if srv.ErrorLog == nil {
		srv.ErrorLog = log.New(io.Discard, "", 0)
	}
	go func() {
		defer close(s.done)
		if f.tls() {
			cert, _ := certificate()
			srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
			_ = srv.ServeTLS(l, "", "")
		} else {
			_ = srv.Serve(l)
		}
	}()
	t.Cleanup(s.Close)
	return s
}

// Close closes the listener and the connections that the server still has.
func (s *server) Close() {
	s.HTTP.Close()
	s.l.Close()
	<-s.done
}

// dial connects and does the TLS handshake, if there is one.
func (s *server) dial(t testing.TB) net.Conn {
	t.Helper()
	conn, err := s.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func (s *server) connect(ctx context.Context) (net.Conn, error) {
	conn, err := s.l.Dial(ctx)
	if err != nil || !s.front.tls() {
		return conn, err
	}
	proto := "http/1.1"
	if s.front.h2() {
		proto = "h2"
	}
	tc := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}})
	if err := tc.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return tc, nil
}

// request is what a client asks the server for.
type request struct {
	path   string      // "/" if empty
	header [][2]string // names in any case
	early  []byte      // sent together with the handshake
	window uint32      // HTTP/2: bytes received unread; zero means 65,535
}

func (r request) target() string {
	if r.path == "" {
		return "/"
	}
	return r.path
}

// testKey and testAccept are the example of RFC 6455 section 1.3.
const (
	testKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	testAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// handshake sends a handshake and waits for the answer. If that is 101, or 200
// over HTTP/2, the end is the tunnel's; it is closed when the test ends.
func (s *server) handshake(t testing.TB, req request) (*end, *http.Response) {
	t.Helper()
	e, res, err := s.attempt(t, req)
	if err != nil {
		t.Fatalf("handshake: %v", err)
	}
	return e, res
}

// attempt is handshake for a goroutine other than the test's own.
func (s *server) attempt(t testing.TB, req request) (*end, *http.Response, error) {
	conn, err := s.connect(t.Context())
	if err != nil {
		return nil, nil, err
	}
	if s.front.h2() {
		c, err := openH2(conn, h2Config{Window: req.window})
		t.Cleanup(c.Close)
		if err != nil {
			return nil, nil, err
		}
		return s.attemptH2(c, req)
	}
	t.Cleanup(func() { conn.Close() })
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", req.target(), s.l.Addr())
	fmt.Fprintf(&b, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n", testKey)
	for _, f := range req.header {
		fmt.Fprintf(&b, "%s: %s\r\n", f[0], f[1])
	}
	b.WriteString("\r\n")
	b.Write(req.early)
	if _, err := conn.Write(b.Bytes()); err != nil {
		return nil, nil, err
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, &http.Request{Method: "GET"})
	if err == nil && res.StatusCode == http.StatusSwitchingProtocols && res.Header.Get("Sec-Websocket-Accept") != testAccept {
		err = fmt.Errorf("accept value %q", res.Header.Get("Sec-Websocket-Accept"))
	}
	return &end{stream: connStream{conn, r}, client: true}, res, err
}

// handshakeH2 is handshake on a connection that there is already.
func (s *server) handshakeH2(t testing.TB, c *h2Client, req request) (*end, *http.Response) {
	t.Helper()
	e, res, err := s.attemptH2(c, req)
	if err != nil {
		t.Fatalf("handshake: %v", err)
	}
	return e, res
}

func (s *server) attemptH2(c *h2Client, req request) (*end, *http.Response, error) {
	fields := connectFields(s.front.scheme(), s.l.Addr().String(), req.target())
	for _, f := range req.header {
		fields = append(fields, [2]string{strings.ToLower(f[0]), f[1]})
	}
	st, err := c.Request(fields...)
	if err == nil && len(req.early) > 0 {
		_, err = st.Write(req.early)
	}
	if err != nil {
		return nil, nil, err
	}
	status, header, err := st.Response()
	return &end{stream: st, client: true}, &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(st)}, err
}

// open is handshake for tests that need the tunnel.
func (s *server) open(t testing.TB, req request) *end {
	t.Helper()
	e, res := s.handshake(t, req)
	if res.StatusCode != s.success() {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		t.Fatalf("handshake: status %d, %v\n%s", res.StatusCode, res.Header, body)
	}
	return e
}

// success is the status that opens a tunnel.
func (s *server) success() int {
	if s.front.h2() {
		return http.StatusOK
	}
	return http.StatusSwitchingProtocols
}

// connStream is a stream on a connection of HTTP/1.1, with what the reader of
// the handshake has taken in.
type connStream struct {
	net.Conn
	r *bufio.Reader
}

func (c connStream) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c connStream) CloseWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// Abort resets the connection below TLS, if there is TLS.
func (c connStream) Abort() error {
	conn := c.Conn
	if tc, ok := conn.(*tls.Conn); ok {
		conn = tc.NetConn()
	}
	switch conn := conn.(type) {
	case *net.TCPConn:
		return errors.Join(conn.SetLinger(0), conn.Close())
	case interface{ Abort() error }:
		return conn.Abort()
	}
	return fmt.Errorf("%T cannot be reset", conn)
}

// backEnd is a WebSocket server of HTTP/1.1, written out so that a test
// decides about every byte.
type backEnd struct {
	l       listener
	tls     bool
	serve   func(*backConn)
	running sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	ended bool
}

// backConn is a connection to a back end.
type backConn struct {
	*end
	request *http.Request // its body is not read
	conn    net.Conn
	r       *bufio.Reader
}

// startBack runs serve for every connection to l whose request was read. The
// connection is closed when serve returns, and when the test ends.
func startBack(t testing.TB, l listener, withTLS bool, serve func(*backConn)) *backEnd {
	t.Helper()
	b := &backEnd{l: l, tls: withTLS, serve: serve, conns: make(map[net.Conn]bool)}
	b.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns[conn] = true
			if b.ended {
				conn.Close()
			}
			b.mu.Unlock()
			b.running.Go(func() { b.handle(conn) })
		}
	})
	t.Cleanup(b.Close)
	return b
}

// Close ends the back end and waits for its goroutines.
func (b *backEnd) Close() {
	b.l.Close()
	b.mu.Lock()
	b.ended = true
	for c := range b.conns {
		c.Close()
	}
	b.mu.Unlock()
	b.running.Wait()
}

// Open is the number of connections that are open at this end.
func (b *backEnd) Open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns)
}

func (b *backEnd) handle(raw net.Conn) {
	conn := raw
	if b.tls {
		cert, _ := certificate()
		conn = tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}})
	}
	defer func() {
		conn.Close()
		b.mu.Lock()
		delete(b.conns, raw)
		b.mu.Unlock()
	}()
	r := bufio.NewReader(conn)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	b.serve(&backConn{end: &end{stream: connStream{conn, r}}, request: req, conn: conn, r: r})
}

// accept answers the handshake with 101, more header lines, and what follows
// the header.
func (c *backConn) accept(more string, after ...byte) error {
	sum := sha1.Sum([]byte(c.request.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err := c.conn.Write(append([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n"+more+"\r\n"), after...))
	return err
}

// url is the target for a proxy.
func (b *backEnd) url() string {
	scheme := "ws"
	if b.tls {
		scheme = "wss"
	}
	return scheme + "://" + b.l.Addr().String()
}

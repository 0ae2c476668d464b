package wsproxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// h1Dialer opens tunnels over HTTP/1.1: RFC 6455 section 4.1.
type h1Dialer struct {
	connect func(ctx context.Context, network, address string) (net.Conn, error)
	tls     *tls.Config
	times   Timeouts
	answer  int // Limits.Answer
}

func newH1Dialer(c *Config) *h1Dialer {
	d := &h1Dialer{connect: c.Dial, tls: c.TLS, times: c.Timeouts, answer: c.Limits.Answer}
	// A server that chose h2 would speak it.
	d.tls.NextProtos = []string{"http/1.1"}
	return d
}

func (d *h1Dialer) dial(ctx context.Context, out *outgoing) (*answer, error) {
	conn, err := d.open(ctx, out.target)
	if err != nil {
		return nil, failed(ctx, Unreachable, err)
	}
	done := false
	defer func() {
		if !done { // also if conn panics
			conn.Close()
		}
	}()
	a, err := d.handshake(ctx, conn, out)
	done = err == nil
	return a, err
}

// open connects, with TLS where the target wants it.
func (d *h1Dialer) open(ctx context.Context, e *endpoint) (net.Conn, error) {
	if d.times.Dial > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.times.Dial)
		defer cancel()
	}
	conn, err := d.connect(ctx, e.network, e.addr)
	if err != nil || !e.tls {
		return conn, err
	}
	cfg := d.tls
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = e.serverName
	}
	done := false
	defer func() {
		if !done { // also if a callback of Config.TLS panics
			conn.Close()
		}
	}()
	tc := tls.Client(conn, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	done = true
	return tc, nil
}

// failed makes an *Error of what went wrong on the way to a back end.
func failed(ctx context.Context, kind Kind, err error) *Error {
	if ctx.Err() == nil && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)) {
		kind = Slow
	}
	return &Error{Kind: kind, Err: err}
}

func (d *h1Dialer) handshake(ctx context.Context, conn net.Conn, out *outgoing) (*answer, error) {
	var until time.Time
	if d.times.Handshake > 0 {
		until = time.Now().Add(d.times.Handshake)
	}
	if err := conn.SetDeadline(until); err != nil {
		return nil, failed(ctx, Unreachable, fmt.Errorf("a connection without deadlines: %w", err))
	}
	// The client may go while the back end thinks.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(past) })
	key := newKey()
	if _, err := conn.Write(out.request(key)); err != nil {
		stop()
		return nil, failed(ctx, Unreachable, err)
	}
	limited := &io.LimitedReader{R: conn, N: int64(d.answer)}
	br := bufio.NewReader(limited)
	res, err := readAnswer(br)
	if err != nil {
		stop()
		return nil, failed(ctx, BadAnswer, err)
	}
	a := &answer{Response: res, proto: "HTTP/1.1"}
	if res.StatusCode != http.StatusSwitchingProtocols {
		// Who reads the body limits it; this would count its coding, too.
		limited.N = math.MaxInt64
		res.Body = &refusal{ReadCloser: res.Body, conn: conn, stop: stop}
		return a, nil
	}
	if err := verify(a, out, key); err != nil {
		stop()
		return nil, &Error{Kind: BadAnswer, Err: err}
	}
	if !stop() {
		return nil, failed(ctx, Unreachable, context.Cause(ctx))
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, failed(ctx, Unreachable, err)
	}
	a.stream = newConnStream(conn, br)
	return a, nil
}

// readAnswer reads the answer to a handshake. Informational responses before it
// are skipped; the limit of the reader bounds them.
func readAnswer(br *bufio.Reader) (*http.Response, error) {
	for {
		res, err := http.ReadResponse(br, &http.Request{Method: http.MethodGet})
		if err != nil {
			return nil, err
		}
		if res.StatusCode == http.StatusSwitchingProtocols || res.StatusCode >= 200 {
			return res, nil
		}
	}
}

// refusal is the body of an answer that opened no tunnel, with its connection.
type refusal struct {
	io.ReadCloser
	conn net.Conn
	stop func() bool
}

func (r *refusal) Close() error {
	r.stop()
	return r.conn.Close()
}

// request returns the handshake as it is sent. Names are spelled as in RFC 6455:
// there are servers that compare them with regard to case.
func (o *outgoing) request(key string) []byte {
	var b strings.Builder
	b.Grow(1 << 10)
	b.WriteString("GET " + o.uri + " HTTP/1.1\r\nHost: " + o.host +
		"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n")
	if len(o.subprotocols) > 0 {
		b.WriteString("Sec-WebSocket-Protocol: " + strings.Join(o.subprotocols, ", ") + "\r\n")
	}
	for _, line := range o.extensions {
		b.WriteString("Sec-WebSocket-Extensions: " + line + "\r\n")
	}
	// Write leaves out names that are none and line breaks in values, which a
	// hook may have put there.
	o.header.Write(&b)
	b.WriteString("\r\n")
	return []byte(b.String())
}

// verify checks that a 101 is the answer to our handshake: RFC 6455 section 4.1,
// the list at its end. A back end that does not know WebSockets must not pass for
// one, or its answer would be read as frames.
func verify(a *answer, out *outgoing, key string) error {
	h := a.Header
	accept := h["Sec-Websocket-Accept"]
	switch {
	case !a.ProtoAtLeast(1, 1):
		return errors.New("101 in HTTP/1.0")
	case len(accept) != 1 || accept[0] != acceptOf(key):
		return errors.New("wrong Sec-WebSocket-Accept")
	case len(h["Upgrade"]) != 1 || !strings.EqualFold(h["Upgrade"][0], "websocket"):
		return errors.New("field Upgrade does not say websocket")
	case !hasToken(h["Connection"], "upgrade"):
		return errors.New("field Connection does not say upgrade")
	case len(h["Content-Length"]) > 0 || len(a.TransferEncoding) > 0:
		return errors.New("101 with a body")
	}
	return a.negotiated(out)
}

// negotiated checks what the back end chose of what it was offered, which is the
// same in every version of HTTP, and notes it.
func (a *answer) negotiated(out *outgoing) error {
	if v := a.Header["Sec-Websocket-Protocol"]; len(v) > 0 {
		if len(v) > 1 || !slices.Contains(out.subprotocols, v[0]) {
			return fmt.Errorf("subprotocol %.100q was not offered", v)
		}
		a.subprotocol = v[0]
	}
	v := a.Header["Sec-Websocket-Extensions"]
	if len(v) == 0 {
		return nil
	}
	var err error
	if a.extensions, err = extensionNames(v); err != nil {
		return err
	}
	names, _ := extensionNames(out.extensions)
	offered := make(map[string]bool) // both lists are from outside, and can be long
	for _, name := range names {
		offered[name] = true
	}
	for _, name := range a.extensions {
		if !offered[name] {
			return fmt.Errorf("extension %.100q was not offered, or was chosen before", name)
		}
		delete(offered, name)
	}
	return nil
}

// refused passes the back end's answer on: it is an ordinary response. It gives
// the place back.
func (p *Proxy) refused(w http.ResponseWriter, r *http.Request, a *answer, key string) {
	if !p.enterRefusals(key) {
		p.free(key)
		a.Body.Close()
		p.refuse(w, r, &Error{Kind: TooMany, Err: errors.New("refusals of the back end that are not read")})
		return
	}
	// The place is free when the back end's connection is closed, and that may be
	// before a write returns that nobody reads.
	release := sync.OnceFunc(func() {
		defer p.freeRefusal(key)
		a.Body.Close()
	})
	defer release()
	if r.ProtoMajor != 1 && a.StatusCode/100 == 2 {
		// RFC 8441 section 5: here a 2xx says that the tunnel is open.
		release()
		p.refuse(w, r, &Error{Kind: BadAnswer, Err: errors.New("status " + strconv.Itoa(a.StatusCode))})
		return
	}
	h := w.Header()
	for name, values := range answered(a.Header) {
		if name == "Set-Cookie" {
			values = append(h[name], values...)
		}
		h[name] = values
	}
	if v := a.Header["Sec-Websocket-Version"]; len(v) > 0 {
		h["Sec-WebSocket-Version"] = v
	}
	if r.ProtoMajor == 1 && a.StatusCode == http.StatusUpgradeRequired {
		h["Upgrade"], h["Connection"] = []string{"websocket"}, []string{"Upgrade"}
	}
	whole := p.limitWrites(w, release)
	defer whole() // also if a wrapper panics
	w.WriteHeader(a.StatusCode)
	n, err := io.Copy(w, io.LimitReader(a.Body, p.cfg.Limits.Refusal))
	if err == nil && n == p.cfg.Limits.Refusal {
		switch _, err = io.ReadFull(a.Body, make([]byte, 1)); err {
		case nil:
			err = errors.New("too long")
		case io.EOF:
			err = nil
		}
	}
	if !whole() || err != nil {
		// It must not look whole.
		panic(http.ErrAbortHandler)
	}
}

// limitWrites makes writes to w fail after Timeouts.Handshake, and when the
// Proxy is closed, and calls cut then: over HTTP/2 a write may be stuck all the
// same, see [Prepare]. The function that it returns ends that, and reports
// whether they have not failed. A deadline is set only for failing, since what the
// server had set could not be put back.
func (p *Proxy) limitWrites(w http.ResponseWriter, cut func()) (end func() bool) {
	ctx, cancel := p.life, func() {}
	if d := p.cfg.Timeouts.Handshake; d > 0 {
		ctx, cancel = context.WithTimeout(ctx, d)
	}
	failed := make(chan struct{})
	var panicked any
	stop := context.AfterFunc(ctx, func() {
		defer close(failed)
		defer cut() // which can take as long as TLS tries to say so
		defer func() { panicked = recover() }()
		http.NewResponseController(w).SetWriteDeadline(past)
	})
	return sync.OnceValue(func() bool {
		defer cancel()
		if stop() {
			return true
		}
		<-failed // w is the server's again after this
		if panicked != nil {
			panic(panicked) // a wrapper's, in the goroutine that it expects
		}
		return false
	})
}

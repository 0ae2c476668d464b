package wsproxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gobwas "github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"

	"example.com/plainware/wsproxy"
)

// Each library as the client and as the back end, over the four kinds of
// connection that HTTP/1.1 has here, with permessage-deflate where both offer
// it: the proxy passes what is compressed as it is.
func TestLibraries(t *testing.T) {
	for backName, back := range backEnds() {
		for _, backTLS := range []bool{false, true} {
			target := serve(t, back, backTLS)
			for _, mode := range []wsproxy.Mode{wsproxy.Frames, wsproxy.Tunnel} {
				for _, frontTLS := range []bool{false, true} {
					front := startProxy(t, target, frontTLS, wsproxy.Config{Mode: mode, Detach: !backTLS})
					for clientName, open := range clients() {
						name := fmt.Sprintf("%s over %s to %s over %s, %v", clientName, front.scheme(), backName, target.scheme(), mode)
						t.Run(name, func(t *testing.T) {
							exercise(t, open, front.url(""), &tls.Config{RootCAs: front.roots})
						})
					}
				}
			}
		}
	}
}

// clients are the libraries as clients.
func clients() map[string]client {
	return map[string]client{"gorilla": openGorilla, "coder": openCoder, "gobwas": openGobwas, "gws": openGWS}
}

// backEnds are the libraries as echo servers.
func backEnds() map[string]http.Handler {
	return map[string]http.Handler{
		"gorilla": http.HandlerFunc(echoGorilla), "coder": http.HandlerFunc(echoCoder),
		"gobwas": http.HandlerFunc(echoGobwas), "gws": echoGWS(),
	}
}

// github.com/gorilla/websocket

type gorillaConn struct{ c *gorilla.Conn }

// answersCloses has a Close answered as it is by default, but without the second
// after which a busy machine is given up.
func answersCloses(c *gorilla.Conn) {
	c.SetCloseHandler(func(code int, _ string) error {
		_ = c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, ""), time.Now().Add(patience))
		return nil
	})
}

func openGorilla(ctx context.Context, url string, cfg *tls.Config, subprotocol string) (conn, string, error) {
	d := gorilla.Dialer{TLSClientConfig: cfg, Subprotocols: []string{subprotocol}, EnableCompression: true}
	c, res, err := d.DialContext(ctx, url, nil)
	if err != nil {
		if res != nil {
			err = errors.Join(err, errors.New(res.Status))
		}
		return nil, "", err
	}
	answersCloses(c)
	deadline, _ := ctx.Deadline()
	return gorillaConn{c}, c.Subprotocol(), errors.Join(c.SetReadDeadline(deadline), c.SetWriteDeadline(deadline))
}

func (g gorillaConn) send(text bool, p []byte) error {
	kind := gorilla.BinaryMessage
	if text {
		kind = gorilla.TextMessage
	}
	return g.c.WriteMessage(kind, p)
}

func (g gorillaConn) recv() (bool, []byte, error) {
	kind, p, err := g.c.ReadMessage()
	if e, ok := errors.AsType[*gorilla.CloseError](err); ok {
		err = closed{e.Code, e.Text}
	}
	return kind == gorilla.TextMessage, p, err
}

func (g gorillaConn) close(code int, reason string) (int, error) {
	if err := g.c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, reason), time.Now().Add(patience)); err != nil {
		return 0, err
	}
	_, _, err := g.recv()
	if e, ok := errors.AsType[closed](err); ok {
		return e.code, nil
	}
	return 0, err
}

func (g gorillaConn) end() { g.c.Close() }

func echoGorilla(w http.ResponseWriter, r *http.Request) {
	u := gorilla.Upgrader{Subprotocols: []string{"chat"}, EnableCompression: true}
	c, err := u.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	answersCloses(c)
	for {
		kind, p, err := c.ReadMessage() // answers a Close by itself
		if err != nil {
			return
		}
		if closesOn(r, p) {
			_ = c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(4001, "server says so"), time.Now().Add(patience))
			continue
		}
		if c.WriteMessage(kind, p) != nil {
			return
		}
	}
}

// github.com/coder/websocket

type coderConn struct {
	ctx context.Context
	c   *coder.Conn
}

func openCoder(ctx context.Context, url string, cfg *tls.Config, subprotocol string) (conn, string, error) {
	transport := &http.Transport{TLSClientConfig: cfg}
	c, _, err := coder.Dial(ctx, url, &coder.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{subprotocol},
		CompressionMode: coder.CompressionContextTakeover,
	})
	if err != nil {
		return nil, "", err
	}
	c.SetReadLimit(-1)
	return coderConn{ctx, c}, c.Subprotocol(), nil
}

func (c coderConn) send(text bool, p []byte) error {
	kind := coder.MessageBinary
	if text {
		kind = coder.MessageText
	}
	return c.c.Write(c.ctx, kind, p)
}

func (c coderConn) recv() (bool, []byte, error) {
	kind, p, err := c.c.Read(c.ctx)
	if e, ok := errors.AsType[coder.CloseError](err); ok {
		err = closed{int(e.Code), e.Reason}
	}
	return kind == coder.MessageText, p, err
}

func (c coderConn) close(code int, reason string) (int, error) {
	if err := c.c.Close(coder.StatusCode(code), reason); err != nil {
		return 0, err
	}
	return code, nil // an answer with another code is an error
}

func (c coderConn) end() { c.c.CloseNow() }

func echoCoder(w http.ResponseWriter, r *http.Request) {
	c, err := coder.Accept(w, r, &coder.AcceptOptions{
		Subprotocols: []string{"chat"}, CompressionMode: coder.CompressionContextTakeover,
	})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	for {
		kind, p, err := c.Read(context.Background())
		if err != nil {
			return
		}
		if closesOn(r, p) {
			_ = c.Close(4001, "server says so")
			return
		}
		if c.Write(context.Background(), kind, p) != nil {
			return
		}
	}
}

// github.com/gobwas/ws

type gobwasConn struct {
	net.Conn
	r io.Reader
}

func (g gobwasConn) Read(p []byte) (int, error) { return g.r.Read(p) }

func openGobwas(ctx context.Context, url string, cfg *tls.Config, subprotocol string) (conn, string, error) {
	d := gobwas.Dialer{TLSConfig: cfg, Protocols: []string{subprotocol}}
	c, early, hs, err := d.Dial(ctx, url)
	if err != nil {
		return nil, "", err
	}
	g := gobwasConn{c, c}
	if early != nil {
		g.r = early
	}
	deadline, _ := ctx.Deadline()
	return g, hs.Protocol, c.SetDeadline(deadline)
}

func (g gobwasConn) send(text bool, p []byte) error {
	op := gobwas.OpBinary
	if text {
		op = gobwas.OpText
	}
	return wsutil.WriteClientMessage(g, op, p)
}

func (g gobwasConn) recv() (bool, []byte, error) {
	p, op, err := wsutil.ReadServerData(g)
	if e, ok := errors.AsType[wsutil.ClosedError](err); ok {
		err = closed{int(e.Code), e.Reason}
	}
	return op == gobwas.OpText, p, err
}

func (g gobwasConn) close(code int, reason string) (int, error) {
	f := gobwas.MaskFrame(gobwas.NewCloseFrame(gobwas.NewCloseFrameBody(gobwas.StatusCode(code), reason)))
	if err := gobwas.WriteFrame(g, f); err != nil {
		return 0, err
	}
	answer, payload, err := readGobwas(g)
	if err != nil || answer.OpCode != gobwas.OpClose {
		return 0, errors.Join(err, errors.New("no Close"))
	}
	got, _ := gobwas.ParseCloseFrameData(payload)
	return int(got), nil
}

// readGobwas reads a control frame.
func readGobwas(r io.Reader) (gobwas.Header, []byte, error) {
	h, err := gobwas.ReadHeader(r)
	if err != nil {
		return h, nil, err
	}
	if h.Length > gobwas.MaxControlFramePayloadSize {
		return h, nil, errors.New("no control frame")
	}
	payload := make([]byte, h.Length)
	_, err = io.ReadFull(r, payload)
	return h, payload, err
}

func (g gobwasConn) end() { g.Close() }

func echoGobwas(w http.ResponseWriter, r *http.Request) {
	u := gobwas.HTTPUpgrader{Protocol: func(s string) bool { return s == "chat" }}
	c, rw, _, err := u.Upgrade(r, w)
	if err != nil {
		return
	}
	defer c.Close()
	stream := struct {
		*bufio.Reader
		io.Writer
	}{rw.Reader, c}
	for {
		p, op, err := wsutil.ReadClientData(stream) // answers a Close by itself
		if err != nil {
			return
		}
		if closesOn(r, p) {
			_ = gobwas.WriteFrame(c, gobwas.NewCloseFrame(gobwas.NewCloseFrameBody(4001, "server says so")))
			_, _, _ = readGobwas(stream)
			return
		}
		if wsutil.WriteServerMessage(c, op, p) != nil {
			return
		}
	}
}

// github.com/lxzan/gws

// gwsEvents hands what happens on a connection to whoever waits for it.
type gwsEvents struct {
	gws.BuiltinEventHandler
	got chan gwsEvent
}

type gwsEvent struct {
	text bool
	p    []byte
	err  error
}

func (h gwsEvents) OnMessage(_ *gws.Conn, m *gws.Message) {
	h.got <- gwsEvent{m.Opcode == gws.OpcodeText, append([]byte(nil), m.Bytes()...), nil}
	m.Close()
}

func (h gwsEvents) OnClose(_ *gws.Conn, err error) {
	if e, ok := errors.AsType[*gws.CloseError](err); ok {
		err = closed{int(e.Code), string(e.Reason)}
	}
	h.got <- gwsEvent{err: err}
}

// gwsDeflate names the window sizes because the library's own for a server end
// up in its answer to clients that have not offered client_max_window_bits.
var gwsDeflate = gws.PermessageDeflate{
	Enabled: true, ServerContextTakeover: true, ClientContextTakeover: true,
	ServerMaxWindowBits: 15, ClientMaxWindowBits: 15,
}

type gwsConn struct {
	c   *gws.Conn
	got chan gwsEvent
}

func openGWS(ctx context.Context, url string, cfg *tls.Config, subprotocol string) (conn, string, error) {
	got := make(chan gwsEvent, 10)
	c, _, err := gws.NewClient(gwsEvents{got: got}, &gws.ClientOption{
		Addr: url, TlsConfig: cfg, RequestHeader: http.Header{"Sec-Websocket-Protocol": {subprotocol}},
		PermessageDeflate: gwsDeflate, Logger: quietGWS{},
	})
	if err != nil {
		return nil, "", err
	}
	deadline, _ := ctx.Deadline()
	err = c.SetDeadline(deadline)
	go c.ReadLoop()
	return gwsConn{c, got}, c.SubProtocol(), err
}

func (g gwsConn) send(text bool, p []byte) error {
	op := gws.OpcodeBinary
	if text {
		op = gws.OpcodeText
	}
	return g.c.WriteMessage(op, p)
}

func (g gwsConn) recv() (bool, []byte, error) {
	e := <-g.got
	return e.text, e.p, e.err
}

// close sends the Close; the library ends the connection without waiting for
// the answer, and says so with the code it has sent.
func (g gwsConn) close(code int, reason string) (int, error) {
	return code, g.c.WriteClose(uint16(code), []byte(reason))
}

func (g gwsConn) end() { g.c.NetConn().Close() }

// echoGWS is a server; a connection's handler is made for its request.
func echoGWS() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u := gws.NewUpgrader(gwsEcho{r: r}, &gws.ServerOption{
			SubProtocols: []string{"chat"}, PermessageDeflate: gwsDeflate, Logger: quietGWS{},
		})
		c, err := u.Upgrade(w, r)
		if err == nil {
			c.ReadLoop()
		}
	})
}

type gwsEcho struct {
	gws.BuiltinEventHandler
	r *http.Request
}

func (h gwsEcho) OnPing(c *gws.Conn, p []byte) { _ = c.WritePong(p) }

func (h gwsEcho) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	if closesOn(h.r, m.Bytes()) {
		_ = c.WriteClose(4001, []byte("server says so"))
		return
	}
	_ = c.WriteMessage(m.Opcode, m.Bytes())
}

type quietGWS struct{}

func (quietGWS) Error(...any) {}

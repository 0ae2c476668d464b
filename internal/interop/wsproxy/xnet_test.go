package wsproxy_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c" //lint:ignore SA1019 this is about those who still use it
	"golang.org/x/net/http2/hpack"

	"example.com/plainware/wsproxy"
)

// A server of golang.org/x/net/http2 takes part in what xconnect and Prepare do
// for those of net/http: it offers extended CONNECT, has the buffers, and carries
// a WebSocket, whichever of Prepare and ConfigureServer comes first.
func TestXNetServer(t *testing.T) {
	configure := func(srv *http.Server) error {
		return http2.ConfigureServer(srv, nil) //lint:ignore SA1019 this is about those who still call it
	}
	for _, c := range []struct {
		name  string
		steps []func(*http.Server) error
	}{
		{"Prepare first", []func(*http.Server) error{wsproxy.Prepare, configure}},
		{"ConfigureServer first", []func(*http.Server) error{configure, wsproxy.Prepare}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := wsproxy.New(wsproxy.Config{Target: serve(t, http.HandlerFunc(echoGorilla), false).url("")})
			if err != nil {
				t.Fatal(err)
			}
			s := httptest.NewUnstartedServer(p)
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			for _, step := range c.steps {
				if err := step(s.Config); err != nil {
					t.Fatal(err)
				}
			}
			s.TLS = s.Config.TLSConfig
			s.StartTLS()
			t.Cleanup(func() {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
				s.CloseClientConnections()
				s.Close()
			})
			echoOverH2(t, s.Listener.Addr().String(), s.Client().Transport.(*http.Transport).TLSClientConfig)
		})
	}
}

// x/net's h2c in a server without HTTP/2 of its own, whether that is said or not:
// its WebSockets come over plain TCP, as they must.
func TestXNetH2C(t *testing.T) {
	p, err := wsproxy.New(wsproxy.Config{Target: serve(t, http.HandlerFunc(echoGorilla), false).url("")})
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []bool{false, true} {
		s := httptest.NewUnstartedServer(h2c.NewHandler(p, new(http2.Server))) //lint:ignore SA1019 the same
		if said {
			s.Config.Protocols = new(http.Protocols)
			s.Config.Protocols.SetHTTP1(true)
		}
		s.Start()
		if status := statusOverH2C(t, s.Listener.Addr().String()); status != "200" {
			t.Errorf("Protocols set %t: %s", said, status)
		}
		s.CloseClientConnections()
		s.Close()
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// frames begins HTTP/2 on a connection and gives it a limit in time.
func frames(t *testing.T, conn net.Conn) *http2.Framer {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	return http2.NewFramer(conn, conn)
}

// statusOverH2C opens a WebSocket with prior knowledge of HTTP/2 and returns the
// status.
func statusOverH2C(t *testing.T, addr string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f := frames(t, conn)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "http"}, {":authority", addr},
		{":path", "/echo"}, {"sec-websocket-version", "13"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.WriteSettings(), f.WriteSettingsAck(),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := frame.(*http2.HeadersFrame); ok {
			fields, err := hpack.NewDecoder(4096, nil).DecodeFull(h.HeaderBlockFragment())
			if err != nil {
				t.Fatal(err)
			}
			return fields[0].Value
		}
	}
}

// echoOverH2 checks the settings of a server and has a message echoed by it.
func echoOverH2(t *testing.T, addr string, cfg *tls.Config) {
	t.Helper()
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f := frames(t, conn)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "https"}, {":authority", addr},
		{":path", "/echo"}, {"sec-websocket-version", "13"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			t.Fatal(err)
		}
	}
	const want = "across"
	var received []byte
	settings := false
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if frame.IsAck() {
				break
			}
			settings = true
			if v, ok := frame.Value(http2.SettingEnableConnectProtocol); !ok || v != 1 {
				t.Errorf("SETTINGS_ENABLE_CONNECT_PROTOCOL is %d, sent %t", v, ok)
			}
			if v, ok := frame.Value(http2.SettingInitialWindowSize); !ok || v != 128<<10 {
				t.Errorf("SETTINGS_INITIAL_WINDOW_SIZE is %d, sent %t, want 128 KiB", v, ok)
			}
			if err := f.WriteSettingsAck(); err != nil {
				t.Fatal(err)
			}
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
				t.Fatal(err)
			}
		case *http2.HeadersFrame:
			fields, err := hpack.NewDecoder(4096, nil).DecodeFull(frame.HeaderBlockFragment())
			if err != nil || fields[0] != (hpack.HeaderField{Name: ":status", Value: "200"}) {
				t.Fatalf("the answer is %v, %v", fields, err)
			}
			var message bytes.Buffer
			if err := gobwas.WriteFrame(&message, gobwas.MaskFrame(gobwas.NewTextFrame([]byte(want)))); err != nil {
				t.Fatal(err)
			}
			if err := f.WriteData(1, false, message.Bytes()); err != nil {
				t.Fatal(err)
			}
		case *http2.DataFrame:
			received = append(received, frame.Data()...)
			if len(received) < 2+len(want) {
				break
			}
			if string(received[2:]) != want {
				t.Errorf("the echo is %q", received)
			}
			if !settings {
				t.Error("no SETTINGS came")
			}
			return
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			t.Fatal(frame)
		}
	}
}

// xnetSettings is a program that prints "on" or "off": whether a server of
// golang.org/x/net/http2 sends ENABLE_CONNECT_PROTOCOL = 1; and then whether
// Prepare says so, too.
const xnetSettings = `package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	FIRST
	"golang.org/x/net/http2"
	"example.com/plainware/wsproxy"
	LAST
)

func main() {
	client, server := net.Pipe()
	srv, h2 := &http.Server{Handler: http.NotFoundHandler()}, new(http2.Server)
	if err := http2.ConfigureServer(srv, h2); err != nil {
		log.Fatal(err)
	}
	go h2.ServeConn(server, &http2.ServeConnOpts{BaseConfig: srv})
	f := http2.NewFramer(client, client)
	go func() {
		io.WriteString(client, http2.ClientPreface)
		f.WriteSettings()
	}()
	frame, err := f.ReadFrame()
	if err != nil {
		log.Fatal(err)
	}
	state := "off"
	if v, ok := frame.(*http2.SettingsFrame).Value(http2.SettingEnableConnectProtocol); ok && v == 1 {
		state = "on"
	}
	fmt.Print(state, " ", wsproxy.Prepare(srv) == nil)
}
`

// Start order, in programs of their own: wherever the import of xconnect stands,
// it comes before golang.org/x/net/http2 reads the environment, and what Prepare
// finds with a server of net/http is so for both.
func TestXNetStartOrder(t *testing.T) {
	const blank = `_ "example.com/plainware/wsproxy/xconnect"`
	for _, c := range []struct{ name, first, last, godebug, want string }{
		{"imported first", blank, "", "", "on true"},
		{"imported last", "", blank, "", "on true"},
		{"not imported", "", "", "", "off false"},
		{"switched off by the operator", blank, "", "http2xconnect=0", "off false"},
		{"switched on by the operator", "", "", "http2xconnect=1", "on true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "program.exe")
			text := strings.NewReplacer("FIRST", c.first, "LAST", c.last).Replace(xnetSettings)
			if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, source).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			cmd := exec.CommandContext(t.Context(), program)
			cmd.Env = append(os.Environ(), "GODEBUG="+c.godebug) // the last one counts
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, &stderr)
			}
			if got := string(out); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

package wsproxy

import (
	"bufio"
	"net/url"
	"strings"
	"testing"
)

// The property: an answer that is verified has chosen from what was offered, and
// a limit on its header is kept.
func FuzzAnswer(f *testing.F) {
	good := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptOf(sampleKey) + "\r\n"
	f.Add(good + "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate; a=\"b\"\r\n\r\nrest")
	f.Add("HTTP/1.1 103 Early Hints\r\n\r\n" + good + "Connection: x, y\r\nX: y\r\n\r\n")
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		res, err := readAnswer(bufio.NewReader(strings.NewReader(s)))
		if err != nil {
			return
		}
		defer res.Body.Close()
		if res.StatusCode < 200 && res.StatusCode != 101 {
			t.Fatal("an informational answer was taken for the final one")
		}
		a := &answer{Response: res}
		out := &outgoing{subprotocols: []string{"chat"}, extensions: []string{"permessage-deflate"}}
		if verify(a, out, sampleKey) != nil {
			return
		}
		if a.subprotocol != "" && a.subprotocol != "chat" || len(a.extensions) > 1 || len(a.extensions) == 1 && a.extensions[0] != "permessage-deflate" {
			t.Fatalf("%q %q", a.subprotocol, a.extensions)
		}
		for name := range answered(res.Header) {
			switch name {
			case "Upgrade", "Connection", "Sec-Websocket-Accept", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions":
				t.Fatalf("%s reaches the client", name)
			}
		}
	})
}

// The property: an origin that is let in because it is the request's own names
// the host of the request and nothing else, in the eyes of net/url.
func FuzzOrigin(f *testing.F) {
	f.Add("https://app.example:443", "app.example")
	f.Add("http://[::1]", "[::1]:80")
	f.Add("http://app.example.:80/", "app.example.")
	f.Add("http://u@app.example?#", "app.example")
	f.Add("http://\u212a.example", "k.example")
	f.Add("http://[::1]:80", "::1:80")
	f.Add("http://a%25", "a%")
	f.Fuzz(func(t *testing.T, origin, host string) {
		s, ok := parseOrigin(origin)
		if !ok || !s.own("http", host) {
			return
		}
		u, err := url.Parse(origin)
		if err != nil || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
			t.Fatalf("%q", origin)
		}
		name := func(s string) string {
			return strings.TrimSuffix(strings.ToLower(strings.Trim(s, "[]")), ".")
		}
		if got := name(u.Hostname()); got == "" || !strings.Contains(strings.ToLower(host), got) {
			t.Fatalf("%q for %q", origin, host)
		}
		own, err := url.Parse("http://" + host)
		if err != nil || name(own.Hostname()) != name(u.Hostname()) || own.Path != "" || own.RawQuery != "" || own.User != nil {
			t.Fatalf("%q for %q: %v", origin, host, err)
		}
	})
}

package upstream_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/upstream"
)

// startNode starts the back end of testdata and a Proxy in front of it.
func startNode(t *testing.T, mode string) server {
	t.Helper()
	node := prog.Need(t, "node")
	addr := prog.Start(t, func(addr string) *exec.Cmd {
		return exec.Command(node, filepath.Join("testdata", "backend.mjs"), addr, mode)
	}, prog.Dial)
	pool := newPool(t, upstream.Config{Retry: upstream.Retry{Attempts: 3, Budget: -1}}, mode+"://"+addr)
	return serve(t, newProxy(t, pool), false)
}

func TestNode(t *testing.T) {
	for _, mode := range []string{"http", "h2c"} {
		t.Run(mode, func(t *testing.T) {
			front := startNode(t, mode)
			for name, c := range map[string]*http.Client{"HTTP/1.1": newClient(t, false), "h2c": newClient(t, true)} {
				t.Run(name, func(t *testing.T) {
					nodeEcho(t, c, front.url)
					nodeHints(t, c, front.url)
					nodeTrailer(t, c, front.url)
					nodeEvents(t, c, front.url)
					if err := checkCut(c, front.url); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

func nodeGet(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Te", "trailers")
	res, body, err := do(c, req)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%s: %s, %v", url, line(res), err)
	}
	return res, body
}

func nodeEcho(t *testing.T, c *http.Client, base string) {
	for _, n := range []int{0, 1, 1 << 20} {
		body := bytes.Repeat([]byte("n"), n)
		res, err := c.Post(base+"/echo", "application/octet-stream", io.MultiReader(bytes.NewReader(body)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !bytes.Equal(got, body) || len(res.Header["Set-Cookie"]) != 2 {
			t.Errorf("%d bytes: got %d, %v, cookies %q", n, len(got), err, res.Header["Set-Cookie"])
		}
	}
}

func nodeHints(t *testing.T, c *http.Client, base string) {
	var link string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			if code == http.StatusEarlyHints {
				link = h.Get("Link")
			}
			return nil
		},
	})
	req, err := http.NewRequestWithContext(ctx, "GET", base+"/hints", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, body, err := do(c, req); err != nil || body != "hinted" || !strings.Contains(link, "preload") {
		t.Errorf("hint %q, body %q, %v", link, body, err)
	}
}

func nodeTrailer(t *testing.T, c *http.Client, base string) {
	sum := sha256.Sum256([]byte("body"))
	if res, body := nodeGet(t, c, base+"/trailer"); body != "body" || res.Trailer.Get("X-Sum") != hex.EncodeToString(sum[:]) {
		t.Errorf("%q, trailers %v", body, res.Trailer)
	}
}

// The first event arrives while the second does not exist yet.
func nodeEvents(t *testing.T, c *http.Client, base string) {
	res, err := c.Get(base + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r := bufio.NewReader(res.Body)
	if l, err := r.ReadString('\n'); l != "data: one\n" {
		t.Fatalf("got %q, %v", l, err)
	}
	nodeGet(t, c, base+"/seen")
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "\ndata: two\n\n" {
		t.Errorf("got %q, %v", rest, err)
	}
}

// Node closes a connection 20 ms after its last response. Requests that meet
// that moment are sent again where they may be.
func TestNodeKeepAlive(t *testing.T) {
	front, c := startNode(t, "http"), newClient(t, false)
	for n := range 60 {
		time.Sleep(time.Duration(15+n%10) * time.Millisecond)
		req, err := http.NewRequest("PUT", front.url+"/echo", strings.NewReader("again"))
		if err != nil {
			t.Fatal(err)
		}
		if res, body, err := do(c, req); err != nil || res.StatusCode != 200 || body != "again" {
			t.Fatalf("%s, %q, %v", line(res), body, err)
		}
	}
}

// Streams that the back end refuses, or that a GOAWAY leaves out, are sent
// again whatever their method.
func TestNodeRefuses(t *testing.T) {
	front, c := startNode(t, "h2c"), newClient(t, false)
	for _, path := range []string{"/refused", "/goaway"} {
		for range 20 {
			res, err := c.Post(front.url+path, "text/plain", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(body) != "accepted" {
				t.Errorf("%s: %s, %q, %v", path, line(res), body, err)
			}
		}
	}
}

// An upgrade makes a tunnel in which both ends speak when they like.
func TestNodeUpgrade(t *testing.T) {
	front := startNode(t, "http")
	c, err := net.Dial("tcp", front.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("%s, %v", line(res), err)
	}
	for _, n := range []int{1, 100_000} {
		sent := bytes.Repeat([]byte("t"), n)
		go c.Write(sent)
		got := make([]byte, n)
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	c.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
		t.Errorf("at the end got %q, %v", rest, err)
	}
}

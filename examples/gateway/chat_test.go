package main

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// chatters enter over each of the protocols.
var chatters = map[string]func(t *testing.T, g *instance) chatter{
	"HTTP/1.1": enterHTTP1,
	"HTTP/2":   enterHTTP2,
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

func enterHTTP2(t *testing.T, g *instance) chatter {
	t.Helper()
	c, head := connectHTTP2(t, g, chatRoute, g.url)
	if status := head.PseudoValue("status"); status != "200" {
		t.Fatalf("status %s", status)
	}
	return c
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
			// Nobody waits for a handler whose connection was taken over.
			eventually(t, func() bool { return inLog(t, g, chatRoute, want) }, g.log.String)
		})
	}
}

// inLog reports whether there is a request to path, the pattern of a route, with
// this status.
func inLog(t *testing.T, g *instance, path string, status float64) bool {
	t.Helper()
	for l := range strings.Lines(g.log.String()) {
		m := answer{body: l}.decode(t)
		if m["msg"] == "request" && m["path"] == path && m["route"] == path && m["status"] == status {
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

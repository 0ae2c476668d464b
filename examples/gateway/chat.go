package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"example.com/plainware/timeout"
	"example.com/plainware/wsproxy"
)

// chatRoute is where the chat is: the page, and the WebSocket of the page.
const chatRoute = "/chat"

// chatLimits: somebody who only reads is not late.
func chatLimits() timeout.Limits {
	return timeout.Limits{Total: -1, FirstByte: -1, ReadIdle: -1, WriteIdle: -1}
}

// newChat passes WebSockets on to the chat at target, and serves the page to all
// other requests. The proxy has limits of its own for what has no end: it asks
// silent clients whether they are there, and cuts those that take nothing.
func newChat(target *url.URL, logger *slog.Logger) (*wsproxy.Proxy, error) {
	return wsproxy.New(wsproxy.Config{
		Target:   "ws://" + target.Host,
		Fallback: http.HandlerFunc(showChat),
		Limits: wsproxy.Limits{
			PerKey:  50, // for one client
			Message: maxLine,
		},
		// The page connects again when it is closed with 1012. With thousands
		// of them, give them longer than this.
		Drain: wsproxy.Drain{Reason: "the gateway stops", Spread: 100 * time.Millisecond},
		OnClose: func(s wsproxy.Stats) {
			logger.Info("chat left", "client", s.Client, "proto", s.FrontProto, "end", s.End.String(),
				"said", s.FromClient.Messages, "heard", s.FromBackend.Messages, "duration", s.Duration)
		},
		Logger: logger,
	})
}

// maxLine is the longest line of the chat in bytes.
const maxLine = 4 << 10

// room is the demo's chat, a back end that knows nothing of the gateway. Who comes
// hears the last lines and from then on everything that is said.
type room struct {
	over  context.Context // ends with close
	close func()

	mu     sync.Mutex
	people map[chan<- string]struct{}
	last   []string
	here   sync.WaitGroup
}

func newRoom() *room {
	r := &room{people: make(map[chan<- string]struct{})}
	var end context.CancelFunc
	r.over, end = context.WithCancel(context.Background())
	r.close = func() {
		r.mu.Lock()
		end() // nobody enters from here on
		r.mu.Unlock()
		r.here.Wait()
	}
	return r
}

const (
	maxKept   = 20 // lines that somebody who comes hears
	maxBehind = 64 // lines that somebody may not have heard yet
)

// enter adds somebody who hears through the channel, and gives the lines so far.
func (r *room) enter(hears chan<- string) (last []string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over.Err() != nil {
		return nil, false
	}
	r.here.Add(1)
	r.people[hears] = struct{}{}
	return append(last, r.last...), true
}

func (r *room) leave(hears chan<- string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(hears)
	r.here.Done()
}

// drop closes the channel of somebody who hears nothing more. r.mu is held.
func (r *room) drop(hears chan<- string) {
	if _, ok := r.people[hears]; ok {
		delete(r.people, hears)
		close(hears)
	}
}

// say tells everybody. Who is too far behind is dropped: nobody waits for them.
func (r *room) say(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = append(r.last, line)
	if len(r.last) > maxKept {
		r.last = append(r.last[:0], r.last[1:]...)
	}
	for hears := range r.people {
		select {
		case hears <- line:
		default:
			r.drop(hears)
		}
	}
}

// ServeHTTP is one visit.
func (r *room) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	// Accept compares Origin with Host, which the gateway passes on unchanged.
	conn, err := websocket.Accept(w, req, nil)
	if err != nil {
		return // it has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxLine)

	hears := make(chan string, maxBehind)
	last, ok := r.enter(hears)
	if !ok {
		return
	}
	defer r.leave(hears)
	ctx, cancel := context.WithCancel(r.over)
	defer cancel()
	var telling sync.WaitGroup
	defer telling.Wait()
	defer cancel() // which ends telling
	telling.Go(func() {
		defer cancel() // which ends the loop below
		for _, line := range last {
			if conn.Write(ctx, websocket.MessageText, []byte(line)) != nil {
				return
			}
		}
		for {
			select {
			case line, ok := <-hears:
				if !ok {
					conn.Close(websocket.StatusPolicyViolation, "too slow")
					return
				}
				if conn.Write(ctx, websocket.MessageText, []byte(line)) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		kind, line, err := conn.Read(ctx)
		if err != nil {
			return // a Close frame has been answered by then
		}
		if kind != websocket.MessageText {
			conn.Close(websocket.StatusUnsupportedData, "only text")
			return
		}
		// Bytes that are no UTF-8 would make the browsers of all others close
		// their connections.
		if said := strings.TrimSpace(strings.ToValidUTF8(string(line), "\uFFFD")); said != "" {
			r.say(said)
		}
	}
}

func showChat(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "Only GET and HEAD.", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	io.WriteString(w, chatPage) // fails only when the client is gone
}

const chatPage = `<!doctype html>
<meta charset="utf-8"><title>chat</title>
<p id="state">connecting</p>
<form id="form"><input id="line" maxlength="1000" autofocus autocomplete="off"> <button>Say</button></form>
<ul id="lines"></ul>
<script>
const get = id => document.getElementById(id);
let ws;
function connect() {
  ws = new WebSocket(location.href.replace(/^http/, "ws"));
  ws.onopen = () => { get("state").textContent = "connected"; get("lines").textContent = ""; };
  ws.onmessage = e => { const li = document.createElement("li"); li.textContent = e.data; get("lines").prepend(li); };
  ws.onclose = e => {
    get("state").textContent = "closed with " + e.code + " " + e.reason + ", connecting again";
    setTimeout(connect, 1000 + 1000 * Math.random());
  };
}
get("form").onsubmit = e => { e.preventDefault(); ws.send(get("line").value); get("line").value = ""; };
connect();
</script>
`

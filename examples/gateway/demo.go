package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// demos are back ends to play with. They know nothing of the gateway: whatever
// reaches them came over HTTP.
type demos struct {
	backs []*demo // in the order of their names
	urls  []*url.URL
	posts *posts

	decisions *demo // nil until decide
	chat      *demo
	room      *room // of the chat
}

// startDemos starts one back end for each name, each on a free loopback port.
func startDemos(names ...string) (*demos, error) {
	p, err := openPosts()
	if err != nil {
		return nil, err
	}
	d := &demos{posts: p, room: newRoom()}
	d.chat = &demo{name: "chat", handler: d.room}
	for _, name := range names {
		d.backs = append(d.backs, &demo{name: name, handler: newDemo(name, p)})
	}
	for _, b := range d.servers() {
		if err := b.start(); err != nil {
			d.Close()
			return nil, err
		}
	}
	for _, b := range d.backs {
		d.urls = append(d.urls, b.url())
	}
	return d, nil
}

// decide starts the decision service, and returns its URL.
func (d *demos) decide(h http.Handler) (string, error) {
	d.decisions = &demo{name: "decisions", handler: h}
	if err := d.decisions.start(); err != nil {
		return "", err
	}
	return d.decisions.url().JoinPath("verify").String(), nil
}

func (d *demos) servers() []*demo {
	all := append(slices.Clone(d.backs), d.chat)
	if d.decisions != nil {
		all = append(all, d.decisions)
	}
	return all
}

// Close stops the back ends. The gateway has stopped by then, so that there is
// nothing to wait for.
func (d *demos) Close() {
	for _, b := range d.servers() {
		b.kill()
	}
	d.room.close()
	d.posts.db.Close()
}

// controls lets the reader kill a back end and start it again.
func (d *demos) controls(mux *http.ServeMux) {
	control := func(do func(*demo) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			name := r.URL.Query().Get("backend")
			i := slices.IndexFunc(d.backs, func(b *demo) bool { return b.name == name })
			if i < 0 {
				http.Error(w, fmt.Sprintf("backend: there is none of this name (got %q)", name), http.StatusNotFound)
				return
			}
			if err := do(d.backs[i]); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			writeJSON(w, map[string]any{"backend": name, "running": d.backs[i].running()})
		}
	}
	mux.Handle("POST /-/demo/kill", control(func(b *demo) error { b.kill(); return nil }))
	mux.Handle("POST /-/demo/start", control((*demo).start))
}

// demo is a server that can be killed and started again.
type demo struct {
	name    string
	handler http.Handler

	mu     sync.Mutex
	addr   string       // empty before the first start
	srv    *http.Server // nil: not running
	served chan struct{}
}

func (d *demo) url() *url.URL {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &url.URL{Scheme: "http", Host: d.addr}
}

func (d *demo) running() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.srv != nil
}

// start has the server listen, a second time where it did the first time.
func (d *demo) start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.srv != nil {
		return nil
	}
	addr := d.addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("demo back end %s: %w", d.name, err)
	}
	d.addr = ln.Addr().String()
	srv, served := &http.Server{Handler: d.handler, ReadHeaderTimeout: 5 * time.Second}, make(chan struct{})
	d.srv, d.served = srv, served
	go func() {
		defer close(served)
		srv.Serve(ln) // ends with kill
	}()
	return nil
}

// kill is the end of the server as of a process that is killed: connections
// break off, and new ones are refused once it returns.
func (d *demo) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.srv == nil {
		return
	}
	d.srv.Close()
	<-d.served
	d.srv = nil
}

// newDemo is the back end called name.
func newDemo(name string, p *posts) http.Handler {
	mux := http.NewServeMux()

	// Whether it is well, for the gateway's health checks.
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })

	// A list in pages.
	mux.Handle("GET /posts", p.pages.Handler(p))

	// Who answers, and which request this was.
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, map[string]any{
			"message":    "hello",
			"backend":    name,
			"request_id": r.Header.Get("X-Request-Id"),
		})
	})

	// Who the decision service says it is.
	mux.HandleFunc("GET /private", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, map[string]any{"backend": name, "user": r.Header.Get("Remote-User")})
	})

	// The request as the back end sees it.
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, map[string]any{
			"backend": name,
			"method":  r.Method,
			"url":     r.URL.String(),
			"host":    r.Host,
			"header":  r.Header,
		})
	})

	// An answer after ms milliseconds, or none when the client gives up.
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		ms, err := number(r, "ms", 1000)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
			writeJSON(w, map[string]any{"backend": name, "waited_ms": ms})
		case <-r.Context().Done():
		}
	})

	// Server-sent events, the first at once and then one a second.
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		rc := http.NewResponseController(w)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for n := 1; ; n++ {
			fmt.Fprintf(w, "id: %d\ndata: tick %d from %s\n\n", n, n, name)
			if rc.Flush() != nil {
				return
			}
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	})

	// mib mebibytes of a pattern.
	mux.HandleFunc("GET /download", func(w http.ResponseWriter, r *http.Request) {
		mib, err := number(r, "mib", 1)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(mib<<20, 10))
		io.Copy(w, io.LimitReader(new(pattern), mib<<20)) // fails only when the client is gone
	})

	// What arrived, without keeping it.
	mux.HandleFunc("POST /upload", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			http.Error(w, "the upload broke off", http.StatusBadRequest)
			return
		}
		writeJSON(w, map[string]any{"backend": name, "bytes": n, "sha256": hex.EncodeToString(sum.Sum(nil))})
	})
	return mux
}

// number is the query's value for name, from 0 to a million.
func number(r *http.Request, name string, missing int64) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return missing, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1_000_000 {
		return 0, fmt.Errorf("%s: want a number from 0 to 1000000 (got %q)", name, s)
	}
	return n, nil
}

// pattern is an endless reader of the bytes 0 to 255 over and over.
type pattern struct{ next byte }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = p.next
		p.next++
	}
	return len(b), nil
}

package reqid_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/traceid"

	"example.com/plainware/internal/interop/front"
	"example.com/plainware/reqid"
)

// The tests in this file show what the peers do at the versions in go.mod
// beside what reqid does. One that fails on a peer says that the peer has
// changed, and that what our documentation says of it has to change too.

// reqid 10: a middleware that copies the request takes r.Pattern from whoever
// stands outside, and the file of an upload from the server, which removes what
// it finds in its own request. reqid copies both back.
func TestCopiedRequest(t *testing.T) {
	for _, c := range []struct {
		name    string
		wrap    func(http.Handler) http.Handler
		pattern string
		files   int
	}{
		{"plain", func(h http.Handler) http.Handler { return h }, "POST /f/{id}", 0},
		{"reqid", func(h http.Handler) http.Handler { return handler(t, reqid.Config{}, h) }, "POST /f/{id}", 0},
		{"chi RequestID", middleware.RequestID, "", 1},
		{"chi traceid", traceid.Middleware, "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			pattern, files := front.CopiedRequest(t, c.wrap)
			if pattern != c.pattern || files != c.files {
				t.Errorf("pattern outside %q, %d files left; want %q, %d", pattern, files, c.pattern, c.files)
			}
		})
	}
}

// reqid 3: what net/http lets into a header value reaches the log through chi,
// and not through reqid.
func TestInboundBytes(t *testing.T) {
	var chi, ours string
	h := middleware.RequestID(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chi = middleware.GetReqID(r.Context())
	}))
	h2 := handler(t, reqid.Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ours = reqid.FromContext(r.Context())
	}))
	s := front.HTTP1(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		h2.ServeHTTP(w, r)
	}))
	for _, c := range []struct {
		value  string
		served bool // false: the server answers 400
	}{
		{"a\x1b[31m", false},
		{"a\x00b", false},
		{"a\x7fb", false},
		{"a\tb", true},
		{"\xff\xfe", true},
		{"\u202eabc", true},
		{`"k"=v x`, true},
		{"${jndi:ldap://x/a}", true},
		{strings.Repeat("x", 100_000), true},
	} {
		t.Run(fmt.Sprintf("%.20q", c.value), func(t *testing.T) {
			chi, ours = "", ""
			conn, err := net.Dial("tcp", s.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: %s\r\nConnection: close\r\n\r\n", c.value)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if !c.served {
				if res.StatusCode != http.StatusBadRequest {
					t.Errorf("status %d", res.StatusCode)
				}
				return
			}
			if chi != c.value {
				t.Errorf("chi has %.20q", chi)
			}
			if !reqid.Valid(ours) || len(ours) != 36 {
				t.Errorf("reqid has %.20q", ours)
			}
		})
	}
}

// reqid 13: a slog.Handler that adds the ID when a record passes adds it inside
// the group that the logger has open. reqid's stands at the root.
func TestOpenGroup(t *testing.T) {
	log := func(wrap func(slog.Handler) slog.Handler, ctx context.Context) (m map[string]any) {
		var b bytes.Buffer
		slog.New(wrap(slog.NewJSONHandler(&b, nil))).WithGroup("g").InfoContext(ctx, "m", "k", 1)
		if err := json.Unmarshal(b.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	peer := log(traceid.LogHandler, traceid.NewContext(t.Context()))
	if g, _ := peer["g"].(map[string]any); peer["traceId"] != nil || g["traceId"] == nil {
		t.Errorf("traceid: %v", peer)
	}
	ours := log(func(h slog.Handler) slog.Handler {
		log, err := reqid.NewLogHandler(reqid.LogConfig{Handler: h})
		if err != nil {
			t.Fatal(err)
		}
		return log
	}, reqid.NewContext(t.Context(), "abc"))
	if g, _ := ours["g"].(map[string]any); ours["request_id"] != "abc" || g["request_id"] != nil || g["k"] != 1.0 {
		t.Errorf("reqid: %v", ours)
	}
}

// A client whose transport is wrapped can close its idle connections only when
// the wrapper has the method; traceid's has not (reqid 16).
func TestCloseIdleConnections(t *testing.T) {
	for _, c := range []struct {
		name string
		wrap func(http.RoundTripper) http.RoundTripper
		want bool
	}{
		{"reqid", func(rt http.RoundTripper) http.RoundTripper {
			transport, err := reqid.NewTransport(reqid.TransportConfig{Base: rt})
			if err != nil {
				t.Fatal(err)
			}
			return transport
		}, true},
		{"chi traceid", traceid.Transport, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := &closes{}
			(&http.Client{Transport: c.wrap(base)}).CloseIdleConnections()
			if base.called != c.want {
				t.Errorf("reached the base transport: %v, want %v", base.called, c.want)
			}
		})
	}
}

type closes struct {
	http.RoundTripper
	called bool
}

func (c *closes) CloseIdleConnections() { c.called = true }

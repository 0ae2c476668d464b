package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/netip"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/internal/mwtest"
	"example.com/plainware/upstream"
)

func httptraceOf(ctx context.Context) *httptrace.ClientTrace {
	return httptrace.ContextClientTrace(ctx)
}

// Every mistake is named at once.
func TestProxyConfig(t *testing.T) {
	_, err := upstream.NewProxy(upstream.ProxyConfig{
		Target:      "ftp://user:secret@b",
		Host:        9,
		Upgrade:     []string{"h2c", "a b", "TLS/1.0"},
		ProxyStatus: "a;b",
		Protect:     []string{"X Y"},
		Forwarded:   upstream.Forwarded{Via: "a b", TrustedProxies: []netip.Prefix{{}}},
		URI: upstream.URI{
			StripPrefix: "api", AddPrefix: "//x", Query: 9,
			Rules: []upstream.Rule{
				{}, {Exact: "/a", Prefix: "/b", To: "/"}, {Exact: "/a b", To: "x"}, {Prefix: "/%zz", To: "/../x"},
				{Regexp: "(", To: "/"}, {Regexp: "a", To: "//$1?"}, {Regexp: "a"},
			},
		},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"upstream: Transport: ", `upstream: Target: must begin with http:// or https:// (got "ftp://user:xxxxx@b")`, "upstream: Host: ", "upstream: Upgrade: must be protocol names", "upstream: Upgrade: must not be",
		"upstream: ProxyStatus: ", "upstream: Protect: ", "upstream: Forwarded.Via: ", "upstream: Forwarded.TrustedProxies: ",
		"upstream: URI.StripPrefix: ", "upstream: URI.AddPrefix: ", "upstream: URI.Query: ",
		"upstream: URI.Rules[0]: ", "upstream: URI.Rules[1]: ", "upstream: URI.Rules[2].Exact: ", "upstream: URI.Rules[2].To: ",
		"upstream: URI.Rules[3].Prefix: ", "upstream: URI.Rules[3].To: ", "upstream: URI.Rules[4].Regexp: ", "upstream: URI.Rules[5].To: ", "upstream: URI.Rules[6].To: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	for range 20 { // in the same order each time
		_, again := upstream.NewProxy(upstream.ProxyConfig{URI: upstream.URI{StripPrefix: "api", AddPrefix: "//x"}})
		if s := again.Error(); strings.Index(s, "StripPrefix") > strings.Index(s, "AddPrefix") {
			t.Fatalf("got %v", again)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("a password is in %v", err)
	}
	for _, target := range []string{"b", "http://", "http://b/path", "http://b?q", "http://b#f", "http://%"} {
		if _, err := upstream.NewProxy(upstream.ProxyConfig{Transport: http.DefaultTransport, Target: target}); err == nil {
			t.Errorf("Target %q is accepted", target)
		}
	}
}

// Handler takes what matches, and nothing else; it has no way without a Match.
func TestProxyHandler(t *testing.T) {
	p := newProxy(t, upstream.ProxyConfig{
		Target: "http://b",
		Match:  func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/api/") },
		Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
			return response(200, "proxied"), nil
		}),
	})
	h := p.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("local")) }))
	for path, want := range map[string]string{"/api/x": "proxied", "/": "local", "/apix": "local"} {
		r := request("GET", path, nil)
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
		if got := serve(h, r).Body.String(); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	for name, f := range map[string]func(){
		"nil handler": func() { p.Handler(nil) },
		"Match": func() {
			newProxy(t, upstream.ProxyConfig{Transport: http.DefaultTransport}).Handler(http.NotFoundHandler())
		},
	} {
		func() {
			defer func() {
				if v, _ := recover().(string); !strings.Contains(v, name) {
					t.Errorf("recovered %q, want %s", v, name)
				}
			}()
			f()
		}()
	}
}

// The kit's rules for what stands in a chain hold for requests that it leaves
// alone.
func TestProxyHandlerConformance(t *testing.T) {
	mwtest.Run(t, mwtest.Middleware{New: func(t testing.TB) func(http.Handler) http.Handler {
		return newProxy(t, upstream.ProxyConfig{
			Transport: http.DefaultTransport,
			Match:     func(*http.Request) bool { return false },
		}).Handler
	}})
}

// The record says what there is to know.
func TestRecord(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		done := make(chan upstream.Record, 1)
		s := overHTTP(t, p, upstream.ProxyConfig{Done: func(r *http.Request, rec *upstream.Record) {
			if r.URL.Path != "/x" {
				t.Errorf("request %v", r.URL)
			}
			done <- *rec
		}}, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			time.Sleep(time.Second)
			w.WriteHeader(201)
			w.Write([]byte("four"))
			http.NewResponseController(w).Flush()
			time.Sleep(time.Second)
		})
		start := time.Now()
		res, err := s.Client.Post(s.URL+"/x", "", strings.NewReader("sixsix"))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		rec := <-done
		if !rec.Start.Equal(start) || rec.Status != 201 || rec.Attempts != 1 || rec.Received != 6 || rec.Sent != 4 || rec.Interim != 1 || rec.Err != nil || rec.Duration != 2*time.Second {
			t.Errorf("record %+v", rec)
		}
		if rec.FirstByte != time.Second {
			t.Errorf("record %+v", rec)
		}
	})
}

// upstream 86: an access log does not take a panic for a success, and the panic
// goes on as it was.
func TestRecordPanic(t *testing.T) {
	answer := tripperFunc(func(r *http.Request) (*http.Response, error) { return response(200, "x"), nil })
	for name, test := range map[string]struct {
		cfg   upstream.ProxyConfig
		value any
	}{
		"Rewrite":        {upstream.ProxyConfig{Transport: answer, Rewrite: func(*httputil.ProxyRequest) { panic("Rewrite") }}, "Rewrite"},
		"ModifyResponse": {upstream.ProxyConfig{Transport: answer, ModifyResponse: func(*http.Response) error { panic(http.ErrAbortHandler) }}, http.ErrAbortHandler},
		"Transport":      {upstream.ProxyConfig{Transport: tripperFunc(func(*http.Request) (*http.Response, error) { panic("Transport") })}, "Transport"},
	} {
		var rec upstream.Record
		test.cfg.Target = "http://b"
		test.cfg.Done = func(_ *http.Request, r *upstream.Record) { rec = *r }
		p := newProxy(t, test.cfg)
		func() {
			defer func() {
				if v := recover(); v != test.value {
					t.Errorf("%s: recovered %v", name, v)
				}
			}()
			serve(p, request("GET", "/", nil))
		}()
		if e, ok := errors.AsType[*upstream.Error](rec.Err); !ok || e.Kind != 0 || rec.Status != 0 {
			t.Errorf("%s: status %d, %v", name, rec.Status, rec.Err)
		}
	}
}

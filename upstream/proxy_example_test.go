package upstream_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"

	"example.com/plainware/upstream"
)

// Put back ends behind one handler. A Pool is the usual Transport; any other
// needs a Target.
func ExampleNewProxy() {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.Method, r.RequestURI, "for", r.Header.Get("X-Forwarded-Host"))
	}))
	defer backend.Close()

	proxy, err := upstream.NewProxy(upstream.ProxyConfig{
		Transport: http.DefaultTransport, // or a *upstream.Pool
		Target:    backend.URL,
		MaxBody:   10 << 20,
	})
	if err != nil {
		log.Fatal(err)
	}
	front := httptest.NewServer(proxy) // http.ListenAndServe(addr, proxy)
	defer front.Close()

	res, err := http.Get(front.URL + "/files/a%2Fb?v=1")
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	fmt.Print(strings.ReplaceAll(string(body), strings.TrimPrefix(front.URL, "http://"), "front"))
	// Output:
	// GET /files/a%2Fb?v=1 for front
}

// fake answers with what it is asked, in place of a network.
func fake(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, ContentLength: -1,
		Body: io.NopCloser(strings.NewReader(strings.TrimSpace(r.Method + " " + r.URL.RequestURI() + " " + r.Header.Get("X-Team")))),
	}, nil
}

// A Proxy is a handler: give it the routes that are its own. Rewrite and
// ModifyResponse are those of httputil.ReverseProxy.
func ExampleProxy_ServeHTTP() {
	proxy, err := upstream.NewProxy(upstream.ProxyConfig{
		Transport: tripperFunc(fake),
		Target:    "http://127.0.0.1:8081",
		Rewrite:   func(pr *httputil.ProxyRequest) { pr.Out.Header.Set("X-Team", "blue") },
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", proxy)

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/api/users", nil))
	fmt.Println(w.Code, w.Body)
	// Output:
	// 200 GET /api/users blue
}

// In the middle of a chain a Proxy takes what Match says and leaves the rest.
func ExampleProxy_Handler() {
	proxy, err := upstream.NewProxy(upstream.ProxyConfig{
		Transport: tripperFunc(fake),
		Target:    "http://127.0.0.1:8081",
		Match:     func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/legacy/") },
	})
	if err != nil {
		log.Fatal(err)
	}
	h := proxy.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "here")
	}))
	for _, path := range []string{"/legacy/users", "/users"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		fmt.Println(w.Body)
	}
	// Output:
	// GET /legacy/users
	// here
}

// Rules rewrite the escaped path.
func ExampleURI() {
	proxy, err := upstream.NewProxy(upstream.ProxyConfig{
		Transport: tripperFunc(fake),
		Target:    "http://127.0.0.1:8081",
		URI: upstream.URI{
			StripPrefix: "/shop",
			Rules: []upstream.Rule{
				{Exact: "/health", To: "/internal/healthz"},
				{Regexp: `^/api/v1/(.*)$`, To: "/v2/$1"},
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, path := range []string{"/shop/health", "/shop/api/v1/a%2Fb", "/shop/cart?id=1", "/shop//evil.example", "/shop/../etc"} {
		w := httptest.NewRecorder()
		proxy.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != http.StatusOK {
			fmt.Println(path, "->", w.Code)
			continue
		}
		fmt.Println(path, "->", w.Body)
	}
	// Output:
	// /shop/health -> GET /internal/healthz
	// /shop/api/v1/a%2Fb -> GET /v2/a%2Fb
	// /shop/cart?id=1 -> GET /cart?id=1
	// /shop//evil.example -> GET /evil.example
	// /shop/../etc -> 400
}

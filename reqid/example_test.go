package reqid_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"example.com/plainware/reqid"
)

// Wrap the mux that is there already.
func ExampleNew() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "this is request", reqid.FromContext(r.Context()))
	})

	ids, err := reqid.New(reqid.Config{
		Also:  []string{"X-Correlation-Id"},
		Trust: reqid.TrustPrefixes(netip.MustParsePrefix("10.0.0.0/8")),
	})
	if err != nil {
		log.Fatal(err)
	}
	h := ids.Handler(mux) // http.ListenAndServe(addr, h)

	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "10.0.0.7:4711"
	r.Header.Set("X-Correlation-Id", "order-12/retry-1")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Print(w.Body)
	fmt.Println("response:", w.Header().Get("X-Request-Id"))
	// Output:
	// this is request order-12/retry-1
	// response: order-12/retry-1
}

// Every problem of a configuration is named at once.
func ExampleNew_invalid() {
	_, err := reqid.New(reqid.Config{Header: "Request ID", Also: []string{"X-Trace", "x-trace"}})
	fmt.Println(err)
	// Output:
	// reqid: Header: is not a header field name (got "Request ID")
	// reqid: Also[1]: repeats an earlier name (got "x-trace")
}

// A reverse proxy forwards the ID. Where the back end answers with it as well,
// its copy is removed from the response, so that the client gets one.
func ExampleMiddleware_Handler() {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		w.Header().Set("X-Request-Id", id)
		fmt.Fprintln(w, "the back end serves", id)
	}))
	defer backend.Close()
	target, err := url.Parse(backend.URL)
	if err != nil {
		log.Fatal(err)
	}
	ids, err := reqid.New(reqid.Config{})
	if err != nil {
		log.Fatal(err)
	}
	front := httptest.NewServer(ids.Handler(&httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) },
		ModifyResponse: func(res *http.Response) error {
			res.Header.Del("X-Request-Id")
			return nil
		},
	}))
	defer front.Close()

	r, err := http.NewRequest("GET", front.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	r.Header.Set("X-Request-Id", "cart-7")
	res, err := front.Client().Do(r)
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(body))
	fmt.Println("response:", res.Header.Values("X-Request-Id"))
	// Output:
	// the back end serves cart-7
	// response: [cart-7]
}

// From tells whether one instance has handled the request.
func ExampleMiddleware_From() {
	public, err := reqid.New(reqid.Config{Generate: func() string { return "made-1" }})
	if err != nil {
		log.Fatal(err)
	}
	admin, err := reqid.New(reqid.Config{})
	if err != nil {
		log.Fatal(err)
	}
	public.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(public.From(r.Context()))
		fmt.Println(admin.From(r.Context()))
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	// Output:
	// made-1 true
	//  false
}

func ExampleFromContext() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("request %q\n", reqid.FromContext(r.Context()))
	}
	// Without the middleware there is no ID, and nothing breaks.
	handler(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	// Output:
	// request ""
}

// At an edge the sender is not trusted, but knows its request by its own name.
func ExampleClientID() {
	ids, err := reqid.New(reqid.Config{
		Trust:    reqid.TrustNone,
		Generate: func() string { return "edge-000042" },
	})
	if err != nil {
		log.Fatal(err)
	}
	h := ids.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("ours:  ", reqid.FromContext(r.Context()))
		fmt.Println("theirs:", reqid.ClientID(r.Context()))
	}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Request-Id", "mobile-9")
	h.ServeHTTP(httptest.NewRecorder(), r)
	// Output:
	// ours:   edge-000042
	// theirs: mobile-9
}

// A job has an ID before any request has one; logs and calls then carry it.
func ExampleNewContext() {
	ctx := reqid.NewContext(context.Background(), "nightly-2026-02-03")
	fmt.Println(reqid.FromContext(ctx))

	// What no header could carry is replaced, so that outside data is safe.
	ctx = reqid.NewContext(context.Background(), "evil\r\nSet-Cookie: a=b")
	fmt.Println(len(reqid.FromContext(ctx)))
	// Output:
	// nightly-2026-02-03
	// 36
}

// Calls that a handler makes carry the ID of the request it serves.
func ExampleNewTransport() {
	billing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("billing was called by", r.Header.Get("X-Request-Id"))
	}))
	defer billing.Close()

	transport, err := reqid.NewTransport(reqid.TransportConfig{
		// Strangers do not learn internal IDs.
		Only: func(r *http.Request) bool { return r.URL.Hostname() == "127.0.0.1" },
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport}
	defer client.CloseIdleConnections()

	ids, err := reqid.New(reqid.Config{})
	if err != nil {
		log.Fatal(err)
	}
	h := ids.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call, err := http.NewRequestWithContext(r.Context(), "GET", billing.URL, nil)
		if err != nil {
			log.Fatal(err)
		}
		res, err := client.Do(call)
		if err != nil {
			log.Fatal(err)
		}
		res.Body.Close()
	}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Request-Id", "order-12")
	h.ServeHTTP(httptest.NewRecorder(), r)
	// Output:
	// billing was called by order-12
}

// The ID is at the root of each record, also when the logger has a group open.
func ExampleNewLogHandler() {
	withoutTime := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	h, err := reqid.NewLogHandler(reqid.LogConfig{
		Handler: slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime}),
	})
	if err != nil {
		log.Fatal(err)
	}
	logger := slog.New(h).WithGroup("cart").With("id", 7)

	ctx := reqid.NewContext(context.Background(), "order-12")
	logger.InfoContext(ctx, "priced", "cents", 1999)
	// Output:
	// {"level":"INFO","msg":"priced","request_id":"order-12","cart":{"id":7,"cents":1999}}
}

func ExampleAttr() {
	ctx := reqid.NewContext(context.Background(), "order-12")
	fmt.Println(reqid.Attr(ctx))
	// Output:
	// request_id=order-12
}

// A trace that comes in goes on, past a service that records nothing itself.
func ExampleTrace() {
	ids, err := reqid.New(reqid.Config{Trace: true})
	if err != nil {
		log.Fatal(err)
	}
	h := ids.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		trace, ok := reqid.Trace(r.Context())
		fmt.Println(trace.TraceID, trace.SpanID, trace.Sampled(), trace.State, ok)
	}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	r.Header.Set("tracestate", "rojo=00f067aa0ba902b7")
	h.ServeHTTP(httptest.NewRecorder(), r)
	// Output:
	// 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 true rojo=00f067aa0ba902b7 true
}

func ExampleV7() {
	id := reqid.V7() // such as 0195f180-2939-7bc4-bffe-838eb3c62526
	fmt.Println(len(id), id[14:15], strings.Count(id, "-"))
	// Output:
	// 36 7 4
}

func ExampleValid() {
	for _, id := range []string{"0195f180-2939-7bc4-bffe-838eb3c62526", "host/Ab3=-000001", "two words", "${jndi:ldap://x}", ""} {
		fmt.Printf("%v %q\n", reqid.Valid(id), id)
	}
	// Output:
	// true "0195f180-2939-7bc4-bffe-838eb3c62526"
	// true "host/Ab3=-000001"
	// false "two words"
	// false "${jndi:ldap://x}"
	// false ""
}

func ExampleTrustPrefixes() {
	trust := reqid.TrustPrefixes(netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"))
	for _, peer := range []string{"10.1.2.3:4711", "[::ffff:10.1.2.3]:4711", "203.0.113.9:4711"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = peer
		r.Header.Set("X-Forwarded-For", "10.1.2.3") // means nothing here
		fmt.Println(peer, trust(r))
	}
	// Output:
	// 10.1.2.3:4711 true
	// [::ffff:10.1.2.3]:4711 true
	// 203.0.113.9:4711 false
}

func ExampleTrustNone() {
	ids, err := reqid.New(reqid.Config{Trust: reqid.TrustNone})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Request-Id", "chosen-by-a-stranger")
	w := httptest.NewRecorder()
	ids.Handler(http.NotFoundHandler()).ServeHTTP(w, r)
	fmt.Println(w.Header().Get("X-Request-Id") == "chosen-by-a-stranger")
	// Output:
	// false
}

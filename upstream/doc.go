// Package upstream is what a gateway needs from its back ends: pooled
// connections, load balancing, health, retries and streaming, over HTTP/1.1,
// HTTP/2 with and without TLS, gRPC and, with the package upstream/h3, HTTP/3.
//
// A [Pool] is an http.RoundTripper over several targets:
//
//	pool, err := upstream.New(upstream.Config{
//		Targets: []upstream.Target{{URL: "http://10.0.0.7:8080"}, {URL: "http://10.0.0.8:8080"}},
//	})
//	client := &http.Client{Transport: pool}
//
// A [Proxy] is an http.Handler over a Pool, or over any other RoundTripper:
//
//	proxy, err := upstream.NewProxy(upstream.ProxyConfig{Transport: pool})
//	mux.Handle("/", proxy)
//
// [Split] divides requests between two RoundTrippers, and [Mirror] sends copies
// of them to one.
//
// A request is sent again only where that is safe by evidence; see [Retry]. A
// failure says whose fault it was; see [Error]. Of these only what is the back
// end's fault counts against its health; see [Outlier] and [Check].
//
// What happens is told to an [Observer], and counted in [BackendStats]; see the
// examples there for expvar and for Prometheus.
//
// What it does not do: it keeps no response, terminates no TLS towards clients,
// and does not look into messages. WebSockets pass as upgrades; what knows their
// frames is the package wsproxy.
//
// A Proxy belongs at the end of a chain of middlewares: whatever authenticates,
// limits or identifies requests goes before it. A circuit breaker or a signer
// for each target goes into [Config].Wrap.
//
// Use Go 1.26.9 or later in front of HTTP/2 back ends that are not trusted: in
// net/http before that, one whose window for a stream overflows locks its
// connection for ever, and the requests on it.
//
// What it costs: an idle HTTP/1.1 connection holds two goroutines and two
// buffers of 4 KiB, as http.Transport's do. A request body that might have to be
// sent again is kept while it is sent, up to 64 KiB. A Pool has one goroutine of
// its own, one for each check, and one for the resolver.
package upstream

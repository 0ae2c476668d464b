// Package ratelimit limits how many requests are served, exactly and by key, in
// one process or in many.
//
//	lim, err := ratelimit.New(ratelimit.Config{Limit: ratelimit.PerMinute(100)})
//	if err != nil {
//		log.Fatal(err)
//	}
//	http.ListenAndServe(addr, lim.Handler(mux))
//
// That admits 100 requests at once from each client address, and then one every
// 600 ms. With Store and Name, processes that share the store share the limits.
//
// # What is promised
//
// Each kind of limit has a bound on what it grants in a window, whatever the
// window and whatever the pattern of requests; [Limit.Bound] returns it.
//
//	                  promised in a window w          in a minute, of 100 a minute
//	Per               burst + ⌊w·n/d⌋                 200
//	Per, Strict       n, for w = d                    100
//	Quota             n in each window that w meets   200
//	Sliding           n + ⌊w·n/d⌋, 2n - 1 for w = d   199
//	Concurrent        n at the same time              -
//
// "100 a minute" lets 200 through in some minute with most limiters, this one
// included: 100 that were saved up and 100 that came in. Use [Limit.Strict] where
// the number must hold for any minute.
//
// The bounds hold as long as the store keeps what it is told. Memory is bounded
// and evicts what expires first, which is not a key that is exhausted: see
// [store.Memory]. While a remote store fails, [OnStoreError] says what holds
// instead: with Deny nothing is lost; with Local each process adds at most one
// bound of its own for an outage; with Allow there is none.
//
// # Several limits
//
// Policies are decided together: a request that one of them refuses takes nothing
// from the others. They differ in whom they count ([Key]) and in what a request
// costs. A policy in [Policy.Shadow] only counts. A cost that is known only
// afterwards, such as bytes sent or tokens used, is charged to the same limit
// with [Limiter.Charge].
//
// # Whom it counts
//
// The client's address is that of the peer, unless the peer is one of
// [Config.TrustedProxies]; then it is the rightmost address in X-Forwarded-For
// that none of them has. No other header names a client unless a [Key] says so.
// An IPv6 client is its /64.
//
// # What is answered
//
// A refusal is 429 with Retry-After and RFC 9457 problem details; 503 for
// Concurrent, and where no decision was possible. Retry-After is in seconds and
// never earlier than a request can be admitted. All responses have the
// RateLimit-Policy and RateLimit fields of draft-ietf-httpapi-ratelimit-headers-10,
// or what [Config.Headers] says; later revisions of the draft rename parameters.
//
// # Where it belongs
//
// Inside of request IDs and access logs, outside of whatever costs more than a
// refusal. A limit by API key belongs inside of what checks the key. The limiter
// does not wrap the ResponseWriter, and passes the request on as it is, unless
// [Config.Context] or a [Policy.Debt] puts the decision into its context.
//
// # What it does not do
//
// It does not queue requests ([Limiter.Wait] waits, for outgoing calls), does not
// adapt limits to latency, and limits nothing before the handler is called. A
// limit of Concurrent is for one process.
//
// # What it costs
//
// In memory, two allocations for a request with both fields, and none without
// them ([None]) or for [Limiter.Take]; 24 bytes for a key. In front of a remote
// store one round trip, shared with the requests that wait at the same time, and
// none for a client that was refused within the last second and would be again.
// There are no goroutines but while calls to a remote store are on their way.
package ratelimit

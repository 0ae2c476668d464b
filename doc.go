// Package plainware is a kit of small, independent packages for programs that
// serve or call HTTP with net/http. It is documentation only: import the
// packages you need, one or several, and wrap the mux you have.
//
//   - [example.com/plainware/reqid] gives every request one trustworthy ID, in
//     the context, both headers, the log and outgoing calls.
//   - [example.com/plainware/timeout] limits how long a request may take, in
//     total and by phase, and streams.
//   - [example.com/plainware/ratelimit] limits by key with a bound that holds
//     for any window, in one process or many.
//   - [example.com/plainware/breaker] stops calling what is down.
//   - [example.com/plainware/forwardauth] lets another service decide who may
//     pass, and fails closed.
//   - [example.com/plainware/upstream] is the back ends of a gateway: pooling,
//     balancing, health, retries and a streaming proxy.
//   - [example.com/plainware/wsproxy] carries WebSockets from HTTP/1.1 and HTTP/2
//     clients to back ends.
//   - [example.com/plainware/cookies] seals or signs values in the browser, and
//     [example.com/plainware/cookies/session] keeps sessions on the server.
//   - [example.com/plainware/webhook] verifies deliveries over the bytes as
//     received, and signs your own.
//   - [example.com/plainware/paginate] is for lists: signed keyset cursors, links
//     and walking them.
//   - [example.com/plainware/store] is the contract for shared state, with
//     backends in memory, SQLite, Redis or Valkey, and PostgreSQL.
//
// # One shape
//
// Every package is used alike:
//
//	x, err := pkg.New(pkg.Config{...}) // all problems at once, each naming its field
//	h := x.Handler(mux)                // the method value is a func(http.Handler) http.Handler
//	client.Transport = y               // client-side parts are http.RoundTrippers
//
// Config is a plain struct, read once. Zero is the documented default, which
// is always safe, and negative is none. Nothing is global: two instances with
// different settings live side by side. What is refused goes through one field,
// ErrorHandler, and is RFC 9457 problem details by default.
//
// # In any order
//
// The packages keep one contract, and a conformance suite runs for every handler
// and every ordered pair of handlers, over HTTP/1.1, HTTP/2 with TLS and HTTP/2 without:
// what the next handler can do without a middleware it can do inside it. Flush,
// Hijack, ReadFrom, http.ResponseController, informational responses, trailers,
// panics, request patterns and the files of multipart forms all get through.
// The README says which order is useful and why.
package plainware

// Package reqid gives every request one ID that can be trusted, and carries it
// wherever the request goes: into the context, the response header, the request
// header that a reverse proxy forwards, the log, and outgoing calls.
//
//	ids, err := reqid.New(reqid.Config{})
//	if err != nil {
//		log.Fatal(err)
//	}
//	http.ListenAndServe(addr, ids.Handler(mux))
//
// In a handler, [FromContext] returns the ID. [NewLogHandler] adds it to every
// record that is logged with the request's context, and [NewTransport] to every
// call made with it.
//
// # What is kept
//
// The ID of a request is kept when exactly one value stands in the first
// configured header field that is present, [Valid] accepts it, and Config.Trust
// accepts the sender. Otherwise the request gets a new one ([V7]). No request
// is ever refused: a bad ID is not worth a 400. A hostile value, be it 100 KB
// long, full of terminal escapes or a second header line, survives neither in
// the request nor in a log. The valid ID of a sender who is not trusted stays
// available as [ClientID].
//
// An ID that is in the context already is kept, so that using the middleware
// twice, or under two header names, is harmless: all instances write the same
// ID, each to its own header.
//
// # Where it belongs
//
// Outermost, or just inside whatever recovers from panics: the response header
// is set before the next handler runs, so that it is there on every error
// response. An access log outside the middleware reads the ID from the response
// header, one inside from the context.
//
// The middleware passes the ResponseWriter through as it is. It writes to the
// header map of the request that it was given, and to no other part of it
// except that, after the next handler, also when that panics, Pattern and
// MultipartForm are copied back from the request that ServeMux and ParseMultipartForm
// saw, as if no middleware had stood in between.
//
// # With a reverse proxy
//
// [net/http/httputil.ReverseProxy] forwards the ID since it stands in the
// request header. It also adds the back end's response header to what is set
// already: where the back end answers with the ID itself, delete its copy in
// ModifyResponse, or set Config.HideResponse in one of the two. And it clears
// the header map after it has relayed an informational response (103 Early
// Hints), which takes the ID out of the final one. A client can have it drop a
// field by naming it in Connection; with a [Transport] as the proxy's Transport,
// the ID arrives all the same.
//
// # What it does not do
//
// It records no spans: Config.Trace continues a W3C trace past a service that
// does not run OpenTelemetry, so that the chain does not break, and that is
// all. It has no rules by path. IDs are names and not secrets.
//
// # What it costs
//
// Two allocations and about 400 bytes a request whose ID is kept, one more for
// a new ID, and with Config.Trace one to three more. No goroutines, no locks, no
// package-level state.
package reqid

// Package forwardauth asks an HTTP service whether a request may pass: Authelia,
// authentik, oauth2-proxy, Open Policy Agent, or one of your own.
//
//	auth, err := forwardauth.New(forwardauth.Config{
//		URL:         "http://127.0.0.1:4181/verify",
//		CopyHeaders: []forwardauth.HeaderCopy{{From: "Remote-User"}},
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	http.ListenAndServe(addr, auth.Handler(mux))
//
// It is what Traefik calls forwardAuth, Caddy forward_auth, nginx auth_request
// and Envoy ext_authz, in front of any handler. [Mode] chooses the dialect;
// [Authelia], [Authentik] and [OAuth2Proxy] return whole configurations.
//
// # What a decision is
//
// A 2xx allows (in Envoy mode, 200): the next handler runs, with the
// fields of [Config.CopyHeaders] in its request and an [Identity] in its
// context. A status of 300 to 499 denies, and is passed on with its body, its
// cookies, its challenges and its Location; redirects are the client's to
// follow. Everything else is no decision, and the request is refused: with 503
// when the service is down, slow, failing or not understood, with 4xx when the
// request cannot be judged. No option turns an error into a yes.
//
// A request is judged before a byte of its body is read, so that a client which
// waits for 100 Continue is told no before it sends anything; so are WebSocket
// upgrades, over HTTP/1.1 as well as by the extended CONNECT of HTTP/2 and HTTP/3,
// which is judged as the GET that it stands for. [Config.MaxBody] changes that.
//
// # What cannot be smuggled past it
//
// The service sees the few fields that decide ([Config.RequestHeaders] adds to
// them), and a description of the request that is written anew. What the
// client says in X-Forwarded-*, however spelled, does not reach it; of a trusted
// proxy, scheme, host and address are taken, if they are valid.
//
// The next handler sees identity headers from the service alone. Those that the
// client has sent are removed with everything that could be taken for one
// (Remote_User, remote.user), trailers included, also where the service has left
// a field out and where [Config.Skip] lets a request pass. Their names are taken
// out of Connection, by which a proxy behind would drop those of the service.
//
// Paths with more than one reading are refused with 400, before [Config.Skip] is
// asked, since the path that is judged and the one that is served must be the
// same. What is left to the client is to encode reserved characters, such as @,
// or not: whoever judges has to decode first (see
// [Config.InsecureAmbiguousPaths]).
//
// If something outside has rewritten the path or the query, the rewritten one is
// judged. What http.StripPrefix has taken off the path is still part of it, as
// long as the rest is what the client sent, but for a slash at its end. Where the
// path was rewritten as well, nobody knows any more that there was a prefix:
// handlers that do both belong inside of this middleware.
//
// # Policy engines
//
// In mode [JSON] the body of the question is
//
//	{"input": {
//		"method": "GET", "scheme": "https", "host": "example.com",
//		"path": ["orders", "7"], "query": {"full": ["1"]}, "target": "/orders/7?full=1",
//		"headers": {"authorization": ["Bearer …"]}, "client": "192.0.2.1"
//	}}
//
// with "body" where Config.MaxBody is set, or what [Config.Input] makes. JSON is
// text: a request is refused if its decoded path or query, its body, or a field
// in headers is not UTF-8, since the engine would judge other bytes than the
// handler gets. In the document a control byte of the body takes six, and
// encoding/json makes a copy of it: with all that is there at once, a request
// holds up to 20 times MaxBody for a moment, and 14 times while it is asked. The
// service answers 200 with {"result": true} or false, or with
//
//	{"result": {"allow": true, "headers": {"Remote-User": "ada"}}}
//	{"result": {"allow": false, "http_status": 401, "headers": {"WWW-Authenticate": "Bearer"}, "body": "…"}}
//
// where "allowed" is as good as "allow" and headers have one value or a list.
// Without a result, as for a rule that is undefined, the answer is no: 403.
//
// # The cache
//
// [Config.Cache] keeps decisions that allow, in any store, for as long as the
// service says, up to 10 s. See [CacheConfig].
//
// # Where it belongs
//
// Inside of request IDs, access logs and limits on time, which cover the
// question too; outside of everything that must not run for strangers.
// Whatever proxies or serves behind it must not add the stripped fields again.
// To send the request's ID along, make a reqid.Transport the Base.
//
// The ResponseWriter is passed through as it is, except when cookies of an
// allowing answer have to be added ([Config.SuccessCookies]).
//
// # What it does not do
//
// It keeps no sessions, knows no protocol of signing in, and has no rules by
// path: the service has. It does not rewrite what the service answers.
//
// # What it costs
//
// A round trip to the service for each request, and a copy of the header map;
// the body of an answer, up to [Config.MaxResponse], is held in memory. There
// are no goroutines, but for one for each question whose answer may go into a
// cache. A hit in a cache in memory makes at most 12 allocations and takes about
// two microseconds.
package forwardauth

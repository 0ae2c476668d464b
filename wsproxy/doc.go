// Package wsproxy carries WebSockets between clients over HTTP/1.1 or HTTP/2 and
// back ends at ws:// and wss:// URLs.
//
//	ws, err := wsproxy.New(wsproxy.Config{Target: "ws://127.0.0.1:9000"})
//	if err != nil {
//		log.Fatal(err)
//	}
//	mux.Handle("/chat", ws)
//
// A request that is no WebSocket handshake is refused, or goes to
// [Config.Fallback]. As a middleware, [Proxy.Handler] takes the handshakes that
// [Config.Match] accepts and passes all else on.
//
// # What it does
//
// The client's handshake is checked in full, its Origin against the host of the
// request, before the back end is dialled. The back end gets a handshake of the
// proxy's own with the client's subprotocols, extensions, cookies and other
// fields, and its answer is verified: a server that does not know WebSockets,
// or chooses what was not offered, is a 502. A refusal of the back end is passed
// on as the response that it is.
//
// In an open tunnel the proxy follows the boundaries of frames by their headers,
// in the mode [Frames]. Payloads pass as they came, masked and compressed, so that
// permessage-deflate (RFC 7692) stays between the peers. What it gains: a tunnel
// is closed with a real Close frame at a legal place (1001, 1012), frames and
// messages have a limit of size (1009), malformed frames stop here (1002), silent
// peers are pinged, and the statistics know messages and close codes. With
// [Tunnel] it passes bytes and knows none of this.
//
// How a tunnel ends on one side is how it ends on the other: an end of stream
// becomes an end of stream, a reset a reset. Over HTTP/2 a server cannot end its
// direction alone, so there the end of the back end's bytes ends the tunnel.
//
// # HTTP/2
//
// A browser that has an HTTP/2 connection opens WebSockets in it (RFC 8441) if the
// server offers extended CONNECT. net/http does not, unless the program says
//
//	import _ "example.com/plainware/wsproxy/xconnect"
//
// It then offers it on every HTTP/2 server of the process, and handlers that know
// only Upgrade see CONNECT requests: read that package's documentation. [Prepare]
// checks the switch, gives the server buffers with which a tunnel that is
// stuck cannot block the other requests of its connection, and has it close
// connections that take no bytes. A pattern of
// http.ServeMux must have no method, or both GET and CONNECT.
//
// # Where it belongs
//
// Innermost, on its route. What decides about requests (IDs, rate limits,
// authentication) belongs outside and works unchanged; for the proxy a tunnel is
// one request that lasts. What limits the time of requests, buffers or compresses
// responses has to step aside: timeout.Limits.Total and net/http's TimeoutHandler cut
// a tunnel; [IsHandshake] tells. A ResponseWriter that is wrapped must have Unwrap, or
// Hijack for HTTP/1.1, and Flush, SetReadDeadline and SetWriteDeadline for HTTP/2;
// otherwise the answer is 500. Timeouts of http.Server do not end a tunnel.
//
// http.Server.Shutdown does not know of tunnels over HTTP/1.1, and waits for those
// over HTTP/2. [Proxy.Shutdown] ends both, spread over a time: call it first.
//
// # What it does not do
//
// It dials back ends with HTTP/1.1 only. It does not balance, retry or watch them;
// [Config.Director] chooses. It does not look into payloads: text is not checked for
// UTF-8, and a limit of size counts what is sent, which is compressed if the peers
// compress.
//
// # What it costs
//
// Two goroutines for each tunnel (the handler's own is one of them), no timer, and no
// buffer while nothing comes: between TCP sockets on Unix systems a tunnel waits
// for the sockets themselves, elsewhere and with TLS or HTTP/2 in 640 bytes. 32 KiB
// of a shared pool are used while a chunk is passed. On Linux, payload of which
// 64 KiB or more are to come goes from socket to socket with splice(2).
//
// Per direction a peer that does not read holds at most one chunk of 32 KiB, or
// 256 KiB in a pipe while bytes are spliced, beside the sockets' buffers of the
// kernel and, over HTTP/2, the stream's receive buffer (128 KiB after [Prepare]);
// the writer on the other side is stopped by its own connection.
// [Timeouts.WriteStall] ends it, over HTTP/2 together with what [Prepare] sets. With
// [Config.Detach] the handler's goroutine, request and response are given up when an
// HTTP/1.1 tunnel opens, at the price that middleware outside sees the request end
// then.
package wsproxy

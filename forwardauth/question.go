package forwardauth

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"

	"example.com/plainware/internal/clientip"
)

// question is a request as the service is told about it. Everything in it was
// checked.
type question struct {
	r      *http.Request
	method string
	scheme string
	host   string
	target string
	via    string     // X-Forwarded-For, without the client where peers are trusted
	peer   netip.Addr // the zero Addr where it is not known
	client netip.Addr // the peer, or who a trusted one speaks for

	body    []byte // of the request, with Config.MaxBody
	drained bool   // body is all of it
	input   []byte // what is posted in JSON mode
}

// shape checks what is refused for everyone, method, upgrade and target, and
// takes it into the question.
func (m *Middleware) shape(q *question, r *http.Request) *Error {
	q.r, q.method = r, r.Method
	if q.method == "" {
		q.method = http.MethodGet
	}
	if extendedConnect(r) {
		// RFC 8441, section 5: where HTTP/1.1 has GET with Upgrade.
		q.method = http.MethodGet
	}
	for i := range len(q.method) {
		if !isLetter(q.method[i]) {
			return &Error{Reason: BadMethod}
		}
	}
	if strings.EqualFold(q.method, http.MethodConnect) || q.method == "PRI" || mayUpgradeToH2C(r.Header) {
		return &Error{Reason: BadMethod}
	}
	var ok bool
	if q.target, ok = target(r); !ok || !m.cfg.InsecureAmbiguousPaths && ambiguous(q.target) {
		return &Error{Reason: BadTarget}
	}
	return nil
}

// extendedConnect reports whether r opens a WebSocket over HTTP/2 or HTTP/3
// (RFC 8441, RFC 9220). net/http keeps the protocol in the header; quic-go in
// Proto.
func extendedConnect(r *http.Request) bool {
	if r.Method != http.MethodConnect || r.ProtoMajor < 2 {
		return false
	}
	p := r.Header[":protocol"]
	return len(p) == 1 && p[0] == "websocket" || r.Proto == "websocket"
}

// origin finds out where the request comes from and what it was sent to. A
// trusted proxy that cannot say so in one valid value is not believed
// anything: then the request is refused.
func (m *Middleware) origin(q *question) *Error {
	r := q.r
	q.scheme, q.host = "http", r.Host
	if r.TLS != nil {
		q.scheme = "https"
	}
	peer, known := clientip.Peer(r)
	q.peer, q.client = peer, peer
	if known && len(m.cfg.TrustedProxies) > 0 && clientip.Contains(m.cfg.TrustedProxies, peer) {
		switch v := r.Header[forwardedProto]; {
		case len(v) == 0:
		case len(v) == 1 && (v[0] == "http" || v[0] == "https" || v[0] == "ws" || v[0] == "wss"):
			q.scheme = v[0]
		default:
			return &Error{Reason: BadForwarded}
		}
		switch v := r.Header[forwardedHost]; {
		case len(v) == 0:
		case len(v) == 1:
			q.host = v[0]
		default:
			return &Error{Reason: BadForwarded}
		}
		switch v := r.Header[forwardedFor]; {
		case len(v) == 0:
		case len(v) == 1 && validChain(v[0]):
			q.via = v[0]
			q.client, _ = clientip.Resolve(r, m.cfg.TrustedProxies)
		default:
			return &Error{Reason: BadForwarded}
		}
	}
	if !validHost(q.host) {
		return &Error{Reason: BadForwarded}
	}
	return nil
}

// validChain reports whether s is a list of addresses, as X-Forwarded-For is.
func validChain(s string) bool {
	if len(s) > 1024 {
		return false
	}
	for part := range strings.SplitSeq(s, ",") {
		if _, ok := clientip.Peer(&http.Request{RemoteAddr: strings.Trim(part, " \t")}); !ok {
			return false
		}
	}
	return true
}

// addresses are the peer and the client in writing, "" where not known.
func (q *question) addresses() (peer, client string) {
	if q.peer.IsValid() {
		peer = q.peer.String()
	}
	switch {
	case q.client == q.peer:
		client = peer
	case q.client.IsValid():
		client = q.client.String()
	}
	return peer, client
}

// chain is the X-Forwarded-For that the service gets: what the trusted proxies
// say, and the peer.
func (q *question) chain(peer string) string {
	switch {
	case peer == "":
		return q.via
	case q.via == "":
		return peer
	}
	return q.via + ", " + peer
}

// port is the one that the client asked for.
func (q *question) port() string {
	if end := strings.LastIndexByte(q.host, ':'); end > strings.LastIndexByte(q.host, ']') {
		return q.host[end+1:]
	}
	if q.scheme == "https" || q.scheme == "wss" {
		return "443"
	}
	return "80"
}

// looped reports whether r is a question of this middleware, or has been handed
// on from one to the next too often.
func (m *Middleware) looped(r *http.Request) bool {
	marks := r.Header[loopMark]
	n := 0
	for _, line := range marks {
		for mark := range strings.SplitSeq(line, ",") {
			if n++; strings.Trim(mark, " \t") == m.mark || n > 8 {
				return true
			}
		}
	}
	return false
}

// readBody takes the body into the question and puts it back into inner, the
// request for the next handler.
func (m *Middleware) readBody(q *question, inner *http.Request) *Error {
	limit := m.cfg.MaxBody
	if limit <= 0 || !hasBody(q.r) {
		return nil
	}
	if q.r.ContentLength > limit {
		return &Error{Reason: BodyTooLarge}
	}
	body, err := readUpTo(inner.Body, limit, q.r.ContentLength)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge), int64(len(body)) > limit:
		return &Error{Reason: BodyTooLarge}
	case err != nil && q.r.Context().Err() != nil:
		return &Error{Reason: Canceled, Err: err}
	case err != nil:
		return &Error{Reason: BadBody, Err: err}
	}
	q.body, q.drained = body, true
	inner.Body = &replayed{rest: bytes.NewReader(body), body: inner.Body}
	return nil
}

// announcedAtMost is how much room is made for a body on nothing but the word of
// who sends it.
const announcedAtMost = 16 << 10

// readUpTo reads r to its end, or to one byte beyond limit. It makes room for
// twice of what has come at most, and for no more than can come: announced is
// the length that the sender has named, or not known if it is negative.
func readUpTo(r io.Reader, limit, announced int64) ([]byte, error) {
	// One byte more than fits, to see the end, or that it is too long.
	most := int(limit) + 1
	if 0 <= announced && announced < limit {
		most = int(announced) + 1
	}
	size := min(most, announcedAtMost)
	if announced < 0 {
		size = min(most, 512)
	}
	b := make([]byte, 0, size)
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case err == io.EOF:
			return b, nil
		case err != nil:
			return b, err
		case int64(len(b)) > limit:
			return b, nil
		}
		if len(b) == cap(b) {
			if most <= cap(b) {
				most = int(limit) + 1 // it is longer than announced
			}
			b = append(make([]byte, 0, min(2*cap(b), most)), b...)
		}
	}
}

// replayed is a body that was read already. It ends as the original has. It has
// no method but these: what a reader is given are copies, and the bytes
// themselves stay those of the question.
type replayed struct {
	rest *bytes.Reader
	body io.ReadCloser
}

func (b *replayed) Read(p []byte) (int, error) { return b.rest.Read(p) }
func (b *replayed) Close() error               { return b.body.Close() }

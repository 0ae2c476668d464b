package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/plainware/internal/problem"
	"example.com/plainware/internal/urlpath"
)

// exchange is one request on its way through a Proxy, with all that has to be
// kept for it, so that it is one allocation.
type exchange struct {
	p  *Proxy
	w  http.ResponseWriter
	in *http.Request

	req      http.Request // the outgoing request, unless a hook replaces it
	url      url.URL      // its URL
	rec      record
	ctx      recordContext
	trace    httptrace.ClientTrace
	traced   traceContext
	call     call // where Transport is a Pool
	body     requestBody
	res      *http.Response // to close at the end
	cancel   context.CancelFunc
	out      context.Context // the outgoing request's
	upgrade  string          // the protocol that the client wants and may switch to
	stripped string          // prefix that was taken off the path
	grpc     bool
	returned bool // serve has, and did not panic

	// stop ends the outgoing request where the error of got1xx may not.
	stop context.CancelFunc

	// values back the header values that are set here.
	values [7]string
	used   int

	// mu is between the Transport's goroutine, which sees the informational
	// responses and reads the request body, and the handler's, which takes the
	// writer over when RoundTrip has returned.
	mu         sync.Mutex
	over       bool   // it has returned
	continued  bool   // 100 has been sent to the client
	counted    bool   // attempts count their informational responses themselves
	passed     int    // informational responses that have gone to the client
	interimErr *Error // why an informational response ended the exchange
	panicked   any    // what the writer panicked with meanwhile
}

// value returns s as a header value of its own.
func (x *exchange) value(s string) []string {
	if x.used == len(x.values) {
		return []string{s}
	}
	x.values[x.used] = s
	x.used++
	return x.values[x.used-1 : x.used : x.used]
}

func (x *exchange) serve() {
	if x.in.ProtoMajor == 1 && x.in.ProtoMinor == 0 {
		// It may have had a Transfer-Encoding, which the server drops in
		// HTTP/1.0 without a word. Whoever is in front and goes by that has a
		// body in mind where here the next request begins (RFC 9112 section
		// 6.1).
		x.w.Header()["Connection"] = x.value("close")
	}
	out, err := x.request()
	if err != nil {
		x.fail(err)
		return
	}
	if out == nil {
		return // answered here
	}
	var res *http.Response
	if pool := x.p.owned; pool != nil {
		if err = pool.refuse(out); err == nil {
			res, err = x.call.roundTrip(pool, out, out, &x.rec)
		}
	} else {
		res, err = x.p.cfg.Transport.RoundTrip(out)
		x.rec.Attempts = max(x.rec.Attempts, 1)
	}
	x.res = res
	x.mu.Lock()
	x.over = true
	x.mu.Unlock()
	switch {
	case x.panicked != nil:
		panic(x.panicked)
	case err != nil:
		x.fail(x.judge(err))
	case x.interimErr != nil:
		// Somebody else's trace has made nothing of our hook's error.
		res.Body.Close()
		x.fail(x.judge(x.interimErr))
	default:
		x.respond(res)
	}
}

// errPanic is the Err of a request that a panic ended. What it was about is not
// for us to recover: the server logs it, with the stack that led there.
var errPanic = errors.New("panic while the request was served")

// leave runs before finish. It hands the writer back to a layer outside that
// recovers from a panic and answers.
func (x *exchange) leave() {
	if x.returned {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over = true
	x.closeIfUnread(x.w.Header())
}

// finish runs when the handler returns or panics.
func (x *exchange) finish() {
	x.body.finish()
	if x.res != nil && x.res.Body != nil {
		x.res.Body.Close()
	}
	if x.cancel != nil {
		x.cancel()
	}
	if x.stop != nil {
		x.stop()
	}
	if x.p.cfg.Done != nil {
		if !x.returned && x.rec.Err == nil {
			x.rec.Err = &Error{Backend: x.rec.Backend, Err: errPanic}
		}
		x.rec.Received = x.body.read.Load()
		x.rec.Duration = time.Since(x.rec.Start)
		x.p.cfg.Done(x.in, &x.rec.Record)
	}
}

// refuse is the error of a request that is not forwarded.
func refuse(status int, detail string) *Error {
	return &Error{Kind: KindPolicy, status: status, detail: detail}
}

// request makes the outgoing request. It returns nil without an error if the
// request has been answered here.
func (x *exchange) request() (*http.Request, error) {
	p, in := x.p, x.in
	if in.Method == http.MethodConnect {
		h := x.w.Header()
		h.Set("Allow", allowed)
		if in.ProtoMajor == 1 {
			// What follows may be meant for the tunnel, and must not be read
			// as requests.
			h.Set("Connection", "close")
		}
		return nil, refuse(http.StatusMethodNotAllowed, "CONNECT is not supported.")
	}
	if !validHost(in.Host) {
		return nil, refuse(http.StatusBadRequest, "The Host is not valid.")
	}
	if why := badTarget(in, p.rewriter.dots); why != "" {
		return nil, refuse(http.StatusBadRequest, why)
	}
	if limit := p.forwarder.MaxLoops; limit > 0 && p.forwarder.loops(in.Header) >= limit {
		return nil, refuse(http.StatusLoopDetected, "The request goes round in circles.")
	}
	expects, err := x.expects()
	if err != nil {
		return nil, err
	}
	if p.cfg.MaxBody > 0 && in.ContentLength > p.cfg.MaxBody {
		return nil, &Error{Kind: KindTooLarge}
	}
	var conn connection
	if v := in.Header["Connection"]; v != nil {
		conn = readConnection(v, &p.protected)
	}
	hasBody := in.ContentLength != 0 && in.Body != nil && in.Body != http.NoBody
	if conn.upgrade && in.ProtoMajor == 1 && in.ProtoMinor > 0 {
		x.upgrade = allowedUpgrade(in.Header["Upgrade"], p.cfg.Upgrade)
		if x.upgrade != "" && hasBody {
			return nil, refuse(http.StatusBadRequest, "A request for an upgrade must not have a body.")
		}
	}
	x.grpc = isGRPC(in.Header["Content-Type"])

	trusted := p.forwarder.trusts(in)
	h := p.requestHeader(in.Header, &conn, trusted)
	if _, ok := h["Expect"]; ok && (!expects || !hasBody) {
		delete(h, "Expect")
	}
	if v := h["Max-Forwards"]; v != nil && !x.forwardsLeft(h, v) {
		return nil, nil
	}
	if x.upgrade != "" {
		h["Connection"] = x.value("Upgrade")
		h["Upgrade"] = x.value(x.upgrade)
	}

	x.req = *in.WithContext(x.context()) // a copy on the stack: no allocation
	out := &x.req
	out.Header = h
	out.URL = &x.url
	out.RequestURI = ""
	out.Close = false
	out.TransferEncoding = nil
	out.Body, out.Trailer = nil, nil
	out.GetBody = nil
	if hasBody {
		x.body.begin(in, expects)
		x.rec.body = &x.body
		out.Body = &x.body
		out.Trailer = x.body.announce()
	} else {
		out.ContentLength = 0 // which the layer that has taken the body may have left
	}
	if err := x.target(in.URL); err != nil {
		return nil, err
	}
	x.host(out)

	if p.cfg.Rewrite != nil {
		host := out.Host
		if x.rec.hostAuto && (p.owned != nil || x.url.Host == noAddress) {
			// The target is not known, and the hook must be able to say that it
			// is to have the client's in any case, or its own.
			out.Host = noAddress
		}
		shown := out.Host
		pr := &httputil.ProxyRequest{In: in, Out: out}
		p.cfg.Rewrite(pr)
		if out = pr.Out; recordFrom(out.Context()) != &x.rec {
			out = out.WithContext(x.attach(out.Context()))
		}
		if out.Header == nil {
			out.Header = make(http.Header)
		}
		if out.Host == shown {
			out.Host = host
		} else {
			x.rec.hostAuto = false
		}
		h = out.Header
	}
	x.out = out.Context()
	p.forwarder.apply(x, h, trusted)
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = x.value("") // otherwise net/http puts its own
	}
	verbatim(out.URL)
	return out, nil
}

// allowed is the value of Allow where a method is refused.
const allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"

// expects reports whether the client waits for 100 before it sends its body.
func (x *exchange) expects() (bool, error) {
	values := x.in.Header["Expect"]
	if len(values) == 0 || !x.in.ProtoAtLeast(1, 1) {
		return false, nil // HTTP/1.0 has no Expect: RFC 9110 section 10.1.1
	}
	for _, v := range values {
		if !strings.EqualFold(strings.TrimSpace(v), "100-continue") {
			return false, refuse(http.StatusExpectationFailed, "The expectation cannot be met.")
		}
	}
	return true, nil
}

// forwardsLeft counts Max-Forwards down, which only TRACE and OPTIONS heed (RFC
// 9110 section 7.6.2), and answers the request whose count has run out.
func (x *exchange) forwardsLeft(h http.Header, values []string) bool {
	if x.in.Method != http.MethodOptions && x.in.Method != http.MethodTrace {
		return true
	}
	n, err := strconv.ParseUint(strings.TrimSpace(values[0]), 10, 63)
	if err != nil {
		return true // whatever it means, it is not for us to say
	}
	if n > 0 {
		h["Max-Forwards"] = x.value(strconv.FormatUint(n-1, 10))
		return true
	}
	x.closeIfUnread(x.w.Header())
	x.rec.Status = http.StatusNoContent
	if x.in.Method == http.MethodOptions {
		x.w.Header().Set("Allow", allowed)
		x.w.WriteHeader(http.StatusNoContent)
		return false
	}
	// What TRACE is answered with shows the way that a request took, and no
	// field that could hold a secret: RFC 9110 section 9.3.8.
	x.rec.Status = http.StatusOK
	x.w.Header().Set("Content-Type", "message/http")
	fmt.Fprintf(x.w, "TRACE %s %s\r\nHost: %s\r\n", x.in.RequestURI, x.in.Proto, x.in.Host)
	for _, name := range [...]string{"Via", "Max-Forwards"} {
		for _, v := range x.in.Header[name] {
			fmt.Fprintf(x.w, "%s: %s\r\n", name, v)
		}
	}
	fmt.Fprint(x.w, "\r\n")
	return false
}

// context makes the context of the outgoing request.
func (x *exchange) context() context.Context {
	ctx := x.in.Context()
	if x.grpc {
		if d, ok := grpcTimeout(x.in.Header["Grpc-Timeout"]); ok {
			ctx, x.cancel = context.WithTimeout(ctx, d)
		}
	}
	return x.attach(ctx)
}

// attach adds to a context what the Transport looks for there.
func (x *exchange) attach(ctx context.Context) context.Context {
	if x.p.owned == nil || x.p.cfg.Rewrite != nil {
		x.ctx = recordContext{ctx, &x.rec}
		ctx = &x.ctx
	}
	if x.p.cfg.MaxInterim > 0 && x.in.ProtoAtLeast(1, 1) {
		prior := httptrace.ContextClientTrace(ctx)
		if prior != nil && prior.Got1xxResponse != nil {
			// Of two hooks net/http/httptrace heeds the error of the older.
			if x.stop != nil {
				x.stop()
			}
			ctx, x.stop = context.WithCancel(ctx)
		}
		x.rec.interims = x
		x.trace = httptrace.ClientTrace{Got1xxResponse: x.got1xx}
		if prior != nil || x.p.traceKey == nil {
			return httptrace.WithClientTrace(ctx, &x.trace)
		}
		x.traced = traceContext{ctx, x.p.traceKey, &x.trace}
		ctx = &x.traced
	}
	return ctx
}

// target makes the outgoing URL.
func (x *exchange) target(in *url.URL) error {
	rw := x.p.rewriter
	x.url = *in
	x.url.Scheme, x.url.Host, x.url.User = x.p.target.Scheme, x.p.target.Host, nil
	if x.url.Path == "" {
		x.url.Path = "/"
	}
	if rw.rewrites() && x.url.Path != "*" {
		old := escapedPath(&x.url)
		path, stripped := rw.path(old)
		if path != old {
			if !setPath(&x.url, path) || !rw.dots && urlpath.DotSegments(x.url.Path) {
				return refuse(http.StatusBadRequest, "The path has no place at the back end.")
			}
			x.stripped = stripped
		}
	}
	policy := rw.query
	if policy == QueryAuto {
		policy = QueryPass
		if x.in.Form != nil || x.p.cfg.Rewrite != nil {
			policy = QueryClean
		}
	}
	query, ok := cleanQuery(x.url.RawQuery, policy)
	if !ok {
		return refuse(http.StatusBadRequest, "The query is not well formed.")
	}
	x.url.RawQuery = query
	return nil
}

// host decides upon the Host that is sent; empty is the target's own.
func (x *exchange) host(out *http.Request) {
	switch x.p.cfg.Host {
	case HostTarget:
		out.Host = ""
	case HostAuto:
		if x.p.target.Scheme == "https" {
			out.Host = ""
		}
		x.rec.hostAuto = true
	}
}

// judge turns the error of a RoundTrip, or of a read of the response, into one
// that says whose fault it was. What ended the request from outside comes
// first, since whatever the Transport says is then a consequence.
func (x *exchange) judge(err error) error {
	if x.interimErr != nil {
		e := *x.interimErr
		e.Backend = x.rec.Backend
		return &e
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Err == errStalled {
		return e // the server of HTTP/1 ends the context with the Read that was ended
	}
	for _, ctx := range [...]context.Context{x.in.Context(), x.out} {
		if contextEnd(ctx) == nil {
			continue
		}
		if cause, ok := answerOf(context.Cause(ctx)); ok {
			return cause
		}
		return contextError(ctx, x.rec.Backend)
	}
	if e := x.body.failed.Load(); e != nil {
		if cause, ok := answerOf(e.Err); ok {
			return cause
		}
		return e
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := answerOf(err); ok {
		return e
	}
	return &Error{Kind: kindOf(err), Backend: x.rec.Backend, Err: err}
}

// answerOf finds the error in err's tree that says itself how it is answered:
// a limit of package timeout, an open breaker.
func answerOf(err error) (problem.Error, bool) {
	if err == nil {
		return nil, false
	}
	return errors.AsType[problem.Error](err)
}

// kindOf reads what went wrong from the error of a Transport that is no Pool.
// It is for the status and the log, so the few cases without a type are told by
// their words.
func kindOf(err error) Kind {
	op, isOp := errors.AsType[*net.OpError](err)
	if isOp && op.Op == "dial" {
		return KindDial
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return KindTLS
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return KindTLS
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return KindTLS
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return KindTLS
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return KindDial
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return KindHeaderTimeout
	}
	if isOp && op.Op == "write" {
		return KindWrite
	}
	text := err.Error()
	for _, s := range [...]string{"malformed", "headers exceeded", "transfer encoding", "Content-Length", "invalid", "PROTOCOL_ERROR"} {
		if strings.Contains(text, s) {
			return KindBadResponse
		}
	}
	return KindNoResponse
}

// fail answers a request that has no response to pass on.
func (x *exchange) fail(err error) {
	e, ok := err.(problem.Error)
	if !ok {
		e = &Error{Kind: KindBadResponse, Backend: x.rec.Backend, Err: err}
	}
	x.rec.Err, x.rec.Status = e, e.HTTPStatus()
	h := x.w.Header()
	x.closeIfUnread(h)
	if after := retryAfter(e); after != "" {
		h["Retry-After"] = []string{after}
	}
	if own, ok := e.(*Error); ok {
		if name := x.p.cfg.ProxyStatus; name != "" {
			h["Proxy-Status"] = append(h["Proxy-Status"], proxyStatusError(name, own))
		}
	}
	x.p.cfg.ErrorHandler(x.w, x.in, e)
}

// retryAfter returns the value of Retry-After for an error, or "". It is at
// least a second, as the field counts them.
func retryAfter(err error) string {
	var d time.Duration
	if e, ok := err.(*Error); !ok {
		d = retryHint(err)
	} else {
		if d = e.RetryAfter; d == 0 {
			d = retryHint(e.Err)
		}
		switch e.Kind {
		case KindNoBackend, KindQueueFull, KindQueueTimeout, KindClosed, KindGate:
			d = max(d, time.Second)
		}
	}
	if d <= 0 {
		return ""
	}
	n := int64(d / time.Second)
	if d%time.Second > 0 {
		n++
	}
	return strconv.FormatInt(n, 10)
}

// closeIfUnread asks the server to close an HTTP/1 connection behind a response
// that comes before the end of the request body. Otherwise it would read the rest
// first, for which the client may be waiting; and in full duplex it goes on to the
// next request even where the deadline of finish has kept it from reading the rest,
// which it would then take for one. It is asked, too, where a Read was ended as the
// body came to its end, because the server may take the client for gone, for all
// further requests.
func (x *exchange) closeIfUnread(h http.Header) {
	if x.in.ProtoMajor == 1 && (!x.complete() || x.body.cut.Load()) {
		h["Connection"] = x.value("close")
	}
}

// complete reports whether all of the request body has been read.
func (x *exchange) complete() bool {
	if x.in.ContentLength == 0 || x.in.Body == nil || x.in.Body == http.NoBody {
		return true
	}
	return x.body.done()
}

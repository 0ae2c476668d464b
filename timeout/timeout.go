// Package timeout limits how long a request may take, in total and phase by
// phase, without buffering the response.
//
//	tmo, err := timeout.New(timeout.Config{Limits: timeout.Limits{
//		Total: 30 * time.Second, ReadIdle: 10 * time.Second, WriteIdle: 30 * time.Second,
//	}})
//	if err != nil {
//		log.Fatal(err)
//	}
//	http.ListenAndServe(addr, tmo.Handler(mux))
//
// # What happens when a limit passes
//
// As long as nothing of the response has been sent, the client gets an answer
// at once: 503, or 408 when it was the client who stalled, as RFC 9457 problem
// details. That holds also for a client that stops in the middle of an HTTP/1.1
// upload, where net/http's own TimeoutHandler sends nothing at all. Once the
// response has begun it is cut, so that the client sees an error and never a
// 200 that looks whole: the connection is closed on HTTP/1.1, the stream reset
// on HTTP/2.
//
// The handler's context is cancelled with an *[Error] as its cause, its reads
// fail with that error and its writes with http.ErrHandlerTimeout, and after
// [Limits.Grace] it is left behind: nothing it does from then on touches the
// request. See [Config.OnLate]. A deadline that was in the context already and
// passes first is answered with 504; its own error is the cause.
//
// When the client goes away the handler has the same time to return. If
// nothing had been sent, the loggers outside see status 499, nginx's for a
// request that its client closed. A client that half-closes an HTTP/1.1
// connection counts as gone, as it does for net/http.
//
// All this is for the default mode, in which the handler has a goroutine of its
// own. With [Config.Cooperative] it has not: nothing is cut, a response that has
// begun ends as the handler ends it, and a client that goes away is left to the
// handler.
//
// # Streaming and upgrades
//
// Only the first [Config.Hold] bytes of a response are held back, until the
// handler writes more, flushes or returns. Flush, Hijack, ReadFrom (sendfile),
// informational responses, trailers and http.ResponseController work below the
// middleware as they do without. Routes that stream without end or upgrade
// need an entry in [Config.Routes] with Total: -1. There is no exception by
// request header: a client must not be able to switch a limit off.
//
// # Differences to http.TimeoutHandler
//
// A handler that panics has its panic raised again in the serving goroutine as
// a *[Panic] that keeps the handler's stack; http.ErrAbortHandler stays bare.
// runtime.Goexit in the handler closes the connection at once. The handler
// sees the headers that were set outside, and may delete them. After a
// cancellation by the client TimeoutHandler writes 503, and this package 499.
//
// # Where it belongs
//
// Outside of whatever may take long, inside of request IDs and access logs.
// With [Config.Mux] it must stand directly outside the routes it names. It may
// be nested: Total and FirstByte can only be made shorter inside; the
// innermost ReadIdle and WriteIdle win.
//
// Whoever calls EnableFullDuplex must be inside. An HTTP/1.1 connection on which
// it was called closes after a response that came before the end of the body:
// net/http would go on to the next request even where a limit has kept it from
// reading the rest, and take the rest for one. Of a call outside this package
// does not know.
//
// Leave http.Server's ReadTimeout and WriteTimeout at zero, since they count
// whole requests and give no answer, and set ReadHeaderTimeout and IdleTimeout.
// Nothing here limits the time before the handler is called.
//
// # What it costs
//
// One goroutine for each request, copies of the two header maps, and up to
// Hold bytes; with [Config.Cooperative] none of these. A request that is left
// behind keeps its goroutine until its handler returns.
package timeout

import (
	"context"
	"net/http"
	"time"

	"example.com/plainware/internal/respwriter"
)

// Middleware limits requests. It is safe for concurrent use.
type Middleware struct {
	cfg    Config
	plan   *plan
	routes routes
	held   holdPool
}

// New returns a Middleware. The error lists every field that is wrong.
func New(cfg Config) (*Middleware, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Status == 0 {
		cfg.Status = defaultStatus
	}
	if cfg.Hold == 0 {
		cfg.Hold = defaultHold
	}
	if cfg.ErrorHandler == nil {
		cfg.ErrorHandler = WriteError
	}
	m := &Middleware{
		cfg:    cfg,
		plan:   newPlan(cfg.Limits, cfg.Status),
		routes: newRoutes(cfg.Routes, cfg.Limits, cfg.Status),
	}
	m.cfg.Routes = nil
	m.held.size = max(cfg.Hold, 0)
	return m, nil
}

// Handler returns a handler that runs next within the limits. Where there are
// none, it is next itself. A nil next panics.
func (m *Middleware) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("timeout: nil handler")
	}
	if m.plan.none() && len(m.routes.plans) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch p := m.planFor(r); {
		case p.none():
			next.ServeHTTP(w, r)
		case m.cfg.Cooperative:
			m.serveCooperative(w, r, next, p)
		default:
			m.serveHard(w, r, next, p)
		}
	})
}

func (m *Middleware) planFor(r *http.Request) *plan {
	if len(m.routes.plans) > 0 {
		_, pattern := m.cfg.Mux.Handler(r)
		if p := m.routes.find(pattern); p != nil {
			return p
		}
	}
	return m.plan
}

// limits is the context of one request under a plan, seen from its maker.
type limits struct {
	cancel context.CancelCauseFunc // nil without limits that are not a deadline
	stop   context.CancelFunc      // nil without a deadline
	began  time.Time
}

func (l *limits) start(ctx context.Context, p *plan) context.Context {
	if p.FirstByte > 0 || p.ReadIdle > 0 || p.WriteIdle > 0 {
		ctx, l.cancel = context.WithCancelCause(ctx)
	}
	l.began = time.Now()
	if p.Total > 0 {
		ctx, l.stop = context.WithDeadlineCause(ctx, l.began.Add(p.Total), p.total)
	}
	return ctx
}

// end ends the context, with a cause where one of the limits that are not a
// deadline passed.
func (l *limits) end(cause error) {
	if l.cancel != nil {
		l.cancel(cause)
	}
	if l.stop != nil {
		l.stop()
	}
}

// copyBack makes what the mux and ParseMultipartForm left in the copy of a
// request visible outside, as if no copy had been made: access logs want the
// pattern, and the server removes the files of its own request's form only.
func copyBack(outer, inner *http.Request) {
	outer.Pattern = inner.Pattern
	if outer.MultipartForm == nil {
		outer.MultipartForm = inner.MultipartForm
	}
}

// answerLimit bounds the sending of a refusal, also where no WriteIdle does: a
// client that stalls may well not read either.
func answerLimit(p *plan) time.Duration {
	if p.WriteIdle > 0 {
		return p.WriteIdle
	}
	return 5 * time.Second
}

// answer refuses the request with err.
func (m *Middleware) answer(g *gate, r *http.Request, b *body, p *plan, err *Error) {
	g.setWriteDeadline(time.Now().Add(answerLimit(p)))
	closeIfSpoiled(g, r, b)
	m.cfg.ErrorHandler(g.w, r, err)
	if r.ProtoMajor >= 2 && len(g.w.Header()["Grpc-Status"]) > 0 {
		return // clients of gRPC want the end of the stream with such a head
	}
	http.NewResponseController(g.w).Flush()
}

// closeIfUnread asks the server to close an HTTP/1 connection on which a
// request body may still be coming.
func closeIfUnread(w http.ResponseWriter, r *http.Request, b *body) {
	if r.ProtoMajor == 1 && b.unread() {
		w.Header()["Connection"] = []string{"close"}
	}
}

// closeIfSpoiled does so too when the server takes the client for gone.
func closeIfSpoiled(g *gate, r *http.Request, b *body) {
	closeIfUnread(g.w, r, b)
	if r.ProtoMajor == 1 && g.readLapsed() {
		g.w.Header()["Connection"] = []string{"close"}
	}
}

var _ respwriter.Core = (*writer)(nil)
var _ respwriter.Core = (*observer)(nil)

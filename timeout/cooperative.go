package timeout

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"example.com/plainware/internal/respwriter"
)

// observer is the response as a handler in the serving goroutine sees it.
type observer struct {
	respwriter.Writer
	gate
	watches
	limits
	form  respwriter.Form
	req   *http.Request // the handler's
	plan  *plan
	body  *body       // nil: the request has none
	begun atomic.Bool // Committed, for timers

	flushed bool // the server has made the header, or is about to
}

func (o *observer) Write(p []byte) (n int, err error) {
	if room := serverBuffer - o.Written(); int64(len(p)) > room && o.drains() {
		o.limitDrain()
		n, err = o.Writer.Write(p[:room+1])
		o.unlimitDrain()
		if err != nil {
			return n, err
		}
		p = p[n:]
	}
	m, err := o.write.write(&o.Writer, p)
	return n + m, err
}

func (o *observer) WriteString(s string) (int, error) {
	if o.write == nil && !o.drains() {
		return o.Writer.WriteString(s)
	}
	return o.Write([]byte(s))
}

func (o *observer) FlushError() error {
	if o.drains() {
		o.limitDrain()
		defer o.unlimitDrain()
		return o.Writer.FlushError()
	}
	o.flushed = true
	return o.write.flush(&o.Writer)
}

func (o *observer) ReadFrom(src io.Reader) (int64, error) {
	if o.drains() {
		return copyTo(o, src)
	}
	if o.write == nil {
		return o.Writer.ReadFrom(src)
	}
	if file, ok := regularFile(src); ok {
		return o.write.sendFile(&o.Writer, file)
	}
	return copyTo(o, src)
}

// drains reports whether the server has yet to send the header, before which it
// reads what is left of an HTTP/1 request body, and whether ReadIdle or FirstByte
// must limit that reading. Total frees it by ending the context.
func (o *observer) drains() bool {
	return (o.plan.ReadIdle > 0 || o.plan.FirstByte > 0) && o.req.ProtoMajor == 1 && o.Written() <= serverBuffer && !o.flushed &&
		o.body.unread() && !o.duplex.Load() && !o.ownsRead()
}

// limitDrain is called before what makes the server send the header. The wait is
// first for the body, and only then for the client to take something.
func (o *observer) limitDrain() {
	o.flushed = true
	now := time.Now()
	d, ok := o.plan.restDeadline(o.began, now)
	if ok {
		o.startDrain(d)
	} else {
		d = now
	}
	if o.write != nil && !o.ownsWrite() {
		o.setWriteDeadline(d.Add(o.write.err.Limit))
	}
}

func (o *observer) unlimitDrain() {
	o.endDrain()
	if o.write != nil && !o.ownsWrite() {
		o.setWriteDeadline(time.Time{})
	}
	if o.body.over() != nil {
		o.setReadDeadline(longAgo) // whose time may have been just before
	}
}

// BeforeCommit is told by the Writer that the response begins.
func (o *observer) BeforeCommit(status int) error {
	o.begun.Store(true)
	if status == http.StatusRequestEntityTooLarge || o.readLapsed() {
		// http.MaxBytesReader asks for it too, but only the server's own
		// writer hears it.
		closeIfSpoiled(&o.gate, o.req, o.body)
	}
	return nil
}

// serveCooperative runs next in the serving goroutine, and answers for it if
// it returns too late without having done so itself.
func (m *Middleware) serveCooperative(w http.ResponseWriter, r *http.Request, next http.Handler, p *plan) {
	if p.deadlineOnly() && !hasBody(r) {
		m.serveDeadline(w, r, next, p)
		return
	}
	o := &observer{gate: gate{w: w}, plan: p}
	ctx := o.limits.start(r.Context(), p)
	defer o.end(nil)
	defer o.close()
	if p.ReadIdle > 0 || p.WriteIdle > 0 {
		var release func()
		ctx, release = holdOuter(ctx, p, &o.watches)
		defer release()
	}
	r2 := r.WithContext(ctx)
	defer copyBack(r, r2)
	o.req = r2

	if p.FirstByte > 0 {
		defer time.AfterFunc(p.FirstByte, func() {
			if !o.begun.Load() {
				o.end(p.firstByte)
			}
		}).Stop()
	}
	o.Writer = respwriter.Make(w, r, o)
	if p.WriteIdle > 0 {
		o.write = &watch{err: p.writeIdle, fire: func() {
			o.end(p.writeIdle)
			o.setWriteDeadline(longAgo)
		}}
	}
	if p.ReadIdle > 0 {
		o.read = &watch{err: p.readIdle, fire: func() {
			o.end(p.readIdle)
			if o.body.unread() { // as below, but the server may have ended the context before
				o.setReadDeadline(longAgo)
			}
		}}
	}
	if hasBody(r) {
		b := &body{ReadCloser: r.Body, watch: o.read, over: func() error {
			if err := causeOf(ctx); err != nil {
				return err
			}
			return nil
		}}
		o.body, r2.Body = b, b
		// A handler may wait for the client, whatever it does about its context.
		defer context.AfterFunc(ctx, func() {
			if causeOf(ctx) != nil && b.unread() {
				o.setReadDeadline(longAgo)
			}
		})()
	}

	answered := false
	defer func() { // after a panic too: the server reads on before it closes
		if o.Hijacked() {
			return
		}
		if !answered {
			o.guardRest(p, r, o.body, o.began)
		}
		o.closeAfter(r, o.body)
	}()
	next.ServeHTTP(o.form.Of(o, w), r2)

	if err := causeOf(ctx); err != nil && !o.Committed() {
		answered = true
		if o.body.unread() {
			o.setReadDeadline(longAgo) // as above, which may not have happened yet
		}
		m.answer(&o.gate, r, o.body, p, err)
	}
}

// serveDeadline is serveCooperative where there is nothing to watch but the
// clock, which most requests are.
func (m *Middleware) serveDeadline(w http.ResponseWriter, r *http.Request, next http.Handler, p *plan) {
	ctx, stop := context.WithTimeoutCause(r.Context(), p.Total, p.total)
	defer stop()
	r2 := r.WithContext(ctx)
	defer copyBack(r, r2)
	rw := respwriter.Make(w, r, nil)
	next.ServeHTTP(rw.Form(), r2)
	if err := causeOf(ctx); err != nil && !rw.Committed() {
		g := gate{w: w}
		m.answer(&g, r, nil, p, err)
	}
}

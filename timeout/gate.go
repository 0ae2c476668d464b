package timeout

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// gate is the way to the connection's controls for those who may come late:
// timers, and handlers that outlive their request. Closed before ServeHTTP
// returns, it keeps them off the next request of the same connection.
//
// Its exported methods are what a handler's http.ResponseController finds. They
// do not wait for a Write that is under way: their use is to free it.
type gate struct {
	mu     sync.Mutex
	w      http.ResponseWriter
	closed bool
	taken  bool // the response is out of the handler's hands: its own calls fail

	// What the handler has set itself. Its deadlines stand beside the limits of
	// its reads and writes, the earlier of the two counting, and in the place of
	// those that guardRest would set.
	ownRead, ownWrite time.Time
	lapsed            bool        // a read deadline has passed that is no longer ownRead
	timed             atomic.Bool // there was a read deadline that may lapse
	duplex            atomic.Bool
}

func (g *gate) SetReadDeadline(t time.Time) error {
	g.timed.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.taken {
		return http.ErrHandlerTimeout
	}
	g.lapsed = g.lapsed || passed(g.ownRead)
	g.ownRead = t
	return http.NewResponseController(g.w).SetReadDeadline(t)
}

func (g *gate) SetWriteDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.taken {
		return http.ErrHandlerTimeout
	}
	g.ownWrite = t
	return http.NewResponseController(g.w).SetWriteDeadline(t)
}

func (g *gate) EnableFullDuplex() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.taken {
		return http.ErrHandlerTimeout
	}
	err := http.NewResponseController(g.w).EnableFullDuplex()
	g.duplex.Store(err == nil)
	return err
}

// readLapsed reports whether a read deadline has passed that the handler has
// set, or one of ours that was meant to. If the body had been read by then, an
// HTTP/1 server takes its client for gone, for this request and all others on
// the connection.
func (g *gate) readLapsed() bool {
	if !g.timed.Load() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lapsed || passed(g.ownRead)
}

func passed(deadline time.Time) bool { return !deadline.IsZero() && !deadline.After(time.Now()) }

func (g *gate) ownsRead() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.ownRead.IsZero()
}

func (g *gate) ownsWrite() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.ownWrite.IsZero()
}

func (g *gate) setReadDeadline(t time.Time) error {
	return g.do(func(c *http.ResponseController) error {
		if t == longAgo {
			g.lapsed = true
			g.timed.Store(true)
		}
		return c.SetReadDeadline(t)
	})
}

func (g *gate) setWriteDeadline(t time.Time) error {
	return g.do(func(c *http.ResponseController) error { return c.SetWriteDeadline(t) })
}

func (g *gate) do(f func(*http.ResponseController) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return http.ErrHandlerTimeout
	}
	return f(http.NewResponseController(g.w))
}

// take keeps the handler from the controls. When it returns, no call of the
// handler's is under way.
func (g *gate) take() {
	g.mu.Lock()
	g.taken = true
	g.mu.Unlock()
}

func (g *gate) close() {
	g.mu.Lock()
	g.closed, g.taken = true, true
	g.mu.Unlock()
}

// guardRest limits what the server does for a request whose handler has
// returned: it sends the last buffer, and on HTTP/1 it reads what the handler
// has left of the body, before the header if that was not sent. The server
// clears both deadlines before the next request.
func (g *gate) guardRest(p *plan, r *http.Request, b *body, start time.Time) {
	if p.WriteIdle == 0 && !b.unread() {
		return
	}
	begin := time.Now() // of the sending
	if r.ProtoMajor == 1 && b.unread() && !g.ownsRead() {
		if d, ok := p.restDeadline(start, begin); ok {
			g.setReadDeadline(d)
			begin = d
		}
	}
	if p.WriteIdle > 0 && !g.ownsWrite() {
		g.setWriteDeadline(begin.Add(p.WriteIdle))
	}
}

// lost reports whether the answer cannot be the handler's any more. Its
// controls fail from then on, and not only when the serving goroutine has
// noticed it: on HTTP/2 a write deadline in the past resets the stream, the
// answer with it, and one comes from every middleware like this one inside that
// frees its own handler at the same moment.
func (t *writer) lost() bool { return t.isOver() || t.tooLate() }

func (t *writer) SetReadDeadline(d time.Time) error {
	if t.lost() {
		return http.ErrHandlerTimeout
	}
	return t.gate.SetReadDeadline(d)
}

func (t *writer) SetWriteDeadline(d time.Time) error {
	if t.lost() {
		return http.ErrHandlerTimeout
	}
	return t.gate.SetWriteDeadline(d)
}

func (t *writer) EnableFullDuplex() error {
	if t.lost() {
		return http.ErrHandlerTimeout
	}
	return t.gate.EnableFullDuplex()
}

package timeout

import (
	"io"
	"net/http"
	"strings"
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
	draining          time.Time   // the read deadline of startDrain
	lapsed            bool        // a read deadline has passed that is in neither any more
	timed             atomic.Bool // there was a read deadline that may lapse
	duplex            atomic.Bool
	closing           atomic.Bool // a middleware inside wants the connection closed
}

func (g *gate) SetReadDeadline(t time.Time) error {
	g.timed.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.taken {
		return http.ErrHandlerTimeout
	}
	err := http.NewResponseController(g.w).SetReadDeadline(t)
	g.lapsed = g.lapsed || passed(g.ownRead) // now that it cannot pass any more
	g.ownRead = t
	return err
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
// set, or one of ours. If the body had been read by then, an HTTP/1 server takes
// its client for gone, for this request and all others on the connection.
func (g *gate) readLapsed() bool {
	if !g.timed.Load() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lapsed || passed(g.ownRead) || passed(g.draining)
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

// startDrain limits the reading of the rest of an HTTP/1 body that the server
// does before it sends the header. A deadline of the handler's is from another
// goroutine then, as the timers of a middleware inside are, and stays.
func (g *gate) startDrain(deadline time.Time) {
	g.timed.Store(true)
	g.do(func(c *http.ResponseController) error {
		if !g.ownRead.IsZero() && g.ownRead.Before(deadline) {
			deadline = g.ownRead
		}
		g.draining = deadline
		return c.SetReadDeadline(deadline)
	})
}

func (g *gate) endDrain() {
	g.do(func(c *http.ResponseController) error {
		err := c.SetReadDeadline(g.ownRead)
		g.lapsed = g.lapsed || passed(g.draining)
		g.draining = time.Time{}
		return err
	})
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
// handler's is under way, and no read deadline of its own can pass any more: on
// HTTP/1 it would cancel the connection's next request.
func (g *gate) take() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken = true
	if !g.closed && !g.ownRead.IsZero() && !passed(g.ownRead) {
		http.NewResponseController(g.w).SetReadDeadline(time.Time{})
		g.lapsed = g.lapsed || passed(g.ownRead)
		g.ownRead = time.Time{}
	}
}

func (g *gate) close() {
	g.mu.Lock()
	g.closed, g.taken = true, true
	g.mu.Unlock()
}

// guardRest limits what the server does for a request whose handler has
// returned: it sends the last buffer, and on HTTP/1 it reads what the handler
// has left of the body, before the header if that was not sent. The server
// clears both deadlines before the next request, but if it has read the body, and
// that could not be seen, a client that is slow to take the response can make the
// read deadline pass first, see readLapsed.
func (g *gate) guardRest(p *plan, r *http.Request, b *body, start time.Time) {
	b.findEnd(r)
	if p.WriteIdle == 0 && !b.unread() {
		return
	}
	begin := time.Now() // of the sending
	if r.ProtoMajor == 1 && b.unread() && !g.ownsRead() {
		if d, ok := p.restDeadline(start, begin); ok {
			g.setReadDeadline(d)
			begin = d
		} else if p.Total > 0 || g.readLapsed() {
			g.setReadDeadline(longAgo) // its time is over, and closeAfter ends the connection
		}
	}
	if p.WriteIdle > 0 && !g.ownsWrite() {
		g.setWriteDeadline(begin.Add(p.WriteIdle))
	}
}

// closeAfter makes the server close an HTTP/1 connection after the response,
// also when the header is out: where the server takes the client for gone, and
// in full duplex where a body is left. The server goes on to the next request
// then, whether or not it could read the rest of this one, and where a deadline
// has kept it from that it would take the rest for a request.
//
// A body that is too large is the one way to say so to the server so late. It is
// for the serving goroutine alone, which a middleware outside may have left.
func (g *gate) closeAfter(r *http.Request, b *body) {
	if r.ProtoMajor != 1 || !g.closing.Load() && !g.readLapsed() && !(g.duplex.Load() && b.unread()) {
		return
	}
	for w := g.w; ; {
		switch outer := w.(type) {
		case *writer:
			outer.closing.Store(true)
			return
		case interface{ Unwrap() http.ResponseWriter }:
			w = outer.Unwrap()
		default:
			http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
			return
		}
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

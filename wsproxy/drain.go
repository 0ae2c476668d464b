package wsproxy

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// Tunnels iterates over the open tunnels, in no order. The traffic in Info is
// that of the moment.
func (p *Proxy) Tunnels() iter.Seq[Info] {
	return func(yield func(Info) bool) {
		for _, t := range p.all() {
			if !yield(t.Info()) {
				return
			}
		}
	}
}

func (p *Proxy) all() []*tunnel {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*tunnel, 0, len(p.tunnels))
	for _, t := range p.tunnels {
		all = append(all, t)
	}
	return all
}

// CloseTunnel closes one tunnel with a Close frame to both sides and returns at
// once. It reports whether there is a tunnel with this ID. The code must be one
// that may be sent (RFC 6455 section 7.4.1), the reason at most 123 bytes of
// UTF-8.
func (p *Proxy) CloseTunnel(id uint64, code int, reason string) (bool, error) {
	var bad problems
	if !validCode(code) {
		bad.add("code", "must be 1000 to 1003, 1007 to 1014 or 3000 to 4999", code)
	}
	if !validReason(reason) {
		bad.add("reason", "must be at most 123 bytes of UTF-8", fmt.Sprintf("%q", reason))
	}
	if err := bad.join(); err != nil {
		return false, err
	}
	p.mu.Lock()
	t := p.tunnels[id]
	p.mu.Unlock()
	if t == nil {
		return false, nil
	}
	f := CloseFrame{code, reason}
	t.shut(EndDrained, f, f)
	return true, nil
}

// Drain asks the tunnels that are open now to go, with a Close frame to both
// sides at a boundary of frames, and returns at once. New tunnels can be opened.
// It is for moving clients away from a back end or a process; Shutdown is for
// ending. A tunnel that is to close sooner already stays with that.
func (p *Proxy) Drain(d Drain) error {
	var bad problems
	if d.check("", &bad); len(bad) > 0 {
		return bad.join()
	}
	p.drain(d.normal())
	return nil
}

func (p *Proxy) drain(d Drain) {
	for _, t := range p.all() {
		at := p.now() + p.random(int64(d.Spread))
		t.mu.Lock()
		if t.drainAt == 0 || at < t.drainAt {
			t.drainAt, t.drain = at, &d
		}
		t.mu.Unlock()
		p.clock.soon(t, at)
	}
}

// Shutdown refuses new tunnels, drains those that are open as Config.Drain says,
// and waits. When none is left it returns nil. When ctx ends it cuts the rest and
// returns the context's error. It covers tunnels that http.Server.Shutdown does not
// know of (HTTP/1.1) and those that it waits for (HTTP/2): call it before, or beside.
func (p *Proxy) Shutdown(ctx context.Context) error {
	left := p.refuseNew()
	d := p.cfg.Drain
	if deadline, ok := ctx.Deadline(); ok {
		d.Spread = max(0, min(d.Spread, time.Until(deadline)-p.cfg.Timeouts.Close))
	}
	p.drain(d)
	select {
	case <-left:
		return nil
	case <-ctx.Done():
	}
	p.cutAll()
	<-left
	return ctx.Err()
}

// Close refuses new tunnels, cuts those that are open, and waits until they have
// ended. It may be called more than once.
func (p *Proxy) Close() error {
	left := p.refuseNew()
	p.cutAll()
	<-left
	return nil
}

// refuseNew closes the door and returns a channel that is closed when everyone
// has left.
func (p *Proxy) refuseNew() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	c := make(chan struct{})
	if p.places == 0 {
		close(c)
	} else {
		p.empty = append(p.empty, c)
	}
	return c
}

func (p *Proxy) cutAll() {
	p.kill()
	for _, t := range p.all() {
		t.note(EndClosed, nil)
		t.cut()
	}
}

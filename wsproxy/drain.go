package wsproxy

import (
	"context"
	"fmt"
	"iter"
	"sync"
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
// and waits. When none is left it returns nil. When ctx ends it cuts the rest, gives
// them up to a second to be gone, and returns the context's error. Only a tunnel over
// HTTP/2 whose client does not read its connection outlasts that: see [Prepare].
// Shutdown covers tunnels that http.Server.Shutdown does not know of (HTTP/1.1) and
// those that it waits for (HTTP/2): call it before, or beside. It does not wait for
// clients that are being passed a back end's refusal, and Close cuts these.
func (p *Proxy) Shutdown(ctx context.Context) error {
	left := p.refuseNew()
	d := p.cfg.Drain
	if deadline, ok := ctx.Deadline(); ok {
		d.Spread = max(0, min(d.Spread, time.Until(deadline)-p.cfg.Timeouts.Close))
	}
	p.drain(d)
	if waitFor(left, ctx.Done()) {
		return nil
	}
	wait(p.cutAll(left), cutTime)
	return ctx.Err()
}

// Close refuses new tunnels, cuts those that are open, and waits until they have
// ended and OnClose has returned for each. It returns an error if that has not
// come about in 10 s: because a hook, or the Close of a connection of Config.Dial,
// takes so long, a hook calls Close itself, or for the reason that Shutdown names. It
// may be called more than once.
func (p *Proxy) Close() error {
	if wait(p.cutAll(p.refuseNew()), closeTime) {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.places.taken == 0 {
		return nil // only a connection takes its time to close
	}
	return fmt.Errorf("wsproxy: %d tunnels were cut and have not ended", p.places.taken)
}

// How long Shutdown and Close wait for tunnels that are cut.
const (
	cutTime   = time.Second
	closeTime = 10 * time.Second
)

// wait reports whether done was closed in time.
func wait(done <-chan struct{}, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return waitFor(done, ctx.Done())
}

// waitFor reports whether done was closed before over, or with it.
func waitFor(done, over <-chan struct{}) bool {
	select {
	case <-done:
	case <-over:
		select {
		case <-done: // of two that are ready select takes any
		default:
			return false
		}
	}
	return true
}

// refuseNew closes the door and returns a channel that is closed when everyone
// has left.
func (p *Proxy) refuseNew() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	c := make(chan struct{})
	if p.places.taken == 0 {
		close(c)
	} else {
		p.empty = append(p.empty, c)
	}
	return c
}

// cutAll cuts what is open and what is being opened, all at the same time. What it
// returns is closed when that is done and left is closed.
func (p *Proxy) cutAll(left <-chan struct{}) <-chan struct{} {
	p.kill()
	var cuts sync.WaitGroup
	for _, t := range p.all() {
		t.note(EndClosed, nil)
		cuts.Go(t.cut)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		cuts.Wait()
		<-left
	}()
	return done
}

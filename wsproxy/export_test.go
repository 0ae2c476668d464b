package wsproxy

import (
	"errors"
	"fmt"
	"sync"
)

// Audit watches the pools of a Proxy.
type Audit struct{ buffers, writings auditedPool }

// AuditPools puts pools that are watched in the place of those of p, which has
// not served yet.
func AuditPools(p *Proxy) *Audit {
	a := &Audit{
		buffers:  auditedPool{make: p.buffers.Get, out: make(map[any]bool)},
		writings: auditedPool{make: p.writings.Get, out: make(map[any]bool)},
	}
	p.buffers, p.writings = &a.buffers, &a.writings
	return a
}

// Taken is how often a buffer was taken.
func (a *Audit) Taken() int {
	a.buffers.mu.Lock()
	defer a.buffers.mu.Unlock()
	return a.buffers.taken
}

// Writes is how often a socket was written to without the net package.
func (a *Audit) Writes() int {
	a.writings.mu.Lock()
	defer a.writings.mu.Unlock()
	return a.writings.taken
}

// Check returns an error unless all that was taken was put back exactly once.
func (a *Audit) Check() error {
	return errors.Join(a.buffers.check("buffers"), a.writings.check("states of writes"))
}

// auditedPool is a sync.Pool that keeps accounts, and forgets nothing.
type auditedPool struct {
	make func() any

	mu    sync.Mutex
	taken int
	out   map[any]bool
	free  []any // the last that was put back is taken first
	wrong int   // put back what was not out
}

func (p *auditedPool) Get() any {
	p.mu.Lock()
	defer p.mu.Unlock()
	var x any
	if n := len(p.free); n > 0 {
		x, p.free = p.free[n-1], p.free[:n-1]
	} else {
		x = p.make()
	}
	p.taken++
	p.out[x] = true
	return x
}

func (p *auditedPool) Put(x any) {
	if b, ok := x.(*buffer); ok {
		// What is still in use would show: as a race, or in what is received.
		for i := range b[:room+64] {
			b[i] = 0xff
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.out[x] {
		p.wrong++
		return
	}
	delete(p.out, x)
	p.free = append(p.free, x)
}

func (p *auditedPool) check(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.out) > 0 || p.wrong > 0 {
		return fmt.Errorf("%d %s were not put back, %d were put back too often", len(p.out), what, p.wrong)
	}
	return nil
}

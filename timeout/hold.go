package timeout

import (
	"net/http"
	"sync"
)

// holding is what is held back of a response, and what must be put back if it
// never begins.
type holding struct {
	body  []byte
	outer []field // the real header
}

type field struct {
	name   string
	values []string
}

// restore makes dst equal to what was saved.
func (h *holding) restore(dst http.Header) {
	clear(dst)
	for _, f := range h.outer {
		dst[f.name] = f.values
	}
}

// holdPool is where the memory for what is held back comes from.
type holdPool struct {
	size int // of a body
	pool sync.Pool
}

func (p *holdPool) get() *holding {
	if h, ok := p.pool.Get().(*holding); ok {
		return h
	}
	return &holding{body: make([]byte, 0, p.size)}
}

func (p *holdPool) put(h *holding) {
	clear(h.outer) // it would keep the values alive
	h.outer, h.body = h.outer[:0], h.body[:0]
	p.pool.Put(h)
}

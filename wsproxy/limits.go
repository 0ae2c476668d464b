package wsproxy

// keyOf returns what Limits.PerKey counts a handshake by.
func (p *Proxy) keyOf(hs *Handshake) string {
	if p.cfg.Limits.PerKey == 0 {
		return ""
	}
	if p.cfg.Limits.Key != nil {
		return p.cfg.Limits.Key(hs)
	}
	a := hs.Client
	if !a.Is6() {
		return a.String()
	}
	// Whoever has one address of a /64 has them all.
	prefix, _ := a.Prefix(64)
	return prefix.String()
}

// places is as many as Limits.Tunnels and PerKey allow. What holds a place has a
// connection to a back end, or is to get one.
type places struct {
	taken int
	keys  map[string]int // how many of them by Limits.Key
}

// take reports whether there was a place.
func (s *places) take(l *Limits, key string) bool {
	if l.Tunnels > 0 && s.taken >= l.Tunnels || l.PerKey > 0 && s.keys[key] >= l.PerKey {
		return false
	}
	s.taken++
	if l.PerKey > 0 {
		if s.keys == nil {
			s.keys = make(map[string]int)
		}
		s.keys[key]++
	}
	return true
}

func (s *places) free(l *Limits, key string) {
	s.taken--
	if l.PerKey > 0 {
		if s.keys[key]--; s.keys[key] == 0 {
			delete(s.keys, key)
		}
	}
}

// enter takes a place for a tunnel to be. The error is an *Error.
func (p *Proxy) enter(key string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return &Error{Kind: ShuttingDown}
	case !p.places.take(&p.cfg.Limits, key):
		return &Error{Kind: TooMany}
	}
	return nil
}

// free gives a place back.
func (p *Proxy) free(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.vacate(key)
}

// vacate is free with mu held.
func (p *Proxy) vacate(key string) {
	p.places.free(&p.cfg.Limits, key)
	if p.places.taken == 0 {
		for _, c := range p.empty {
			close(c)
		}
		p.empty = nil
	}
}

// enterRefusals changes a place for one among the refusals, and reports whether
// there was one; otherwise it stays. There a client that does not read takes no
// tunnel's place and Shutdown does not wait for it, and yet what it can hold is
// bounded.
func (p *Proxy) enterRefusals(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.refusals.take(&p.cfg.Limits, key) {
		return false
	}
	p.vacate(key)
	return true
}

// freeRefusal gives that place back.
func (p *Proxy) freeRefusal(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusals.free(&p.cfg.Limits, key)
}

// register makes an open tunnel known.
func (p *Proxy) register(t *tunnel) {
	p.mu.Lock()
	p.nextID++
	t.about.id = p.nextID
	p.tunnels[t.about.id] = t
	if p.closed {
		// Shutdown has not seen it.
		t.drainAt, t.drain = t.opened, &p.cfg.Drain
	}
	p.mu.Unlock()
	if p.life.Err() != nil {
		t.note(EndClosed, nil)
		t.cut()
	}
}

// leave forgets a tunnel that has ended.
func (p *Proxy) leave(t *tunnel) {
	p.mu.Lock()
	delete(p.tunnels, t.about.id)
	p.mu.Unlock()
	p.free(t.key)
}

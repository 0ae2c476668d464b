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

// enter takes a place for a tunnel to be. The error is an *Error.
func (p *Proxy) enter(key string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &p.cfg.Limits
	switch {
	case p.closed:
		return &Error{Kind: ShuttingDown}
	case l.Tunnels > 0 && p.places >= l.Tunnels:
		return &Error{Kind: TooMany}
	case l.PerKey > 0 && p.keys[key] >= l.PerKey:
		return &Error{Kind: TooMany}
	}
	p.places++
	if l.PerKey > 0 {
		p.keys[key]++
	}
	return nil
}

// free gives a place back.
func (p *Proxy) free(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.places--
	if p.cfg.Limits.PerKey > 0 {
		if p.keys[key]--; p.keys[key] == 0 {
			delete(p.keys, key)
		}
	}
	if p.places == 0 {
		for _, c := range p.empty {
			close(c)
		}
		p.empty = nil
	}
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

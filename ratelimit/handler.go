package ratelimit

import (
	"context"
	"net/http"

	"example.com/plainware/internal/clientip"
)

// Handler returns a handler that passes the requests that are admitted to next,
// and answers the others. It panics if next is nil.
func (l *Limiter) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("ratelimit: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !l.holds {
			l.serve(next, w, r, nil)
			return
		}
		h := new(holds)
		// Deferred, since it must not stay taken when a handler panics.
		defer h.release()
		l.serve(next, w, r, h)
	})
}

func (l *Limiter) serve(next http.Handler, w http.ResponseWriter, r *http.Request, h *holds) {
	var c client
	if l.skip != nil && l.skip(r) || len(l.exempt) > 0 && l.isExempt(r, &c) {
		l.counters.stripe().exempt.Add(1)
		next.ServeHTTP(w, r)
		return
	}
	var rd *round
	var err error
	if l.plain {
		var admitted bool
		if admitted, rd = l.quick(w, r, &c); admitted {
			next.ServeHTTP(w, r)
			return
		}
	}
	if rd == nil {
		rd = l.newRound()
		for _, p := range l.enforced {
			l.use(rd, p, r, &c)
		}
		err = l.decide(r.Context(), rd, h)
	}
	if err != nil {
		rd.reason = unavailable
	}
	d := rd.decision()
	l.count(rd, d)
	l.write(w.Header(), rd, &d)
	if !d.Allowed {
		refusal := &LimitError{Decision: d, reason: rd.reason, cause: err}
		l.free(rd)
		l.refuse(w, r, refusal)
		return
	}
	var charged []charged
	if l.charges {
		charged = rd.charged()
	}
	l.free(rd)
	if l.onDecision != nil {
		l.onDecision(r, d)
	}
	for _, p := range l.shadows {
		l.try(p, r, &c, h)
	}
	if !l.context {
		next.ServeHTTP(w, r)
		return
	}
	inner := r.WithContext(&state{Context: r.Context(), owner: l, decision: d, charged: charged})
	// Deferred, so that whoever recovers from a panic of next sees the pattern,
	// and the server finds the temporary files that it has to remove.
	defer func() {
		r.Pattern = inner.Pattern
		if r.MultipartForm == nil {
			r.MultipartForm = inner.MultipartForm
		}
	}()
	next.ServeHTTP(w, inner)
}

// quick is the way of most requests, about one policy with a register in memory:
// it decides, and writes the header of those that are admitted. For others it
// returns the round that has refused them, or nil where the long way must be
// taken.
func (l *Limiter) quick(w http.ResponseWriter, r *http.Request, c *client) (admitted bool, rd *round) {
	p := l.enforced[0]
	u := use{p: p, known: true}
	var applies bool
	if u.key, u.cost, applies = l.about(p, r, c); !applies || u.cost > p.most {
		return false, nil
	}
	op := p.template
	op.Key, op.Min, op.Max = u.key, u.cost, u.cost
	var err error
	if u.res, err = l.guard.memory.Advance(r.Context(), op); err != nil {
		return false, nil // nothing was taken
	}
	if u.res.Granted == u.cost {
		if l.headers == Draft10 {
			var array [96]byte
			setFields(w.Header(), l.policyField, u.appendItem(array[:0]))
		}
		l.countOne(p, u.key)
		return true, nil
	}
	u.refused = true
	rd = l.newRound()
	rd.uses = append(rd.uses, u)
	return false, rd
}

// about returns what p has to decide about r, if it applies.
func (l *Limiter) about(p *policy, r *http.Request, c *client) (key string, cost int64, applies bool) {
	key, complete := l.keyOf(&p.key, r, c)
	if p.optional && !complete {
		return "", 0, false
	}
	cost = 1
	if p.costOf != nil {
		if cost = p.costOf(r); cost < 0 {
			cost = 1
		}
	}
	return key, cost, true
}

// use adds what p has to decide about r.
func (l *Limiter) use(rd *round, p *policy, r *http.Request, c *client) {
	if key, cost, applies := l.about(p, r, c); applies {
		rd.uses = append(rd.uses, use{p: p, key: key, cost: cost})
	}
}

// refuse answers r in the handler's place.
func (l *Limiter) refuse(w http.ResponseWriter, r *http.Request, err *LimitError) {
	if l.onDecision != nil {
		l.onDecision(r, err.Decision)
	}
	if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody {
		// The body that is coming would be read for nothing.
		w.Header()["Connection"] = []string{"close"}
	}
	l.errorHandler(w, r, err)
}

// try asks a policy in Shadow about a request that is admitted.
func (l *Limiter) try(p *policy, r *http.Request, c *client, h *holds) {
	rd := l.newRound()
	defer l.free(rd)
	if l.use(rd, p, r, c); len(rd.uses) == 0 {
		return
	}
	// Apart from h: what this policy refuses it does not hold either.
	var own holds
	if l.decide(r.Context(), rd, &own) != nil {
		return
	}
	if h != nil {
		h.taken = append(h.taken, own.taken...)
	}
	d := rd.decision()
	if d.Allowed || rd.reason == unavailable {
		return
	}
	p.shadowed.Add(1)
	l.counters.stripe().shadowed.Add(1)
	if l.onDecision != nil {
		l.onDecision(r, d)
	}
}

// charged returns what Charge will be about.
func (rd *round) charged() []charged {
	var all []charged
	for i := range rd.uses {
		if u := &rd.uses[i]; u.p.debt > 0 {
			all = append(all, charged{u.p, u.key})
		}
	}
	return all
}

// isExempt reports whether the client of r has an address in Config.Exempt.
func (l *Limiter) isExempt(r *http.Request, c *client) bool {
	l.resolve(r, c)
	return c.known && clientip.Contains(l.exempt, c.addr)
}

var _ context.Context = (*state)(nil)

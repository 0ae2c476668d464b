package breaker

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"example.com/plainware/store"
)

// share is a breaker's part of its fleet.
//
// In the store there are one value, the record, and these registers, all in one
// space:
//
//	gen          the generation of the record; tells that it has changed
//	c/g/j, f/g/j calls and failures of generation g in window j
//	a/k          processes with calls in the time of vote k, or the one before
//	r/g/k        those of them that have too many failures
//	probe        the places of probes, an instant
//	s/g          probes that have succeeded
//
// Windows and votes are those of the store's clock. See ballot for how a and r
// count processes; both have a second name that ends in an apostrophe.
type share struct {
	b     *Breaker
	s     *syncer
	space string

	mu      sync.Mutex
	refunds []int64  // the deadlines of probes that have ended
	wanted  *forcing // by an operator, not in the store yet
	shown   FleetStats

	// Of the syncer's goroutine alone.
	plan
	known   record // the last one that was found or written
	raw     []byte // as it is in the store; nil is absent
	age     int    // steps since it was read
	outages int64  // what s.outages was then
	active  ballot // who has calls
	failing ballot // who of them has too many failures
	granted int64  // when ph.permit was set
	enough  bool   // probes have succeeded
	outvote bool   // the quorum has too many failures
}

// plan says where in a batch the operations of a breaker are. Negative is none.
type plan struct {
	gen, calls, bad, before, passed, take int

	phase   *phase
	begun   counts // what calls and bad bring
	proven  int64  // and passed
	accuses bool   // this process has too many failures
}

func (sh *share) kick() {
	if sh != nil {
		sh.s.kick()
	}
}

func (sh *share) alive() bool { return sh != nil && sh.s.alive() }

// giveBack gives back the place of a probe of the fleet.
func (sh *share) giveBack(deadline int64) {
	sh.mu.Lock()
	sh.refunds = append(sh.refunds, deadline)
	sh.mu.Unlock()
	sh.kick()
}

func (sh *share) force(o Override) *forcing {
	f := &forcing{Override: o, done: make(chan struct{})}
	if o.For > 0 {
		f.ends = time.Now().Add(o.For)
	}
	sh.mu.Lock()
	if sh.wanted != nil {
		close(sh.wanted.done) // overtaken
	}
	sh.wanted = f
	sh.mu.Unlock()
	return f
}

func (sh *share) stats() FleetStats {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	st := sh.shown
	st.Synced = sh.alive()
	if at := sh.s.answered.Load(); at != 0 {
		st.Age = time.Duration(sh.s.now() - at)
	}
	return st
}

// op adds an operation, and returns where it is.
func (sh *share) op(key string, step store.Op) int {
	step.Space, step.Key = sh.space, key
	if !step.Clock && step.Ceil == 0 {
		step.Ceil = store.MaxCount - 1
	}
	sh.s.ops = append(sh.s.ops, step)
	return len(sh.s.ops) - 1
}

func key(name string, gen, index int64) string {
	return name + "/" + strconv.FormatInt(gen, 10) + "/" + strconv.FormatInt(index, 10)
}

// ask adds what there is to ask, at an instant of the syncer's now. Before the
// store's clock is known that is the generation only.
func (sh *share) ask(now int64, known bool) {
	sh.plan = plan{-1, -1, -1, -1, -1, -1, sh.b.phase.Load(), counts{}, 0, false}
	sh.active.begin()
	sh.failing.begin()
	// Raised to what is known here, if it is less: then it got lost.
	gen := store.Op{Ceil: max(1, sh.known.Gen), Step: 1, Max: sh.known.Gen, TTL: 2 * recordTTL}
	sh.gen = sh.op("gen", gen)
	if !known {
		return
	}
	clock := sh.s.clock + now
	sh.count(clock)
	sh.trials()
}

// count brings what was counted, and votes.
func (sh *share) count(clock int64) {
	b := sh.b
	ph := sh.phase
	for w := range ph.windows() {
		sh.unsent(w)
	}
	window := int64(b.cfg.Window)
	g, j := sh.known.Gen, clock/window
	if n := sh.begun.calls; n > 0 {
		sh.calls = sh.op(key("c", g, j), store.Op{Step: 1, Min: n, Max: n, TTL: 3 * b.cfg.Window})
	}
	if n := sh.begun.bad; n > 0 {
		sh.bad = sh.op(key("f", g, j), store.Op{Step: 1, Min: n, Max: n, TTL: 3 * b.cfg.Window})
	}
	if sh.known.open(clock) || sh.known.forced(clock) || ph.force != nil {
		return
	}
	c := ph.window.sum(b.now() / b.width)
	// A process that has opened for itself has no calls any more, but has seen
	// enough of them.
	tripped := ph.state != Closed
	sh.accuses = tripped || b.failing(c)
	if !tripped && c.calls == 0 {
		return
	}
	k := clock / sh.s.vote()
	active := func(k int64) string { return "a/" + strconv.FormatInt(k, 10) }
	sh.active.join(sh, active, k)
	if !sh.accuses {
		return
	}
	failing := func(k int64) string { return key("r", g, k) }
	sh.failing.join(sh, failing, k)
	sh.failing.ask(sh, failing, k)
	sh.active.ask(sh, active, k)
	if sh.calls < 0 {
		sh.calls = sh.op(key("c", g, j), store.Op{Step: 1})
	}
	sh.before = sh.op(key("c", g, j-1), store.Op{Step: 1})
}

// unsent counts what the store has not been told of in a window, and takes it for
// told.
func (sh *share) unsent(w *window) {
	last := sh.b.now() / sh.b.width
	for i := range w.slots {
		p := w.slots[i].Load()
		if p == nil || p.index <= last-buckets {
			continue
		}
		bad := p.bad.Load()
		calls := p.successes() + bad
		sh.begun.calls += calls - p.sent.calls
		sh.begun.bad += bad - p.sent.bad
		p.before, p.sent = p.sent, counts{calls: calls, bad: bad}
	}
}

// trials is about probes: places are given back and taken, successes told.
func (sh *share) trials() {
	b := sh.b
	ph := sh.phase
	h := int64(b.cfg.ProbeTimeout)
	now := b.now()
	place := store.Op{Clock: true, Ceil: int64(b.cfg.Probes) * h, Step: -h, Min: 1, Max: 1}
	sh.mu.Lock()
	refunds := sh.refunds
	sh.refunds = nil
	sh.mu.Unlock()
	half := ph.fleet && ph.state == HalfOpen
	// One that nobody has come for is another process's chance. It is given back
	// even in the last step.
	leaving := sh.s.ctx.Err() != nil
	if half && (leaving || now-sh.granted >= int64(sh.s.every)*3/4) {
		if deadline := ph.permit.Swap(0); deadline != 0 {
			refunds = append(refunds, deadline)
			ph.wanted.Store(false)
		}
	}
	for _, deadline := range refunds {
		if now < deadline {
			sh.op("probe", place)
		}
	}
	if !half || ph.streak != sh.known.Streak {
		return
	}
	if sh.proven = ph.unsent.Swap(0); sh.proven > 0 {
		sh.passed = sh.op("s/"+strconv.FormatInt(sh.known.Gen, 10),
			store.Op{Step: 1, Min: sh.proven, Max: sh.proven, TTL: recordTTL})
	} else {
		sh.passed = sh.op("s/"+strconv.FormatInt(sh.known.Gen, 10), store.Op{Step: 1})
	}
	if !leaving && ph.permit.Load() == 0 && (ph.wanted.Load() || b.cfg.Probe != nil) {
		place.Step = h
		sh.take = sh.op("probe", place)
	}
}

// lost is told that the batch has failed. Whether it was applied is not known,
// and only what may count twice is brought again.
func (sh *share) lost() {
	sh.active.lost()
	sh.failing.lost()
	sh.phase.unsent.Add(sh.proven)
	for w := range sh.phase.windows() {
		for i := range w.slots {
			if p := w.slots[i].Load(); p != nil {
				p.sent = p.before
			}
		}
	}
}

// learn reads the answers to ask, which was called at an instant of the syncer's
// now.
func (sh *share) learn(now int64) {
	res := sh.s.res
	value := func(at int) int64 {
		if at < 0 {
			return 0
		}
		return res[at].Value
	}
	if value(sh.gen) > sh.known.Gen || res[sh.gen].Granted > 0 {
		sh.age = rereadEvery
	}
	sh.mu.Lock()
	st := &sh.shown
	if sh.calls >= 0 {
		st.Calls = value(sh.calls) + value(sh.before)
	}
	if sh.bad >= 0 {
		st.Failures = value(sh.bad)
	}
	if n, ok := sh.active.values(res); ok {
		st.Active = n[0] + n[1]
	}
	n, voted := sh.failing.values(res)
	st.Failing = max(n[0], n[1])
	calls, active, against := st.Calls, st.Active, st.Failing
	sh.mu.Unlock()

	b := sh.b
	sh.outvote = sh.accuses && voted && sh.s.steady(now) &&
		float64(against) > b.cfg.Quorum*float64(active) && calls >= int64(b.cfg.MinCalls)
	sh.enough = sh.passed >= 0 && value(sh.passed) >= int64(b.cfg.Successes)
	if sh.take < 0 || res[sh.take].Granted == 0 {
		return
	}
	// Counted from before the question, so that it ends here no later than there.
	ph := sh.phase
	sh.granted = b.now()
	ph.permit.Store(sh.granted - (sh.s.now() - now) + int64(b.cfg.ProbeTimeout))
	ph.wanted.Store(false)
	if ph.granted != nil {
		select {
		case ph.granted <- struct{}{}:
		default:
		}
	}
	if b.phase.Load() != ph {
		// Nobody will come for it.
		if deadline := ph.permit.Swap(0); deadline != 0 {
			sh.giveBack(deadline)
		}
	}
}

// agree reads the record if it may have changed, and changes it if there is a
// reason to.
func (sh *share) agree(ctx context.Context) error {
	sh.age++
	if (sh.age >= rereadEvery || sh.outages != sh.s.outages) && sh.s.reads < together {
		sh.s.reads++
		if err := sh.read(ctx); err != nil {
			return err
		}
	}
	// Who loses to another process looks at what that has done, and decides
	// again. An operator's decision must come through in the end.
	for range 8 {
		next, f, ok := sh.next()
		if !ok {
			return nil
		}
		swapped, err := sh.write(ctx, next)
		if err != nil {
			sh.age = rereadEvery
			return err
		}
		if swapped {
			if next != sh.known {
				sh.adopt(next, true)
			}
			if f != nil {
				sh.through(f)
			}
			sh.kick() // for gen
			return nil
		}
		if err := sh.read(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (sh *share) write(ctx context.Context, next record) (swapped bool, err error) {
	raw := next.encode()
	swapped, err = sh.s.keep.CompareAndSwap(ctx, sh.space, sh.raw, raw, next.ttl(sh.time()))
	if swapped && err == nil {
		sh.raw = raw
	}
	return swapped, err
}

// time is the store's clock.
func (sh *share) time() int64 { return sh.s.clock + sh.s.now() }

// read reads the record, and follows it if it is as new as the one known.
func (sh *share) read(ctx context.Context) error {
	raw, ok, err := sh.s.keep.Get(ctx, sh.space)
	if err != nil {
		return err
	}
	if sh.age = 0; sh.outages != sh.s.outages {
		// All of a group are due now, and should not be so again all at once.
		sh.age, sh.outages = -rand.IntN(rereadEvery), sh.s.outages
	}
	if !ok {
		sh.raw = nil
		return nil
	}
	if raw == nil {
		raw = []byte{}
	}
	same := bytes.Equal(raw, sh.raw) && sh.raw != nil
	sh.raw = raw
	rec, err := parseRecord(raw)
	if err != nil {
		// It is written over with the next change.
		sh.s.log.Warn(err.Error(), "breaker", sh.b.name)
		return nil
	}
	if same && rec == sh.known || rec.Gen < sh.known.Gen {
		return nil
	}
	sh.adopt(rec, false)
	return nil
}

// next returns what has to be written, if anything: what an operator wants, what
// this process has done or found, or what the store has forgotten.
func (sh *share) next() (rec record, f *forcing, ok bool) {
	clock := sh.time()
	b := sh.b
	ph := b.phase.Load()
	rec = record{Gen: sh.known.Gen + 1, At: clock, State: recordOpen}
	sh.mu.Lock()
	f = sh.wanted
	sh.mu.Unlock()
	switch {
	case f != nil:
		rec.Author, rec.Reason, rec.Force = f.Author, forceReason(f.Mode, f.Reason), f.Mode != Auto
		if f.Mode != ForceOpen {
			rec.State = recordClosed
		}
		if !f.ends.IsZero() && rec.Force {
			rec.Until = max(1, clock+int64(time.Until(f.ends)))
		}
		return rec, f, true
	case sh.known.forced(clock):
	case sh.known.open(clock) && ph.state == Closed,
		sh.known.open(clock) && sh.enough && ph.fleet && ph.state == HalfOpen && ph == sh.phase:
		// Closed here without the store, or probes of all have succeeded.
		rec.State, rec.Streak, rec.Reason = recordClosed, ph.streak, probesPassed
		return rec, nil, true
	case sh.known.open(clock) && ph.fleet && ph.streak > sh.known.Streak:
		rec.Streak, rec.Reason = min(ph.streak, maxStreak), probeFailed
		rec.Until = clock
		if ph.state == Open {
			rec.Until += ph.until - b.now()
		}
		return rec, nil, true
	case !sh.known.open(clock) && sh.outvote:
		sh.outvote = false
		rec.Streak, rec.Reason = 1, tooMany
		if s := sh.known.Streak; s > 0 && clock-sh.known.At < int64(b.cfg.Ramp+b.cfg.Window) {
			rec.Streak = min(s+1, maxStreak)
		}
		rec.Until = clock + int64(b.openFor(rec.Streak))
		return rec, nil, true
	}
	if sh.known.Gen > 0 && sh.behind() {
		return sh.known, nil, true
	}
	return rec, nil, false
}

// behind reports whether the store has forgotten the record.
func (sh *share) behind() bool {
	if sh.raw == nil {
		return true
	}
	rec, err := parseRecord(sh.raw)
	return err != nil || rec.Gen < sh.known.Gen
}

// through ends an operator's wait.
func (sh *share) through(f *forcing) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.wanted == f {
		sh.wanted = nil
		close(f.done)
	}
}

// adopt makes a record that is in the store the one known, and follows it. It is
// mine if this process has written it.
func (sh *share) adopt(rec record, mine bool) {
	clock := sh.time()
	b := sh.b
	first := sh.known.Gen == 0
	sh.known = rec
	sh.enough, sh.outvote = false, false
	b.mu.Lock()
	sh.mu.Lock()
	sh.shown.Generation, sh.shown.Open = rec.Gen, rec.open(clock)
	// What an operator has decided here is going to replace it.
	hold := sh.wanted != nil
	sh.mu.Unlock()
	if next, reason := sh.follow(b.phase.Load(), clock, mine); next != nil && !hold {
		if !mine && rec.Reason != "" {
			reason += ": " + rec.Reason
		}
		if first && !mine {
			reason = fromStore
		}
		b.enter(next, reason)
	}
	b.mu.Unlock()
	b.deliver()
}

// follow returns the phase that the known record asks for where ph does not do
// already. b.mu is held.
func (sh *share) follow(ph *phase, clock int64, mine bool) (next *phase, reason string) {
	rec := &sh.known
	b := sh.b
	now := b.now()
	left := rec.Until - clock
	reason = byFleet
	switch {
	case rec.forced(clock):
		o := Override{Mode: ForceClosed, Author: rec.Author, Reason: rec.Reason}
		next = &phase{fleet: true, state: Closed, began: now}
		if rec.State == recordOpen {
			o.Mode, next.state = ForceOpen, Open
		}
		if rec.Until != 0 {
			next.until, o.For = now+left, time.Duration(left)
		}
		next.force = &o
		if mine {
			return nil, "" // Force has done it
		}
		return next, forced
	case rec.State == recordOpen && !rec.Force:
		if mine && ph.fleet && ph.streak == rec.Streak {
			return nil, "" // it was opened by a probe here
		}
		next = &phase{fleet: true, began: now, streak: rec.Streak, state: HalfOpen}
		if left > 0 {
			// More than anybody waits is no state of ours.
			next.state, next.until = Open, now+min(left, int64(2*maxOpenLimit))
		}
		if mine {
			reason = rec.Reason
		}
		return next, reason
	case ph.force != nil:
		if mine {
			return nil, ""
		}
		return &phase{state: Closed, began: now}, forceOver
	case ph.fleet && ph.state != Closed:
		next = b.recovered(ph.streak)
		if since := clock - rec.At; since > 0 {
			next.began -= since
			next.ramping.Store(since < int64(b.cfg.Ramp))
		}
		if mine {
			reason = rec.Reason
		}
		return next, reason
	}
	return nil, ""
}

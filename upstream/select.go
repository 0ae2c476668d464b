package upstream

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// State is the state of a back end in the eyes of its Pool.
type State uint8

const (
	// StateHealthy is the state of a peer that is available. All start in it.
	StateHealthy State = iota

	// StateUnhealthy is the state of a peer whose active check fails.
	StateUnhealthy

	// StateEjected is the state of a peer that is out for a while because of
	// how requests to it went; see [Outlier].
	StateEjected

	// StateDraining is the state of a peer that finishes what it has, and takes
	// only the requests of clients bound to it by a sticky cookie, while it is
	// neither unhealthy nor ejected.
	StateDraining
)

// String returns "healthy", "unhealthy", "ejected" or "draining".
func (s State) String() string {
	switch s {
	case StateHealthy:
		return "healthy"
	case StateUnhealthy:
		return "unhealthy"
	case StateEjected:
		return "ejected"
	case StateDraining:
		return "draining"
	}
	return "unknown"
}

// outcome is what one attempt says about its back end.
type outcome uint8

const (
	outcomeNeutral outcome = iota // nothing: the client went away, its body failed, a limit of ours
	outcomeOK
	outcomeFailure // the back end's fault
)

const (
	defaultSlowStart = 30 * time.Second
	slowStartSteps   = 16 // changes of weight in the window of slow start
	slowStartFloor   = 0.1
	slowStartScale   = 100 // of the weights while a peer is in slow start

	// overflow is how much healthier a priority is taken to be than its share
	// of available peers, so that it keeps all of its traffic down to 71 %.
	overflow = 1.4
)

// selectorConfig is the part of [Config] that chooses. newSelector expects it
// to be valid.
type selectorConfig struct {
	picker    Picker        // nil: LeastRequest
	slowStart time.Duration // 0: 30 s, negative: none
	failOpen  int           // percentage of available peers below which health is ignored; 0: only if there is none, negative: never
	outlier   Outlier
	sticky    *Sticky

	// onState is called after a state has changed, without a lock held, in the
	// goroutine that changed it. Two changes of one peer that follow each other
	// closely may be told in the wrong order. It may be nil.
	onState func(p *Peer, old, new State, reason string)
}

// selector chooses back ends. Changes of membership and health take its lock
// and build a new view; a pick only loads the view.
type selector struct {
	picker  Picker
	slow    time.Duration
	open    int
	outlier outlier
	sticky  *stickyKeys
	onState func(p *Peer, old, new State, reason string)
	epoch   time.Time
	shared  *shared

	view atomic.Pointer[view]

	mu     sync.Mutex
	peers  []*Peer
	loads  map[string]*load
	timer  *time.Timer
	due    time.Time // when timer fires, zero if it will not
	judge  time.Time // end of the interval of the failure percentage
	closed bool
}

// view is what picks look at. It never changes.
type view struct {
	groups   []group
	sticky   map[string]stickyPeer // by cookie value
	total    int
	healthy  int
	failOpen bool
}

// group is the available peers of one priority.
type group struct {
	peers []*Peer
	pick  PickFunc
	upTo  uint32 // the group serves draws up to this one
}

// event is a change of state that has to be told once the lock is free.
type event struct {
	peer     *Peer
	old, new State
	reason   string
}

func newSelector(c selectorConfig) *selector {
	s := &selector{
		picker:  c.picker,
		slow:    c.slowStart,
		open:    c.failOpen,
		outlier: c.outlier.withDefaults(),
		onState: c.onState,
		epoch:   time.Now(),
		shared:  new(shared),
	}
	if s.picker == nil {
		s.picker = LeastRequest()
	}
	if s.slow == 0 {
		s.slow = defaultSlowStart
	}
	if h, ok := s.picker.(hashPicker); ok {
		s.slow = -1 // a share that grows would move keys back and forth
		s.shared.counted = h.bounded()
	}
	if c.sticky != nil {
		s.sticky = newStickyKeys(*c.sticky)
	}
	s.view.Store(new(view))
	return s
}

// set makes peers the members, and tells what has changed.
func (s *selector) set(peers []*Peer) { s.tell(s.replace(peers)) }

// newLoad returns the load of a peer that is to be a member.
func (s *selector) newLoad() *load { return &load{shared: s.shared} }

// replace makes peers the members, and returns what has changed. A peer that has
// a load of this selector's keeps it. Another takes over that of the former peer
// of its ID, and health with it. Requests that run on the others end
// undisturbed.
func (s *selector) replace(peers []*Peer) []event {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	first := s.loads == nil
	loads := make(map[string]*load, len(peers))
	for _, p := range peers {
		l, was := p.load, s.loads[p.ID]
		if l == nil || l.shared != s.shared {
			if l = was; l == nil {
				l = s.newLoad()
			}
			p.load = l // else it is being read at this moment
		}
		if l != was && !l.member {
			l.member = true
			if !first {
				l.since = now
			}
			if was != nil {
				l.state = was.state // as it was told last
			}
		}
		l.draining = p.Draining
		loads[p.ID] = l
	}
	s.peers, s.loads = slices.Clone(peers), loads
	return s.settle(now, "update")
}

// pick chooses a peer: one that p has not tried if there is any, in another
// priority if need be. It returns nil if there is none at all; failOpen tells
// that health was ignored.
func (s *selector) pick(p *Pick) (peer *Peer, failOpen bool) {
	v := s.view.Load()
	if p.sticky != "" {
		switch b := v.sticky[p.sticky]; {
		case b.peer == nil:
		case b.up && (p.strict || p.n == 0 || !p.hasTried(b.peer)):
			return b.peer, v.failOpen
		case p.strict:
			return nil, false
		}
	}
	if len(v.groups) == 0 {
		return nil, false
	}
	g := &v.groups[0]
	if len(v.groups) > 1 {
		g = v.draw(p)
	}
	p.peers = g.peers
	if i := g.pick(p); uint(i) < uint(len(g.peers)) {
		return g.peers[i], v.failOpen
	}
	if p.stay && p.n > 0 {
		if i := g.pickTried(p); uint(i) < uint(len(g.peers)) {
			return g.peers[i], v.failOpen
		}
	}
	return v.again(p), v.failOpen
}

// draw returns the group of a request. One with a key stays in its group.
func (v *view) draw(p *Pick) *group {
	bits := uint32(mix(p.Key))
	if !p.HasKey {
		bits = uint32(p.Uint64())
	}
	for i := range v.groups {
		if bits <= v.groups[i].upTo {
			return &v.groups[i]
		}
	}
	return &v.groups[len(v.groups)-1]
}

// again picks for a request whose own group has no peer that it has not tried:
// from any other group, or else one that it has tried.
func (v *view) again(p *Pick) *Peer {
	for i := range v.groups {
		g := &v.groups[i]
		p.peers = g.peers
		if i := g.pick(p); uint(i) < uint(len(g.peers)) {
			return g.peers[i]
		}
	}
	if p.n == 0 {
		return nil
	}
	for i := range v.groups {
		g := &v.groups[i]
		if i := g.pickTried(p); uint(i) < uint(len(g.peers)) {
			return g.peers[i]
		}
	}
	return nil
}

// pickTried picks as if nothing had been tried.
func (g *group) pickTried(p *Pick) int {
	n := p.n
	p.n, p.peers = 0, g.peers
	i := g.pick(p)
	p.n = n
	return i
}

// begin counts a request in; end counts it out. Between them lie the attempt
// and the whole of the response's body.
func (s *selector) begin(p *Peer) {
	p.load.active.Add(1)
	if s.shared.counted {
		s.shared.total.Add(1)
	}
}

func (s *selector) end(p *Peer) {
	p.load.active.Add(-1)
	if s.shared.counted {
		s.shared.total.Add(-1)
	}
}

// report says how an attempt went, once per attempt. latency is the time to the
// first byte of the response, or to the failure.
func (s *selector) report(p *Peer, o outcome, latency time.Duration) {
	if o == outcomeNeutral {
		return
	}
	now := time.Since(s.epoch)
	// Within a millisecond the line is left alone: all processors read it.
	if old := s.shared.now.Load(); int64(now) > old+int64(time.Millisecond) {
		s.shared.now.CompareAndSwap(old, int64(now))
	}
	// A refused connection is fast. It must not make its host look fast.
	p.load.latency.add(int64(now), latency, o == outcomeFailure)
	s.judgeOutcome(p, o)
}

// setHealthy tells what an active check has found out.
func (s *selector) setHealthy(p *Peer, healthy bool, reason string) {
	s.mu.Lock()
	if l := p.load; s.loads[p.ID] != l || l.unhealthy == !healthy {
		s.mu.Unlock()
		return
	}
	now := time.Now()
	p.load.unhealthy = !healthy
	if healthy {
		p.load.since = now
	}
	s.unlock(s.settle(now, reason))
}

// counts returns how many members are healthy, and how many there are.
func (s *selector) counts() (healthy, total int) {
	v := s.view.Load()
	return v.healthy, v.total
}

// state returns the state of a peer.
func (s *selector) state(p *Peer) State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.load.state
}

// close stops the selector's timer. Picks go on as before.
func (s *selector) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// unlock frees the lock and tells what has happened meanwhile.
func (s *selector) unlock(events []event) {
	s.mu.Unlock()
	s.tell(events)
}

func (s *selector) tell(events []event) {
	if s.onState == nil {
		return
	}
	for _, e := range events {
		s.onState(e.peer, e.old, e.new, e.reason)
	}
}

// tick is what the timer calls: it ends ejections, judges failure percentages
// and lets slow starters grow.
func (s *selector) tick() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.due = time.Time{}
	now := time.Now()
	events := s.outlierTick(now)
	s.unlock(append(events, s.settle(now, "ejection is over")...))
}

// settle derives the states of all peers from what is known about them, builds
// the view, and sets the timer for the next change that time alone will bring.
// It returns what has changed.
func (s *selector) settle(now time.Time, reason string) []event {
	var events []event
	for _, p := range s.peers {
		l := p.load
		state := StateHealthy
		switch {
		case l.draining:
			state = StateDraining
		case l.unhealthy:
			state = StateUnhealthy
		case !l.until.IsZero():
			state = StateEjected
		}
		if state != l.state {
			events = append(events, event{p, l.state, state, reason})
			l.state = state
		}
	}
	s.build(now)
	s.schedule(now)
	return events
}

// build makes the view from the states.
func (s *selector) build(now time.Time) {
	v := &view{}
	var members, available []*Peer
	for _, p := range s.peers {
		v.total++
		switch p.load.state {
		case StateHealthy:
			v.healthy++
			members = append(members, p)
			available = append(available, p)
		case StateDraining:
		default:
			members = append(members, p)
		}
	}
	s.seed(available, now)
	switch {
	case s.open >= 0 && (len(available) == 0 || len(available)*100 < s.open*len(members)):
		v.failOpen = len(members) > len(available)
		if len(members) > 0 {
			v.groups = []group{s.group(members, now)}
			v.groups[0].upTo = math.MaxUint32
		}
	default:
		v.groups = s.priorities(members, available, now)
	}
	if s.sticky != nil {
		v.sticky = s.sticky.table(s.peers, func(p *Peer) bool {
			return v.failOpen || p.load.state == StateHealthy || p.load.state == StateDraining && p.load.sound()
		})
	}
	s.view.Store(v)
}

// priorities groups the available peers, the lowest number first, and gives each
// group its share: as much of what the groups before it left as its health
// allows. If health does not suffice for everything, all shares grow alike.
func (s *selector) priorities(members, available []*Peer, now time.Time) []group {
	all := make(map[int]int)
	for _, p := range members {
		all[p.Priority]++
	}
	slices.SortStableFunc(available, func(a, b *Peer) int { return cmp.Compare(a.Priority, b.Priority) })

	var groups []group
	var shares []float64
	left, sum := 1.0, 0.0
	for len(available) > 0 {
		n := 1
		for n < len(available) && available[n].Priority == available[0].Priority {
			n++
		}
		peers := available[:n:n]
		available = available[n:]
		share := min(left, overflow*float64(n)/float64(all[peers[0].Priority]))
		left -= share
		sum += share
		groups = append(groups, s.group(peers, now))
		shares = append(shares, share)
	}
	upTo := 0.0
	for i, share := range shares {
		upTo += share / sum
		groups[i].upTo = uint32(min(1, upTo) * math.MaxUint32)
	}
	return groups
}

// group lets the policy build its function for peers.
func (s *selector) group(peers []*Peer, now time.Time) group {
	snap := Snapshot{Peers: peers, weights: s.weights(peers, now), shared: s.shared}
	return group{peers: peers, pick: s.picker.Build(snap)}
}

// weights returns the weights of peers if one of them is in slow start.
func (s *selector) weights(peers []*Peer, now time.Time) []int {
	var weights []int
	for i, p := range peers {
		factor := s.warmth(p.load, now)
		if factor == 1 && weights == nil {
			continue
		}
		if weights == nil {
			weights = make([]int, len(peers))
			for j := range i {
				weights[j] = slowStartScale * max(1, peers[j].Weight)
			}
		}
		weights[i] = int(factor * slowStartScale * float64(max(1, p.Weight)))
	}
	return weights
}

// warmth returns how far a peer is in its slow start, 1 being its end.
func (s *selector) warmth(l *load, now time.Time) float64 {
	if l.since.IsZero() || s.slow < 0 {
		return 1
	}
	d := now.Sub(l.since)
	if d >= s.slow {
		l.since = time.Time{}
		return 1
	}
	return max(slowStartFloor, float64(d)/float64(s.slow))
}

// seed gives peers without a latency the median of the others, so that they do
// not look infinitely fast.
func (s *selector) seed(peers []*Peer, now time.Time) {
	clock := int64(now.Sub(s.epoch))
	var known []uint64
	for _, p := range peers {
		if v := p.load.latency.read(clock); v > 0 {
			known = append(known, v)
		}
	}
	if len(known) == 0 || len(known) == len(peers) {
		return
	}
	slices.Sort(known)
	for _, p := range peers {
		if p.load.latency.value.Load() == 0 {
			p.load.latency.add(clock, time.Duration(known[len(known)/2]), false)
		}
	}
}

// schedule sets the timer.
func (s *selector) schedule(now time.Time) {
	var due time.Time
	sooner := func(t time.Time) {
		if due.IsZero() || t.Before(due) {
			due = t
		}
	}
	for _, p := range s.peers {
		if !p.load.until.IsZero() {
			sooner(p.load.until)
		}
		switch {
		case p.load.since.IsZero() || s.slow <= 0:
		case now.Sub(p.load.since) >= s.slow:
			p.load.since = time.Time{} // of one that is in no group
		default:
			sooner(now.Add(max(s.slow/slowStartSteps, time.Millisecond)))
		}
	}
	if s.outlier.rates() && len(s.peers) > 0 {
		if !s.judge.After(now) {
			s.judge = now.Add(s.outlier.Interval)
		}
		sooner(s.judge)
	}
	if s.closed || due.IsZero() || due.Equal(s.due) {
		return
	}
	s.due = due
	if s.timer == nil {
		s.timer = time.AfterFunc(due.Sub(now), s.tick)
		return
	}
	s.timer.Reset(due.Sub(now))
}

// checkPicker returns what is wrong with a Picker of this package.
func checkPicker(p Picker) problems {
	var errs problems
	if h, ok := p.(hashPicker); ok && !h.valid() {
		errs.add("Picker", "the bound of a hash policy must be 1 or more", h)
	}
	return errs
}

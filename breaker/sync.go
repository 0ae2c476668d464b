package breaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

const (
	// loadWithin is how long New waits for the state in the store.
	loadWithin = 250 * time.Millisecond

	// leaveWithin is how long Close waits for what is on its way there.
	leaveWithin = time.Second

	// together is how many breakers go into one batch, and how many records are
	// read in one step.
	together = 100

	// rereadEvery is after how many steps the state is read in any case, should
	// the hint that it has changed have been lost.
	rereadEvery = 10
)

// syncer is the only one who talks to the store: one goroutine for a Breaker or
// for all of a Group, one batch of register operations for each step, and a value
// read or written where a state has changed.
type syncer struct {
	regs  store.BatchRegisters
	store store.Store
	keep  store.Store // its view that keeps; nil until it has been asked for it
	every time.Duration
	log   *slog.Logger
	start time.Time

	ctx   context.Context
	stop  context.CancelFunc
	wake  chan struct{}
	first chan struct{} // closed after the first step
	wrong error         // why the store cannot be used at all; known then
	done  chan struct{}
	once  sync.Once // of beginning
	last  sync.Once // of closing

	answered atomic.Int64 // now at the end of the last step that went well; 0 is never

	mu      sync.Mutex
	members []*share

	// Of the goroutine alone.
	clock   int64 // the store's at start, ns since 1970
	clocked bool  // it is known
	told    int64 // what it was in the last answer
	came    int64 // when that did
	warm    int64 // since when the store has answered without a break
	broken  bool  // the last step has failed
	back    bool  // it has not, but there was a break before it
	outages int64 // how often it has begun to fail
	n       int64 // steps
	reads   int   // of records in this step
	ops     []store.Op
	res     []store.Result
}

func newSyncer(c Config) *syncer {
	s := &syncer{
		outages: 1, // that of not having been asked yet
		store:   c.Store, regs: store.BatchRegistersOf(c.Store), every: c.Sync, log: c.Logger, start: time.Now(),
		wake: make(chan struct{}, 1), first: make(chan struct{}), done: make(chan struct{}),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

func (s *syncer) now() int64 { return int64(time.Since(s.start)) }

// join makes b one of those that s is for. name is that of its state.
func (s *syncer) join(b *Breaker, name string) {
	sh := &share{b: b, s: s, space: "plainware/breaker/1/" + name, age: rereadEvery}
	b.share = sh
	s.mu.Lock()
	s.members = append(s.members, sh)
	s.mu.Unlock()
}

func (s *syncer) part(sh *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.members, sh); i >= 0 {
		s.members = slices.Delete(s.members, i, i+1)
	}
}

func (s *syncer) begin() { s.once.Do(func() { go s.run() }) }

// load begins, and waits for the first step as long as New may. A store that does
// not answer is no error, but one that answers that it keeps nothing is.
func (s *syncer) load() error {
	s.begin()
	timer := time.NewTimer(loadWithin)
	defer timer.Stop()
	select {
	case <-s.first:
		if s.wrong != nil {
			s.close()
			return fmt.Errorf("breaker: Store: %w", s.wrong)
		}
	case <-timer.C:
	}
	return nil
}

// close ends the goroutine after a last step. A store that does not end with its
// context is left behind.
func (s *syncer) close() {
	s.last.Do(func() {
		s.begin()
		s.stop()
	})
	timer := time.NewTimer(leaveWithin + loadWithin)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
	}
}

// kick asks for a step at once.
func (s *syncer) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// alive reports whether the store has answered lately.
func (s *syncer) alive() bool {
	at := s.answered.Load()
	return at != 0 && s.now()-at < int64(max(3*s.every, loadWithin))
}

func (s *syncer) run() {
	defer close(s.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.step(s.ctx, max(s.every, leaveWithin))
		if s.n == 1 {
			close(s.first)
		}
		timer.Reset(s.pause())
		select {
		case <-timer.C:
		case <-s.wake:
		case <-s.ctx.Done():
			s.step(context.Background(), leaveWithin)
			return
		}
	}
}

// pause is the time until the next step. What could not be said while the store
// was away, or was said for a time that is over, is said at once, and the step that
// finds that it has been back for long enough is not a jittered interval late.
func (s *syncer) pause() time.Duration {
	if s.back {
		s.back = false
		return 0
	}
	d := time.Duration(float64(s.every) * (0.8 + 0.4*rand.Float64()))
	if !s.broken && s.clocked {
		if rest := time.Duration(s.warm + s.settled() - s.now()); rest > 0 {
			d = min(d, rest)
		}
	}
	return d
}

// step asks the store about everything, and tells it everything.
func (s *syncer) step(ctx context.Context, patience time.Duration) {
	s.n++
	s.reads = 0
	s.mu.Lock()
	members := slices.Clone(s.members)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if s.keep == nil {
		if err := s.claim(ctx); err != nil {
			s.failed(err)
			return
		}
	}
	for some := range slices.Chunk(members, together) {
		if err := s.exchange(ctx, some); err != nil {
			s.failed(err)
			return
		}
	}
	if s.broken {
		s.broken, s.back = false, true
		s.log.Info("breaker: the store answers again")
	}
	if s.clocked {
		s.answered.Store(max(1, s.now()))
	}
}

// claim asks the store for its view that keeps. One that says no twice, and answers
// in between, is not only out of reach.
func (s *syncer) claim(ctx context.Context) error {
	kept, err := store.Keep(s.store)
	if err != nil && s.n == 1 {
		if _, _, down := s.store.Get(ctx, "plainware/breaker/1"); down == nil {
			kept, err = store.Keep(s.store)
			s.wrong = err
		}
	}
	if err == nil {
		s.keep = kept
	}
	return err
}

// exchange is a step for some of the breakers.
func (s *syncer) exchange(ctx context.Context, some []*share) error {
	now := s.now()
	s.ops = s.ops[:0]
	for _, sh := range some {
		sh.ask(now, s.clocked)
	}
	s.res = slices.Grow(s.res[:0], len(s.ops))[:len(s.ops)]
	if err := s.regs.AdvanceBatch(ctx, s.ops, s.res); err != nil {
		for _, sh := range some {
			sh.lost()
		}
		return err
	}
	s.heard(now, s.now(), s.res[0].Now)
	// All first: what one has to wait for must not make another's answers old.
	for _, sh := range some {
		sh.learn(now)
	}
	var errs []error
	for _, sh := range some {
		if err := sh.agree(ctx); err != nil {
			errs = append(errs, err)
			if ctx.Err() != nil {
				break
			}
		}
	}
	return errors.Join(errs...)
}

// heard takes note of an answer that was asked for at one instant and came at
// another. Where there was none for long, the store or the machine may have stood
// still, and then for the other processes too: their votes may have run out, and
// whoever is first afterwards finds itself alone. That the store's clock says so is
// enough, since that of a machine which is suspended stands still as well.
func (s *syncer) heard(before, after, clock int64) {
	late := max(after-s.came, clock-s.told, s.told-clock) > s.vote()/2
	switch {
	case !s.clocked:
		s.clock = clock - (before + (after-before)/2)
	case late:
		s.back = true
	}
	// All that is certain is that the store has answered in between.
	s.clock = min(max(s.clock, clock-after), clock-before)
	if late || s.broken || !s.clocked {
		s.warm = after
	}
	s.clocked, s.told, s.came = true, clock, after
}

// vote is the length of a vote, in ns. A process whose answers come in half of that
// at most knows that nothing has stood still for longer. The steps of the others
// are then no further apart than that and an interval and a fifth, and what is left
// is for the time that they take. A step that takes longer than half a vote has
// failed, so that a slow store alone does not keep anybody from being sure.
func (s *syncer) vote() int64 { return int64(max(4*s.every, 2*leaveWithin)) }

func (s *syncer) failed(err error) {
	if !s.broken {
		s.broken, s.back = true, false
		s.outages++
		if s.ctx.Err() == nil {
			s.log.Warn("breaker: the store has failed; each process decides for itself", slog.Any("error", err))
		}
	}
}

// steady reports whether the store has answered for so long that the other
// processes have been there since.
func (s *syncer) steady(now int64) bool {
	return !s.broken && now-s.warm >= s.settled()
}

// settled is in how long all processes have made a step and said what they could
// not, in ns.
func (s *syncer) settled() int64 { return int64(s.every) + s.vote()/8 }

// Package breaker is a circuit breaker: it stops calling what is down, in one
// process or in all of a fleet, and finds out gently when it is up again.
//
//	billing, err := breaker.New(breaker.Config{Name: "billing"})
//	if err != nil {
//		log.Fatal(err)
//	}
//	client := &http.Client{Transport: billing} // fails with a *breaker.OpenError while it is open
//
// One type has three uses, which can be mixed: an http.RoundTripper around
// [Config.Base], a handler around another one ([Breaker.Handler]), and
// [Breaker.Acquire] with [Permit.Done] for calls of any kind. A [Group] has a
// breaker for each host, or whatever a function says.
//
// # States
//
// Closed, it counts how calls end, and opens when in the last ten seconds half of
// at least twenty have failed; see [Config] for other limits, slow calls and
// failures in a row. [Classify] says what a failure is. A caller that leaves is
// none, and a response body that breaks off halfway is one.
//
// Open, it refuses all calls for five seconds, and twice as long each time that it
// opens again, up to a minute, give or take a tenth. A Handler answers 503 with
// Retry-After as RFC 9457 problem details. A transport returns an [*OpenError],
// which says that nothing was sent, so that the call can be made elsewhere.
//
// Half-open, it lets one call through at a time, on trial. A failure opens it
// again; three successes close it. A probe that hangs is not waited for longer
// than [Config.ProbeTimeout]: the next one may start then, so no breaker stays
// half-open because of a call that never returned.
//
// Closed again, it lets a tenth of the calls through at first, and all of them
// five seconds later, so that what has just come up is not knocked over.
//
// What a call has to say that was let through in an earlier state never counts.
//
// # A fleet
//
// With [Config.Store] processes share what they find, and a restart finds it
// again: a breaker that was open stays open, for the time that is left. No call
// ever waits for the store. One goroutine for each Breaker, or for each Group,
// brings there once a second what was counted, and learns what has changed.
//
// A process whose calls fail opens for itself at once, since it may be its own
// network that is bad. The breaker opens in all processes when more than half of
// those with calls find that too many of theirs fail, and all together have made
// [Config.MinCalls]. How many calls each makes does not matter for that: a
// process that works well and is busy does not outvote the others. So one process
// with a bad network never opens the breaker of the others. What the fleet has
// opened is open everywhere within a sync interval, give or take a fifth, and a
// round trip. Where the store or the machine stood still for two intervals, or for a
// second if that is longer, the processes wait for each other's word for another
// one and a half, or for one and 250 ms if that is longer. One that has gone counts
// among those with calls for up to eight, or for four seconds if that is longer.
//
// Probes are shared: in any time w all processes together start at most Probes,
// one for each that has ended in that time, and one for each ProbeTimeout in w and
// two sync intervals, which a place may wait for its call. They close the breaker
// together.
//
// When the store is down each process goes on by itself with what it knew, and
// after three sync intervals makes its own probes. When it comes back, what was
// counted within the window and all changes of the state are brought there, and
// of states that differ the newest wins, which is the one with most changes
// before it. A store that has forgotten the state is told it again.
//
// Times in the store are on the store's own clock, and processes measure what is
// left of them: their clocks do not matter. With a store that has no registers of
// its own ([store.RegistersOf]) they do, by as much as they differ.
//
// # Where it belongs
//
// As a transport: directly around the one that calls the back end, inside of
// whatever repeats calls, so that each attempt counts. As a handler: around what
// calls the back end, inside of limits on time and rate, so that what they
// refuse is not taken for its failures.
//
// # What it costs
//
// A call costs two atomic loads before it, and three and an addition after it; one
// that is refused a load and an addition. There is no lock but in the call that
// changes the state, and no allocation, except the body of a response that has
// one, and the response writer in a Handler. A breaker takes about half a
// kilobyte, and as much for each of the last sixteen tenths of a window that had
// calls. Without a Store and a Probe it has no goroutine, only timers while there
// are calls or it is open.
//
// An idle fleet makes one call of the store in a sync interval for each process,
// whatever the number of breakers in a Group up to a hundred, and one for each
// breaker in ten intervals.
//
// # What it does not do
//
// It does not repeat calls, limit their time or their number. It does not choose
// between back ends, and so has no bound on how many of a pool may be open at the
// same time: that belongs to the pool.
package breaker

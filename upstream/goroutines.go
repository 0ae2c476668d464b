package upstream

import "sync"

// goroutines are those of a Pool. It is a sync.WaitGroup that may be asked
// for another goroutine while it is waited for: it says no from then on.
type goroutines struct {
	mu    sync.Mutex
	ended bool
	wg    sync.WaitGroup
}

// run calls f in a goroutine. It reports false, and does not, after end.
func (g *goroutines) run(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return false
	}
	g.wg.Go(f)
	return true
}

// end waits until every goroutine has returned. It may be called twice.
func (g *goroutines) end() {
	g.mu.Lock()
	g.ended = true
	g.mu.Unlock()
	g.wg.Wait()
}

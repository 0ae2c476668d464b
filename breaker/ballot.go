package breaker

import (
	"time"

	"example.com/plainware/store"
)

// ballot is a question on which processes are counted in a register for each vote,
// each at most once. Whoever is counted for a vote is so for the next one as well,
// so that there is no instant at which a vote has only begun.
//
// When an answer gets lost, nobody knows whether the process is counted. It is then
// counted once more under a second name. The larger of both is never more than the
// processes there are, and their sum is never less than those that were counted.
type ballot struct {
	last  int64 // the last vote that this process is counted in
	prev  int64 // what last was before this batch
	doubt int64 // the last vote of which an answer got lost

	at [2]int // where in the batch the registers are, by name. Negative is none.
}

// begin is called for each batch.
func (v *ballot) begin() {
	v.prev = v.last
	v.at = [2]int{-1, -1}
}

// join counts this process in vote k and in the next one, where it is not yet.
// With a store that has just failed it waits: a second loss could not be made good.
func (v *ballot) join(sh *share, name func(k int64) string, k int64) {
	if sh.s.broken {
		return
	}
	one := store.Op{Step: 1, Min: 1, Max: 1, TTL: 4 * time.Duration(sh.s.vote())}
	for i := max(k, v.last+1); i <= k+1; i++ {
		which := 0
		if i <= v.doubt {
			which = 1
		}
		at := sh.op(registerName(name(i), which), one)
		if i == k {
			v.at[which] = at
		}
	}
	v.last = max(v.last, k+1)
}

// ask makes the batch read vote k.
func (v *ballot) ask(sh *share, name func(k int64) string, k int64) {
	for which, at := range v.at {
		if at < 0 {
			v.at[which] = sh.op(registerName(name(k), which), store.Op{Step: 1})
		}
	}
}

// lost is told that nobody knows what became of the batch.
func (v *ballot) lost() {
	sent := v.last
	v.last = max(v.prev, min(v.doubt, sent)) // the second time is the last
	v.doubt = max(v.doubt, sent)
}

// values are those of both names, if the batch has read them.
func (v *ballot) values(res []store.Result) (n [2]int64, ok bool) {
	for which, at := range v.at {
		if at < 0 {
			return n, false
		}
		n[which] = res[at].Value
	}
	return n, true
}

// registerName is the first or the second name of a register.
func registerName(name string, which int) string {
	if which == 1 {
		return name + "'"
	}
	return name
}

package breaker

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"example.com/plainware/store"
)

// Whatever answers get lost, whether or not the batch was applied: no name counts
// a process twice, and a process that has heard an answer is counted.
func TestBallot(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	name := func(k int64) string { return fmt.Sprint(k) }
	for range 2000 {
		const processes = 3
		registers := make(map[string]int64)
		var ballots [processes]ballot
		var joined [processes]map[int64]bool // votes that a process has taken part in
		for i := range joined {
			joined[i] = make(map[int64]bool)
		}
		for step := range 40 {
			k := int64(1 + step/4)
			for i := range ballots {
				sh := &share{s: &syncer{every: time.Second, broken: rnd.IntN(8) == 0}}
				v := &ballots[i]
				v.begin()
				v.join(sh, name, k)
				v.ask(sh, name, k)
				applied, heard := rnd.IntN(3) > 0, rnd.IntN(3) > 0
				res := make([]store.Result, len(sh.s.ops))
				for j, op := range sh.s.ops {
					if applied && op.Max > 0 {
						registers[op.Key]++
					}
					res[j].Value = registers[op.Key]
				}
				if !sh.s.broken {
					joined[i][k] = true
				}
				if !applied || !heard {
					v.lost()
					continue
				}
				n, ok := v.values(res)
				if !ok {
					t.Fatal("not both names were read")
				}
				could := int64(0)
				for _, votes := range joined {
					if votes[k] || votes[k-1] {
						could++
					}
				}
				if n[0] > could || n[1] > could {
					t.Fatalf("vote %d: %v, and %d have taken part", k, n, could)
				}
				if v.last >= k && v.doubt < k && n[0] == 0 {
					t.Fatalf("vote %d: a process that was told so is not counted", k)
				}
			}
		}
	}
}

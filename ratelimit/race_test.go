//go:build race

package ratelimit_test

import "testing"

// allocs is how often f allocates, at least: under the race detector a
// [sync.Pool] drops things on purpose, and then the next call makes them anew.
func allocs(f func()) float64 {
	least := testing.AllocsPerRun(1, f)
	for range 50 {
		least = min(least, testing.AllocsPerRun(1, f))
	}
	return least
}

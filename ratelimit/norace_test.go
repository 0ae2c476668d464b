//go:build !race

package ratelimit_test

import "testing"

// allocs is how often f allocates, on average.
func allocs(f func()) float64 { return testing.AllocsPerRun(500, f) }

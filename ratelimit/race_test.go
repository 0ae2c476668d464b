//go:build race

package ratelimit_test

// dropped is what a [sync.Pool] drops on purpose under the race detector, rounded
// up, for each request.
const dropped = 1

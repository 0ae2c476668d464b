//go:build !race

package ratelimit_test

const dropped = 0

package redisstore

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// worker is a testing.TB outside of a test, for a process of its own.
type worker struct{ testing.TB }

func (worker) Helper()                  {}
func (worker) Context() context.Context { return context.Background() }

func (worker) Fatal(args ...any) {
	fmt.Println(args...)
	os.Exit(1)
}

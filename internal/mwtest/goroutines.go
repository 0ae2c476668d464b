package mwtest

import (
	"runtime"
	"strings"
	"testing/synctest"
	"time"
)

// goroutines returns the stacks of the other goroutines in this goroutine's
// synctest bubble, by the goroutine's number, when all of them are waiting: one
// that starts a garbage collection is in no bubble for that moment.
func goroutines() map[string]string {
	synctest.Wait()
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	// The caller comes first, as in
	//	goroutine 9 [running, synctest bubble 1]:
	stacks := strings.Split(string(buf), "\n\n")
	_, bubble, _ := strings.Cut(firstLine(stacks[0]), ", ")
	found := make(map[string]string)
	for _, s := range stacks[1:] {
		if line := firstLine(s); strings.HasSuffix(line, ", "+bubble) {
			number, _, _ := strings.Cut(strings.TrimPrefix(line, "goroutine "), " ")
			found[number] = s
		}
	}
	return found
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// newGoroutines returns the stacks of goroutines that are there now and were
// not before. First it lets a minute of fake time pass, which ends those that
// only wait for a moment, as the server does before it closes a connection.
func newGoroutines(before map[string]string) []string {
	time.Sleep(time.Minute)
	var left []string
	for number, stack := range goroutines() {
		if _, ok := before[number]; !ok {
			left = append(left, stack)
		}
	}
	return left
}

//go:build linux

package pgserver

import (
	"errors"
	"os"
	"testing"

	"example.com/plainware/internal/interop/prog"
)

// ForTest returns a server until the end of the test. Where the programs are
// missing it skips, or fails where they are required.
func ForTest(t testing.TB) *Server {
	t.Helper()
	s, err := New()
	Need(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Need skips or fails the test if New has returned that error.
func Need(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrMissing) && os.Getenv(prog.Required) == "":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

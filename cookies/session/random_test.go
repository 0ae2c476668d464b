package session_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"
	"testing/iotest"

	"example.com/plainware/cookies/session"
)

// noRandomness makes TestNoRandomnessChild do its work.
const noRandomness = "SESSION_TEST_NO_RANDOMNESS"

// TestNoRandomnessChild is the process of TestNoRandomness. Anywhere else it
// does nothing.
func TestNoRandomnessChild(t *testing.T) {
	if os.Getenv(noRandomness) == "" {
		return
	}
	b := newBrowser(t, newManager(t, session.Config[cart]{}))
	rand.Reader = iotest.ErrReader(errors.New("no entropy"))
	b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) { s.Login("ann") })
	fmt.Println("went on with", b.id())
}

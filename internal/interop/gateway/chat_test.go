//go:build linux

package gateway

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/interop/prog"
)

// The chat's page connects in a browser.
func TestChatInBrowser(t *testing.T) {
	path := prog.Need(t, "chromium")
	printed, stop := start(t, build(t), "memory")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// The time of a page passes quickly, on a busy machine more quickly than
	// the network: then it is opened again.
	profile, connected := prog.TempDir(t), false
	for !connected {
		cmd := exec.CommandContext(ctx, path, "--headless=new", "--user-data-dir="+profile,
			"--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
			"--virtual-time-budget=5000", "--dump-dom", address(t, printed)+"/chat")
		cmd.WaitDelay = 5 * time.Second // its children have the pipe as well
		page, err := cmd.Output()
		if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			t.Fatalf("%v, the last page was\n%s", err, page)
		}
		connected = strings.Contains(string(page), `<p id="state">connected</p>`)
	}
	if log := stop(); !strings.Contains(log, `msg="chat left"`) {
		t.Errorf("log:\n%s", log)
	}
}

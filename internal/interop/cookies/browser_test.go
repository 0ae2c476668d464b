package cookies

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/plainware/internal/interop/prog"
)

// patience bounds one step of the browser on a busy machine.
const patience = time.Minute

// browser is a headless Chromium, driven by the DevTools protocol over the pipe
// of --remote-debugging-pipe: JSON messages that end with a zero byte.
type browser struct {
	t    *testing.T
	send io.Writer

	mu      sync.Mutex
	last    int
	replies map[int]chan reply
	loaded  chan struct{} // one for each load event of the page
	session string        // of the one page
}

type reply struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}

// cookie is what the browser says of one that it keeps.
type cookie struct {
	Name, Value, Domain, Path, SameSite string
	Expires                             float64
	HTTPOnly, Secure, Session           bool
	PartitionKey                        *struct{ TopLevelSite string }
}

// open starts a browser with an empty profile for which every host name below
// example is srv, and there is no other.
func open(t *testing.T, srv *httptest.Server) *browser {
	t.Helper()
	path := prog.Need(t, "chromium")
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	cmd := exec.CommandContext(context.Background(), path,
		"--headless=new", "--remote-debugging-pipe", "--user-data-dir="+prog.TempDir(t),
		"--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check",
		"--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
		"--ignore-certificate-errors", "--host-resolver-rules=MAP *.example "+srv.Listener.Addr().String()+", MAP * ~NOTFOUND",
		"about:blank")
	cmd.Stderr = &printed
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // descriptors 3 and 4
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()

	b := &browser{t: t, send: ourOut, replies: map[int]chan reply{}, loaded: make(chan struct{}, 100)}
	var reading sync.WaitGroup
	reading.Go(func() { b.read(ourIn) })
	t.Cleanup(func() {
		b.call("", "Browser.close", nil, nil)
		ourOut.Close()
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(patience):
			cmd.Process.Kill()
			<-ended
		}
		ourIn.Close()
		reading.Wait()
		if t.Failed() {
			t.Logf("chromium printed:\n%s", &printed)
		}
	})

	var target struct{ TargetID string }
	b.must("", "Target.createTarget", object{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.must("", "Target.attachToTarget", object{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	b.must(b.session, "Page.enable", nil, nil)
	return b
}

type object = map[string]any

// read hands replies to their callers until the pipe ends.
func (b *browser) read(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		message, err := in.ReadBytes(0)
		if err != nil {
			return
		}
		var m struct {
			ID     int
			Method string
			reply
		}
		if err := json.Unmarshal(message[:len(message)-1], &m); err != nil {
			b.t.Errorf("chromium sent %q: %v", message, err)
			return
		}
		switch {
		case m.Method == "Page.loadEventFired":
			b.loaded <- struct{}{}
		case m.ID != 0:
			b.mu.Lock()
			to := b.replies[m.ID]
			delete(b.replies, m.ID)
			b.mu.Unlock()
			to <- m.reply
		}
	}
}

// call sends one command and waits for its result.
func (b *browser) call(session, method string, params object, result any) error {
	answer := make(chan reply, 1)
	b.mu.Lock()
	b.last++
	message := object{"id": b.last, "method": method}
	b.replies[b.last] = answer
	if session != "" {
		message["sessionId"] = session
	}
	if params != nil {
		message["params"] = params
	}
	text, err := json.Marshal(message)
	if err == nil {
		_, err = b.send.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case r := <-answer:
		if r.Error != nil {
			return errors.New(r.Error.Message)
		}
		if result != nil {
			return json.Unmarshal(r.Result, result)
		}
		return nil
	case <-time.After(patience):
		return fmt.Errorf("no answer within %v", patience)
	}
}

func (b *browser) must(session, method string, params object, result any) {
	b.t.Helper()
	if err := b.call(session, method, params, result); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
}

// visit loads a page with all that is in it.
func (b *browser) visit(url string) {
	b.t.Helper()
	var result struct{ ErrorText string }
	b.must(b.session, "Page.navigate", object{"url": url}, &result)
	if result.ErrorText != "" {
		b.t.Fatalf("%s: %s", url, result.ErrorText)
	}
	select {
	case <-b.loaded:
	case <-time.After(patience):
		b.t.Fatalf("%s: not loaded within %v", url, patience)
	}
}

// cookies returns everything that the browser keeps, by name. Of one name there
// is only one in these tests.
func (b *browser) cookies() map[string]cookie {
	b.t.Helper()
	var result struct{ Cookies []cookie }
	b.must("", "Storage.getCookies", nil, &result)
	all := map[string]cookie{}
	for _, c := range result.Cookies {
		all[c.Name] = c
	}
	return all
}

func (b *browser) clear() {
	b.t.Helper()
	b.must("", "Storage.clearCookies", nil, nil)
}

// script returns the string that an expression gives in the page.
func (b *browser) script(expression string) string {
	b.t.Helper()
	var result struct{ Result struct{ Value string } }
	b.must(b.session, "Runtime.evaluate", object{"expression": expression}, &result)
	return result.Result.Value
}

// serve starts a TLS server for the browser. What is no page is not found, such
// as the icon that the browser asks for on its own.
func serve(t *testing.T, pages map[string]http.HandlerFunc) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	for path, h := range pages {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Cache-Control", "no-store")
			h(w, r)
		})
	}
	srv := httptest.NewTLSServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

// names lists the names of cookies in a document.cookie string.
func names(documentCookie string) []string {
	var all []string
	for pair := range strings.SplitSeq(documentCookie, "; ") {
		if name, _, ok := strings.Cut(pair, "="); ok {
			all = append(all, name)
		}
	}
	return all
}

package wsproxy_test

import (
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/wsproxy"
)

// A page in Chromium, over HTTP/2 as the browser chooses by itself, and over
// HTTP/1.1 when HTTP/2 is switched off in it. Origin is checked as by default.
func TestChromium(t *testing.T) {
	for _, mode := range []wsproxy.Mode{wsproxy.Frames, wsproxy.Tunnel} {
		for proto, flags := range map[string][]string{"HTTP/2.0": nil, "HTTP/1.1": {"--disable-http2"}} {
			t.Run(proto+", "+mode.String(), func(t *testing.T) { chromium(t, mode, proto, flags) })
		}
	}
}

func chromium(t *testing.T, mode wsproxy.Mode, proto string, flags []string) {
	path := prog.Need(t, "chromium")
	echo := serve(t, http.HandlerFunc(echoGorilla), false)
	closed := make(chan wsproxy.Stats, 10)
	p, err := wsproxy.New(wsproxy.Config{
		Target: echo.url(""), Mode: mode,
		OnClose: func(s wsproxy.Stats) { closed <- s },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	logs := make(chan string, 1)
	mux := http.NewServeMux()
	mux.Handle("/echo", p)
	mux.Handle("/close", p)
	mux.HandleFunc("POST /log", func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		logs <- string(b)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/page.html") })
	front := serve(t, mux, true)

	_, port, err := net.SplitHostPort(front.addr)
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{
		"--headless=new", "--remote-debugging-port=0", "--user-data-dir=" + prog.TempDir(t),
		"--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check",
		"--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
		"--ignore-certificate-errors", "--host-resolver-rules=MAP chat.example 127.0.0.1, MAP * ~NOTFOUND",
	}, flags...)
	cmd := exec.CommandContext(t.Context(), path, append(args, "https://chat.example:"+port+"/")...)
	var printed strings.Builder
	cmd.Stdout, cmd.Stderr = &printed, &printed
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log string
	select {
	case log = <-logs:
	case <-time.After(2 * patience):
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	lines := strings.Split(log, "\n")
	slices.Sort(lines)
	extension := "permessage-deflate" // negotiated end to end
	want := []string{"closing close 4001 server says so true"}
	for _, name := range []string{"first", "second"} {
		want = append(want, name+" close 1000 true", name+" message 0 true", name+" message 1 true",
			name+" message 2 true", name+" message 3 true", name+" open chat "+extension)
	}
	if !slices.Equal(lines, want) {
		t.Errorf("the page reports\n%s\nand chromium prints\n%s", strings.Join(lines, "\n"), printed.String())
	}
	for range 3 {
		select {
		case s := <-closed:
			if s.FrontProto != proto {
				t.Errorf("a tunnel over %s", s.FrontProto)
			}
		case <-time.After(patience):
			t.Fatal("a tunnel is still open")
		}
	}
}

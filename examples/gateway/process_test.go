//go:build unix

package main

import (
	"bufio"
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The program as a user meets it: built, started with its defaults but for the
// port, tried with the commands that it prints, and stopped with a signal.
func TestProcess(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "gateway")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			cmd := exec.Command(bin, "-listen", "127.0.0.1:0")
			home := t.TempDir()
			cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CACHE_HOME="+filepath.Join(home, "cache"))
			var log bytes.Buffer
			cmd.Stderr = &log
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill() }) // fails when it has stopped, as it should have
			hurry := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
			defer hurry.Stop()

			urls := commands(t, bufio.NewReader(stdout))
			client := newClient(t, false)

			hello := get(t, client, urls[0])
			id := hello.Header.Get("X-Request-Id")
			if hello.StatusCode != 200 || id == "" || hello.decode(t)["request_id"] != id {
				t.Errorf("hello: %d %v %s", hello.StatusCode, hello.Header, hello.body)
			}

			began := time.Now()
			get(t, client, urls[1]).wantProblem(t, 503, "")
			if took := time.Since(began); took < 2*time.Second || took >= 5*time.Second {
				t.Errorf("slow: the limit of 2s answered after %v", took)
			}

			res, err := client.Do(request(t, "GET", urls[2], nil))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			events := bufio.NewReader(res.Body)
			if event := nextEvent(t, events); !strings.HasPrefix(event, "id: 1\n") {
				t.Errorf("events: got %q", event)
			}

			// A second gateway on the same port.
			addr := strings.TrimSuffix(strings.TrimPrefix(urls[2], "http://"), "/events")
			out, err := exec.Command(bin, "-listen", addr).CombinedOutput()
			if want := "gateway: listen " + addr + ": address already in use (choose another with -listen)\n"; string(out) != want || exitStatus(err) != 1 {
				t.Errorf("port in use: %v, %q, want %q", err, out, want)
			}

			// The stream is open; the signal ends it.
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, events); err != nil {
				t.Errorf("events: the stream ended with %v", err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v, want exit status 0\n%s", err, log.String())
			}
			if found := databases(t, home); len(found) != 1 || filepath.Base(found[0]) != "gateway.db" {
				t.Errorf("files in the home directory: %q, want one gateway.db, closed", found)
			}
			if !strings.Contains(log.String(), "request_id="+id) || !strings.Contains(log.String(), "msg=stopped") {
				t.Errorf("log:\n%s", log.String())
			}
		})
	}
}

// commands reads what the gateway prints and returns the URLs of the three
// commands to try.
func commands(t *testing.T, stdout *bufio.Reader) []string {
	t.Helper()
	curl := regexp.MustCompile(`^  curl -[iN] "?(http://[^\s"]+)"?$`)
	var urls []string
	for len(urls) < 3 {
		line, err := stdout.ReadString('\n')
		if err != nil {
			t.Fatalf("%d commands were printed: %v", len(urls), err)
		}
		if m := curl.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			urls = append(urls, m[1])
		}
	}
	return urls
}

// databases lists the files below a directory. A closed SQLite database is one,
// an open one has others beside it.
func databases(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func exitStatus(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return 0
}

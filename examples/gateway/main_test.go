package main

import (
	"bytes"
	"context"
	"go/parser"
	"go/token"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A mistake on the command line is one line that names the flag and the value,
// and exit status 1.
func TestFlagErrors(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"-target foo", `-target: want a URL such as http://127.0.0.1:9000 (got "foo")`},
		{"-target localhost:9000", `-target: want a URL such as http://127.0.0.1:9000 (got "localhost:9000")`},
		{"-target 127.0.0.1:9000", `-target: want a URL such as http://127.0.0.1:9000 (got "127.0.0.1:9000")`},
		{"-target //127.0.0.1:9000", `-target: want a URL such as http://127.0.0.1:9000 (got "//127.0.0.1:9000")`},
		{"-target ftp://127.0.0.1", `-target: want a URL such as http://127.0.0.1:9000 (got "ftp://127.0.0.1")`},
		{"-target http:127.0.0.1", `-target: the host is missing (got "http:127.0.0.1")`},
		{"-target http://", `-target: the host is missing (got "http://")`},
		{"-target http://:9000", `-target: the host is missing (got "http://:9000")`},
		{"-target http://a:port", `-target: want a URL such as http://127.0.0.1:9000 (got "http://a:port")`},
		{"-target http://a:0", `-target: the port must be from 1 to 65535 (got "http://a:0")`},
		{"-target http://a:65536", `-target: the port must be from 1 to 65535 (got "http://a:65536")`},
		{"-target http://me:secret@a", `-target: user and password are not supported (got "http://me:xxxxx@a")`},
		{"-target http://a?x=1", `-target: a query or fragment is not supported (got "http://a?x=1")`},
		{"-target http://a?", `-target: a query or fragment is not supported (got "http://a?")`},
		{"-target http://a#x", `-target: a query or fragment is not supported (got "http://a#x")`},
		{"-target http://a -target b", `-target: want a URL such as http://127.0.0.1:9000 (got "b")`},
		{"-target http://a\n", `-target: want a URL such as http://127.0.0.1:9000 (got "http://a\n")`},
		{"-target ", `-target: want a URL such as http://127.0.0.1:9000 (got "")`},
		{"-target", `flag needs an argument: -target (try -h)`},
		{"-listen 8080", `-listen: want host:port (got "8080")`},
		{"-listen 127.0.0.1", `-listen: want host:port (got "127.0.0.1")`},
		{"-listen 127.0.0.1:", `-listen: want host:port (got "127.0.0.1:")`},
		{"-listen 127.0.0.1:65536", `-listen: want host:port (got "127.0.0.1:65536")`},
		{"-listen 127.0.0.1:-1", `-listen: want host:port (got "127.0.0.1:-1")`},
		{"-listen ::1:8080", `-listen: want host:port (got "::1:8080")`},
		{"-timeout -1s", `-timeout: must not be negative (got -1s)`},
		{"-timeout 5", `invalid value "5" for flag -timeout: parse error (try -h)`},
		{"-target http://a -target http://a", `-target: is given twice (got "http://a")`},
		{"-canary some", `-canary: want a percentage from 0 to 100 (got "some")`},
		{"-canary -1", `-canary: want a percentage from 0 to 100 (got "-1")`},
		{"-canary 100.01", `-canary: want a percentage from 0 to 100 (got "100.01")`},
		{"-canary NaN", `-canary: want a percentage from 0 to 100 (got "NaN")`},
		{"-canary 5 -target http://a", `-canary: needs two targets or more, of which it is the last (got "5")`},
		{"-health health -target http://a", `-health: want a path such as /health (got "health")`},
		{"-health http://a/health -target http://a", `-health: want a path such as /health (got "http://a/health")`},
		{"-health /health", `-health: is for the back ends of -target, and there is none (got "/health")`},
		{"-log xml", `-log: want text or json (got "xml")`},
		{"-port 80", `flag provided but not defined: -port (try -h)`},
		{"http://127.0.0.1:9000", `unexpected argument "http://127.0.0.1:9000" (a back end is given with -target; try -h)`},
	} {
		t.Run(tc.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			// A context that has ended: should the mistake pass, the
			// gateway stops at once and the test does not hang.
			if status := run(ended(t), strings.Split(tc.args, " "), &stdout, &stderr); status != 1 {
				t.Errorf("exit status %d, want 1", status)
			}
			if got, want := stderr.String(), "gateway: "+tc.want+"\n"; got != want {
				t.Errorf("stderr\n got %q\nwant %q", got, want)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout: %q", stdout.String())
			}
		})
	}
}

func TestParseFlags(t *testing.T) {
	opt, err := parseFlags(strings.Fields("-listen [::1]:0 -target http://a:9000/base -target https://b -canary 2.5 -health /up?full=1 -timeout 30s -store memory -log json"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if opt.listen != "[::1]:0" || opt.timeout.String() != "30s" || opt.store.kind != "memory" || !opt.json {
		t.Errorf("got %+v", opt)
	}
	if opt.canary == nil || *opt.canary != 250 || opt.health != "/up?full=1" {
		t.Errorf("canary %v, health %q", opt.canary, opt.health)
	}
	if len(opt.targets) != 2 || opt.targets[0].String() != "http://a:9000/base" || opt.targets[1].String() != "https://b" {
		t.Errorf("targets %v", opt.targets)
	}
}

func TestHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(ended(t), []string{"-h"}, &stdout, &stderr); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	for _, name := range []string{"-listen", "-target", "-canary", "-health", "-timeout", "-store", "-log"} {
		if !strings.Contains(stdout.String(), "\n  "+name+" ") {
			t.Errorf("%s is not explained in\n%s", name, stdout.String())
		}
	}
	if stderr.Len() > 0 {
		t.Errorf("stderr: %q", stderr.String())
	}
}

// A port in use is one line that says how to choose another, and exit status 1.
func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := ln.Addr().String()

	var stdout, stderr bytes.Buffer
	if status := run(ended(t), []string{"-listen", addr}, &stdout, &stderr); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	line := stderr.String()
	if !strings.HasPrefix(line, "gateway: listen "+addr+": ") || !strings.HasSuffix(line, " (choose another with -listen)\n") ||
		strings.Count(line, "\n") != 1 || strings.Count(line, addr) != 1 {
		t.Errorf("stderr: %q", line)
	}
	if stdout.Len() > 0 {
		t.Errorf("stdout: %q", stdout.String())
	}
}

// Handlers are waited for, as long as the context lets them.
func TestRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c running
		c.wait(t.Context())
		h := c.count(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Minute) }))
		go h.ServeHTTP(nil, nil)
		synctest.Wait()
		began := time.Now()
		within, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c.wait(within)
		if took := time.Since(began); took != time.Second {
			t.Errorf("gave up after %v, want 1s", took)
		}
		c.wait(t.Context())
		if took := time.Since(began); took < time.Minute || took > time.Minute+time.Second {
			t.Errorf("waited for %v, want a minute", took)
		}
	})
}

// What is printed can be pasted, whatever address was listened on.
func TestReachable(t *testing.T) {
	for _, tc := range []struct {
		ip, want string
		operator bool
	}{
		{"127.0.0.1", "127.0.0.1:80", true},
		{"::1", "[::1]:80", true},
		{"0.0.0.0", "localhost:80", true},
		{"::", "localhost:80", true},
		{"192.0.2.1", "192.0.2.1:80", false},
	} {
		if got := hasOperator(&net.TCPAddr{IP: net.ParseIP(tc.ip), Port: 80}); got != tc.operator {
			t.Errorf("%s: hasOperator is %v", tc.ip, got)
		}
		if got := reachable(&net.TCPAddr{IP: net.ParseIP(tc.ip), Port: 80}); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.ip, got, tc.want)
		}
	}
}

// The program can be copied: it imports nothing that only this repository may.
func TestCopyable(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range file.Imports {
			if strings.Contains(imp.Path.Value, "internal") || strings.Contains(imp.Path.Value, "plainware/examples") {
				t.Errorf("%s imports %s", name, imp.Path.Value)
			}
		}
	}
}

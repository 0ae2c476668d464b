package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/store"
)

// A -store that cannot be meant is one line that names the flag and the value,
// and never shows a password.
func TestStoreFlagErrors(t *testing.T) {
	const want = "want memory, sqlite:PATH, redis://HOST or postgres://HOST"
	for _, tc := range []struct{ spec, problem, shown string }{
		{"", want, ""},
		{"disk", want, "disk"},
		{"Memory", want, "Memory"},
		{"/var/lib/gateway.db", want, "/var/lib/gateway.db"},
		{"localhost:6379", want, "localhost:6379"},
		{"me:hunter2@localhost:6379", want, "…"},
		{"host=localhost password=hunter2", want, "…"},
		{"mysql://me:hunter2@a/b?tls=hunter2", want, "mysql://me:xxxxx@a/b"},
		{"sqlite:", "the path is missing", "sqlite:"},
		{"sqlite::memory:", "what is to be kept in memory is kept with memory", "sqlite::memory:"},
		{"sqlite://gateway.db", "want a path, not a URL: sqlite:/var/lib/gateway.db or sqlite:gateway.db", "sqlite://gateway.db"},
		{"redis", "want a URL such as redis://127.0.0.1/; odd characters in a password are written as in %40", "redis"},
		{"redis:6379", "want a URL such as redis://127.0.0.1/; odd characters in a password are written as in %40", "redis:6379"},
		{"redis://a:port", "want a URL such as redis://127.0.0.1/; odd characters in a password are written as in %40", "redis://…"},
		{"redis://:hun/ter2@a", "want a URL such as redis://127.0.0.1/; odd characters in a password are written as in %40", "redis://…"},
		{"rediss://:hunter2@a:port", "want a URL such as rediss://127.0.0.1/; odd characters in a password are written as in %40", "rediss://…"},
		{"redis://:hunter2@a/first", `invalid database number: "first"`, "redis://:xxxxx@a/first"},
		{"redis://hunter2@a/?nodes=3", "unexpected option: nodes", "redis://xxxxx@a/"},
		{"postgres://me:hun%zter2@a", "want a URL such as postgres://127.0.0.1/; odd characters in a password are written as in %40", "postgres://…"},
		{"postgres://me:12?hunter2@a/b?sslmode=on", "failed to configure TLS (sslmode is invalid)", "postgres://…"},
		{"postgres://me:hunter2@a/b?sslmode=on", "failed to configure TLS (sslmode is invalid)", "postgres://me:xxxxx@a/b"},
		{"postgresql://me@a/b?password=hunter2&connect_timeout=soon", "invalid connect_timeout", "postgresql://me@a/b"},
	} {
		t.Run(tc.spec, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if status := run(ended(t), []string{"-store", tc.spec}, &stdout, &stderr); status != 1 {
				t.Errorf("exit status %d, want 1", status)
			}
			line := stderr.String()
			prefix, suffix := "gateway: -store: "+tc.problem, fmt.Sprintf(" (got %q)\n", tc.shown)
			if !strings.HasPrefix(line, prefix) || !strings.HasSuffix(line, suffix) || strings.Count(line, "\n") != 1 {
				t.Errorf("stderr\n got %q\nwant %q%q", line, prefix, suffix)
			}
			if strings.Contains(line, "ter2") {
				t.Errorf("a password is shown: %q", line)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout: %q", stdout.String())
			}
		})
	}
}

// A store is printed without its password.
func TestStoreShown(t *testing.T) {
	for _, tc := range []struct{ spec, kind, shown string }{
		{"memory", "memory", "memory, until the gateway ends"},
		{"redis://:hunter2@a:6380/2?pool_size=3", "redis", "redis://:xxxxx@a:6380/2"},
		{"rediss://me:hunter2@a", "redis", "rediss://me:xxxxx@a"},
		{"redis://hunter2@a", "redis", "redis://xxxxx@a"},
		{"postgres://me:hun%40ter2@a/b?sslmode=disable", "postgres", "postgres://me:xxxxx@a/b"},
		{"postgresql://me@a/b?password=hunter2", "postgres", "postgresql://me@a/b"},
	} {
		spec, err := parseStore(tc.spec)
		if err != nil || spec.kind != tc.kind || fmt.Sprint(spec) != tc.shown {
			t.Errorf("%s: %v, of kind %q, %v", tc.spec, spec, spec.kind, err)
		}
	}
}

// open opens a store until the end of the test.
func open(t *testing.T, spec string) store.Store {
	t.Helper()
	s, closeStore := mustOpen(t, spec)
	t.Cleanup(func() {
		if err := closeStore(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func mustOpen(t *testing.T, spec string) (store.Store, func() error) {
	t.Helper()
	parsed, err := parseStore(spec)
	if err != nil {
		t.Fatal(err)
	}
	s, closeStore, err := openStore(t.Context(), parsed)
	if err != nil {
		t.Fatal(err)
	}
	return s, closeStore
}

func TestStoreMemory(t *testing.T) {
	s := open(t, "memory")
	if _, ok := store.As[store.Registers](s); !ok {
		t.Errorf("%T has no registers", s)
	}
}

// What a file keeps is there when it is opened again, whatever its name; nobody
// else may read it.
func TestStoreSQLite(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"plain.db", "a b%20+é.db", "a?mode=memory.db", "#1.db"} {
		if runtime.GOOS == "windows" && strings.Contains(name, "?") {
			continue // no name there
		}
		s, closeStore := mustOpen(t, "sqlite:"+name)
		if err := s.Put(t.Context(), "k", []byte("kept"), 0); err != nil {
			t.Fatal(err)
		}
		if err := closeStore(); err != nil {
			t.Errorf("%s: close: %v", name, err)
		}
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the permissions %v", name, info.Mode().Perm())
		}
		abs, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		if v, ok, err := open(t, "sqlite:"+abs).Get(t.Context(), "k"); string(v) != "kept" || !ok || err != nil {
			t.Errorf("%s, opened again: %q, %v, %v", name, v, ok, err)
		}
	}
}

// setCache sets the user's cache directory, on any system.
func setCache(t *testing.T, home, cache string) {
	t.Helper()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("LocalAppData", cache)
}

// Without -store the gateway makes a file in the user's cache directory, says
// where, and leaves it closed.
func TestStoreDefault(t *testing.T) {
	home := t.TempDir()
	setCache(t, home, filepath.Join(home, "cache"))
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "plainware", "gateway.db")
	spec, err := parseStore(defaultStore)
	if err != nil || spec.String() != "sqlite:"+path {
		t.Fatalf("%v, %v, want sqlite:%s", spec, err, path)
	}
	for range 2 {
		g := start(t, "-store", defaultStore)
		if text := g.greeting(t); !strings.Contains(text, "gateway: store sqlite:"+path+"\n") {
			t.Errorf("printed\n%s", text)
		}
		g.stop()
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has the permissions %v", info.Mode().Perm())
	}
	if names, err := filepath.Glob(path + "*"); len(names) != 1 || err != nil {
		t.Errorf("left behind: %q, %v", names, err)
	}
}

// Where there is no cache directory, the error says what to do.
func TestStoreNoCache(t *testing.T) {
	setCache(t, "", "")
	var stderr bytes.Buffer
	status := run(ended(t), nil, &bytes.Buffer{}, &stderr)
	line := stderr.String()
	if status != 1 || strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, "gateway: -store: there is no cache directory to put a file into, ") ||
		!strings.HasSuffix(line, ": name the file, as in sqlite:gateway.db, or use memory (got \"sqlite\")\n") {
		t.Errorf("exit status %d, stderr %q", status, line)
	}
}

// A file that cannot be one is one line.
func TestStoreBadFile(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, bytes.Repeat([]byte("not a database\n"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "missing", "gateway.db"), dir, text} {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), []string{"-listen", "127.0.0.1:0", "-store", "sqlite:" + path}, &stdout, &stderr)
		if line := stderr.String(); status != 1 || strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, "gateway: -store: sqlite:"+path+" cannot be used: ") {
			t.Errorf("exit status %d, stderr %q", status, line)
		}
		if stdout.Len() > 0 {
			t.Errorf("stdout: %q", stdout.String())
		}
	}
}

// Two gateways on one file, started at the same moment, share what is in it.
func TestStoreShared(t *testing.T) {
	spec := "sqlite:" + filepath.Join(t.TempDir(), "gateway.db")
	checkGoroutines(t)
	var gateways [2]*instance
	for i := range gateways {
		gateways[i] = launch("-store", spec)
	}
	for _, g := range gateways {
		g.attach(t)
	}
	// What they would do, with stores as they have them.
	regs := [2]store.Registers{}
	for i := range regs {
		regs[i] = store.RegistersOf(open(t, spec))
	}
	op := store.Op{Space: "quota", Key: "k", Ceil: 50, Step: 1, Min: 1, Max: 1}
	var wg sync.WaitGroup
	var granted atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				r, err := regs[i%2].Advance(t.Context(), op)
				if err != nil {
					t.Error(err)
					return
				}
				granted.Add(r.Granted)
			}
		})
	}
	wg.Wait()
	if n := granted.Load(); n != 50 {
		t.Errorf("two stores on one file granted %d of 50", n)
	}
	client := newClient(t, false)
	for _, g := range gateways {
		if a := get(t, client, g.url+"/hello"); a.StatusCode != 200 {
			t.Errorf("hello: %d", a.StatusCode)
		}
		g.stop()
	}
}

// A server that is not there ends the start with one line.
func TestStoreUnreachable(t *testing.T) {
	addr := deadAddr(t)
	for spec, shown := range map[string]string{
		"redis://:hunter2@" + addr:                        "redis://:xxxxx@" + addr,
		"rediss://me:hunter2@" + addr:                     "rediss://me:xxxxx@" + addr,
		"postgres://me:hunter2@" + addr + "/b":            "postgres://me:xxxxx@" + addr + "/b",
		"postgresql://me@" + addr + "/b?password=hunter2": "postgresql://me@" + addr + "/b",
	} {
		t.Run(shown, func(t *testing.T) {
			checkGoroutines(t)
			var stdout, stderr bytes.Buffer
			began := time.Now()
			status := run(t.Context(), []string{"-listen", "127.0.0.1:0", "-store", spec}, &stdout, &stderr)
			if took := time.Since(began); took > openWithin+time.Second {
				t.Errorf("it took %v", took)
			}
			line := stderr.String()
			if status != 1 || strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, "gateway: -store: "+shown+" cannot be used: ") || !strings.Contains(line, "refused") {
				t.Errorf("exit status %d, stderr %q", status, line)
			}
			if strings.Contains(line, "hunter2") {
				t.Errorf("the password is shown: %q", line)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout: %q", stdout.String())
			}
		})
	}
}

// A server that takes the connection and never answers is given up in time.
func TestStoreSilent(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // and with it what waits to be accepted
	for _, scheme := range []string{"redis", "postgres"} {
		t.Run(scheme, func(t *testing.T) {
			checkGoroutines(t)
			spec, err := parseStore(scheme + "://me:hunter2@" + ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			const limit = 300 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			began := time.Now()
			s, _, err := openStore(ctx, spec)
			if took := time.Since(began); took < limit/2 || took > limit+2*time.Second {
				t.Errorf("it took %v", took)
			}
			if s != nil || err == nil || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v, %v", s, err)
			}
		})
	}
}

// A signal while the store is being opened is an orderly end.
func TestStoreSignal(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var stdout, stderr bytes.Buffer
	if status := run(ctx, []string{"-listen", "127.0.0.1:0", "-store", "postgres://" + ln.Addr().String()}, &stdout, &stderr); status != 0 || stderr.Len() > 0 {
		t.Errorf("exit status %d, stderr %q", status, stderr.String())
	}
}

package main

import (
	"encoding/json"
	"strings"
	"testing"

	"example.com/plainware/internal/interop/targets"
)

func allocates(n int) func(*testing.B) {
	return func(b *testing.B) {
		for b.Loop() {
			for range n {
				sink = new([64]byte)
			}
		}
	}
}

var sink *[64]byte

func measures() []targets.Measure {
	return []targets.Measure{
		{Package: "lean", Name: "none", Ours: allocates(0), MaxAllocs: -1},
		{Package: "fat", Name: "three", Ours: allocates(3), MaxAllocs: 2, MaxBytes: 192},
		{Package: "broken", Name: "fails", Ours: func(b *testing.B) { b.FailNow() }, MaxAllocs: 1},
	}
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   string
		status int
		stdout string // a part of it
		stderr string // a part of it
	}{
		{"met", "lean", met, "lean     none     allocs/op  0     -     -       -      <= 0    ok", ""},
		{"short", "fat", short, "SHORT", ""},
		{"one of two short", "lean fat", short, "ok", ""},
		{"benchmark fails", "broken", short, "", "broken, fails, ours: the benchmark failed"},
		{"all", "", short, "lean", "broken, fails"},
		{"unknown package", "lean nosuch", usage, "", `no measures for package "nosuch"; there are: lean, fat, broken`},
		{"unknown flag", "-fast", usage, "", "-fast"},
		{"no rounds", "-rounds 0 lean", usage, "", "-rounds: must be at least 1 (got 0)"},
		{"no time", "-benchtime -1s lean", usage, "", "-benchtime: must be positive (got -1s)"},
		{"by name", "-run ^n", met, "none", "lean: none"},
		{"by name, not the others", "-run ^t", short, "three", "fat: three"},
		{"no such name", "-run ^x$", usage, "", `-run: no measure's name matches "^x$"`},
		{"no expression", "-run (", usage, "", "-run: error parsing regexp"},
		{"no duration", "-benchtime soon", usage, "", "soon"},
		{"help", "-h", usage, "", "packages: lean, fat, broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			args := append([]string{"-rounds=1", "-benchtime=1ms"}, strings.Fields(c.args)...)
			if got := run(args, measures(), &stdout, &stderr); got != c.status {
				t.Errorf("status %d, want %d", got, c.status)
			}
			if !strings.Contains(stdout.String(), c.stdout) {
				t.Errorf("stdout: %s", stdout.String())
			}
			if !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("stderr: %s", stderr.String())
			}
			if c.status == usage && stdout.Len() > 0 {
				t.Errorf("a usage error printed %s", stdout.String())
			}
		})
	}
}

func TestRunJSON(t *testing.T) {
	var stdout, stderr strings.Builder
	if got := run([]string{"-json", "-rounds=1", "-benchtime=1ms", "fat"}, measures(), &stdout, &stderr); got != short {
		t.Errorf("status %d", got)
	}
	var rows []targets.Row
	if err := json.Unmarshal([]byte(stdout.String()), &rows); err != nil {
		t.Fatalf("%v: %s", err, stdout.String())
	}
	if len(rows) != 2 || rows[0].Ours != 3 || rows[0].OK || !rows[1].OK {
		t.Errorf("%+v", rows)
	}
}

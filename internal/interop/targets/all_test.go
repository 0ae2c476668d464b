package targets

import (
	"errors"
	"flag"
	"os"
	"testing"

	"example.com/plainware/internal/interop/load"
	"example.com/plainware/internal/interop/prog"
)

func TestMain(m *testing.M) {
	load.Main() // if this is the process that measures of upstream start
	os.Exit(m.Run())
}

// benchtime sets the duration of testing.Benchmark until the end of the test.
func benchtime(t *testing.T, d string) {
	t.Helper()
	f := flag.Lookup("test.benchtime")
	old := f.Value.String()
	t.Cleanup(func() { flag.Set(f.Name, old) })
	if err := flag.Set(f.Name, d); err != nil {
		t.Fatal(err)
	}
}

// Every contestant works, and every measure is complete and has a name of its
// own. What the figures are is judged by cmd/targets. Those that need a program
// which is not installed say so.
func TestAll(t *testing.T) {
	benchtime(t, "2x")
	seen := map[string]bool{}
	for _, m := range All() {
		name := m.Package + ": " + m.Name
		if m.Package == "" || m.Name == "" || seen[name] {
			t.Errorf("%q: no name, or not the only one of it", name)
		}
		seen[name] = true
		peers := map[string]bool{}
		judged := m.MaxAllocs != 0 || m.MaxBytes != 0 || m.MaxTime != 0 || len(m.Metrics) > 0
		for _, ratio := range m.Ratios {
			judged = judged || ratio.Max > 0
		}
		for _, p := range m.Peers {
			if p.Name == "" || peers[p.Name] {
				t.Errorf("%s: peer %q: no name, or not the only one of it", name, p.Name)
			}
			peers[p.Name] = true
			judged = judged || p.MaxRatio > 0 && m.Scale == Time || p.MinRatio > 0 && m.Scale == Rate
			if p.MaxRatio > 0 && m.Scale != Time || p.MinRatio > 0 && m.Scale != Rate {
				t.Errorf("%s: peer %q: a target on another scale", name, p.Name)
			}
		}
		if !judged {
			t.Errorf("%s: no target", name)
		}
		_, err := Runner{}.Run(m)
		if errors.Is(err, prog.ErrMissing) && os.Getenv(prog.Required) == "" {
			t.Log(err)
		} else if err != nil {
			t.Error(err)
		}
	}
}

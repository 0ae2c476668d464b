// Targets measures the kit against the peers it is held against and says
// which target is met. It is run by hand, on a machine with little else to do:
//
//	go -C internal/interop run ./cmd/targets [-rounds N] [-benchtime D] [-run REGEXP] [-json] [package ...]
//
// Without packages it runs every measure. It exits with status 1 when a target
// is missed or a benchmark fails, and 2 when it is called wrongly.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/interop/load"
	"example.com/plainware/internal/interop/targets"
)

func main() {
	load.Main()    // if this is the process that measures of upstream start
	testing.Init() // defines test.benchtime, which testing.Benchmark reads
	os.Exit(run(os.Args[1:], targets.All(), os.Stdout, os.Stderr))
}

const (
	met   = 0
	short = 1
	usage = 2
)

func run(args []string, all []targets.Measure, stdout, stderr io.Writer) int {
	var known []string
	for _, m := range all {
		if !slices.Contains(known, m.Package) {
			known = append(known, m.Package)
		}
	}
	flags := flag.NewFlagSet("targets", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: targets [flags] [package ...]\npackages: %s\n", strings.Join(known, ", "))
		flags.PrintDefaults()
	}
	rounds := flags.Int("rounds", 11, "how often each contestant runs")
	benchtime := flags.Duration("benchtime", 60*time.Millisecond, "how long each contestant runs in a round")
	only := flags.String("run", "", "run only the measures whose name the regular expression finds")
	asJSON := flags.Bool("json", false, "print the rows as JSON")
	if err := flags.Parse(args); err != nil {
		return usage
	}
	wrong := func(format string, a ...any) int {
		fmt.Fprintf(stderr, "targets: "+format+"\n", a...)
		return usage
	}
	if *rounds < 1 {
		return wrong("-rounds: must be at least 1 (got %d)", *rounds)
	}
	if *benchtime <= 0 {
		return wrong("-benchtime: must be positive (got %v)", *benchtime)
	}
	find, err := regexp.Compile(*only)
	if err != nil {
		return wrong("-run: %v", err)
	}
	all = slices.DeleteFunc(slices.Clone(all), func(m targets.Measure) bool { return !find.MatchString(m.Name) })
	if len(all) == 0 {
		return wrong("-run: no measure's name matches %q", *only)
	}
	for _, name := range flags.Args() {
		if !slices.Contains(known, name) {
			return wrong("no measures for package %q; there are: %s", name, strings.Join(known, ", "))
		}
	}
	if err := flag.Set("test.benchtime", benchtime.String()); err != nil {
		return wrong("-benchtime: %v", err)
	}

	var rows []targets.Row
	failed := false
	for _, m := range all {
		if flags.NArg() > 0 && !slices.Contains(flags.Args(), m.Package) {
			continue
		}
		fmt.Fprintf(stderr, "%s: %s\n", m.Package, m.Name)
		judged, err := targets.Runner{Rounds: *rounds}.Run(m)
		if err != nil {
			fmt.Fprintf(stderr, "targets: %v\n", err)
			failed = true
		}
		rows = append(rows, judged...)
	}

	if *asJSON {
		err = targets.WriteJSON(stdout, rows)
	} else {
		fmt.Fprintf(stdout, "%s %s/%s, %d processors; best (of cookies, sessions, webhooks and questions over loopback, the median) of %d rounds of %v, or of fewer longer ones where setting up takes long\n\n",
			runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), *rounds, *benchtime)
		err = targets.WriteTable(stdout, rows)
	}
	if err != nil {
		fmt.Fprintf(stderr, "targets: %v\n", err)
		return short
	}
	if failed || slices.ContainsFunc(rows, func(r targets.Row) bool { return !r.OK }) {
		return short
	}
	return met
}

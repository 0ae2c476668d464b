package upstream_test

import (
	"bufio"
	"expvar"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"

	"example.com/plainware/upstream"
)

// answered sends some requests through a Pool over one back end.
func answered(pool *upstream.Pool, n int) {
	for range n {
		req, _ := http.NewRequest("GET", "http://orders/", nil)
		res, err := pool.RoundTrip(req)
		if err != nil {
			log.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}

// What a Pool counts, as a variable of the package expvar: a program would
// call expvar.Publish("backends", all) and serve expvar.Handler.
func ExampleBackendStats_expvar() {
	one := backend("one")
	defer one.Close()
	pool, err := upstream.New(upstream.Config{Targets: []upstream.Target{{URL: one.URL, ID: "one"}}})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	type entry struct {
		State    string            `json:"state"`
		Active   int               `json:"active"`
		Attempts uint64            `json:"attempts"`
		Failures map[string]uint64 `json:"failures,omitempty"`
	}
	all := expvar.Func(func() any {
		m := make(map[string]entry)
		for s := range pool.Backends() {
			e := entry{State: s.State.String(), Active: s.Active, Attempts: s.Attempts, Failures: make(map[string]uint64)}
			for kind, n := range s.Failures() {
				if n > 0 {
					e.Failures[kind.String()] = n
				}
			}
			m[s.Target.ID] = e
		}
		return m
	})

	answered(pool, 3)
	fmt.Println(all)
	// Output: {"one":{"state":"healthy","active":0,"attempts":3}}
}

// The same in the text format of Prometheus, version 0.0.4: a family of metrics
// after the other, each with a line for each back end.
func ExampleBackendStats_prometheus() {
	one := backend("one")
	defer one.Close()
	pool, err := upstream.New(upstream.Config{Targets: []upstream.Target{{URL: one.URL, ID: `the "first"`}}})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	metrics := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		b := bufio.NewWriter(w)
		defer b.Flush()
		all := slices.Collect(pool.Backends()) // one look for all families
		escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
		family := func(name, kind, help string, each func(s *upstream.BackendStats, line func(suffix, labels string, value float64))) {
			fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
			for i := range all {
				id := escape.Replace(all[i].Target.ID)
				each(&all[i], func(suffix, labels string, value float64) {
					v := strconv.FormatFloat(value, 'g', -1, 64)
					fmt.Fprintf(b, "%s%s{backend=\"%s\"%s} %s\n", name, suffix, id, labels, v)
				})
			}
		}
		family("upstream_active", "gauge", "Requests under way.", func(s *upstream.BackendStats, line func(string, string, float64)) {
			line("", "", float64(s.Active))
		})
		family("upstream_healthy", "gauge", "1 if the back end is healthy.", func(s *upstream.BackendStats, line func(string, string, float64)) {
			healthy := 0.0
			if s.State == upstream.StateHealthy {
				healthy = 1
			}
			line("", "", healthy)
		})
		family("upstream_responses_total", "counter", "Responses.", func(s *upstream.BackendStats, line func(string, string, float64)) {
			for class, n := range s.Statuses[1:] {
				line("", fmt.Sprintf(`,class="%dxx"`, class+1), float64(n))
			}
		})
		family("upstream_failures_total", "counter", "Attempts that failed.", func(s *upstream.BackendStats, line func(string, string, float64)) {
			for kind, n := range s.Failures() {
				if kind.BackendFault() {
					line("", fmt.Sprintf(`,kind="%s"`, kind), float64(n))
				}
			}
		})
		// The sum of the latencies is not known; _count and the buckets are.
		family("upstream_latency_seconds", "histogram", "Time until the response header.", func(s *upstream.BackendStats, line func(string, string, float64)) {
			var sum uint64
			for i, n := range s.Buckets {
				sum += n
				le := "+Inf"
				if i < len(s.Buckets)-1 {
					le = strconv.FormatFloat(upstream.LatencyBound(i).Seconds(), 'g', -1, 64)
				}
				line("_bucket", `,le="`+le+`"`, float64(sum))
			}
			line("_count", "", float64(sum))
		})
	}

	answered(pool, 3)
	w := httptest.NewRecorder()
	metrics(w, httptest.NewRequest("GET", "/metrics", nil))
	// The buckets but for the last are left out here.
	for line := range strings.Lines(w.Body.String()) {
		if !strings.Contains(line, "_bucket") || strings.Contains(line, "+Inf") {
			io.WriteString(os.Stdout, line)
		}
	}
	// Output:
	// # HELP upstream_active Requests under way.
	// # TYPE upstream_active gauge
	// upstream_active{backend="the \"first\""} 0
	// # HELP upstream_healthy 1 if the back end is healthy.
	// # TYPE upstream_healthy gauge
	// upstream_healthy{backend="the \"first\""} 1
	// # HELP upstream_responses_total Responses.
	// # TYPE upstream_responses_total counter
	// upstream_responses_total{backend="the \"first\"",class="1xx"} 0
	// upstream_responses_total{backend="the \"first\"",class="2xx"} 3
	// upstream_responses_total{backend="the \"first\"",class="3xx"} 0
	// upstream_responses_total{backend="the \"first\"",class="4xx"} 0
	// upstream_responses_total{backend="the \"first\"",class="5xx"} 0
	// # HELP upstream_failures_total Attempts that failed.
	// # TYPE upstream_failures_total counter
	// upstream_failures_total{backend="the \"first\"",kind="dial"} 0
	// upstream_failures_total{backend="the \"first\"",kind="tls"} 0
	// upstream_failures_total{backend="the \"first\"",kind="write"} 0
	// upstream_failures_total{backend="the \"first\"",kind="no response"} 0
	// upstream_failures_total{backend="the \"first\"",kind="header timeout"} 0
	// upstream_failures_total{backend="the \"first\"",kind="bad response"} 0
	// upstream_failures_total{backend="the \"first\"",kind="body aborted"} 0
	// upstream_failures_total{backend="the \"first\"",kind="upgrade"} 0
	// # HELP upstream_latency_seconds Time until the response header.
	// # TYPE upstream_latency_seconds histogram
	// upstream_latency_seconds_bucket{backend="the \"first\"",le="+Inf"} 3
	// upstream_latency_seconds_count{backend="the \"first\""} 3
}

// An Observer sees each attempt when it happens, which is where a counter that
// BackendStats does not have is kept: here the attempts after the first.
func ExampleObserver_expvar() {
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }))
	defer failing.Close()
	one := backend("one")
	defer one.Close()

	again := new(expvar.Map) // a program would take expvar.NewMap("again")
	pool, err := upstream.New(upstream.Config{
		Targets: []upstream.Target{{URL: failing.URL, ID: "failing"}, {URL: one.URL, ID: "one", Priority: 1}},
		Retry:   upstream.Retry{Statuses: []int{503}},
		Observer: upstream.Observer{Attempt: func(_ *http.Request, a upstream.Attempt) {
			if a.Number > 1 {
				again.Add(a.Target.ID, 1)
			}
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	answered(pool, 2)
	fmt.Println(again)
	// Output: {"one": 2}
}

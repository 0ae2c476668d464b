package targets

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/plainware/internal/interop/load"
	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/upstream"
)

// upstreamMeasures compare a Proxy over a Pool of two back ends, with all that
// is on by default, with a tuned httputil.ReverseProxy.
//
// Client and back ends are in a process of their own, so that what getrusage
// and the allocator say of this one is the cost of the proxy and the server it
// runs in. The ns/op of these measures are CPU time, user and system, for each
// request; both processes run on one processor at a time and are saturated by
// 64 connections, or 16 with bodies of 1 MiB.
func upstreamMeasures() []Measure {
	b := new(bench)
	caddy, _ := prog.Find("caddy") // its rows are left out where it is not installed
	var all []Measure
	for _, m := range []struct {
		name string
		job  load.Job
	}{
		{"GET 128 B", load.Job{Path: load.Short, Conns: 64}},
		{"GET 10 KiB", load.Job{Path: load.Page, Conns: 64}},
		{"GET 16 KiB, chunked", load.Job{Path: load.Chunked, Conns: 64}},
		{"POST 4 KiB", load.Job{Path: load.Short, Post: 4 << 10, Conns: 64}},
		{"GET 1 MiB", load.Job{Path: load.Large, Conns: 16}},
		{"POST 1 MiB", load.Job{Path: load.Short, Post: 1 << 20, Conns: 16}},
		{"h2c, unary gRPC", load.Job{GRPC: true, Conns: 64}},
	} {
		front, limit := "HTTP/1.1", 1.0
		if m.job.GRPC {
			front, limit = "h2c", 1.05
		}
		peers := []Peer{{
			Name: "ReverseProxy, tuned", Run: b.through("ReverseProxy, "+front, m.job),
			MaxRatio: limit, MaxAllocsRatio: 0.8,
		}}
		if caddy != "" && !m.job.GRPC {
			peers = append(peers, Peer{Name: "Caddy", Run: b.behindCaddy(caddy, m.job), MaxRatio: 0.5})
		}
		all = append(all, Measure{
			Package: "upstream", Name: m.name + ", CPU",
			Ours: b.through("ours, "+front, m.job), Paired: true, Peers: peers, Setup: b.setup,
		})
	}
	return slices.Concat(all, streamMeasures(), pickMeasures())
}

// bench is the proxies and what drives them, all started when first needed.
type bench struct {
	once  sync.Once
	err   error
	load  *load.Process
	addrs map[string]string // of the proxies, by name

	caddy *process // nil unless it runs
}

func (b *bench) start() {
	if b.load, b.err = load.Start(); b.err != nil {
		return
	}
	b.addrs = make(map[string]string)
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	for name, p := range map[string]struct {
		protocols *http.Protocols
		make      func() (http.Handler, error)
	}{
		"ours, HTTP/1.1":         {nil, func() (http.Handler, error) { return ours("http://", b.load.BackEnds...) }},
		"ours, h2c":              {h2c, func() (http.Handler, error) { return ours("h2c://", b.load.H2C) }},
		"ReverseProxy, HTTP/1.1": {nil, func() (http.Handler, error) { return tunedReverseProxy(nil, b.load.BackEnds[0]) }},
		"ReverseProxy, h2c":      {h2c, func() (http.Handler, error) { return tunedReverseProxy(h2c, b.load.H2C) }},
	} {
		var h http.Handler
		if h, b.err = p.make(); b.err != nil {
			return
		}
		var l net.Listener
		if l, b.err = net.Listen("tcp", "127.0.0.1:0"); b.err != nil {
			return
		}
		b.addrs[name] = l.Addr().String()
		go (&http.Server{Handler: h, Protocols: p.protocols, ReadHeaderTimeout: 10 * time.Second}).Serve(l)
	}
}

// through sends the requests of a job through a proxy of this process.
func (b *bench) through(proxy string, job load.Job) func(*testing.B) {
	return func(tb *testing.B) {
		b.once.Do(b.start)
		if b.err != nil {
			tb.Fatal(b.err)
		}
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		job.Addr, job.N = b.addrs[proxy], job.Conns
		if err := b.load.Run(job); err != nil { // opens the connections
			tb.Fatal(err)
		}
		runtime.GC() // not what the contestant before has left
		tb.ReportAllocs()
		tb.ResetTimer()
		before := processTime(tb)
		job.N = tb.N
		if err := b.load.Run(job); err != nil {
			tb.Fatal(err)
		}
		tb.ReportMetric(float64(processTime(tb)-before)/float64(tb.N), "ns/op")
	}
}

// processTime is the CPU time of this process so far.
func processTime(tb *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func ours(scheme string, addrs ...string) (http.Handler, error) {
	var targets []upstream.Target
	for _, a := range addrs {
		targets = append(targets, upstream.Target{URL: scheme + a})
	}
	pool, err := upstream.New(upstream.Config{Targets: targets})
	if err != nil {
		return nil, err
	}
	return upstream.NewProxy(upstream.ProxyConfig{Transport: pool})
}

// tunedReverseProxy is what a careful user makes of the standard library:
// enough idle connections, buffers that are used again, no decompression.
func tunedReverseProxy(protocols *http.Protocols, addr string) (http.Handler, error) {
	target, err := url.Parse("http://" + addr)
	if err != nil {
		return nil, err
	}
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.Proxy = nil
	tr.MaxIdleConns, tr.MaxIdleConnsPerHost = 0, 4096
	tr.DisableCompression = true
	if protocols != nil {
		tr.Protocols = protocols
	}
	return &httputil.ReverseProxy{
		Transport: tr, BufferPool: new(buffers),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(target)
			pr.Out.Host = pr.In.Host
			pr.SetXForwarded()
		},
	}, nil
}

// buffers is a BufferPool without an allocation per use.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if v, _ := b.pool.Get().(*[32 << 10]byte); v != nil {
		return v[:]
	}
	return new([32 << 10]byte)[:]
}

func (b *buffers) Put(s []byte) { b.pool.Put((*[32 << 10]byte)(s)) }

// pickMeasures are what each policy takes to choose among the back ends of a
// Pool.
func pickMeasures() []Measure {
	const (
		peers = 8
		limit = 30 * time.Nanosecond
	)
	var all []Measure
	for _, p := range []struct {
		name   string
		picker upstream.Picker
	}{
		{"LeastRequest", upstream.LeastRequest()},
		{"RoundRobin", upstream.RoundRobin()},
		{"WeightedRoundRobin", upstream.WeightedRoundRobin()},
		{"Random", upstream.Random()},
		{"PeakEWMA", upstream.PeakEWMA()},
		{"Maglev", upstream.Maglev(0)},
		{"LeastConnections", upstream.LeastConnections()},
		{"Rendezvous", upstream.Rendezvous(0)},
	} {
		all = append(all, Measure{
			Package: "upstream", Name: "pick one of " + strconv.Itoa(peers) + ", " + p.name,
			Ours: picks(p.picker, peers), MaxTime: limit, MaxAllocs: -1,
		})
	}
	return all
}

// spy is a Picker that keeps the function it has built last.
type spy struct {
	upstream.Picker
	pick upstream.PickFunc
}

func (s *spy) Build(snap upstream.Snapshot) upstream.PickFunc {
	s.pick = s.Picker.Build(snap)
	return s.pick
}

func picks(picker upstream.Picker, peers int) func(*testing.B) {
	return func(b *testing.B) {
		var targets []upstream.Target
		for i := range peers {
			targets = append(targets, upstream.Target{URL: "http://b" + strconv.Itoa(i), Weight: 1 + i%2})
		}
		s := &spy{Picker: picker}
		pool, err := upstream.New(upstream.Config{Targets: targets, Picker: s})
		if err != nil {
			b.Fatal(err)
		}
		defer pool.Close()
		p := &upstream.Pick{HasKey: true}
		b.ReportAllocs()
		for b.Loop() {
			p.Key += 0x9e3779b97f4a7c15
			if s.pick(p) < 0 {
				b.Fatal("nothing picked")
			}
		}
	}
}

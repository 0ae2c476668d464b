package targets

import (
	"sync"
	"testing"
	"time"
)

// wsproxyMeasures compare a Proxy with other proxies for WebSockets, each in a
// process of its own, between a client and a back end in this one. What is
// measured is the resident memory of that process, its descriptors and its CPU
// time; ns/op is CPU time, user and system, and not the clock's.
//
// In the measures of memory an operation is an idle tunnel, over which one
// message went each way, in those of bulk a MiB, and in those of ping-pong one
// message of 128 bytes each way.
func wsproxyMeasures() []Measure {
	w := new(tunnels)
	ours := func(kind string, args ...string) contestant {
		return w.own(append([]string{"-kind", kind}, args...)...)
	}
	reverse := ours("reverseproxy")

	idle := func(name string, how dial, limit float64, c contestant, peers ...Peer) Measure {
		return Measure{
			Package: "wsproxy", Name: "idle, " + name, Scale: Apart, Setup: w.setup,
			Ours: w.idle(c, how), Peers: peers,
			Metrics:   []Metric{{Unit: tunnelMemory, Max: limit}, {Unit: tunnelFiles, Max: 2.05}},
			Ratios:    []Metric{{Unit: tunnelMemory}},
			Benchtime: "3000x", Rounds: 3,
		}
	}
	bulk := func(name string, peers ...Peer) Measure {
		return Measure{
			Package: "wsproxy", Name: "bulk, " + name, Setup: w.setup, Paired: true,
			Ours: w.bulk(ours("frames")), Peers: peers,
			Benchtime: "512x", Rounds: 9,
		}
	}
	pingPong := func(name string, how dial, c contestant, peers ...Peer) Measure {
		return Measure{
			Package: "wsproxy", Name: "ping-pong, " + name, Setup: w.setup, Paired: true,
			Ours: w.pingPong(c, how), Peers: peers,
			Benchtime: "25000x", Rounds: 11, // short ones, so that a pair meets the same machine
		}
	}
	return []Measure{
		idle("detached", overTCP, 9, ours("frames", "-detach"),
			Peer{Name: "nginx", Run: w.idle(w.nginx, overTCP)},
			Peer{Name: "HAProxy", Run: w.idle(w.haproxy, overTCP)}),
		idle("not detached", overTCP, 36, ours("frames"),
			Peer{Name: "ReverseProxy", Run: w.idle(reverse, overTCP)}),
		idle("TLS front, detached", overTLS, 24, ours("frames", "-detach", "-tls")),
		idle("h2 front", overH2, 40, ours("frames")),
		bulk("h1",
			Peer{Name: "ReverseProxy", Run: w.bulk(reverse), MaxRatio: 0.8},
			Peer{Name: "HAProxy", Run: w.bulk(w.haproxy), MaxRatio: 0.7},
			Peer{Name: "nginx", Run: w.bulk(w.nginx)}),
		bulk("Frames over Tunnel",
			Peer{Name: "mode Tunnel", Run: w.bulk(ours("tunnel")), MaxRatio: 1.05}),
		pingPong("h1", overTCP, ours("frames"),
			Peer{Name: "ReverseProxy", Run: w.pingPong(reverse, overTCP), MaxRatio: 1},
			Peer{Name: "HAProxy", Run: w.pingPong(w.haproxy, overTCP)},
			Peer{Name: "nginx", Run: w.pingPong(w.nginx, overTCP)}),
		pingPong("Frames over Tunnel", overTCP, ours("frames"),
			Peer{Name: "mode Tunnel", Run: w.pingPong(ours("tunnel"), overTCP), MaxRatio: 1.05}),
	}
}

// The units of what is reported beside time.
const (
	tunnelMemory = "KB/tunnel"
	tunnelFiles  = "fds/tunnel"
)

// idle holds b.N tunnels.
func (w *tunnels) idle(start contestant, how dial) func(*testing.B) {
	return func(b *testing.B) {
		p := start(b)
		defer p.stop()
		// What is made once, such as what serves a first connection, is none of
		// the tunnels'.
		w.hold(b, p, how, 10)()
		p.settle(b)
		kb, files := p.memory(b), p.descriptors(b)
		release := w.hold(b, p, how, b.N)
		defer release()
		p.settle(b)
		b.ReportMetric(float64(p.memory(b)-kb)/float64(b.N), tunnelMemory)
		b.ReportMetric(float64(p.descriptors(b)-files)/float64(b.N), tunnelFiles)
	}
}

// hold opens n tunnels and sends a message each way; release closes them.
func (w *tunnels) hold(b *testing.B, p *process, how dial, n int) (release func()) {
	var opened []tunnel
	release = func() {
		for _, t := range opened {
			t.Close()
		}
	}
	next := how(p.addr)
	for range n {
		t, err := next("/echo")
		if err == nil {
			opened = append(opened, t)
			err = t.roundTrip()
		}
		if err != nil {
			release()
			b.Fatal(err)
		}
	}
	return release
}

// bulk sends b.N frames of a MiB.
func (w *tunnels) bulk(start contestant) func(*testing.B) {
	return func(b *testing.B) {
		p := start(b)
		defer p.stop()
		t, err := overTCP(p.addr)("/sink")
		if err != nil {
			b.Fatal(err)
		}
		defer t.Close()
		frame := clientFrame(1 << 20)
		send := func(n int) {
			for range n {
				if _, err := t.Write(frame); err != nil {
					b.Fatal(err)
				}
			}
			w.back.received(b, n*len(frame))
		}
		send(4)
		b.ResetTimer()
		before := p.cpu(b)
		send(b.N)
		b.ReportMetric(float64(p.cpu(b)-before)/float64(b.N), "ns/op")
	}
}

// pingPong has 16 tunnels do b.N round trips together.
func (w *tunnels) pingPong(start contestant, how dial) func(*testing.B) {
	return func(b *testing.B) {
		const at = 16
		p := start(b)
		defer p.stop()
		next := how(p.addr)
		var all []tunnel
		for range at {
			t, err := next("/echo")
			if err != nil {
				b.Fatal(err)
			}
			defer t.Close()
			all = append(all, t)
		}
		play := func(n int) {
			var players sync.WaitGroup
			for i, t := range all {
				players.Go(func() {
					for range (n + i) / at {
						if err := t.roundTrip(); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			players.Wait()
		}
		play(100 * at)
		b.ResetTimer()
		before := p.cpu(b)
		play(b.N)
		b.ReportMetric(float64(p.cpu(b)-before)/float64(b.N), "ns/op")
	}
}

// quiet is how long a proxy is left alone before its memory is read.
const quiet = 500 * time.Millisecond

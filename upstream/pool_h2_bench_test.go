package upstream_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"example.com/plainware/upstream"
)

// One unary exchange of the size of a gRPC call, with trailers, over HTTP/2
// without TLS.
func BenchmarkRoundTripH2C(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Write(make([]byte, 128))
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})}
	go srv.Serve(l)
	b.Cleanup(func() { srv.Close() })
	run := func(b *testing.B, rt http.RoundTripper) {
		b.ReportAllocs()
		header := http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
		for b.Loop() {
			req, _ := http.NewRequest("POST", "http://"+l.Addr().String()+"/svc/Call", strings.NewReader(strings.Repeat("x", 128)))
			req.Header = header
			res, err := rt.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}
	b.Run("transport", func(b *testing.B) {
		run(b, &http.Transport{Protocols: protocols, DisableCompression: true})
	})
	b.Run("pool", func(b *testing.B) {
		p, err := upstream.New(upstream.Config{Targets: []upstream.Target{{URL: "h2c://" + l.Addr().String()}}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { p.Close() })
		run(b, p)
	})
}

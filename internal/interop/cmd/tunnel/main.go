// Tunnel is a proxy for WebSockets in a process of its own, so that its memory
// and CPU time can be measured from outside:
//
//	tunnel -target host:port [-kind frames|tunnel|reverseproxy] [-detach] [-tls]
//
// It serves HTTP/1.1 and HTTP/2, with TLS or without, prints the address it
// listens on, and returns what memory it can for every line that it reads, with
// a line as the answer. It ends when there is nothing more to read.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime/debug"
	"time"

	"example.com/plainware/wsproxy"
	_ "example.com/plainware/wsproxy/xconnect"
)

func main() {
	target := flag.String("target", "", "host:port of the back end")
	kind := flag.String("kind", "frames", "frames, tunnel or reverseproxy")
	detach := flag.Bool("detach", false, "wsproxy.Config.Detach")
	secure := flag.Bool("tls", false, "serve TLS")
	flag.Parse()
	if err := run(*target, *kind, *detach, *secure); err != nil {
		log.Fatal(err)
	}
}

func run(target, kind string, detach, secure bool) error {
	h, err := handler(target, kind, detach)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(secure)
	srv.Protocols.SetUnencryptedHTTP2(!secure)
	if err := wsproxy.Prepare(srv); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serve := func() error { return srv.Serve(l) }
	if secure {
		cert, err := certificate()
		if err != nil {
			return err
		}
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
		serve = func() error { return srv.ServeTLS(l, "", "") }
	}
	go func() { log.Fatal(serve()) }()
	fmt.Println(l.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		debug.FreeOSMemory()
		debug.FreeOSMemory() // what the first finalized
		fmt.Println("done")
	}
	return nil
}

func handler(target, kind string, detach bool) (http.Handler, error) {
	switch kind {
	case "frames":
		return wsproxy.New(wsproxy.Config{Target: "ws://" + target, Detach: detach})
	case "tunnel":
		return wsproxy.New(wsproxy.Config{Target: "ws://" + target, Detach: detach, Mode: wsproxy.Tunnel})
	case "reverseproxy":
		return httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target}), nil
	}
	return nil, fmt.Errorf("unknown kind %q", kind)
}

func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

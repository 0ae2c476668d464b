package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"example.com/plainware/upstream"
)

// backend starts a server that says its name.
func backend(name string) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s: %s", name, r.URL.Path)
	}))
}

// A Pool is the transport of an ordinary client.
func ExampleNew() {
	one := backend("one")
	defer one.Close()

	pool, err := upstream.New(upstream.Config{
		Targets: []upstream.Target{{URL: one.URL}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	client := &http.Client{Transport: pool}
	res, err := client.Get("http://orders/list") // the host is a label
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Println(string(body), err)
	// Output: one: /list <nil>
}

// The kind of an error says whose fault it is.
func ExampleError() {
	pool, err := upstream.New(upstream.Config{
		Targets: []upstream.Target{{URL: "http://127.0.0.1:1", ID: "nobody"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	req, _ := http.NewRequest("GET", "http://orders/", nil)
	_, err = pool.RoundTrip(req)
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		fmt.Println(e.Kind, e.Backend, e.HTTPStatus(), e.Code(), e.NotSent())
	}
	// Output: dial nobody 502 upstream_dial true
}

// Targets may change while requests run.
func ExamplePool_Update() {
	one, two := backend("one"), backend("two")
	defer one.Close()
	defer two.Close()

	pool, err := upstream.New(upstream.Config{Targets: []upstream.Target{{URL: one.URL, ID: "one"}}})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	if err := pool.Update([]upstream.Target{{URL: two.URL, ID: "two"}}); err != nil {
		log.Fatal(err)
	}
	req, _ := http.NewRequest("GET", "http://orders/", nil)
	res, err := pool.RoundTrip(req)
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	fmt.Println(upstream.BackendOf(res))
	// Output: two true
}

// Statistics are a copy of counters; any format can be made of them.
func ExamplePool_Backends() {
	one := backend("one")
	defer one.Close()
	pool, err := upstream.New(upstream.Config{Targets: []upstream.Target{{URL: one.URL, ID: "one", Weight: 3}}})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	for range 3 {
		req, _ := http.NewRequest("GET", "http://orders/", nil)
		res, err := pool.RoundTrip(req)
		if err != nil {
			log.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	for s := range pool.Backends() {
		fmt.Println(s.Target.ID, s.State, s.Attempts, s.Statuses[2], s.Failed(), s.Active)
	}
	// Output: one healthy 3 3 0 0
}

// Connections are made before the first request needs one.
func ExamplePool_Warm() {
	one := backend("one")
	defer one.Close()
	pool, err := upstream.New(upstream.Config{Targets: []upstream.Target{{URL: one.URL}}})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := pool.Warm(ctx); err != nil {
		log.Print(err) // not fatal: it may come up later
	}
	for s := range pool.Backends() {
		fmt.Println(s.Conns, s.Idle)
	}
	// Output: 1 1
}

// Shutdown lets the requests that run end.
func ExamplePool_Shutdown() {
	one := backend("one")
	defer one.Close()
	pool, err := upstream.New(upstream.Config{Targets: []upstream.Target{{URL: one.URL}}})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	fmt.Println(pool.Shutdown(ctx))
	req, _ := http.NewRequest("GET", "http://orders/", nil)
	_, err = pool.RoundTrip(req)
	fmt.Println(err)
	// Output:
	// <nil>
	// upstream: closed: the Pool is closed
}

package ratelimit_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"example.com/plainware/ratelimit"
)

// A client that calls each server no more than a hundred times a second, and
// leaves those alone that ask for it.
func ExampleNewTransport() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer server.Close()

	lim, err := ratelimit.New(ratelimit.Config{
		Limit: ratelimit.PerSecond(100),
		Key:   ratelimit.ByFunc(func(r *http.Request) string { return r.URL.Host }),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()
	transport, err := ratelimit.NewTransport(ratelimit.TransportConfig{
		Limiter: lim,
		MaxWait: 5 * time.Second,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	client := &http.Client{Transport: transport}

	res, err := client.Get(server.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	res.Body.Close()
	fmt.Println(res.Status)

	_, err = client.Get(server.URL) // would have to wait for a minute
	if e, ok := errors.AsType[*ratelimit.LimitError](err); ok {
		fmt.Println("not sent, retry after", e.RetryAfter.Round(time.Minute))
	}
	// Output:
	// 429 Too Many Requests
	// not sent, retry after 1m0s
}

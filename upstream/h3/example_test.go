package h3_test

import (
	"fmt"
	"log"

	"example.com/plainware/upstream"
	"example.com/plainware/upstream/h3"
)

// HTTP/3 for one target, HTTP/2 for the other.
func ExampleNew() {
	quic, err := h3.New(h3.Config{})
	if err != nil {
		log.Fatal(err)
	}
	pool, err := upstream.New(upstream.Config{
		Targets: []upstream.Target{
			{URL: "h3://10.0.0.7:443", ServerName: "app.example", Host: "app.example"},
			{URL: "h2://10.0.0.8:443", ServerName: "app.example", Host: "app.example"},
		},
		Transport: quic.Transport,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	fmt.Println(pool.Healthy())
	// Output: 2 2
}

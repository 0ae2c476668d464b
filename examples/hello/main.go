package main

import (
	"fmt"
	"log"
	"net/http"
	"time"

	"example.com/plainware/reqid"
	"example.com/plainware/timeout"
)

func main() {
	mux := http.NewServeMux() // the one you have
	mux.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello, %s. This is request %s.\n", r.PathValue("name"), reqid.FromContext(r.Context()))
	})
	ids, err := reqid.New(reqid.Config{})
	if err != nil {
		log.Fatal(err)
	}
	limits, err := timeout.New(timeout.Config{Limits: timeout.Limits{Total: 5 * time.Second}})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", ids.Handler(limits.Handler(mux))))
}

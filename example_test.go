package plainware_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"example.com/plainware/reqid"
	"example.com/plainware/timeout"
)

// The whole kit around one mux.
func Example() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello")
	})
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	})

	ids, err := reqid.New(reqid.Config{})
	if err != nil {
		log.Fatal(err)
	}
	limits, err := timeout.New(timeout.Config{
		Limits: timeout.Limits{Total: 5 * time.Second},
		Mux:    mux,
		Routes: map[string]timeout.Limits{"GET /slow": {Total: 10 * time.Millisecond}},
	})
	if err != nil {
		log.Fatal(err)
	}
	srv := httptest.NewServer(ids.Handler(limits.Handler(mux)))
	defer srv.Close()

	for _, path := range []string{"/hello", "/slow"} {
		req, _ := http.NewRequest("GET", srv.URL+path, nil)
		req.Header.Set("X-Request-Id", "example-1")
		res, err := srv.Client().Do(req)
		if err != nil {
			log.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		fmt.Printf("%s %s\n%s", res.Status, res.Header.Get("X-Request-Id"), body)
	}
	// Output:
	// 200 OK example-1
	// hello
	// 503 Service Unavailable example-1
	// {"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The server did not answer in time.","code":"timeout_total","request_id":"example-1"}
}

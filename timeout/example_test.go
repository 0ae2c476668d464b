package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"example.com/plainware/timeout"
)

// get prints what h answers to a GET.
func get(h http.Handler, path string, header ...string) {
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
}

// Wrap the mux that is there already.
func ExampleNew() {
	end := make(chan bool)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /fast", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "done")
	})
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		<-end // of long work, which does not look at r.Context()
		fmt.Fprintln(w, "done")
	})

	tmo, err := timeout.New(timeout.Config{Limits: timeout.Limits{
		Total:     time.Second, // 30 * time.Second is a good start
		ReadIdle:  10 * time.Second,
		WriteIdle: 30 * time.Second,
	}})
	if err != nil {
		log.Fatal(err)
	}
	h := tmo.Handler(mux) // http.ListenAndServe(addr, h)

	get(h, "/fast")
	get(h, "/slow")
	close(end)
	// Output:
	// 200 done
	// 503 {"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The server did not answer in time.","code":"timeout_total"}
}

// Every problem of a configuration is named at once.
func ExampleNew_invalid() {
	_, err := timeout.New(timeout.Config{Status: 200, Hold: 2 << 20})
	fmt.Println(err)
	// Output:
	// timeout: Status: must be between 400 and 599 (got 200)
	// timeout: Hold: must be at most 1048576 bytes (got 2097152)
}

// A route gets more time than the rest, and another one less, by the pattern
// that it was registered with.
func ExampleConfig_routes() {
	mux := http.NewServeMux()
	work := func(d time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(d):
				fmt.Fprintln(w, r.Pattern, "is done")
			case <-r.Context().Done():
				// Whoever returns leaves the answer to the middleware.
			}
		}
	}
	mux.HandleFunc("GET /items/{id}", work(10*time.Millisecond))
	mux.HandleFunc("GET /reports/{id}", work(1200*time.Millisecond))
	mux.HandleFunc("GET /healthz", work(1200*time.Millisecond))

	tmo, err := timeout.New(timeout.Config{
		Limits: timeout.Limits{Total: time.Second},
		Mux:    mux,
		Routes: map[string]timeout.Limits{
			"GET /reports/{id}": {Total: time.Minute},
			"GET /healthz":      {Total: 5 * time.Millisecond},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	h := tmo.Handler(mux)

	get(h, "/items/1")
	get(h, "/reports/1")
	get(h, "/healthz")
	// Output:
	// 200 GET /items/{id} is done
	// 200 GET /reports/{id} is done
	// 503 {"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The server did not answer in time.","code":"timeout_total"}
}

// The client reads how far the download has come while the handler works on:
// nothing but the first bytes is held back, and those only until the flush. What
// has begun when the time is over is cut, so that it cannot look whole.
func ExampleMiddleware_Handler() {
	tmo, err := timeout.New(timeout.Config{Limits: timeout.Limits{Total: time.Second}})
	if err != nil {
		log.Fatal(err)
	}
	srv := httptest.NewServer(tmo.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "the first line")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		fmt.Fprintln(w, "the last line") // fails
	})))
	defer srv.Close()

	res, err := http.Get(srv.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Printf("%s: %q, %v\n", res.Status, body, err)
	// Output: 200 OK: "the first line\n", unexpected EOF
}

// Cooperative costs no goroutine. It relies on handlers that honour their
// context, as database/sql and http.Client do for them.
func ExampleConfig_cooperative() {
	query := func(ctx context.Context) (string, error) { // db.QueryContext, say
		<-ctx.Done()
		return "", context.Cause(ctx)
	}
	tmo, err := timeout.New(timeout.Config{
		Limits:      timeout.Limits{Total: 50 * time.Millisecond},
		Cooperative: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	h := tmo.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		row, err := query(r.Context())
		if err != nil {
			fmt.Println("query:", err)
			return // without an answer: the middleware gives it
		}
		fmt.Fprintln(w, row)
	}))
	get(h, "/")
	// Output:
	// query: timeout: total limit of 50ms passed
	// 503 {"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The server did not answer in time.","code":"timeout_total"}
}

// INCORRECT: a handler that answers the end of its context with an error of its
// own takes the place of the middleware's answer. In cooperative mode that is
// a 500 for what was a timeout. Return without an answer instead, or hand
// context.Cause(r.Context()) to timeout.WriteError.
func ExampleConfig_cooperativeIncorrect() {
	tmo, err := timeout.New(timeout.Config{
		Limits:      timeout.Limits{Total: 50 * time.Millisecond},
		Cooperative: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	h := tmo.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		if err := r.Context().Err(); err != nil {
			http.Error(w, "query failed", http.StatusInternalServerError)
		}
	}))
	get(h, "/")
	// Output: 500 query failed
}

// Requests say how long their caller will wait; a middleware inside answers at
// that deadline.
func ExampleNewDeadline() {
	deadline, err := timeout.NewDeadline(timeout.DeadlineConfig{Max: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	h := deadline.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if end, ok := r.Context().Deadline(); ok {
			fmt.Fprintln(w, "about", time.Until(end).Round(time.Minute), "left")
		} else {
			fmt.Fprintln(w, "all the time there is")
		}
	}))
	get(h, "/")
	get(h, "/", "Request-Timeout", "179.9")
	get(h, "/", "Grpc-Timeout", "5M")
	get(h, "/", "Grpc-Timeout", "2H")
	get(h, "/", "Grpc-Timeout", "0S")
	// Output:
	// 200 all the time there is
	// 200 about 3m0s left
	// 200 about 5m0s left
	// 200 about 1h0m0s left
	// 504 {"type":"about:blank","title":"Gateway Timeout","status":504,"detail":"The deadline of the request has passed.","code":"timeout_caller"}
}

// Calls that a handler makes pass on what is left of its own time.
func ExampleNewTransport() {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		left := r.Header.Get("Grpc-Timeout") // about 59900000u
		fmt.Fprint(w, "told of the deadline: ", strings.HasSuffix(left, "u"))
	}))
	defer backend.Close()

	tr, err := timeout.NewTransport(timeout.TransportConfig{Header: "Grpc-Timeout", Margin: 100 * time.Millisecond})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: tr}

	for _, left := range []time.Duration{time.Minute, 50 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(context.Background(), left)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", backend.URL, nil)
		if err != nil {
			log.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			fmt.Println("not sent:", errors.Is(err, context.DeadlineExceeded))
			continue
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		fmt.Printf("%s\n", body)
	}
	// Output:
	// told of the deadline: true
	// not sent: true
}

// An ErrorHandler of its own for browsers, and problem details for the rest.
func ExampleWriteError() {
	tmo, err := timeout.New(timeout.Config{
		Limits: timeout.Limits{Total: 20 * time.Millisecond},
		Status: http.StatusGatewayTimeout,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			w.Header().Set("Retry-After", "5")
			if !strings.Contains(r.Header.Get("Accept"), "text/html") {
				timeout.WriteError(w, r, err)
				return
			}
			status := http.StatusServiceUnavailable
			if e, ok := errors.AsType[*timeout.Error](err); ok {
				status = e.HTTPStatus()
			}
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(status)
			io.WriteString(w, "<h1>Please try again</h1>")
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	h := tmo.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	get(h, "/", "Accept", "text/html")
	get(h, "/", "Accept", "application/json")
	// Output:
	// 504 <h1>Please try again</h1>
	// 504 {"type":"about:blank","title":"Gateway Timeout","status":504,"detail":"The server did not answer in time.","code":"timeout_total"}
}

// OnLate tells of handlers that do not end with their request: here one that
// ignores its context for a while and then panics.
func ExampleLate() {
	ended := make(chan bool)
	tmo, err := timeout.New(timeout.Config{
		Limits: timeout.Limits{Total: 20 * time.Millisecond, Grace: 20 * time.Millisecond},
		OnLate: func(r *http.Request, l timeout.Late) {
			if l.Running {
				fmt.Println(r.URL.Path, "still runs:", l.Err)
				return
			}
			fmt.Println(r.URL.Path, "ended, panic:", l.Panic)
			close(ended)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	goOn := make(chan bool)
	h := tmo.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-goOn
		panic("too late")
	}))
	get(h, "/report")
	close(goOn)
	<-ended
	// Output:
	// /report still runs: timeout: total limit of 20ms passed
	// 503 {"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The server did not answer in time.","code":"timeout_total"}
	// /report ended, panic: too late
}

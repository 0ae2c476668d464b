package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"example.com/plainware/breaker"
	"example.com/plainware/store"
)

func ExampleNew() {
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer down.Close()
	billing, err := breaker.New(breaker.Config{Name: "billing", OpenFor: time.Minute})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer billing.Close()
	client := &http.Client{Transport: billing}
	for i := range 22 {
		res, err := client.Get(down.URL)
		if open, ok := errors.AsType[*breaker.OpenError](err); ok {
			fmt.Println(i, "refused by", open.Name, open.RetryAfter() > 40*time.Second)
			continue
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		res.Body.Close()
	}
	// Output:
	// 20 refused by billing true
	// 21 refused by billing true
}

// A breaker whose state is shared by all processes that have the store, and that
// outlives them: pass one of the kit's stores over a database here.
func ExampleNew_shared() {
	shared, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg := breaker.Config{Name: "billing", Store: shared}
	one, err := breaker.New(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer one.Close()
	err = one.Force(context.Background(), breaker.Override{
		Mode: breaker.ForceOpen, Author: "ann", Reason: "moving the database", For: 10 * time.Minute,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	another, err := breaker.New(cfg) // in another process, or after a restart
	if err != nil {
		fmt.Println(err)
		return
	}
	defer another.Close()
	if o := another.Stats().Forced; o != nil {
		fmt.Println(another.State(), "by", o.Author)
	}
	// Output: open by ann
}

func ExampleBreaker_Acquire() {
	db, err := breaker.New(breaker.Config{Name: "db", Consecutive: 3})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	query := func() error {
		permit, err := db.Acquire()
		if err != nil {
			return err
		}
		err = errors.New("connection refused") // the call
		if err != nil {
			permit.Done(breaker.Failure)
		} else {
			permit.Done(breaker.Success)
		}
		return err
	}
	for range 4 {
		_, refused := errors.AsType[*breaker.OpenError](query())
		fmt.Println("refused:", refused)
	}
	// Output:
	// refused: false
	// refused: false
	// refused: false
	// refused: true
}

func ExampleBreaker_Handler() {
	reports, err := breaker.New(breaker.Config{Name: "reports", MinCalls: 1, OnStateChange: func(c breaker.Change) {
		fmt.Printf("%s: %v, %s\n", c.Name, c.To, c.Reason)
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer reports.Close()
	h := reports.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
	}))
	for range 2 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/reports", nil))
		fmt.Println(w.Code, w.Header().Get("Retry-After") != "")
	}
	// Output:
	// reports: open, too many failures
	// 502 false
	// 503 true
}

func ExampleBreaker_RoundTrip() {
	cached := &http.Response{StatusCode: 200, Header: http.Header{"Warning": {"110"}}, Body: http.NoBody}
	prices, err := breaker.New(breaker.Config{
		Name: "prices",
		Fallback: func(r *http.Request, open *breaker.OpenError) (*http.Response, error) {
			return cached, nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer prices.Close()
	prices.Force(context.Background(), breaker.Override{Mode: breaker.ForceOpen, Author: "ann"})
	res, err := (&http.Client{Transport: prices}).Get("http://prices.example/")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	fmt.Println(res.StatusCode, res.Header.Get("Warning"))
	// Output: 200 110
}

func ExampleBreaker_Force() {
	b, err := breaker.New(breaker.Config{Name: "billing"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()
	ctx := context.Background()
	b.Force(ctx, breaker.Override{Mode: breaker.ForceOpen, Author: "ann", Reason: "maintenance"})
	fmt.Println(b.State())
	b.Force(ctx, breaker.Override{Mode: breaker.Auto})
	fmt.Println(b.State())
	// Output:
	// open
	// closed
}

func ExampleNewGroup() {
	hosts, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Name: "out"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer hosts.Close()
	client := &http.Client{Transport: hosts}
	for _, host := range []string{"a", "b"} {
		srv := httptest.NewServer(http.NotFoundHandler())
		res, err := client.Get(srv.URL)
		srv.Close()
		if err != nil {
			fmt.Println(host, err)
			return
		}
		res.Body.Close()
	}
	var all []string
	for _, b := range hosts.All() {
		all = append(all, b.State().String())
	}
	slices.Sort(all)
	fmt.Println(all)
	// Output: [closed closed]
}

// An own rule for what a failure is, on top of the default.
func ExampleClassify() {
	b, err := breaker.New(breaker.Config{Classify: func(r breaker.Result) breaker.Outcome {
		if r.Status == http.StatusTooManyRequests {
			return breaker.Failure
		}
		return breaker.Classify(r)
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()
	b.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTooManyRequests)
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	fmt.Println(b.Stats().Failures)
	// Output: 1
}

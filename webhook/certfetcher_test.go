package webhook_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/webhook"
)

// authority is a client for which every address has the certificate, or what
// serve says.
func authority(t *testing.T, serve func(r *http.Request, pem string) (*http.Response, error)) (*http.Client, *x509.CertPool) {
	t.Helper()
	ts := httptest.NewUnstartedServer(nil)
	ts.StartTLS()
	defer ts.Close()
	roots := x509.NewCertPool()
	roots.AddCert(ts.Certificate())
	pem := string(pemOf(ts.Certificate().Raw))
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) { return serve(r, pem) })}, roots
}

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

func newFetcher(t *testing.T, c webhook.CertFetcherConfig) *webhook.CertFetcher {
	t.Helper()
	c.Names = []string{"example.com"}
	f, err := webhook.NewCertFetcher(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// webhook 17: addresses that strangers make up bring about four calls at a time
// at most, and do not drive out the certificate that is in use.
func TestCertFetcherFlood(t *testing.T) {
	var calls, now, most atomic.Int32
	release, entered := make(chan struct{}), make(chan struct{}, 200)
	done := sync.OnceFunc(func() { close(release) })
	defer done()
	client, roots := authority(t, func(r *http.Request, pem string) (*http.Response, error) {
		if strings.Contains(r.URL.Path, "true") {
			calls.Add(1)
			return answer(200, pem), nil
		}
		for n := now.Add(1); ; {
			if old := most.Load(); old >= n || most.CompareAndSwap(old, n) {
				break
			}
		}
		defer now.Add(-1)
		entered <- struct{}{}
		<-release
		return answer(404, ""), nil
	})
	f := newFetcher(t, webhook.CertFetcherConfig{Client: client, Roots: roots})
	use := func() {
		t.Helper()
		if _, err := f.PublicKey(t.Context(), "https://a.example/true"); err != nil {
			t.Error(err)
		}
	}
	use()
	var wg sync.WaitGroup
	var refused atomic.Int32
	waiting := make(chan struct{}, 50)
	for i := range 50 {
		wg.Go(func() {
			if _, err := f.PublicKey(t.Context(), fmt.Sprint("https://a.example/", i)); err == nil {
				t.Error("a certificate")
			} else if strings.Contains(err.Error(), "too many") {
				refused.Add(1)
			}
			waiting <- struct{}{}
		})
	}
	for range 46 + 4 { // the refused, and the calls
		select {
		case <-waiting:
		case <-entered:
		case <-time.After(20 * time.Second):
			t.Fatal("more than four wait")
		}
	}
	use()
	done()
	wg.Wait()
	if most.Load() != 4 || refused.Load() != 46 {
		t.Errorf("%d calls at a time, %d refused", most.Load(), refused.Load())
	}
	for i := range 100 { // one after the other
		f.PublicKey(t.Context(), fmt.Sprint("https://a.example/later", i))
		use()
	}
	if calls.Load() != 1 {
		t.Errorf("the certificate was fetched %d times", calls.Load())
	}
}

// Of more certificates than there is room for, each is still given out, and
// sixteen are kept.
func TestCertFetcherRoom(t *testing.T) {
	calls := 0
	client, roots := authority(t, func(_ *http.Request, pem string) (*http.Response, error) { calls++; return answer(200, pem), nil })
	f := newFetcher(t, webhook.CertFetcherConfig{Client: client, Roots: roots})
	for i := range 40 {
		if _, err := f.PublicKey(t.Context(), fmt.Sprint("https://a.example/", i%20)); err != nil {
			t.Error(err)
		}
	}
	if calls < 24 { // of the second twenty, sixteen were there at most
		t.Errorf("%d calls", calls)
	}
}

// A call that fails after a while is not made again within a second of its
// end, and a certificate is fetched anew after Keep.
func TestCertFetcherTimes(t *testing.T) {
	calls, fails := 0, true
	client, roots := authority(t, func(r *http.Request, pem string) (*http.Response, error) {
		calls++
		if fails {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		return answer(200, pem), nil
	})
	synctest.Test(t, func(t *testing.T) {
		// The certificate of the server begins and ends in years that the
		// bubble's clock knows, or all of this fails.
		time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
		f := newFetcher(t, webhook.CertFetcherConfig{Client: client, Roots: roots, Keep: time.Minute})
		get := func(wantErr bool, wantCalls int) {
			t.Helper()
			if _, err := f.PublicKey(t.Context(), "https://a.example/c"); (err != nil) != wantErr || calls != wantCalls {
				t.Errorf("%v after %d calls, want %d", err, calls, wantCalls)
			}
		}
		start := time.Now()
		get(true, 1)
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("it took %v", d)
		}
		get(true, 1)
		time.Sleep(time.Second)
		fails = false
		get(false, 2)
		time.Sleep(time.Minute - time.Nanosecond)
		get(false, 2)
		time.Sleep(time.Nanosecond)
		get(false, 3)
	})
}

// Others who wait for a call whose transport panics get an error.
func TestCertFetcherPanic(t *testing.T) {
	called, release := make(chan struct{}), make(chan struct{})
	client, roots := authority(t, func(*http.Request, string) (*http.Response, error) {
		close(called)
		<-release
		panic("transport")
	})
	f := newFetcher(t, webhook.CertFetcherConfig{Client: client, Roots: roots})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		f.PublicKey(t.Context(), "https://a.example/c")
	})
	<-called
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.PublicKey(ctx, "https://a.example/c"); !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter that leaves: %v", err)
	}
	wg.Go(func() {
		if _, err := f.PublicKey(t.Context(), "https://a.example/c"); err == nil {
			t.Error("no error")
		}
	})
	close(release)
	wg.Wait()
}

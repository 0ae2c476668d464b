package webhook_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
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

// inBubble runs f in a bubble whose clock is in the time of the certificate of
// authority.
func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
		f(t)
	})
}

// A CertFetcher believes what its roots have issued for one of the names, asks
// once, and follows no redirect.
func TestCertFetcher(t *testing.T) {
	calls, body, status := 0, "", 200
	var good string
	client, roots := authority(t, func(r *http.Request, pem string) (*http.Response, error) {
		calls++
		res := answer(status, strings.ReplaceAll(body, "@", pem))
		res.Header.Set("Location", "https://a.example/elsewhere")
		good = pem
		return res, nil
	})
	inBubble(t, func(t *testing.T) {
		fetch := func(roots *x509.CertPool, names ...string) error {
			t.Helper()
			f, err := webhook.NewCertFetcher(webhook.CertFetcherConfig{Client: client, Roots: roots, Names: names})
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				pub, err2 := f.PublicKey(t.Context(), "https://a.example/c")
				if err2 == nil && pub == nil {
					t.Error("no key")
				}
				err = err2
			}
			return err
		}
		body = "@"
		if err := fetch(roots, "example.com"); err != nil {
			t.Fatal(err)
		}
		room := strings.Repeat(" ", 64<<10-len(good))
		for name, c := range map[string]struct {
			body   string
			status int
			names  []string
			ok     bool
		}{
			"good":       {"@", 200, []string{"other.example", "example.com"}, true},
			"chain":      {"@@", 200, []string{"example.com"}, true},
			"other name": {"@", 200, []string{"sns.amazonaws.com"}, false},
			"redirect":   {"@", 302, []string{"example.com"}, false},
			"404":        {"@", 404, []string{"example.com"}, false},
			"nothing":    {"", 200, []string{"example.com"}, false},
			"no DER":     {string(pemOf([]byte("x"))), 200, []string{"example.com"}, false},
			"64 KiB":     {"@" + room, 200, []string{"example.com"}, true},
			"too large":  {"@" + room + " ", 200, []string{"example.com"}, false},
		} {
			body, status, calls = c.body, c.status, 0
			if err := fetch(roots, c.names...); (err == nil) != c.ok {
				t.Errorf("%s: %v", name, err)
			}
			if calls != 1 {
				t.Errorf("%s: %d calls", name, calls)
			}
		}
		body, status = "@", 200
		if err := fetch(x509.NewCertPool(), "example.com"); err == nil {
			t.Error("a certificate of an unknown authority was believed")
		}
	})
	_, err := webhook.NewCertFetcher(webhook.CertFetcherConfig{Keep: -1, Timeout: -1})
	for _, field := range []string{"Client", "Names", "Keep", "Timeout"} {
		if err == nil || !strings.Contains(err.Error(), "webhook: "+field+": ") {
			t.Errorf("%s is not in: %v", field, err)
		}
	}
	_, err = webhook.NewCertFetcher(webhook.CertFetcherConfig{Client: client, Names: []string{"example.com", ""}})
	if err == nil || !strings.Contains(err.Error(), "webhook: Names[1]: is empty") {
		t.Error(err)
	}
}

// A call goes on without the request that began it: others may be waiting for the
// certificate.
func TestCertFetcherOutlivesRequest(t *testing.T) {
	calls := 0
	client, roots := authority(t, func(r *http.Request, pem string) (*http.Response, error) {
		calls++
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
		return answer(200, pem), nil
	})
	inBubble(t, func(t *testing.T) {
		f := newFetcher(t, webhook.CertFetcherConfig{Client: client, Roots: roots})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for i := range 40 { // room for some only
			if _, err := f.PublicKey(ctx, fmt.Sprint("https://a.example/", i)); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		if calls != 40 {
			t.Errorf("%d calls", calls)
		}
	})
}

// A certificate is not used beyond its own end, however long Keep is.
func TestCertFetcherEnd(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // of inBubble
	key := signer(t, webhook.ECDSAP256SHA256)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: begin.Add(-time.Hour), NotAfter: begin.Add(10 * time.Minute), DNSNames: []string{"example.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	calls := 0
	client := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		calls++
		return answer(200, string(pemOf(der))), nil
	})}
	inBubble(t, func(t *testing.T) {
		f := newFetcher(t, webhook.CertFetcherConfig{Client: client, Roots: roots, Keep: time.Hour})
		for _, c := range []struct {
			after time.Duration
			calls int
			ok    bool
		}{{0, 1, true}, {10*time.Minute - 1, 1, true}, {10*time.Minute + time.Second, 2, false}} {
			time.Sleep(time.Until(begin.Add(c.after)))
			if _, err := f.PublicKey(t.Context(), "https://a.example/c"); (err == nil) != c.ok || calls != c.calls {
				t.Errorf("after %v: %v, %d calls", c.after, err, calls)
			}
		}
	})
}

// webhook 17: an address that brings no certificate takes no place of one that
// did, also where there is no other.
func TestCertFetcherFailsFull(t *testing.T) {
	calls := map[string]int{}
	client, roots := authority(t, func(r *http.Request, pem string) (*http.Response, error) {
		calls[r.URL.Path]++
		if strings.Contains(r.URL.Path, "bad") {
			return answer(404, ""), nil
		}
		return answer(200, pem), nil
	})
	inBubble(t, func(t *testing.T) {
		f := newFetcher(t, webhook.CertFetcherConfig{Client: client, Roots: roots})
		get := func(ok bool, path string, n int) {
			t.Helper()
			if _, err := f.PublicKey(t.Context(), "https://a.example/"+fmt.Sprint(path, n)); (err == nil) != ok {
				t.Errorf("%s%d: %v", path, n, err)
			}
		}
		all := func() {
			t.Helper()
			for i := range 16 {
				get(true, "good", i)
			}
		}
		all()
		for i := range 50 {
			get(false, "bad", i)
		}
		all()
		for path, n := range calls {
			if n != 1 {
				t.Errorf("%s was fetched %d times", path, n)
			}
		}
		clear(calls)
		get(true, "another", 0) // one that brings a certificate takes one place
		get(true, "another", 0)
		if calls["/another0"] != 1 {
			t.Errorf("another was fetched %d times", calls["/another0"])
		}
		all()
		if again := len(calls) - 1; again == 0 {
			t.Error("all seventeen are there")
		}
	})
}

// webhook 28: the address of a certificate, which is in the body, is not in what
// OnReject gets, whatever has gone wrong with it.
func TestCertErrorWithoutAddress(t *testing.T) {
	key := signer(t, webhook.RSASHA256)
	for name, answers := range map[string]func() (*http.Response, error){
		"down":   func() (*http.Response, error) { return nil, errors.New("down") },
		"404":    func() (*http.Response, error) { return answer(404, ""), nil },
		"no PEM": func() (*http.Response, error) { return answer(200, "private-of-server"), nil },
	} {
		client := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return answers() })}
		f := newFetcher(t, webhook.CertFetcherConfig{Client: client})
		for _, source := range []webhook.CertSource{f, wrapping{f}} {
			var seen error
			v := newVerifier(t, webhook.Config{Scheme: webhook.AWSSNS(source), OnReject: func(_ *http.Request, err error) { seen = err }})
			r := signed(t, webhook.AWSSNS(nil), webhook.PrivateKey(key), webhook.Outgoing{
				Body: []byte(`{"Type":"Notification","TopicArn":"arn","Message":"m","SigningCertURL":"https://sns.us-east-1.amazonaws.com/private-of-body.pem"}`)})
			body := refused(t, v, r, 503)
			if !errors.Is(seen, webhook.ErrKeySource) || strings.Contains(fmt.Sprint(seen, body), "private") {
				t.Errorf("%s: OnReject got %q, the client %q", name, seen, body)
			}
			if name == "down" && !strings.Contains(seen.Error(), "down") {
				t.Errorf("what was wrong is not in %q", seen)
			}
		}
	}
}

// wrapping is a source that says where its errors are from.
type wrapping struct{ webhook.CertSource }

func (w wrapping) PublicKey(ctx context.Context, address string) (crypto.PublicKey, error) {
	key, err := w.CertSource.PublicKey(ctx, address)
	if err != nil {
		err = fmt.Errorf("source: %w", err)
	}
	return key, err
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
	var release chan struct{}
	client, roots := authority(t, func(*http.Request, string) (*http.Response, error) {
		<-release
		panic("transport")
	})
	// In a bubble, since the failure of a call is remembered for a second only.
	inBubble(t, func(t *testing.T) {
		release = make(chan struct{})
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
		synctest.Wait() // it is called
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
		synctest.Wait() // it waits
		close(release)
		wg.Wait()
	})
}

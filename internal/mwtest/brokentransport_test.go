package mwtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
)

type brokenTransport struct {
	name   string
	tr     Transport
	caught []string // rules
}

// breaks is a transport that differs from correctTransport in what f does.
func breaks(name string, f func(r *http.Request, base http.RoundTripper) (*http.Response, error), caught ...string) brokenTransport {
	return brokenTransport{name, Transport{New: transport(f), RequestHeaders: []string{"X-Added"}}, caught}
}

// copied is a transport that changes its own copy of the request.
func copied(name string, f func(r *http.Request), caught ...string) brokenTransport {
	return breaks(name, func(r *http.Request, base http.RoundTripper) (*http.Response, error) {
		r2 := r.WithContext(r.Context())
		f(r2)
		return base.RoundTrip(r2)
	}, caught...)
}

// received is a transport that changes the response.
func received(name string, f func(*http.Response) (*http.Response, error), caught ...string) brokenTransport {
	return breaks(name, func(r *http.Request, base http.RoundTripper) (*http.Response, error) {
		res, err := base.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		return f(res)
	}, caught...)
}

var brokenTransports = []brokenTransport{
	breaks("writes into the caller's header", func(r *http.Request, base http.RoundTripper) (*http.Response, error) {
		if r.Header != nil {
			r.Header.Set("X-Added", "1")
		}
		return base.RoundTrip(r)
	}, "untouched request"),
	breaks("writes into the caller's request afterwards", func(r *http.Request, base http.RoundTripper) (*http.Response, error) {
		res, err := base.RoundTrip(r)
		r.Form = url.Values{"a": {"b"}}
		return res, err
	}, "untouched request"),
	copied("needs a header map", func(r *http.Request) {
		r.Header = maps.Clone(r.Header)
		r.Header.Set("X-Added", "1")
	}, "invalid request"),
	copied("adds a header of its own", func(r *http.Request) {
		r.Header = r.Header.Clone()
		if r.Header != nil {
			r.Header.Set("X-Mine", "1")
		}
	}, "sent request"),
	copied("uses Request.Clone", func(r *http.Request) { *r = *r.Clone(r.Context()) }, "sent trailers"),
	copied("forgets to close the body", func(r *http.Request) {
		if r.Body != nil {
			r.Body = io.NopCloser(r.Body)
		}
	}, "body closed", "invalid request"),
	copied("loses GetBody", func(r *http.Request) { r.GetBody = nil }, "get body"),
	copied("replaces the context", func(r *http.Request) { *r = *r.WithContext(context.Background()) },
		"request context", "cancellation", "invalid request", "interim responses"),
	copied("reads the body first", func(r *http.Request) {
		if r.Body != nil {
			b, _ := io.ReadAll(r.Body)
			r.Body = &bodyOf{bytes.NewReader(b), r.Body}
		}
	}, "streamed upload"),
	copied("cuts the upload", func(r *http.Request) {
		if r.Body != nil {
			r.Body = &bodyOf{io.LimitReader(r.Body, 100_000), r.Body}
		}
	}, "large upload"),
	breaks("own error without closing the body", func(r *http.Request, base http.RoundTripper) (*http.Response, error) {
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
		return base.RoundTrip(r)
	}, "invalid request"),

	received("turns a status into an error", func(res *http.Response) (*http.Response, error) {
		if res.StatusCode >= 500 {
			res.Body.Close()
			return nil, errors.New(res.Status)
		}
		return res, nil
	}, "status"),
	received("response and error", func(res *http.Response) (*http.Response, error) {
		if res.StatusCode == http.StatusNotFound {
			return res, errors.New("not found")
		}
		return res, nil
	}, "status", "interim responses"),
	breaks("answers when there is no response", func(r *http.Request, base http.RoundTripper) (*http.Response, error) {
		res, err := base.RoundTrip(r)
		if err != nil && r.Context().Err() == nil && r.URL != nil && r.URL.Host == "name.example" {
			res, err = ok(&http.Request{})
			res.StatusCode = http.StatusBadGateway
		}
		return res, err
	}, "error"),
	breaks("hides the error", func(r *http.Request, base http.RoundTripper) (*http.Response, error) {
		res, err := base.RoundTrip(r)
		if err != nil {
			err = fmt.Errorf("send: %v", err)
		}
		return res, err
	}, "error", "cancellation"),
	received("reads the whole response first", func(res *http.Response) (*http.Response, error) {
		if res.StatusCode == http.StatusSwitchingProtocols {
			return res, nil
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		res.Body = io.NopCloser(io.MultiReader(bytes.NewReader(b), readerFunc(func([]byte) (int, error) {
			if err == nil {
				err = io.EOF
			}
			return 0, err
		})))
		return res, nil
	}, "streamed download", "early close", "cancellation"),
	received("forgets to close the response", func(res *http.Response) (*http.Response, error) {
		if res.StatusCode != http.StatusSwitchingProtocols {
			res.Body = io.NopCloser(res.Body)
		}
		return res, nil
	}, "early close"),
	received("hides Write of a 101", func(res *http.Response) (*http.Response, error) {
		res.Body = struct{ io.ReadCloser }{res.Body}
		return res, nil
	}, "upgrade"),
	received("cuts the download", func(res *http.Response) (*http.Response, error) {
		if res.StatusCode != http.StatusSwitchingProtocols {
			res.Body = &bodyOf{io.LimitReader(res.Body, 100_000), res.Body}
		}
		return res, nil
	}, "large download"),
	received("loses trailers", func(res *http.Response) (*http.Response, error) {
		res2 := *res // net/http fills in the trailers of the original
		return &res2, nil
	}, "received trailers"),
	{"loses CloseIdleConnections", Transport{New: func(_ testing.TB, base http.RoundTripper) http.RoundTripper {
		return struct{ http.RoundTripper }{base}
	}}, []string{"idle connections"}},
	{"state of the package", Transport{New: func() func(testing.TB, http.RoundTripper) http.RoundTripper {
		var last atomic.Value
		return func(t testing.TB, base http.RoundTripper) http.RoundTripper {
			last.Store(&base)
			return transport(func(r *http.Request, _ http.RoundTripper) (*http.Response, error) {
				return (*last.Load().(*http.RoundTripper)).RoundTrip(r)
			})(t, base)
		}
	}()}, []string{"two transports"}},
	{"leaves a goroutine", Transport{New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
		end := make(chan struct{})
		t.Cleanup(func() { close(end) })
		return transport(func(r *http.Request, base http.RoundTripper) (*http.Response, error) {
			go func() { <-end }()
			return base.RoundTrip(r)
		})(t, base)
	}}, []string{"goroutines"}},
}

// bodyOf is a body that reads from one place and closes another.
type bodyOf struct {
	io.Reader
	io.Closer
}

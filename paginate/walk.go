package paginate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// What ends a walk, besides errors of the client and the reader.
var (
	// ErrOrigin is a next page, or a redirect, on another scheme, host or
	// port than the first one's. It is not asked for: the header fields of the
	// first request, credentials among them, would go there.
	ErrOrigin = errors.New("paginate: the next page is on another origin")

	// ErrCycle is a next page that has been read already.
	ErrCycle = errors.New("paginate: the next page has been read already")

	// ErrPages is the end of [WalkerConfig.MaxPages] with a page left.
	ErrPages = errors.New("paginate: more pages than the walk may read")
)

// StatusError is an answer other than 2xx to the request for a page.
type StatusError struct {
	Status int    // the code
	URL    string // without the query, which may hold secrets
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("paginate: %s answered %d %s", e.URL, e.Status, http.StatusText(e.Status))
}

// Reader reads the items of one page, and where the next one is: a URI
// reference, relative to the page. With "" the page's own Link field says, and
// if it has no link with the relation next, the list ends. The status is 2xx. A
// Reader does not close the body.
type Reader[T any] func(*http.Response) (items []T, next string, err error)

// WalkerConfig configures a [Walker]. The zero WalkerConfig is useful.
type WalkerConfig struct {
	// Client sends the requests. Its CheckRedirect is asked after the origin
	// has been checked. nil is http.DefaultClient.
	Client *http.Client

	// Origins are further origins that pages may be on, such as
	// "https://api-2.example.com": they get all header fields of the first
	// request. nil is none but the first request's own.
	Origins []string

	// MaxPages is the most pages that one walk reads; a list with more ends
	// with [ErrPages]. 0 or negative is no limit.
	MaxPages int
}

// Walker reads lists page by page. It is safe for concurrent use.
type Walker struct {
	client  http.Client
	origins []string
	max     int
}

// NewWalker returns a Walker, or an error that names every problem in c.
func NewWalker(c WalkerConfig) (*Walker, error) {
	w := &Walker{max: c.MaxPages}
	if c.Client == nil {
		c.Client = http.DefaultClient
	}
	w.client = *c.Client
	var errs []error
	for i, s := range c.Origins {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil ||
			strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			errs = append(errs, fmt.Errorf("paginate: Origins[%d]: must be scheme://host[:port] (got %q)", i, s))
			continue
		}
		w.origins = append(w.origins, origin(u))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return w, nil
}

// Walk yields the items of a list, page after page. first asks for the first
// page; the requests for the others are copies of it with another URL. It is a
// GET or HEAD request without a body. A nil client is http.DefaultClient.
//
//	for post, err := range paginate.Walk(client, req, paginate.JSON[Post]("items", "")) {
//
// A walk ends after the last page, or with one error: that of the client, of
// read or of the context, a [*StatusError], [ErrOrigin] or [ErrCycle]. Leaving
// the loop closes what is open. Nothing is retried: that belongs into the
// client's transport. One page is in memory at a time, as read returns it, and
// eight bytes for each page seen.
func Walk[T any](client *http.Client, first *http.Request, read Reader[T]) iter.Seq2[T, error] {
	w, _ := NewWalker(WalkerConfig{Client: client}) // nothing in it can be wrong
	return WalkWith(w, first, read)
}

// WalkWith is [Walk] with a configured [Walker].
func WalkWith[T any](w *Walker, first *http.Request, read Reader[T]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		stopped := false
		err := w.walk(first, func(resp *http.Response) (next string, more bool, err error) {
			items, next, err := read(resp)
			for _, item := range items {
				if !yield(item, nil) {
					stopped = true
					return "", false, nil
				}
			}
			return next, err == nil, err
		})
		if err != nil && !stopped {
			var zero T
			yield(zero, err)
		}
	}
}

// Pages yields the answers themselves and follows their Link fields. The body
// of one is closed when the next one is asked for.
func (w *Walker) Pages(first *http.Request) iter.Seq2[*http.Response, error] {
	return func(yield func(*http.Response, error) bool) {
		err := w.walk(first, func(resp *http.Response) (string, bool, error) {
			return "", yield(resp, nil), nil
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// walk asks for one page after the other and has visit read them, which says
// where the next one is and whether it is wanted.
func (w *Walker) walk(first *http.Request, visit func(*http.Response) (next string, more bool, err error)) error {
	if m := first.Method; m != "" && m != http.MethodGet && m != http.MethodHead {
		return fmt.Errorf("paginate: a walk must begin with a GET or HEAD request (got %s)", m)
	}
	if first.Body != nil && first.Body != http.NoBody {
		return errors.New("paginate: a walk must begin with a request without a body")
	}
	ctx := first.Context()
	allowed := append(slices.Clip(w.origins), origin(first.URL))
	client := w.client
	client.CheckRedirect = w.redirects(allowed)

	seen := seenPages{seed: maphash.MakeSeed(), urls: map[uint64]struct{}{}}
	seen.add(first.URL)
	req := first
	for n := 1; ; n++ {
		if w.max > 0 && n > w.max {
			return ErrPages
		}
		next, err := one(&client, req, visit)
		if err != nil || next == nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		next.Fragment, next.RawFragment = "", ""
		if !slices.Contains(allowed, origin(next)) {
			return fmt.Errorf("%w: %s", ErrOrigin, origin(next))
		}
		if !seen.add(next) {
			return ErrCycle
		}
		req = first.Clone(ctx)
		req.URL = next
		if !strings.EqualFold(next.Host, first.URL.Host) {
			req.Host = "" // that of the first request is not this one's
		}
	}
}

// one asks for one page and returns where the next one is; nil if there is none
// or none is wanted.
func one(client *http.Client, req *http.Request, visit func(*http.Response) (string, bool, error)) (*url.URL, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	base := resp.Request.URL // after redirects
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		shown := url.URL{Scheme: base.Scheme, Host: base.Host, Path: base.Path}
		return nil, &StatusError{Status: resp.StatusCode, URL: shown.String()}
	}
	ref, more, err := visit(resp)
	if err != nil || !more {
		return nil, err
	}
	// What is left is short, as a rule, and then the connection can be used
	// for the next page.
	io.CopyN(io.Discard, resp.Body, 64<<10)
	if ref == "" {
		return Find(resp.Header, base, "next"), nil
	}
	next, err := base.Parse(ref)
	if err != nil {
		return nil, fmt.Errorf("paginate: the next page has no valid URL: %w", err)
	}
	return next, nil
}

// redirects keeps redirects within the origins, and leaves the rest to the
// client.
func (w *Walker) redirects(allowed []string) func(*http.Request, []*http.Request) error {
	own := w.client.CheckRedirect
	return func(req *http.Request, via []*http.Request) error {
		if !slices.Contains(allowed, origin(req.URL)) {
			return ErrOrigin
		}
		if own != nil {
			return own(req, via)
		}
		if len(via) >= 10 { // as net/http without CheckRedirect
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}
}

// origin is scheme, host and port in one form (RFC 6454, section 4).
func origin(u *url.URL) string {
	scheme, port := strings.ToLower(u.Scheme), u.Port()
	if port == "" {
		switch scheme {
		case "http":
			port = "80"
		case "https":
			port = "443"
		}
	}
	return scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// seenPages remembers URLs by a keyed hash of 64 bits: among a million pages
// two have the same one with a chance of 1 in 36 million.
type seenPages struct {
	seed maphash.Seed
	urls map[uint64]struct{}
}

func (s *seenPages) add(u *url.URL) (fresh bool) {
	h := maphash.String(s.seed, u.String())
	if _, ok := s.urls[h]; ok {
		return false
	}
	s.urls[h] = struct{}{}
	return true
}

// JSON returns a [Reader] of JSON. The items are the array in the member of that
// name, or the whole body if the name is "". The URL of the next page is the
// string in the member of the other name; with "", or if it is missing, null or
// empty, the Link field says where that is.
//
// The list of [Write] is read by JSON[T]("items", ""): what its member next
// holds is no URL, and the Link field always is there.
func JSON[T any](items, next string) Reader[T] {
	return func(resp *http.Response) ([]T, string, error) {
		dec := json.NewDecoder(resp.Body)
		if items == "" {
			var list []T
			if err := dec.Decode(&list); err != nil {
				return nil, "", fmt.Errorf("paginate: reading a page: %w", err)
			}
			return list, "", nil
		}
		var members map[string]json.RawMessage
		if err := dec.Decode(&members); err != nil {
			return nil, "", fmt.Errorf("paginate: reading a page: %w", err)
		}
		body, ok := members[items]
		if !ok {
			return nil, "", fmt.Errorf("paginate: reading a page: it has no member %q", items)
		}
		var list []T
		if err := json.Unmarshal(body, &list); err != nil {
			return nil, "", fmt.Errorf("paginate: reading %q of a page: %w", items, err)
		}
		var url string
		if body, ok := members[next]; ok && next != "" {
			if err := json.Unmarshal(body, &url); err != nil {
				return nil, "", fmt.Errorf("paginate: reading %q of a page: %w", next, err)
			}
		}
		return list, url, nil
	}
}

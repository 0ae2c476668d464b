package forwardauth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// always are the fields of a request that the service gets to see, in the order
// of their names. Accept and X-Requested-With decide between a redirect and a
// 401 in most services.
var always = [...]string{"Accept", "Accept-Language", "Authorization", "Cookie", "User-Agent", "X-Requested-With"}

// forwardNames returns the canonical names of what is sent as it is, sorted and
// without repetition.
func forwardNames(more []string) []string {
	names := slices.Clone(always[:])
	for _, name := range more {
		names = append(names, http.CanonicalHeaderKey(name))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// forwarded returns the values of a field as the service gets them. That a
// client has named it in Connection does not count: the next handler is in
// this process and sees it all the same, and so must the service.
func (m *Middleware) forwarded(h http.Header, name string) []string {
	values := h[name]
	if name == "Cookie" && m.cfg.RequestCookies != nil {
		return filterCookies(values, m.cfg.RequestCookies)
	}
	return values
}

// described is how many fields at most describe the request and the question.
const described = 10

// subrequest makes the request that asks q. Every field in it was put there
// here: none is carried over.
func (m *Middleware) subrequest(ctx context.Context, q *question) (*http.Request, error) {
	fields, lines := described, described
	if m.cfg.Mode != JSON {
		for _, name := range m.names {
			if n := len(q.r.Header[name]); n > 0 {
				fields, lines = fields+1, lines+n
			}
		}
	}
	// Made in their final size, the values of all fields in one slice: these
	// two are most of what a question takes to put together.
	h := make(http.Header, fields)
	values := make([]string, 0, lines)
	set := func(name string, list ...string) {
		from := len(values)
		values = append(values, list...)
		h[name] = values[from:len(values):len(values)]
	}
	r := (&http.Request{
		Method: http.MethodGet, URL: m.url, Host: m.url.Host, Header: h,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
	}).WithContext(ctx)
	if m.cfg.Mode != JSON {
		for _, name := range m.names {
			if list := m.forwarded(q.r.Header, name); len(list) > 0 {
				set(name, list...)
			}
		}
		if q.body != nil {
			if list := q.r.Header["Content-Type"]; len(list) > 0 {
				set("Content-Type", list...)
			}
			setBody(r, q.body)
		}
	}
	if len(h["User-Agent"]) == 0 {
		set("User-Agent", "") // or net/http puts its own there
	}
	// Compression would hide the length of an answer from its limit.
	set("Accept-Encoding", "identity")
	if marks := q.r.Header[loopMark]; len(marks) > 0 {
		set(loopMark, strings.Join(marks, ", ")+", "+m.mark)
	} else {
		set(loopMark, m.mark)
	}

	switch m.cfg.Mode {
	case JSON:
		r.Method = http.MethodPost
		set("Content-Type", "application/json")
		setBody(r, q.input)
		replayable(r)
		return r, nil
	case Nginx:
		set(originalURL, q.scheme+"://"+q.host+q.target)
		set(originalMethod, q.method)
		set(forwardedHost, q.host)
	case Envoy:
		u, err := below(m.url, q.target)
		if err != nil {
			return nil, err
		}
		r.Method, r.URL, r.Host = q.method, u, q.host
	default:
		set(forwardedMethod, q.method)
		set(forwardedHost, q.host)
		set(forwardedURI, q.target)
		set(forwardedPort, q.port())
	}
	set(forwardedProto, q.scheme)
	replayable(r)
	peer, client := q.addresses()
	if chain := q.chain(peer); chain != "" {
		set(forwardedFor, chain)
	}
	if client != "" {
		set(realIP, client)
	}
	return r, nil
}

func setBody(r *http.Request, body []byte) {
	if len(body) == 0 {
		return // or net/http would take its length for unknown
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.ContentLength = int64(len(body))
}

// replayable tells net/http that a question may be sent again, whatever its
// method: on a connection that the service was about to close, there is no
// answer and no decision. The field without values is not sent.
func replayable(r *http.Request) {
	if _, ok := r.Header["Idempotency-Key"]; !ok && r.Method != http.MethodGet {
		r.Header["Idempotency-Key"] = nil
	}
}

// below returns the URL of a target below a base. It fails where url.URL would
// not write the target as it was sent.
func below(base *url.URL, target string) (*url.URL, error) {
	path, query, hasQuery := strings.Cut(target, "?")
	raw := strings.TrimSuffix(base.EscapedPath(), "/") + path
	plain, ok := unescape(raw)
	if !ok {
		return nil, errors.New("target has a percent sign that encodes nothing")
	}
	u := &url.URL{
		Scheme: base.Scheme, Host: base.Host, Path: plain, RawPath: raw,
		RawQuery: query, ForceQuery: hasQuery && query == "",
	}
	if u.EscapedPath() != raw || strings.HasPrefix(raw, "//") {
		return nil, errors.New("target cannot be sent as it is")
	}
	return u, nil
}

// decide asks the service and reads its answer.
func (m *Middleware) decide(ctx context.Context, q *question) (*answer, *Error) {
	within, cancel := m.within(ctx)
	defer cancel()
	sub, err := m.subrequest(within, q)
	if err != nil {
		return nil, &Error{Reason: BadTarget, Err: err}
	}
	return m.ask(ctx, sub)
}

// within is ctx with the limit of a question.
func (m *Middleware) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if m.cfg.Timeout > 0 {
		return context.WithTimeout(ctx, m.cfg.Timeout)
	}
	return ctx, func() {}
}

// ask sends a question. ctx is that of who wants to know, without the limit of
// the question.
func (m *Middleware) ask(ctx context.Context, sub *http.Request) (*answer, *Error) {
	res, err := m.base.RoundTrip(sub)
	if err != nil {
		if res != nil && res.Body != nil {
			res.Body.Close()
		}
		return nil, m.failed(ctx, err)
	}
	if res == nil || res.Body == nil {
		return nil, &Error{Reason: BadResponse, Err: errors.New("no response")}
	}
	defer res.Body.Close()
	return m.read(ctx, sub, res)
}

// failed says why there was no answer.
func (m *Middleware) failed(ctx context.Context, err error) *Error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &Error{Reason: Canceled, Err: err}
	}
	e := &Error{Reason: Unavailable, Err: err}
	var hint interface{ RetryAfter() time.Duration }
	if errors.As(err, &hint) {
		e.RetryAfter = min(max(hint.RetryAfter(), 0), maxRetryAfter)
	}
	return e
}

// read turns a response into an answer, or into an error where it is none.
func (m *Middleware) read(ctx context.Context, sub *http.Request, res *http.Response) (*answer, *Error) {
	switch s := res.StatusCode; {
	case s >= 500:
		return nil, &Error{
			Reason: Unavailable, RetryAfter: retryAfter(res.Header), Err: fmt.Errorf("status %d", s),
		}
	case s < 200, s == http.StatusNotModified, m.cfg.Mode == JSON && s != http.StatusOK:
		return nil, &Error{Reason: BadResponse, Err: fmt.Errorf("status %d", s)}
	}
	head := sub.Method == http.MethodHead
	body, err := m.readAnswer(res, head)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, &Error{Reason: Canceled, Err: err}
		}
		return nil, &Error{Reason: BadResponse, Err: err}
	}
	a := &answer{status: res.StatusCode, header: endToEnd(res.Header), body: body, from: sub.URL}
	if head {
		a.unsent = max(res.ContentLength, -1)
	}
	if m.cfg.Mode == JSON {
		if err := a.verdict(body); err != nil {
			return nil, &Error{Reason: BadResponse, Err: err}
		}
	} else if a.status < 300 {
		if a.allowed = m.cfg.Allow(a.status); !a.allowed {
			return nil, &Error{Reason: Denied, Err: fmt.Errorf("status %d", a.status)}
		}
	}
	if name := m.invalid(a); name != "" {
		return nil, &Error{Reason: BadResponse, Err: fmt.Errorf("control bytes in %s", name)}
	}
	if !a.allowed && m.cfg.Mode == JSON && a.status == 0 {
		return nil, &Error{Reason: Denied}
	}
	return a, nil
}

var errTooLong = errors.New("the body is longer than MaxResponse")

// readAnswer reads the body to its end, so that the connection can be used
// again, and no further than its limit.
func (m *Middleware) readAnswer(res *http.Response, head bool) ([]byte, error) {
	limit := m.cfg.MaxResponse
	switch {
	case head, res.Body == http.NoBody:
		return nil, nil
	case res.ContentLength > limit:
		return nil, errTooLong
	}
	b, err := readUpTo(res.Body, limit, res.ContentLength)
	switch {
	case err != nil:
		return nil, err
	case int64(len(b)) > limit:
		return nil, errTooLong
	}
	return b, nil
}

// invalid returns the name of a field of which something is going to be used
// and whose value could break out of its line.
func (m *Middleware) invalid(a *answer) string {
	for name, values := range a.header {
		if !m.copied(name) && !m.denyHeader(name) {
			continue
		}
		for _, v := range values {
			for i := range len(v) {
				if v[i] < ' ' && v[i] != '\t' || v[i] == 0x7f {
					return name
				}
			}
		}
	}
	return ""
}

// endToEnd returns the header without the fields that Connection names (RFC
// 9110, section 7.6.1). Those that are of the connection by their own name
// stay, since no configuration lets them be used.
func endToEnd(h http.Header) http.Header {
	lines := h["Connection"]
	switch {
	case h == nil:
		return make(http.Header) // of a Base that has not made one
	case len(lines) == 0:
		return h
	}
	out := maps.Clone(h)
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			delete(out, http.CanonicalHeaderKey(strings.Trim(name, " \t")))
		}
	}
	return out
}

// maxRetryAfter is the longest that a client is told to stay away.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads Retry-After (RFC 9110, section 10.2.3). It is no more than a
// day, and 0 where it is not there or not valid.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(time.Until(at), 0), maxRetryAfter)
	}
	return 0
}

package reqid_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/reqid"
)

// The vectors follow the test suite of the W3C, github.com/w3c/trace-context
// test/test.py at acab820, one row for each of its requests, under the name of
// its test. The specification is Trace Context Level 2.

const (
	w3cTrace = "12345678901234567890123456789012"
	w3cSpan  = "1234567890123456"
	w3cPlain = "traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-00"
)

// What a row expects of the outgoing traceparent.
type lineage int

const (
	same  lineage = iota // the trace of the request goes on
	fresh                // a new trace begins
)

var w3c = []struct {
	test    string
	headers []string // as they stand on the wire
	want    lineage
	state   string // members of the outgoing tracestate, separated by ","
}{
	{"both_traceparent_and_tracestate_missing", nil, fresh, ""},
	{"traceparent_included_tracestate_missing", []string{"traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-01"}, same, ""},
	{"traceparent_duplicated", []string{
		"traceparent: 00-12345678901234567890123456789011-" + w3cSpan + "-01",
		"traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_header_name", []string{"trace-parent: 00-" + w3cTrace + "-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_header_name", []string{"trace.parent: 00-" + w3cTrace + "-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_header_name_valid_casing", []string{"TraceParent: 00-" + w3cTrace + "-" + w3cSpan + "-01"}, same, ""},
	{"traceparent_header_name_valid_casing", []string{"TrAcEpArEnT: 00-" + w3cTrace + "-" + w3cSpan + "-01"}, same, ""},
	{"traceparent_header_name_valid_casing", []string{"TRACEPARENT: 00-" + w3cTrace + "-" + w3cSpan + "-01"}, same, ""},
	{"traceparent_version_0x00", []string{"traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-01."}, fresh, ""},
	{"traceparent_version_0x00", []string{"traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-01-what-the-future-will-be-like"}, fresh, ""},
	{"traceparent_version_0xcc", []string{"traceparent: cc-" + w3cTrace + "-" + w3cSpan + "-01"}, same, ""},
	{"traceparent_version_0xcc", []string{"traceparent: cc-" + w3cTrace + "-" + w3cSpan + "-01-what-the-future-will-be-like"}, same, ""},
	{"traceparent_version_0xcc", []string{"traceparent: cc-" + w3cTrace + "-" + w3cSpan + "-01.what-the-future-will-be-like"}, fresh, ""},
	{"traceparent_version_0xff", []string{"traceparent: ff-" + w3cTrace + "-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_version_illegal_characters", []string{"traceparent: .0-" + w3cTrace + "-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_version_illegal_characters", []string{"traceparent: 0.-" + w3cTrace + "-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_version_too_long", []string{"traceparent: 000-" + w3cTrace + "-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_version_too_long", []string{"traceparent: 0000-" + w3cTrace + "-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_version_too_short", []string{"traceparent: 0-" + w3cTrace + "-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_trace_id_all_zero", []string{"traceparent: 00-00000000000000000000000000000000-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_trace_id_illegal_characters", []string{"traceparent: 00-.2345678901234567890123456789012-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_trace_id_illegal_characters", []string{"traceparent: 00-1234567890123456789012345678901.-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_trace_id_too_long", []string{"traceparent: 00-123456789012345678901234567890123-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_trace_id_too_short", []string{"traceparent: 00-1234567890123456789012345678901-" + w3cSpan + "-01"}, fresh, ""},
	{"traceparent_parent_id_all_zero", []string{"traceparent: 00-" + w3cTrace + "-0000000000000000-01"}, fresh, ""},
	{"traceparent_parent_id_illegal_characters", []string{"traceparent: 00-" + w3cTrace + "-.234567890123456-01"}, fresh, ""},
	{"traceparent_parent_id_illegal_characters", []string{"traceparent: 00-" + w3cTrace + "-123456789012345.-01"}, fresh, ""},
	{"traceparent_parent_id_too_long", []string{"traceparent: 00-" + w3cTrace + "-12345678901234567-01"}, fresh, ""},
	{"traceparent_parent_id_too_short", []string{"traceparent: 00-" + w3cTrace + "-123456789012345-01"}, fresh, ""},
	{"traceparent_trace_flags_illegal_characters", []string{"traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-.0"}, fresh, ""},
	{"traceparent_trace_flags_illegal_characters", []string{"traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-0."}, fresh, ""},
	{"traceparent_trace_flags_too_long", []string{"traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-001"}, fresh, ""},
	{"traceparent_trace_flags_too_short", []string{"traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-1"}, fresh, ""},
	{"traceparent_ows_handling", []string{"traceparent:  00-" + w3cTrace + "-" + w3cSpan + "-01"}, same, ""},
	{"traceparent_ows_handling", []string{"traceparent: \t00-" + w3cTrace + "-" + w3cSpan + "-01"}, same, ""},
	{"traceparent_ows_handling", []string{"traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-01 "}, same, ""},
	{"traceparent_ows_handling", []string{"traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-01\t"}, same, ""},
	{"traceparent_ows_handling", []string{"traceparent: \t 00-" + w3cTrace + "-" + w3cSpan + "-01 \t"}, same, ""},
	{"tracestate_included_traceparent_missing", []string{"tracestate: foo=1"}, fresh, ""},
	{"tracestate_included_traceparent_missing", []string{"tracestate: foo=1,bar=2"}, fresh, ""},
	{"tracestate_included_traceparent_included", []string{w3cPlain, "tracestate: foo=1,bar=2"}, same, "foo=1,bar=2"},
	{"tracestate_header_name", []string{w3cPlain, "trace-state: foo=1"}, same, ""},
	{"tracestate_header_name", []string{w3cPlain, "trace.state: foo=1"}, same, ""},
	{"tracestate_header_name_valid_casing", []string{w3cPlain, "TraceState: foo=1"}, same, "foo=1"},
	{"tracestate_header_name_valid_casing", []string{w3cPlain, "TrAcEsTaTe: foo=1"}, same, "foo=1"},
	{"tracestate_header_name_valid_casing", []string{w3cPlain, "TRACESTATE: foo=1"}, same, "foo=1"},
	{"tracestate_empty_header", []string{w3cPlain, "tracestate: "}, same, ""},
	{"tracestate_empty_header", []string{w3cPlain, "tracestate: foo=1", "tracestate: "}, same, "foo=1"},
	{"tracestate_empty_header", []string{w3cPlain, "tracestate: ", "tracestate: foo=1"}, same, "foo=1"},
	{"tracestate_multiple_headers_different_keys", []string{w3cPlain, "tracestate: foo=1,bar=2", "tracestate: rojo=1,congo=2", "tracestate: baz=3"},
		same, "foo=1,bar=2,rojo=1,congo=2,baz=3"},
	{"tracestate_duplicated_keys", []string{w3cPlain, "tracestate: foo=1,foo=1"}, same, "foo=1,foo=1"},
	{"tracestate_duplicated_keys", []string{w3cPlain, "tracestate: foo=1,foo=2"}, same, "foo=1,foo=2"},
	{"tracestate_duplicated_keys", []string{w3cPlain, "tracestate: foo=1", "tracestate: foo=1"}, same, "foo=1,foo=1"},
	{"tracestate_duplicated_keys", []string{w3cPlain, "tracestate: foo=1", "tracestate: foo=2"}, same, "foo=1,foo=2"},
	{"tracestate_all_allowed_characters", []string{w3cPlain, "tracestate: " + w3cKey + "=" + w3cValue}, same, w3cKey + "=" + w3cValue},
	{"tracestate_all_allowed_characters", []string{w3cPlain, "tracestate: " + w3cKey + "@a-z0-9_-*/=" + w3cValue}, same, w3cKey + "@a-z0-9_-*/=" + w3cValue},
	{"tracestate_ows_handling", []string{w3cPlain, "tracestate: foo=1 \t , \t bar=2, \t baz=3"}, same, "foo=1,bar=2,baz=3"},
	{"tracestate_ows_handling", []string{w3cPlain, "tracestate: foo=1\t \t,\t \tbar=2,\t \tbaz=3"}, same, "foo=1,bar=2,baz=3"},
	{"tracestate_ows_handling", []string{w3cPlain, "tracestate:  foo=1"}, same, "foo=1"},
	{"tracestate_ows_handling", []string{w3cPlain, "tracestate: \tfoo=1"}, same, "foo=1"},
	{"tracestate_ows_handling", []string{w3cPlain, "tracestate: foo=1 "}, same, "foo=1"},
	{"tracestate_ows_handling", []string{w3cPlain, "tracestate: foo=1\t"}, same, "foo=1"},
	{"tracestate_ows_handling", []string{w3cPlain, "tracestate: \t foo=1 \t"}, same, "foo=1"},
	{"tracestate_key_illegal_characters", []string{w3cPlain, "tracestate: foo =1"}, same, ""},
	{"tracestate_key_illegal_characters", []string{w3cPlain, "tracestate: FOO=1"}, same, ""},
	{"tracestate_key_illegal_characters", []string{w3cPlain, "tracestate: foo.bar=1"}, same, ""},
	{"tracestate_key_illegal_vendor_format", []string{w3cPlain, "tracestate: foo@=1,bar=2"}, same, "foo@=1,bar=2"},
	{"tracestate_key_illegal_vendor_format", []string{w3cPlain, "tracestate: @foo=1,bar=2"}, same, ""},
	{"tracestate_key_illegal_vendor_format", []string{w3cPlain, "tracestate: foo@@bar=1,bar=2"}, same, "foo@@bar=1,bar=2"},
	{"tracestate_key_illegal_vendor_format", []string{w3cPlain, "tracestate: foo@bar@baz=1,bar=2"}, same, "foo@bar@baz=1,bar=2"},
	{"tracestate_member_count_limit", []string{w3cPlain, "tracestate: " + w3cBars(1, 10), "tracestate: " + w3cBars(11, 20), "tracestate: " + w3cBars(21, 30), "tracestate: " + w3cBars(31, 32)},
		same, w3cBars(1, 32)},
	{"tracestate_member_count_limit", []string{w3cPlain, "tracestate: " + w3cBars(1, 10), "tracestate: " + w3cBars(11, 20), "tracestate: " + w3cBars(21, 30), "tracestate: " + w3cBars(31, 33)},
		same, ""},
	{"tracestate_key_length_limit", []string{w3cPlain, "tracestate: foo=1", "tracestate: " + strings.Repeat("z", 256) + "=1"}, same, "foo=1," + strings.Repeat("z", 256) + "=1"},
	{"tracestate_key_length_limit", []string{w3cPlain, "tracestate: foo=1", "tracestate: " + strings.Repeat("z", 257) + "=1"}, same, ""},
	{"tracestate_key_length_limit", []string{w3cPlain, "tracestate: foo=1", "tracestate: " + w3cVendor(241, 14) + "=1"}, same, "foo=1," + w3cVendor(241, 14) + "=1"},
	{"tracestate_key_length_limit", []string{w3cPlain, "tracestate: foo=1", "tracestate: " + w3cVendor(242, 1) + "=1"}, same, "foo=1," + w3cVendor(242, 1) + "=1"},
	{"tracestate_key_length_limit", []string{w3cPlain, "tracestate: foo=1", "tracestate: " + w3cVendor(1, 15) + "=1"}, same, "foo=1," + w3cVendor(1, 15) + "=1"},
	{"tracestate_value_illegal_characters", []string{w3cPlain, "tracestate: foo=bar=baz"}, same, ""},
	{"tracestate_value_illegal_characters", []string{w3cPlain, "tracestate: foo=,bar=3"}, same, ""},
	{"multiple_requests_with_valid_traceparent", []string{"traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-01"}, same, ""},
	{"multiple_requests_without_traceparent", nil, fresh, ""},
	{"multiple_requests_with_illegal_traceparent", []string{"traceparent: 00-00000000000000000000000000000000-" + w3cSpan + "-01"}, fresh, ""},
	{"propagates_random_flag", []string{"traceparent: 00-" + w3cTrace + "-" + w3cSpan + "-02"}, same, ""},
}

// Every byte that a key and a value may have.
var (
	w3cKey   = w3cRange('a', 'z') + "0123456789_-*/"
	w3cValue = w3cRange(0x20, 0x2b) + w3cRange(0x2d, 0x3c) + w3cRange(0x3e, 0x7e)
)

func w3cRange(first, last byte) string {
	var b []byte
	for c := first; c <= last; c++ {
		b = append(b, c)
	}
	return string(b)
}

func w3cBars(first, last int) string {
	var b []string
	for i := first; i <= last; i++ {
		b = append(b, fmt.Sprintf("bar%02d=%02d", i, i))
	}
	return strings.Join(b, ",")
}

func w3cVendor(tenant, vendor int) string {
	return strings.Repeat("t", tenant) + "@" + strings.Repeat("v", vendor)
}

var traceparent00 = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$`)

// members splits a tracestate as its receiver would.
func members(lines []string) []string {
	var all []string
	for _, m := range strings.Split(strings.Join(lines, ","), ",") {
		if m = strings.Trim(m, " \t"); m != "" {
			all = append(all, m)
		}
	}
	return all
}

// send writes a request with these header lines, byte for byte, and waits for
// the response.
func send(t *testing.T, srv *memnet.Server, headers []string) {
	t.Helper()
	conn, err := srv.Listener.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
	for _, h := range headers {
		request += h + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
}

// reqid 19: a service whose handler makes three calls passes the vectors of the
// W3C test suite.
func TestW3CService(t *testing.T) {
	var calls []http.Header
	client := &http.Client{Transport: mustTransport(t, reqid.TransportConfig{Base: roundTrip(func(r *http.Request) (*http.Response, error) {
		calls = append(calls, r.Header)
		return &http.Response{StatusCode: 204, Body: http.NoBody}, nil
	})})}
	h := mustNew(t, reqid.Config{Trace: true}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			out, _ := http.NewRequestWithContext(r.Context(), "GET", "http://callback/", nil)
			if _, err := client.Do(out); err != nil {
				t.Error(err)
			}
		}
	}))
	srv := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: h})
	for i, c := range w3c {
		t.Run(fmt.Sprintf("%02d_%s", i, c.test), func(t *testing.T) {
			calls = nil
			send(t, srv, c.headers)
			if len(calls) != 3 {
				t.Fatalf("%d calls", len(calls))
			}
			spans, traces := map[string]bool{}, map[string]bool{}
			for _, h := range calls {
				m := checkTrace(t, h, c.headers, c.want, c.state)
				traces[m[1]], spans[m[2]] = true, true
			}
			if len(spans) != 3 || spans[w3cSpan] || len(traces) != 1 {
				t.Errorf("spans %q, traces %q", slices.Collect(maps.Keys(spans)), slices.Collect(maps.Keys(traces)))
			}
		})
	}
}

// reqid 19: so does a service that is a reverse proxy with a plain transport.
// It passes on what is valid as it came, its span and version included, and the
// test suite's demand for a new span at each hop is not for pass-through
// services ("Mutating the traceparent Field").
func TestW3CProxy(t *testing.T) {
	var back http.Header
	backend := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		back = r.Header.Clone()
	})})
	target, _ := url.Parse(backend.URL)
	proxy := &httputil.ReverseProxy{Transport: backend.Transport, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }}
	srv := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: mustNew(t, reqid.Config{Trace: true}).Handler(proxy)})
	for i, c := range w3c {
		t.Run(fmt.Sprintf("%02d_%s", i, c.test), func(t *testing.T) {
			send(t, srv, c.headers)
			if c.want == fresh {
				if m := checkTrace(t, back, c.headers, c.want, c.state); m[3] != "02" {
					t.Errorf("flags of the new trace are %s", m[3])
				}
				return
			}
			_, sent, _ := strings.Cut(c.headers[0], ":")
			if got := back["Traceparent"]; !slices.Equal(got, []string{strings.Trim(sent, " \t")}) {
				t.Errorf("%q came as %q", sent, got)
			}
			if got := strings.Join(members(back["Tracestate"]), ","); got != c.state {
				t.Errorf("tracestate %q, want %q", got, c.state)
			}
		})
	}
}

// checkTrace checks the trace headers of an outgoing request and returns the
// parts of its traceparent.
func checkTrace(t *testing.T, out http.Header, sent []string, want lineage, state string) []string {
	t.Helper()
	parents := out["Traceparent"]
	if len(parents) != 1 {
		t.Fatalf("%d traceparents", len(parents))
	}
	m := traceparent00.FindStringSubmatch(parents[0])
	if m == nil || strings.Trim(m[1], "0") == "" || strings.Trim(m[2], "0") == "" {
		t.Fatalf("traceparent %q", parents[0])
	}
	switch {
	case want == same && m[1] != w3cTrace:
		t.Errorf("the trace %s was not continued: %s", w3cTrace, parents[0])
	case want == fresh:
		for _, h := range sent {
			if strings.Contains(h, m[1]) || strings.Contains(h, m[2]) {
				t.Errorf("the new trace %s has parts of %q", parents[0], h)
			}
		}
		if m[3] != "02" {
			t.Errorf("flags of the new trace are %s", m[3])
		}
	}
	if got := strings.Join(members(out["Tracestate"]), ","); got != state {
		t.Errorf("tracestate %q, want %q", got, state)
	}
	if lines, ok := out["Tracestate"]; ok && state == "" && strings.Join(lines, "") != "" {
		t.Errorf("an empty tracestate was sent as %q", lines)
	}
	return m
}

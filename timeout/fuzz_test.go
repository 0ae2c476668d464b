package timeout

import (
	"math"
	"math/big"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"
	"time"
)

// strict is the grammar of each header, and the unit that its number counts in,
// by the letter at its end where there is one.
var strict = map[string]struct {
	grammar *regexp.Regexp // group 1 the whole units, 2 the decimal fraction, 3 the letter
	units   map[string]time.Duration
	longest time.Duration // that can be written
}{
	"Grpc-Timeout": {regexp.MustCompile(`\A([0-9]{1,8})()([HMSmun])\z`), map[string]time.Duration{
		"H": time.Hour, "M": time.Minute, "S": time.Second, "m": time.Millisecond, "u": time.Microsecond, "n": time.Nanosecond,
	}, math.MaxInt64},
	"Connect-Timeout-Ms":             {regexp.MustCompile(`\A([0-9]{1,10})()()\z`), map[string]time.Duration{"": time.Millisecond}, 9_999_999_999 * time.Millisecond},
	"X-Envoy-Expected-Rq-Timeout-Ms": {regexp.MustCompile(`\A([0-9]{1,10})()()\z`), map[string]time.Duration{"": time.Millisecond}, 9_999_999_999 * time.Millisecond},
	"Request-Timeout":                {regexp.MustCompile(`\A([0-9]{1,10})(?:\.([0-9]{1,9}))?()\z`), map[string]time.Duration{"": time.Second}, math.MaxInt64},
}

// parseStrict reads a header by its grammar with numbers that cannot overflow.
func parseStrict(name, value string) (time.Duration, bool) {
	f := strict[name]
	m := f.grammar.FindStringSubmatch(value)
	if m == nil {
		return 0, false
	}
	n, ok := new(big.Rat).SetString(m[1] + "." + m[2] + "0")
	if !ok {
		return 0, false
	}
	n.Mul(n, new(big.Rat).SetInt64(int64(f.units[m[3]])))
	if n.Cmp(new(big.Rat).SetInt64(math.MaxInt64)) > 0 {
		return math.MaxInt64, true
	}
	return time.Duration(n.Num().Int64()), n.IsInt()
}

// timeout 30: for each format the parser agrees with a strict one, no time is
// negative, and what is understood and written again reads the same, but for a
// fraction of the unit it is written in. So does every other time.
func FuzzDeadlineHeaders(f *testing.F) {
	for _, s := range []string{
		"", "0", "1", "1S", "99999999H", "2562048H", "999999999n", "1s", "-1S", "+1", " 1", "1 ", "0.5", "5.", ".5",
		"9223372036.854775807", "9999999999.999999999", "9999999999", "10000000000", "0x1", "1e3", "1_0", "١S", "1\x00",
	} {
		f.Add(s, int64(len(s))*1_234_567_891)
	}
	f.Add("153722867M", int64(math.MaxInt64))
	f.Add("100.000000999", int64(100_000_999)) // six digits are left of them
	f.Fuzz(func(t *testing.T, value string, left int64) {
		for name, format := range headerFormats {
			d, ok := format.parse(value)
			want, wantOK := parseStrict(name, value)
			if ok != wantOK || ok && d != want {
				t.Errorf("%s: %q: got %v, %v, want %v, %v", name, value, d, ok, want, wantOK)
			}
			if d < 0 {
				t.Errorf("%s: %q is negative: %v", name, value, d)
			}
			for _, d := range []time.Duration{d, time.Duration(left)} {
				if d > 0 {
					checkWritten(t, name, d)
				}
			}
		}
	})
}

// checkWritten writes d as a Transport does and reads it again.
func checkWritten(t *testing.T, name string, d time.Duration) {
	text := string(headerFormats[name].append(nil, d))
	again, ok := parseStrict(name, text)
	d = min(d, strict[name].longest)
	// Less than a unit is dropped, of the finest that has room for d in eight
	// digits; the others count in milliseconds.
	off := time.Millisecond
	if name == "Grpc-Timeout" {
		off = math.MaxInt64
		for _, unit := range strict[name].units {
			if d/unit <= 99_999_999 {
				off = min(off, unit)
			}
		}
	}
	if !ok || again <= 0 || again > max(d, time.Millisecond) || again <= d-off {
		t.Errorf("%s: %v is written as %q, which reads %v, %v", name, d, text, again, ok)
	}
	if own, ownOK := headerFormats[name].parse(text); own != again || ownOK != ok {
		t.Errorf("%s: %q reads %v, %v to ourselves", name, text, own, ownOK)
	}
}

// The whole way in: whatever the fields of a request say, the handler has the
// shortest of the times that are understood, at most Max, and no less than
// nothing.
func FuzzDeadlineHandler(f *testing.F) {
	f.Add("1S", "1000", "2000", "3", int64(time.Minute))
	f.Add("0S", "", "x", "-1", int64(0))
	f.Add("", "", "", "", int64(-1))
	f.Fuzz(func(t *testing.T, grpc, connect, envoy, seconds string, limit int64) {
		d, err := NewDeadline(DeadlineConfig{Max: time.Duration(limit)})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		want, valid := time.Duration(math.MaxInt64), false
		for i, value := range []string{grpc, connect, envoy, seconds} {
			r.Header[knownHeaders[i]] = []string{value}
			if d, ok := parseStrict(knownHeaders[i], value); ok {
				want, valid = min(want, d), true
			}
		}
		if limit > 0 {
			want = min(want, time.Duration(limit))
		}
		w := httptest.NewRecorder()
		start := time.Now()
		called := false
		d.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			called = true
			end, ok := r.Context().Deadline()
			if ok != valid || ok && (end.Before(start.Add(want)) || end.After(time.Now().Add(want))) {
				t.Errorf("the deadline is %v, %v after %v, want %v, %v", end.Sub(start), ok, start, want, valid)
			}
			w.WriteHeader(http.StatusNoContent)
		})).ServeHTTP(w, r)
		status := http.StatusNoContent
		refused := valid && want == 0
		if refused {
			status = http.StatusGatewayTimeout
		}
		if called == refused || w.Code != status {
			t.Errorf("called: %v, answered %d, want %v, %v", called, w.Code, want, valid)
		}
	})
}

package reqid

import (
	"encoding/hex"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// parseV7 returns the time of a version 7 UUID in steps of 1/4096 ms, or false
// if s is no version 7 UUID of variant 10 (RFC 9562, sections 4.1 and 5.7).
func parseV7(s string) (time uint64, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' || s != strings.ToLower(s) {
		return 0, false
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 || b[6]>>4 != 7 || b[8]>>6 != 0b10 {
		return 0, false
	}
	for _, x := range b[:6] {
		time = time<<8 | uint64(x)
	}
	return time<<12 | uint64(b[6]&0x0f)<<8 | uint64(b[7]), true
}

// reqid 12: a million IDs made by eight goroutines are all different, all of
// version 7, and in order of the millisecond they were made in.
func TestV7(t *testing.T) {
	const workers, each = 8, 125_000
	made := make([][]string, workers)
	var start, end uint64
	synctest.Test(t, func(*testing.T) { // whose clock nobody sets back
		start = uint64(time.Now().UnixMilli())
		var wg sync.WaitGroup
		for i := range made {
			wg.Go(func() {
				ids := make([]string, each)
				for j := range ids {
					ids[j] = V7()
					if j%1000 == 0 {
						time.Sleep(3 * time.Millisecond)
					}
				}
				made[i] = ids
			})
		}
		wg.Wait()
		end = uint64(time.Now().UnixMilli())
	})

	unique := make(map[string]bool, workers*each)
	for _, ids := range made {
		last := ids[0]
		for _, id := range ids {
			when, ok := parseV7(id)
			if !ok {
				t.Fatalf("%q is no UUID of version 7", id)
			}
			if ms := when >> 12; ms < start || ms > end {
				t.Fatalf("%q was made in ms %d, not between %d and %d", id, ms, start, end)
			}
			// Text order is order of time: the first 13 characters are the
			// milliseconds.
			if id[:13] < last[:13] {
				t.Fatalf("%q follows %q", id, last)
			}
			last = id
			if unique[id] {
				t.Fatalf("%q twice", id)
			}
			unique[id] = true
		}
	}
}

func TestFormatV7(t *testing.T) {
	for _, c := range []struct {
		when   time.Time
		random uint64
		want   string
	}{
		// RFC 9562, appendix A.6, has this time and these random bits; its 12
		// bits of rand_a are 0xcc3/4096 of a millisecond here.
		{time.UnixMilli(0x017F22E279B0).Add(797_608), 0x18C4DC0C0C07398F, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"},
		{time.Unix(0, 0), 0, "00000000-0000-7000-8000-000000000000"},
		{time.Unix(0, 999_999), math.MaxUint64, "00000000-0000-7fff-bfff-ffffffffffff"},
		{time.Unix(0, 1_000_000), math.MaxUint64, "00000000-0001-7000-bfff-ffffffffffff"},
		{time.Date(2262, 4, 11, 0, 0, 0, 0, time.UTC), 0, "086376b5-a400-7000-8000-000000000000"},
	} {
		if got := formatV7(c.when, c.random); got != c.want {
			t.Errorf("%v: %s, want %s", c.when, got, c.want)
		}
	}
	// A machine whose clock is before 1970 makes IDs all the same.
	if id := formatV7(time.Unix(-1, -1), 0); !Valid(id) {
		t.Errorf("%q is not valid", id)
	} else if _, ok := parseV7(id); !ok {
		t.Errorf("%q is no version 7", id)
	}
}

func TestValid(t *testing.T) {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/+=@-"
	for c := range 256 {
		b := byte(c)
		want := strings.IndexByte(allowed, b) >= 0
		for _, id := range []string{string([]byte{b}), "a" + string([]byte{b}), string([]byte{b}) + "z"} {
			if got := Valid(id); got != want {
				t.Errorf("Valid(%q) = %v", id, got)
			}
		}
	}
	for n, want := range map[int]bool{0: false, 1: true, 36: true, 128: true, 129: false, 100_000: false} {
		if got := Valid(strings.Repeat("a", n)); got != want {
			t.Errorf("%d bytes: %v", n, got)
		}
	}
	if !Valid(V7()) {
		t.Error("V7 is not valid")
	}
}

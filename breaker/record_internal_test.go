package breaker

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// What is read from a store is a record that makes sense, and is written again as
// it was understood.
func FuzzParseRecord(f *testing.F) {
	for _, s := range []string{
		"", "null", "{}", "[1]", `{"gen":1,"state":"closed","at":1}`, `{"gen":1,"state":"open","at":1}`,
		`{"gen":9007199254740991,"state":"open","at":1,"until":2,"streak":3,"reason":"too many failures"}`,
		`{"gen":9007199254740992,"state":"closed"}`, `{"gen":-1,"state":"closed"}`, `{"gen":1,"state":"open","force":true,"author":"a"}`,
		`{"gen":1,"state":"closed","streak":9999999}`, `{"gen":1.5,"state":"closed"}`, `{"gen":1,"state":"closed"} x`,
		`{"gen":1,"state":"open","until":9223372036854775807}`,
	} {
		f.Add([]byte(s))
	}
	for _, s := range []string{"<", "\xff"} { // six bytes and three when they are written again
		f.Add([]byte(`{"gen":1,"state":"closed","reason":"` + strings.Repeat(s, 3000) + `"}`))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseRecord(raw)
		if err != nil {
			if r != (record{}) {
				t.Errorf("%+v with an error", r)
			}
			return
		}
		if !r.valid() {
			t.Errorf("%+v is not valid", r)
		}
		again, err := parseRecord(r.encode())
		if err != nil || again != r {
			t.Errorf("%+v, then %+v, %v", r, again, err)
		}
		const now = int64(1 << 60)
		if r.forced(now) && !r.Force || r.open(now) && r.State != recordOpen {
			t.Errorf("%+v: forced %v, open %v", r, r.forced(now), r.open(now))
		}
		if d := r.ttl(now); d < 0 || d > 0 && d < recordTTL {
			t.Errorf("%+v: kept for %v", r, d)
		}
	})
}

func TestRecordIsShort(t *testing.T) {
	long := string(bytes.Repeat([]byte("\x01"), maxText)) // six bytes each in JSON
	r := record{Gen: 1 << 52, State: recordOpen, At: 1 << 61, Until: 1 << 62, Streak: maxStreak, Force: true, Author: long, Reason: long}
	if raw := r.encode(); len(raw) > maxRecord {
		t.Errorf("%d bytes", len(raw))
	} else if _, err := parseRecord(raw); err != nil {
		t.Error(err)
	}
}

// The gate lets n start at once, and one more for each h.
func TestGate(t *testing.T) {
	const h = int64(time.Second)
	var g gate
	for i := range 4 {
		if got := g.take(0, h, 3); got != (i < 3) {
			t.Errorf("start %d: %v", i, got)
		}
	}
	g.giveBack(h/2, h)
	if !g.take(h/2, h, 3) || g.take(h/2, h, 3) {
		t.Error("one given back is not one to take")
	}
	if !g.take(h, h, 3) || g.take(2*h-1, h, 3) {
		t.Error("not one more for each h")
	}
	// Giving back what time has given back already changes nothing.
	g.giveBack(100*h, h)
	for i := range 4 {
		if got := g.take(100*h, h, 3); got != (i < 3) {
			t.Errorf("later, start %d: %v", i, got)
		}
	}
}

// A call that adds to a part of time long gone does not disturb the one that has
// taken its place.
func TestWindowSlots(t *testing.T) {
	var w window
	w.at(0).success()
	w.at(slots).bad.Add(1)
	w.at(0).success()
	if c := w.sum(slots); c != (counts{calls: 1, bad: 1}) {
		t.Errorf("%+v", c)
	}
	for i := range int64(40) {
		w.at(100 + i).success()
	}
	if c := w.sum(139); c.calls != buckets {
		t.Errorf("%+v", c)
	}
	if c := w.sum(139 + buckets); c.calls != 0 {
		t.Errorf("%+v", c)
	}
}

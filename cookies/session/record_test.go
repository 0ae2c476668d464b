package session

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

// cookies 39, 40: a record and an alias have one spelling each, and whatever
// else is in the store is neither.
func FuzzRecord(f *testing.F) {
	r := record{created: 1, issued: 2, seen: 3, deadline: 4, epoch: 5, user: "ann", payload: []byte(`{"a":1}`)}
	a := alias{useBy: 6, next: sha256.Sum256(nil)}
	f.Add(r.encode())
	f.Add(a.encode())
	f.Add((&record{created: -1, user: strings.Repeat("u", maxUser)}).encode())
	f.Add([]byte{version, isRecord})
	f.Add([]byte{version + 1, isAlias})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, isRec := decodeRecord(b)
		a, isAli := decodeAlias(b)
		switch {
		case isRec && isAli:
			t.Error("both")
		case isRec && !bytes.Equal(r.encode(), b):
			t.Errorf("%+v is encoded as %x, was %x", r, r.encode(), b)
		case isAli && !bytes.Equal(a.encode(), b):
			t.Errorf("%+v is encoded as %x, was %x", a, a.encode(), b)
		}
	})
}

// Ids have one spelling, and no other text has a hash.
func FuzzID(f *testing.F) {
	f.Add(newID())
	f.Add(strings.Repeat("A", 43))
	f.Add(strings.Repeat("A", 42) + "B")
	f.Add(strings.Repeat("A", 42) + "\n")
	f.Add(strings.Repeat("A", 20) + "\r\n" + strings.Repeat("A", 21))
	f.Fuzz(func(t *testing.T, text string) {
		hash, ok := hashID(text)
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if want := err == nil && len(raw) == idSize && base64.RawURLEncoding.EncodeToString(raw) == text; ok != want {
			t.Fatalf("hashID(%q) is %v", text, ok)
		}
		if ok && hash != sha256.Sum256(raw) {
			t.Errorf("hash of %q", text)
		}
	})
}

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	for range 10_000 {
		id := newID()
		if _, ok := hashID(id); !ok || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
}

// Processes whose clocks differ: a last use in the future is written anew too,
// since the store's clock ends the session all the same.
func TestStale(t *testing.T) {
	m := &Manager[int]{idle: 10 * time.Minute}
	now := time.Unix(1_000_000, 0)
	for ago, want := range map[time.Duration]bool{
		0: false, time.Minute - 1: false, time.Minute: true, time.Hour: true,
		-time.Minute + 1: false, -time.Minute: true, -time.Hour: true,
	} {
		if got := m.stale(&record{seen: now.Add(-ago).UnixNano()}, now); got != want {
			t.Errorf("seen %v ago: %v", ago, got)
		}
	}
	m.idle = 0
	if m.stale(&record{}, now) {
		t.Error("without an idle timeout there is nothing to write")
	}
}

func TestTTL(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	at := func(d time.Duration) int64 { return now.Add(d).UnixNano() }
	for _, c := range []struct {
		idle, absolute time.Duration
		r              record
		want           time.Duration
	}{
		{time.Minute, time.Hour, record{created: at(0), deadline: at(time.Hour)}, time.Minute},
		{time.Minute, time.Hour, record{created: at(-time.Hour + time.Second), deadline: at(time.Second)}, time.Second},
		{0, time.Hour, record{created: at(0), deadline: at(time.Hour)}, time.Hour},
		{time.Minute, 0, record{created: at(0)}, time.Minute},
		{0, time.Hour, record{created: at(0)}, time.Hour},                                                 // written when there was no limit
		{0, time.Hour, record{created: at(-time.Minute), deadline: at(10 * time.Hour)}, 59 * time.Minute}, // lowered
		{time.Minute, 0, record{created: at(0), deadline: at(time.Second)}, time.Second},                  // promised before
		{0, time.Hour, record{created: at(-2 * time.Hour), deadline: at(-time.Hour)}, time.Millisecond},   // never for ever
	} {
		m := &Manager[int]{idle: c.idle, absolute: c.absolute}
		if got := m.ttl(&c.r, now); got != c.want {
			t.Errorf("idle %v, absolute %v, %+v: %v, want %v", c.idle, c.absolute, c.r, got, c.want)
		}
	}
}

// An old id is remembered for a day, or for as long as there can be the session;
// where its reuse ends that, always so long. And it is never gone before a save
// under way has ended, whatever two clocks say of Absolute.
func TestForward(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		absolute, age time.Duration
		destroy       bool
		want          time.Duration
	}{
		{0, 0, false, day},
		{10 * day, day, false, day},
		{10 * day, day, true, 9 * day},
		{day, 23 * time.Hour, false, time.Hour},
		{day, 23 * time.Hour, true, time.Hour},
		{day, day - time.Second, false, 10 * time.Second},
		{day, day - time.Second, true, 10 * time.Second},
		{day, 2 * day, false, 10 * time.Second},
	} {
		m := &Manager[int]{idle: time.Minute, absolute: c.absolute, grace: time.Second, destroy: c.destroy}
		a, ttl := m.forward(&record{created: now.Add(-c.age).UnixNano()}, now)
		if ttl != c.want || a.useBy != now.Add(time.Second).UnixNano() {
			t.Errorf("%+v: for %v, to be used by %v", c, ttl, time.Unix(0, a.useBy))
		}
	}
}

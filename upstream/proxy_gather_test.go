package upstream_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/upstream"
)

// writeLog is a writer that takes down when it was given how much.
type writeLog struct {
	*httptest.ResponseRecorder
	began  time.Time
	writes []writeAt
	write  func(n int) error // nil if it is never in the way
}

type writeAt struct {
	n  int
	at time.Duration
}

func (w *writeLog) Write(p []byte) (int, error) {
	w.writes = append(w.writes, writeAt{len(p), time.Since(w.began)})
	if w.write != nil {
		if err := w.write(len(p)); err != nil {
			return 0, err
		}
	}
	return w.ResponseRecorder.Write(p)
}

// inParts is a body that comes in parts, each after a pause, and ends with err.
type inParts struct {
	parts []writeAt
	err   error
}

func (b *inParts) Read(p []byte) (int, error) {
	if len(b.parts) == 0 {
		return 0, b.err
	}
	part := &b.parts[0]
	time.Sleep(part.at)
	part.at = 0
	n := min(len(p), part.n)
	if part.n -= n; part.n == 0 {
		b.parts = b.parts[1:]
	}
	for i := range p[:n] {
		p[i] = 'x'
	}
	return n, nil
}

func (b *inParts) Close() error { return nil }

// A short body that comes in parts is written at once, and what has come of it
// when it pauses is not held back.
func TestPartsOfShortBody(t *testing.T) {
	const k, ms = 1 << 10, time.Millisecond
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		parts []writeAt
		end   error // nil is io.EOF
		more  int64 // what the length is more than the parts
		write func(n int) error
		want  []writeAt
		ends  any // what the handler panics with
	}{
		"at once":         {parts: []writeAt{{4 * k, 0}, {4 * k, 0}, {2 * k, 0}}, want: []writeAt{{10 * k, 0}}},
		"in a moment":     {parts: []writeAt{{4 * k, 0}, {6 * k, ms / 2}}, want: []writeAt{{10 * k, ms / 2}}},
		"late from start": {parts: []writeAt{{4 * k, time.Hour}, {6 * k, 0}}, want: []writeAt{{10 * k, time.Hour}}},
		"pause":           {parts: []writeAt{{4 * k, 0}, {6 * k, time.Hour}}, want: []writeAt{{4 * k, ms}, {6 * k, time.Hour}}},
		"pauses": {
			parts: []writeAt{{4 * k, 0}, {k, 0}, {2 * k, time.Hour}, {3 * k, time.Hour}},
			want:  []writeAt{{5 * k, ms}, {2 * k, time.Hour}, {3 * k, 2 * time.Hour}},
		},
		"fills the buffer": {parts: []writeAt{{k, 0}, {47 * k, 0}}, want: []writeAt{{48 * k, 0}}},
		"too long for it":  {parts: []writeAt{{k, 0}, {48 * k, 0}}, want: []writeAt{{k, 0}, {48 * k, 0}}},
		"breaks off": {
			parts: []writeAt{{4 * k, 0}, {k, 0}}, end: broken, more: 1,
			want: []writeAt{{5 * k, 0}}, ends: http.ErrAbortHandler,
		},
		"breaks off later": {
			parts: []writeAt{{4 * k, 0}, {k, time.Hour}}, end: broken, more: 1,
			want: []writeAt{{4 * k, ms}, {k, time.Hour}}, ends: http.ErrAbortHandler,
		},
		"the client has gone": {
			parts: []writeAt{{4 * k, 0}, {k, time.Hour}, {k, time.Hour}}, write: func(int) error { return broken },
			want: []writeAt{{4 * k, ms}}, ends: http.ErrAbortHandler,
		},
		"the writer panics": {
			parts: []writeAt{{4 * k, 0}, {k, time.Hour}, {k, time.Hour}}, write: func(int) error { panic("no") },
			want: []writeAt{{4 * k, ms}}, ends: "no",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				size := test.more
				for _, p := range test.parts {
					size += int64(p.n)
				}
				end := test.end
				if end == nil {
					end = io.EOF
				}
				p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
					res := response(200, "")
					res.Body, res.ContentLength = &inParts{slices.Clone(test.parts), end}, size
					return res, nil
				})})
				w := &writeLog{ResponseRecorder: httptest.NewRecorder(), began: time.Now(), write: test.write}
				var ends any
				func() {
					defer func() { ends = recover() }()
					p.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
				}()
				if !slices.Equal(w.writes, test.want) || ends != test.ends {
					t.Errorf("writes %v, want %v; panic %v, want %v", w.writes, test.want, ends, test.ends)
				}
				time.Sleep(time.Minute) // no timer is left
				if len(w.writes) != len(test.want) {
					t.Errorf("writes after the end: %v", w.writes)
				}
			})
		})
	}
}

// Where the rest of a body comes in the moment in which the timer does, all of
// it is written once, in one piece or in two.
func TestPartsInTheMomentOfTheTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
			res := response(200, "")
			res.Body, res.ContentLength = &inParts{[]writeAt{{4, 0}, {2, time.Millisecond}, {4, time.Millisecond}}, io.EOF}, 10
			return res, nil
		})})
		for range 2000 {
			w := &writeLog{ResponseRecorder: httptest.NewRecorder(), began: time.Now()}
			p.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			if n := w.Body.Len(); n != 10 || len(w.writes) > 3 {
				t.Fatalf("%d bytes of 10 in %v", n, w.writes)
			}
		}
	})
}

// A writer that panics when the timer flushes does so in the handler.
func TestFlushPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
			res := response(200, "")
			res.Body, res.ContentLength = &inParts{[]writeAt{{1, time.Second}, {1, time.Second}, {1, time.Second}}, io.EOF}, -1
			return res, nil
		})})
		w := &writeLog{ResponseRecorder: httptest.NewRecorder(), began: time.Now()}
		defer func() {
			if v := recover(); v != "no" || len(w.writes) > 0 || time.Since(w.began) != time.Second {
				t.Errorf("panic %v after %v, writes %v", v, time.Since(w.began), w.writes)
			}
		}()
		p.ServeHTTP(flushPanics{w}, httptest.NewRequest("GET", "/", nil))
	})
}

type flushPanics struct{ *writeLog }

func (flushPanics) FlushError() error { panic("no") }

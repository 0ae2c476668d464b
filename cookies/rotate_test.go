package cookies_test

import (
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/cookies"
)

// cookies 5 and 6: the three stages of a key. While it is incoming it reads and
// never writes; as a fallback it reads and asks for a refresh, which writes with
// the primary.
func TestRotation(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			only := func(key []byte) *cookies.Cookie[string] {
				return build(t, cookies.Config[string]{Keys: keys(key)}, kind.make)
			}
			c := build(t, cookies.Config[string]{Keys: keys(keyB, keyA), Incoming: keys(keyC)}, kind.make)
			ids := map[string]string{}
			for name, key := range map[string][]byte{"A": keyA, "B": keyB, "C": keyC} {
				ids[encode(t, only(key), "", "")[3:7]] = name
			}

			w := httptest.NewRecorder()
			if err := c.Set(w, nil, "v"); err != nil {
				t.Fatal(err)
			}
			if _, _, err := only(keyB).Get(browse(request(), w)); err != nil {
				t.Errorf("Set did not write with the primary key: %v", err)
			}
			for _, tc := range []struct {
				key     []byte
				name    string
				refresh bool
			}{{keyA, "A", true}, {keyB, "B", false}, {keyC, "C", false}} {
				r := request("theme=" + encode(t, only(tc.key), "v", ""))
				v, info, err := c.Get(r)
				if v != "v" || err != nil || info.NeedsRefresh != tc.refresh || ids[info.KeyID] != tc.name {
					t.Errorf("key %s: %q, %+v, %v", tc.name, v, info, err)
				}
				w := httptest.NewRecorder()
				if did, err := c.Refresh(w, r); did != tc.refresh || err != nil {
					t.Errorf("key %s: Refresh: %v, %v", tc.name, did, err)
				}
				if !tc.refresh {
					if len(w.Header()) != 0 {
						t.Errorf("key %s: Refresh set %q", tc.name, w.Header())
					}
					continue
				}
				back := browse(r, w)
				if v, info, err := c.Get(back); v != "v" || err != nil || info.NeedsRefresh || ids[info.KeyID] != "B" {
					t.Errorf("refreshed: %q, %+v, %v", v, info, err)
				}
				if did, err := c.Refresh(httptest.NewRecorder(), back); did || err != nil {
					t.Errorf("a second Refresh: %v, %v", did, err)
				}
			}
			if did, err := c.Refresh(httptest.NewRecorder(), request("theme=x")); did || err != cookies.ErrInvalid {
				t.Errorf("Refresh of nothing: %v, %v", did, err)
			}
		})
	}
}

// During a deployment in three steps, no process gets a value that it cannot
// read, whichever of two neighbouring steps each is at.
func TestRotationSteps(t *testing.T) {
	steps := []cookies.Config[string]{
		{Keys: keys(keyA)},
		{Keys: keys(keyA), Incoming: keys(keyB)},
		{Keys: keys(keyB, keyA)},
		{Keys: keys(keyB)},
	}
	for i := range len(steps) - 1 {
		for _, pair := range [][2]int{{i, i}, {i, i + 1}, {i + 1, i}} {
			text := encode(t, sealed(t, steps[pair[0]]), "v", "")
			if _, _, err := sealed(t, steps[pair[1]]).Decode(text, ""); err != nil {
				t.Errorf("written at step %d, read at step %d: %v", pair[0], pair[1], err)
			}
		}
	}
	if _, _, err := sealed(t, steps[3]).Decode(encode(t, sealed(t, steps[0]), "v", ""), ""); err != cookies.ErrUnknownKey {
		t.Errorf("the retired key: %v", err)
	}
}

// A refresh decides nothing that the handler has decided already.
func TestRefreshAfterSet(t *testing.T) {
	old := encode(t, sealed(t, cookies.Config[string]{Keys: keys(keyA)}), "old", "")
	c := sealed(t, cookies.Config[string]{Keys: keys(keyB, keyA)})
	r := request("theme=" + old)
	for name, decide := range map[string]func(w *httptest.ResponseRecorder){
		"Set":    func(w *httptest.ResponseRecorder) { c.Set(w, r, "new") },
		"Delete": func(w *httptest.ResponseRecorder) { c.Delete(w) },
	} {
		w := httptest.NewRecorder()
		decide(w)
		before := w.Header().Get("Set-Cookie")
		if did, err := c.Refresh(w, r); did || err != nil || len(w.Header()["Set-Cookie"]) != 1 || w.Header().Get("Set-Cookie") != before {
			t.Errorf("%s: %v, %v, %q", name, did, err, w.Header()["Set-Cookie"])
		}
	}
}

// cookies 9: a value ends with its expiry, and with the reader's MaxAge where
// that is smaller.
func TestExpiry(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				day := build(t, cookies.Config[string]{}, kind.make)
				hour := build(t, cookies.Config[string]{MaxAge: time.Hour}, kind.make)
				week := build(t, cookies.Config[string]{MaxAge: 7 * 24 * time.Hour}, kind.make)
				text := encode(t, day, "v", "")
				born := time.Now()
				for _, tc := range []struct {
					at   time.Duration
					c    *cookies.Cookie[string]
					life time.Duration
					want error
				}{
					{0, day, 24 * time.Hour, nil},
					{time.Hour, hour, time.Hour, nil},
					{time.Hour + time.Second, hour, 0, cookies.ErrExpired},
					{time.Hour + time.Second, day, 24 * time.Hour, nil},
					{24 * time.Hour, week, 24 * time.Hour, nil},
					{24 * time.Hour, day, 24 * time.Hour, nil},
					{24*time.Hour + time.Second, day, 0, cookies.ErrExpired},
					{24*time.Hour + time.Second, week, 0, cookies.ErrExpired},
				} {
					time.Sleep(time.Until(born.Add(tc.at)))
					_, info, err := tc.c.Get(request("theme=" + text))
					if err != tc.want || err == nil && info.ExpiresAt.Sub(info.IssuedAt) != tc.life {
						t.Errorf("after %v: %+v, %v; want %v", tc.at, info, err, tc.want)
					}
				}
				// Beside a value that is still good, one that has ended is nothing.
				fresh := encode(t, day, "fresh", "")
				if v, _, err := day.Get(request("theme=" + text + "; theme=" + fresh)); v != "fresh" || err != nil {
					t.Errorf("beside an expired one: %q, %v", v, err)
				}
				if _, _, err := day.Get(request("theme=junk; theme=" + text)); err != cookies.ErrExpired {
					t.Errorf("expired beside junk: %v", err)
				}
			})
		})
	}
}

// cookies 10: the clock of the writer may run ahead by a minute.
func TestIssuedInTheFuture(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			texts := map[time.Duration]string{}
			for _, ahead := range []time.Duration{59 * time.Second, 60 * time.Second, 61 * time.Second} {
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(ahead)
					texts[ahead] = encode(t, build(t, cookies.Config[string]{}, kind.make), "v", "")
				})
			}
			synctest.Test(t, func(t *testing.T) {
				c := build(t, cookies.Config[string]{}, kind.make)
				for ahead, text := range texts {
					_, _, err := c.Decode(text, "")
					if want := map[bool]error{true: cookies.ErrInvalid}[ahead > 60*time.Second]; err != want {
						t.Errorf("%v ahead: %v", ahead, err)
					}
				}
			})
		})
	}
}

// A refresh keeps the end of a value's life, and its Max-Age with it; with
// Sliding the life begins again once half of it is over.
func TestRefreshAndLife(t *testing.T) {
	for _, sliding := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			old := sealed(t, cookies.Config[string]{Keys: keys(keyA), MaxAge: 100 * time.Second, Sliding: sliding})
			c := sealed(t, cookies.Config[string]{Keys: keys(keyB, keyA), MaxAge: 100 * time.Second, Sliding: sliding})
			w := httptest.NewRecorder()
			if err := old.Set(w, nil, "v"); err != nil {
				t.Fatal(err)
			}
			born := time.Now()
			r := browse(request(), w)

			time.Sleep(40 * time.Second)
			w = httptest.NewRecorder()
			if did, err := c.Refresh(w, r); !did || err != nil {
				t.Fatal(did, err)
			}
			r = browse(r, w)
			_, info, err := c.Get(r)
			if err != nil || !info.IssuedAt.Equal(born) || info.ExpiresAt.Sub(born) != 100*time.Second || setCookies(w)["theme"].MaxAge != 60 {
				t.Errorf("sliding %v: after a change of key: %+v, %v, %q", sliding, info, err, w.Header())
			}

			time.Sleep(11 * time.Second) // 51 s old
			if _, info, _ := c.Get(r); info.NeedsRefresh != sliding {
				t.Errorf("sliding %v: past half of its life: %+v", sliding, info)
			}
			w = httptest.NewRecorder()
			did, err := c.Refresh(w, r)
			if did != sliding || err != nil {
				t.Errorf("sliding %v: Refresh: %v, %v", sliding, did, err)
			}
			if sliding {
				r = browse(r, w)
				if _, info, err := c.Get(r); err != nil || !info.IssuedAt.Equal(time.Now()) || setCookies(w)["theme"].MaxAge != 100 {
					t.Errorf("a life anew: %+v, %v, %q", info, err, w.Header())
				}
			}
			time.Sleep(50 * time.Second) // 101 s
			if _, _, err := c.Get(r); (err == nil) != sliding {
				t.Errorf("sliding %v: 101 s after the beginning: %v", sliding, err)
			}
		})
	}
}

// In its last second a value has no time left, and Max-Age=0 would delete it.
func TestRefreshInLastSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := sealed(t, cookies.Config[string]{Keys: keys(keyA), MaxAge: time.Second})
		c := sealed(t, cookies.Config[string]{Keys: keys(keyB, keyA)})
		r := request("theme=" + encode(t, old, "v", ""))
		time.Sleep(time.Second)
		w := httptest.NewRecorder()
		if did, err := c.Refresh(w, r); !did || err != nil || setCookies(w)["theme"].MaxAge != 1 {
			t.Errorf("%v, %v, %q", did, err, w.Header())
		}
		session := sealed(t, cookies.Config[string]{Keys: keys(keyB, keyA), Session: true})
		w = httptest.NewRecorder()
		if did, err := session.Refresh(w, r); !did || err != nil || setCookies(w)["theme"].MaxAge != 0 {
			t.Errorf("Session: %v, %v, %q", did, err, w.Header())
		}
	})
}

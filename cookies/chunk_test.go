package cookies_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/cookies"
)

// largest returns the longest payload of c that Set takes, and checks that one
// byte more is ErrTooLarge and leaves the response as it was.
func largest(t *testing.T, c *cookies.Cookie[string]) string {
	t.Helper()
	n := 0
	for step := 1 << 14; step > 0; step /= 2 {
		if c.Set(httptest.NewRecorder(), nil, strings.Repeat("x", n+step)) == nil {
			n += step
		}
	}
	w := httptest.NewRecorder()
	w.Header().Set("Set-Cookie", "other=1")
	if err := c.Set(w, nil, strings.Repeat("x", n+1)); err != cookies.ErrTooLarge || len(w.Header()["Set-Cookie"]) != 1 {
		t.Errorf("one byte more: %v, %d lines", err, len(w.Header()["Set-Cookie"]))
	}
	if _, err := c.Encode(strings.Repeat("x", n+1), ""); err != cookies.ErrTooLarge {
		t.Errorf("Encode of one byte more: %v", err)
	}
	return strings.Repeat("x", n)
}

// cookies 15: name and value have 4096 bytes together and not one more, whatever
// the length of the name leaves of a group of base64.
func TestSizeLimit(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			exact := 0
			for n := 1; n <= 4; n++ {
				c := build(t, cookies.Config[string]{Name: strings.Repeat("n", n)}, kind.make)
				v := largest(t, c)
				w := httptest.NewRecorder()
				if err := c.Set(w, nil, v); err != nil {
					t.Fatal(err)
				}
				set := setCookies(w)[c.Name()]
				size := len(set.Name) + len(set.Value)
				if size > 4096 || size < 4094 {
					t.Errorf("name of %d bytes: the largest has %d bytes", n, size)
				}
				if size == 4096 {
					exact++
				}
				if got, _, err := c.Get(browse(request(), w)); got != v || err != nil {
					t.Errorf("read back: %d bytes, %v", len(got), err)
				}
				long := request(c.Name() + "=" + set.Value + strings.Repeat("A", 4097-size))
				if _, _, err := c.Get(long); err != cookies.ErrInvalid {
					t.Errorf("a value of 4097 bytes: %v", err)
				}
			}
			if exact == 0 {
				t.Error("no name had a value of exactly 4096 bytes")
			}
		})
	}
}

// A value of any length that fits is spread over as few cookies as it takes, none
// of which is too large, and comes back.
func TestChunks(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			c := build(t, cookies.Config[string]{Chunks: 4}, kind.make)
			most := len(largest(t, c))
			if most < 4*3000 || most > 4*3072 {
				t.Errorf("four cookies hold %d bytes", most)
			}
			one := len(largest(t, build(t, cookies.Config[string]{}, kind.make)))
			before := 0
			for _, n := range []int{0, one - 1, one, one + 1, one + 2, 2*one - 60, 2*one + 60, 3 * one, most - 1, most} {
				w := httptest.NewRecorder()
				v := strings.Repeat("v", n)
				if err := c.Set(w, nil, v); err != nil {
					t.Fatalf("%d bytes: %v", n, err)
				}
				set := setCookies(w)
				if len(set) < before || (len(set) == 1) != (n <= one) {
					t.Errorf("%d bytes are in %d cookies, fewer were in %d", n, len(set), before)
				}
				before = len(set)
				for name, cookie := range set {
					if len(name)+len(cookie.Value) > 4096 || cookie.MaxAge != 86400 || !cookie.Secure || cookie.Path != "/" {
						t.Errorf("%s has %d bytes, attributes %q", name, len(name)+len(cookie.Value), cookie.Raw[len(cookie.Raw)-60:])
					}
				}
				if got, _, err := c.Get(browse(request(), w)); got != v || err != nil {
					t.Errorf("%d bytes: %d came back, %v", n, len(got), err)
				}
			}
			if before != 4 {
				t.Errorf("the largest is in %d cookies", before)
			}
		})
	}
}

// cookies 22: a chunk that is missing, of another value or of a count that is not
// allowed makes the value invalid; one too many changes nothing.
func TestChunksMixed(t *testing.T) {
	c := sealed(t, cookies.Config[string]{Chunks: 3})
	two := sealed(t, cookies.Config[string]{Chunks: 2})
	one := sealed(t, cookies.Config[string]{})
	parts := func(v string) map[string]string {
		w := httptest.NewRecorder()
		if err := c.Set(w, nil, v); err != nil {
			t.Fatal(err)
		}
		all := map[string]string{}
		for name, cookie := range setCookies(w) {
			all[name] = cookie.Value
		}
		return all
	}
	send := func(c *cookies.Cookie[string], m map[string]string, more ...string) error {
		var pairs []string
		for _, name := range slices.Sorted(maps.Keys(m)) {
			pairs = append(pairs, name+"="+m[name])
		}
		v, _, err := c.Get(request(append([]string{strings.Join(pairs, "; ")}, more...)...))
		if err == nil && !strings.HasPrefix(v, "a") {
			t.Errorf("read %.8q", v)
		}
		return err
	}
	with := func(m map[string]string, name, value string) map[string]string {
		m = maps.Clone(m)
		m[name] = value
		if value == "" {
			delete(m, name)
		}
		return m
	}
	a, b := parts(strings.Repeat("a", 8000)), parts(strings.Repeat("b", 8000))
	if len(a) != 3 || !strings.HasPrefix(a["theme"], "3~e1.") {
		t.Fatalf("%d chunks, the first begins %.10q", len(a), a["theme"])
	}
	small := parts("a")
	for _, tc := range []struct {
		name string
		err  error
		want error
	}{
		{"all", send(c, a), nil},
		{"the last of another", send(c, with(a, "theme~2", b["theme~2"])), cookies.ErrInvalid},
		{"the middle of another", send(c, with(a, "theme~1", b["theme~1"])), cookies.ErrInvalid},
		{"the first of another", send(c, with(a, "theme", b["theme"])), cookies.ErrInvalid},
		{"exchanged", send(c, with(with(a, "theme~1", a["theme~2"]), "theme~2", a["theme~1"])), cookies.ErrInvalid},
		{"one missing", send(c, with(a, "theme~1", "")), cookies.ErrInvalid},
		{"the last missing", send(c, with(a, "theme~2", "")), cookies.ErrInvalid},
		{"the first missing", send(c, with(a, "theme", "")), cookies.ErrNotFound},
		{"count too small", send(c, with(a, "theme", "2"+a["theme"][1:])), cookies.ErrInvalid},
		{"count of one", send(c, with(small, "theme", "1~"+small["theme"])), cookies.ErrInvalid},
		{"count of zero", send(c, with(small, "theme", "0~"+small["theme"])), cookies.ErrInvalid},
		{"count above the limit", send(c, with(with(a, "theme", "4"+a["theme"][1:]), "theme~3", "x")), cookies.ErrInvalid},
		{"count above that of the reader", send(two, a), cookies.ErrInvalid},
		{"reader without chunks", send(one, a), cookies.ErrInvalid},
		{"count that is no digit", send(c, with(a, "theme", ":"+a["theme"][1:])), cookies.ErrInvalid},
		{"one too many", send(c, with(small, "theme~1", "x")), nil},
		{"a fourth", send(c, with(a, "theme~3", "x")), nil},
		{"two of a chunk", send(c, a, "theme~1=x"), cookies.ErrInvalid},
		{"the same chunk twice", send(c, a, "theme~1="+a["theme~1"]), nil},
		{"two first ones", send(c, a, "theme="+b["theme"]), nil},
		{"a small one beside", send(c, a, "theme="+small["theme"]), cookies.ErrInvalid},
		{"oversized chunk", send(c, with(a, "theme~1", strings.Repeat("A", 9000))), cookies.ErrInvalid},
		{"empty chunks", send(c, map[string]string{"theme": "3~", "theme~1": "", "theme~2": ""}), cookies.ErrInvalid},
	} {
		if tc.err != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, tc.err, tc.want)
		}
	}
}

// cookies 22: a shorter value takes the chunks of a longer one with it, those
// that the browser has and those that the same response had set.
func TestChunksShrink(t *testing.T) {
	c := sealed(t, cookies.Config[string]{Chunks: 4})
	long := strings.Repeat("v", 12000)
	w := httptest.NewRecorder()
	if err := c.Set(w, nil, long); err != nil {
		t.Fatal(err)
	}
	if n := len(w.Header()["Set-Cookie"]); n != 4 {
		t.Fatalf("%d chunks", n)
	}
	held := browse(request(), w)

	check := func(name string, w *httptest.ResponseRecorder, r *http.Request, want string, lines int) {
		t.Helper()
		set := w.Header()["Set-Cookie"]
		if len(set) != lines {
			t.Errorf("%s: %d lines: %.60q", name, len(set), set)
		}
		back := browse(r, w)
		v, _, err := c.Get(back)
		if want == "" && err != cookies.ErrNotFound || want != "" && v != want {
			t.Errorf("%s: read %d bytes, %v", name, len(v), err)
		}
		kept := len(back.Cookies())
		if deleted := strings.Count(strings.Join(set, "\n"), "Max-Age=0"); kept != lines-deleted {
			t.Errorf("%s: the browser keeps %d cookies, %d were deleted", name, kept, deleted)
		}
	}
	w = httptest.NewRecorder()
	c.Set(w, held, "short")
	check("one instead of four", w, held, "short", 4)

	w = httptest.NewRecorder()
	c.Set(w, held, long[:4000])
	check("two instead of four", w, held, long[:4000], 4)

	w = httptest.NewRecorder()
	c.Set(w, request(), long)
	c.Set(w, request(), "short")
	check("in one response", w, request(), "short", 4)

	w = httptest.NewRecorder()
	c.Set(w, request(), "short")
	check("nothing to delete", w, request(), "short", 1)

	w = httptest.NewRecorder()
	c.Delete(w)
	check("Delete", w, held, "", 4)
}

// A value in chunks is refreshed like any other.
func TestChunksRefresh(t *testing.T) {
	old := sealed(t, cookies.Config[string]{Keys: keys(keyA), Chunks: 4})
	c := sealed(t, cookies.Config[string]{Keys: keys(keyB, keyA), Chunks: 4})
	long := largest(t, c)
	w := httptest.NewRecorder()
	if err := old.Set(w, nil, long); err != nil {
		t.Fatal(err)
	}
	r := browse(request(), w)
	w = httptest.NewRecorder()
	if did, err := c.Refresh(w, r); !did || err != nil {
		t.Fatal(did, err)
	}
	if v, info, err := c.Get(browse(r, w)); v != long || err != nil || info.NeedsRefresh {
		t.Errorf("got %d bytes, %+v, %v", len(v), info, err)
	}
}

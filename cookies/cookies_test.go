package cookies_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/cookies"
)

// The life of a value: set, sent back, read, deleted.
func TestRoundTrip(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			c := build(t, cookies.Config[string]{Name: cookies.HostOnly("theme"), MaxAge: time.Hour}, kind.make)
			r, w := request(), httptest.NewRecorder()
			if _, _, err := c.Get(r); err != cookies.ErrNotFound || !errors.Is(err, http.ErrNoCookie) {
				t.Fatalf("no cookie: %v", err)
			}
			if err := c.Set(w, r, "dark"); err != nil {
				t.Fatal(err)
			}
			set := setCookies(w)["__Host-Http-theme"]
			if set == nil || set.MaxAge != 3600 || !set.Secure || !set.HttpOnly || set.Path != "/" || set.Domain != "" || set.SameSite != http.SameSiteLaxMode {
				t.Fatalf("set %q", w.Header()["Set-Cookie"])
			}
			r = browse(r, w)
			v, info, err := c.Get(r)
			if v != "dark" || err != nil {
				t.Fatalf("got %q, %v", v, err)
			}
			if info.ExpiresAt.Sub(info.IssuedAt) != time.Hour || time.Since(info.IssuedAt).Abs() > time.Minute || len(info.KeyID) != 4 || info.NeedsRefresh {
				t.Errorf("got %+v", info)
			}
			w = httptest.NewRecorder()
			c.Delete(w)
			if got := w.Header().Get("Set-Cookie"); got != "__Host-Http-theme=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax" {
				t.Errorf("deleted with %q", got)
			}
			if _, _, err := c.Get(browse(r, w)); err != cookies.ErrNotFound {
				t.Errorf("after Delete: %v", err)
			}
		})
	}
}

// The wire format is that of the package comment: values of an independent
// implementation are read, with every part of them as it was put in.
func TestValues(t *testing.T) {
	for _, v := range readValues(t, "testdata/values.json") {
		t.Run(fmt.Sprintf("%s %.8s %s", v.Suite, v.Name, v.Text[3:7]), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				key, err := hex.DecodeString(v.Key)
				if err != nil {
					t.Fatal(err)
				}
				cfg := cookies.Config[string]{Name: v.Name, Keys: keys(key), Codec: cookies.String(), MaxAge: cookies.MaxAgeLimit}
				make := map[string]func(cookies.Config[string]) (*cookies.Cookie[string], error){
					"e1": cookies.NewSealed[string], "s1": cookies.NewSigned[string],
				}[v.Suite]
				c := must[string](t)(make(cfg))
				got, info, err := c.Decode(v.Text, v.Binding)
				if err != nil || got != v.Payload || info.IssuedAt.Unix() != v.Issued || info.ExpiresAt.Unix() != v.Expires {
					t.Errorf("got %q, %+v, %v", got, info, err)
				}
				if info.KeyID != v.Text[3:7] {
					t.Errorf("key id %q", info.KeyID)
				}
				ours := encode(t, c, v.Payload, v.Binding)
				if len(ours) != len(v.Text) || ours[:8] != v.Text[:8] {
					t.Errorf("ours is %q", ours)
				}
			})
		})
	}
}

// What stands where in the attributes.
func TestSetAttributes(t *testing.T) {
	for _, c := range []struct {
		name   string
		config cookies.Config[string]
		want   string
	}{
		{"default", cookies.Config[string]{}, "; Max-Age=86400; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"session", cookies.Config[string]{Session: true}, "; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"everything", cookies.Config[string]{
			MaxAge: cookies.MaxAgeLimit, Domain: "example.com", Path: "/shop", SameSite: http.SameSiteNoneMode, Partitioned: true, ScriptReadable: true,
		}, "; Max-Age=34560000; Path=/shop; Domain=example.com; Secure; SameSite=None; Partitioned"},
		{"insecure", cookies.Config[string]{Insecure: true, SameSite: http.SameSiteStrictMode}, "; Max-Age=86400; Path=/; HttpOnly; SameSite=Strict"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			cookie := sealed(t, c.config)
			if err := cookie.Set(w, nil, "x"); err != nil {
				t.Fatal(err)
			}
			line := w.Header().Get("Set-Cookie")
			if _, attributes, _ := strings.Cut(line, ";"); ";"+attributes != c.want {
				t.Errorf("got %q", line)
			}
			if _, err := http.ParseSetCookie(line); err != nil {
				t.Errorf("%q: %v", line, err)
			}
			w = httptest.NewRecorder()
			cookie.Delete(w)
			_, want, _ := strings.Cut(c.want, "; Path")
			if got := w.Header().Get("Set-Cookie"); got != "theme=; Max-Age=0; Path"+want {
				t.Errorf("deleted with %q", got)
			}
		})
	}
}

// One response has one decision about a cookie, the last one; the cookies of
// others stay, and no slice that somebody may hold is written to.
func TestSetReplaces(t *testing.T) {
	c := sealed(t, cookies.Config[string]{})
	other := sealed(t, cookies.Config[string]{Name: "theme2"})
	domain := sealed(t, cookies.Config[string]{Domain: "example.com"})
	w := httptest.NewRecorder()
	w.Header().Set("Set-Cookie", "theme-x=1")
	if err := errors.Join(c.Set(w, nil, "one"), other.Set(w, nil, "other"), domain.Set(w, nil, "wide")); err != nil {
		t.Fatal(err)
	}
	held := w.Header()["Set-Cookie"]
	before := slices.Clone(held)
	if err := c.Set(w, nil, "two"); err != nil {
		t.Fatal(err)
	}
	lines := w.Header()["Set-Cookie"]
	if len(lines) != 4 || !slices.Equal(held, before) {
		t.Fatalf("got %q", lines)
	}
	text, _, _ := strings.Cut(strings.TrimPrefix(lines[3], "theme="), ";")
	if v, _, err := c.Decode(text, ""); v != "two" || err != nil {
		t.Errorf("the last line has %q, %v", v, err)
	}
	c.Delete(w)
	if lines = w.Header()["Set-Cookie"]; len(lines) != 4 || !strings.HasPrefix(lines[3], "theme=; Max-Age=0") {
		t.Errorf("after Delete: %q", lines)
	}
}

// cookies 2: a value belongs to the cookie that it was made for, by its full
// name.
func TestNameBinds(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			names := []string{"a", "b", "A", "__Host-a", "__Secure-a", "aa"}
			for _, from := range names {
				text := encode(t, build(t, cookies.Config[string]{Name: from}, kind.make), "v", "")
				for _, to := range names {
					_, _, err := build(t, cookies.Config[string]{Name: to}, kind.make).Get(request(to + "=" + text))
					if (err == nil) != (from == to) || err != nil && err != cookies.ErrInvalid {
						t.Errorf("made for %s, read as %s: %v", from, to, err)
					}
				}
			}
		})
	}
}

// cookies 3: one key serves both protections, and neither takes the other's
// values, not even with the version changed.
func TestKindsDoNotMix(t *testing.T) {
	a, b := build(t, cookies.Config[string]{}, kinds[0].make), build(t, cookies.Config[string]{}, kinds[1].make)
	texts := []string{encode(t, a, "v", ""), encode(t, b, "v", "")}
	for i, c := range []*cookies.Cookie[string]{a, b} {
		foreign := texts[1-i]
		for _, text := range []string{foreign, texts[i][:3] + foreign[3:]} {
			if _, _, err := c.Decode(text, ""); err != cookies.ErrInvalid {
				t.Errorf("%s read %q: %v", kinds[i].name, text, err)
			}
		}
	}
}

// A value is bound to what Bind says, by Set, Get, Refresh and Encode alike.
func TestBind(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			tenant := func(r *http.Request) string { return r.Header.Get("X-Tenant") }
			c := build(t, cookies.Config[string]{Bind: tenant}, kind.make)
			r := request()
			r.Header.Set("X-Tenant", "seven")
			w := httptest.NewRecorder()
			if err := c.Set(w, r, "v"); err != nil {
				t.Fatal(err)
			}
			text := setCookies(w)["theme"].Value
			if v, _, err := c.Decode(text, "seven"); v != "v" || err != nil {
				t.Errorf("the same binding: %q, %v", v, err)
			}
			back := browse(r, w)
			if _, _, err := c.Get(back); err != cookies.ErrInvalid {
				t.Errorf("no tenant: %v", err)
			}
			back.Header.Set("X-Tenant", "eight")
			if _, _, err := c.Get(back); err != cookies.ErrInvalid {
				t.Errorf("another tenant: %v", err)
			}
			back.Header.Set("X-Tenant", "seven")
			if v, _, err := c.Get(back); v != "v" || err != nil {
				t.Errorf("the tenant: %q, %v", v, err)
			}
			// Name and binding do not run into each other.
			if _, _, err := build(t, cookies.Config[string]{Name: "themes"}, kind.make).Decode(text, "even"); err != cookies.ErrInvalid {
				t.Errorf("the boundary moved: %v", err)
			}

			long := strings.Repeat("x", 65536)
			back.Header.Set("X-Tenant", long)
			if _, _, err := c.Get(back); err != cookies.ErrInvalid {
				t.Errorf("a binding that is too long, Get: %v", err)
			}
			w = httptest.NewRecorder()
			if err := c.Set(w, back, "v"); err == nil || len(w.Header()) != 0 {
				t.Errorf("a binding that is too long, Set: %v, %v", err, w.Header())
			}
			if _, err := c.Encode("v", long); err == nil {
				t.Error("a binding that is too long, Encode: no error")
			}
			if _, _, err := c.Decode(text, long); err != cookies.ErrInvalid {
				t.Errorf("a binding that is too long, Decode: %v", err)
			}
		})
	}
}

// cookies 21: of several cookies of one name exactly one is valid, or none
// counts.
func TestDuplicates(t *testing.T) {
	c := sealed(t, cookies.Config[string]{Keys: keys(keyA)})
	ours, theirs := encode(t, c, "ours", ""), encode(t, c, "theirs", "")
	stranger := encode(t, sealed(t, cookies.Config[string]{Keys: keys(keyB)}), "x", "")
	const junk = "e1.AAAA.AAAA"
	for _, tc := range []struct {
		name  string
		lines []string
		want  error
	}{
		{"before a foreign one", []string{"theme=" + ours + "; theme=" + junk}, nil},
		{"after a foreign one", []string{"theme=" + stranger + "; a=b; theme=" + ours}, nil},
		{"in two fields", []string{"theme=" + junk, "theme=" + ours}, nil},
		{"the same twice", []string{"theme=" + ours + "; theme=" + ours}, nil},
		{"two valid ones", []string{"theme=" + ours + "; theme=" + theirs}, cookies.ErrInvalid},
		{"two valid ones and junk", []string{"theme=" + theirs, "theme=" + junk + "; theme=" + ours}, cookies.ErrInvalid},
		{"the fourth", []string{"theme=1; theme=2; theme=3; theme=" + ours}, nil},
		{"the fifth, and a valid one before", []string{"theme=" + theirs + "; theme=2; theme=3; theme=4; theme=" + ours}, cookies.ErrInvalid},
		{"junk and an unknown key", []string{"theme=junk; theme=" + stranger}, cookies.ErrUnknownKey},
		{"another case", []string{"Theme=" + theirs + "; theme=" + ours}, nil},
		{"quoted", []string{`theme="` + ours + `"`}, cookies.ErrInvalid},
		{"empty", []string{"theme="}, cookies.ErrInvalid},
		{"no equals sign", []string{"theme; themes=1"}, cookies.ErrNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, _, err := c.Get(request(tc.lines...))
			if err != tc.want || err == nil && v != "ours" {
				t.Errorf("got %q, %v; want %v", v, err, tc.want)
			}
		})
	}
}

// OnRead hears of every value that a request brought.
func TestOnRead(t *testing.T) {
	var heard []string
	c := sealed(t, cookies.Config[string]{OnRead: func(r *http.Request, info cookies.Info, err error) {
		heard = append(heard, fmt.Sprint(r.URL.Path, " ", info.KeyID, " ", err))
	}})
	text := encode(t, c, "v", "")
	c.Get(request())
	c.Get(request("theme=" + text))
	c.Get(request("theme=x"))
	c.Refresh(httptest.NewRecorder(), request("theme="+text))
	c.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), request("theme="+text))
	want := []string{"/ " + text[3:7] + " <nil>", "/  cookies: invalid value", "/ " + text[3:7] + " <nil>", "/ " + text[3:7] + " <nil>"}
	if !slices.Equal(heard, want) {
		t.Errorf("heard %q", heard)
	}
}

// A codec's failures are its own; on reading they say no more than that.
func TestCodecErrors(t *testing.T) {
	type object struct{ N int }
	c := must[object](t)(cookies.NewSealed(cookies.Config[object]{Name: "theme", Keys: keys(keyA)}))
	text := encode(t, sealed(t, cookies.Config[string]{}), `{"N":"secret"}`, "")
	v, info, err := c.Get(request("theme=" + text))
	if v != (object{}) || info != (cookies.Info{}) || !errors.Is(err, cookies.ErrInvalid) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, %v, %v", v, info, err)
	}
	if e, ok := errors.AsType[*cookies.CodecError](err); !ok || e.Unwrap() == nil {
		t.Errorf("%T", err)
	}

	bad := must[any](t)(cookies.NewSealed(cookies.Config[any]{Name: "theme", Keys: keys(keyA)}))
	w := httptest.NewRecorder()
	if err := bad.Set(w, nil, func() {}); err == nil || !strings.HasPrefix(err.Error(), "cookies: Codec: ") || len(w.Header()) != 0 {
		t.Errorf("Set: %v, %v", err, w.Header())
	}
	short := sealed(t, cookies.Config[string]{Codec: shortCodec{}})
	if err := short.Set(w, nil, "v"); err == nil || len(w.Header()) != 0 {
		t.Errorf("Set with a codec that cuts: %v, %v", err, w.Header())
	}
}

// shortCodec loses what it was given.
type shortCodec struct{ cookies.Codec[string] }

func (shortCodec) Append([]byte, string) ([]byte, error) { return nil, nil }

// The three codecs give back what they were given, and bytes that were decoded
// stay as they are when further values are.
func TestCodecs(t *testing.T) {
	b := must[[]byte](t)(cookies.NewSigned(cookies.Config[[]byte]{Name: "b", Keys: keys(keyA), Codec: cookies.Bytes()}))
	var texts []string
	for i := range 20 {
		text, err := b.Encode([]byte{byte(i), 0, 255}, "")
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	var got [][]byte
	for _, text := range texts {
		v, _, err := b.Decode(text, "")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, v)
	}
	for i, v := range got {
		if !slices.Equal(v, []byte{byte(i), 0, 255}) {
			t.Errorf("value %d became %v", i, v)
		}
	}

	j := must[map[string]int](t)(cookies.NewSigned(cookies.Config[map[string]int]{Name: "j", Keys: keys(keyA), Codec: cookies.JSON[map[string]int]()}))
	text, err := j.Encode(map[string]int{"a": 1}, "")
	if err != nil {
		t.Fatal(err)
	}
	if m, _, err := j.Decode(text, ""); err != nil || m["a"] != 1 {
		t.Errorf("got %v, %v", m, err)
	}
}

// A cookie is used by many requests at once.
func TestConcurrentUse(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			c := build(t, cookies.Config[string]{Keys: keys(keyA, keyB)}, kind.make)
			done := make(chan error)
			for g := range 8 {
				go func() {
					done <- func() error {
						for i := range 100 {
							want := strings.Repeat(fmt.Sprint(g, " ", i), 1+i)
							w := httptest.NewRecorder()
							if err := c.Set(w, nil, want); err != nil {
								return err
							}
							if v, _, err := c.Get(browse(request(), w)); v != want {
								return fmt.Errorf("got %q, %v", v, err)
							}
						}
						return nil
					}()
				}()
			}
			for range 8 {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

package paginate_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"example.com/plainware/paginate"
)

// paginate 17: what is written is read back the same.
func FuzzLink(f *testing.F) {
	f.Add("/a?b=c,d;e", "next", "title", `say "x, y"`)
	f.Add("", `prev "\`, "a", "")
	f.Add("x", "", "rel", "y")
	f.Fuzz(func(t *testing.T, target, rel, name, value string) {
		l := paginate.Link{Target: target, Rel: rel, Params: paginate.Params("").With(name, value)}
		b, err := paginate.AppendLink([]byte("<first>"), l)
		if err != nil {
			return
		}
		links := paginate.ParseLinks(nil, string(b))
		if len(links) != 2 || links[0].Target != "first" {
			t.Fatalf("%q is read as %q", b, links)
		}
		got := links[1]
		if got.Target != target || rel != "" && got.Rel != rel {
			t.Fatalf("%q is read as %q", b, got)
		}
		if l.Params != "" && !(strings.EqualFold(name, "rel") && rel != "") {
			if v, ok := got.Params.Get(name); !ok || v != value {
				t.Fatalf("%s in %q is read as %q", name, b, v)
			}
		}
	})
}

// Whatever stands in a Link field: what was read can be written and read again,
// and the targets are parts of the field.
func FuzzParseLinks(f *testing.F) {
	f.Add(github)
	f.Add(`<a>; rel="x\"y"; title*=UTF-8''%20 , <b`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, l := range paginate.ParseLinks(nil, s) {
			if !strings.Contains(s, "<"+l.Target+">") || !strings.Contains(s, string(l.Params)) {
				t.Fatalf("%+v is not in %q", l, s)
			}
			b, err := paginate.AppendLink(nil, l)
			if err != nil {
				continue // more is read than may be written
			}
			again := paginate.ParseLinks(nil, string(b))
			if len(again) != 1 || again[0].Target != l.Target || again[0].Rel != l.Rel {
				t.Fatalf("%+v is written as %q", l, b)
			}
		}
	})
}

// Any query either gives a page within the bounds, whose links are one field
// value that leads to the same list, or is refused.
func FuzzQuery(f *testing.F) {
	f.Add("limit=5&cursor=AQEA&x=y")
	f.Add("a=%zz&limit=+&b=>%0d\r\n")
	p, err := paginate.New(paginate.Config{Keys: [][]byte{keyA}, Max: 100})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		r := &http.Request{Method: "GET", URL: &url.URL{Path: "/l", RawQuery: raw}}
		q, err := p.Parse(r)
		if err != nil {
			return
		}
		if q.Size < 1 || q.Size > 100 {
			t.Fatal(q.Size)
		}
		q.Size = 1
		page, err := paginate.Cut(q, []row{{1, 2}, {3, 4}}, func(r row) row { return r })
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		page.SetLinks(h, q)
		links := paginate.ParseLinks(nil, h["Link"]...)
		if len(links) < 2 || links[0].Rel != "first" || links[1].Rel != "next" || strings.ContainsAny(h.Get("Link"), "\r\n\x00") {
			t.Fatalf("%q", h)
		}
		next, err := url.Parse(links[1].Target)
		if err != nil {
			t.Fatal(err)
		}
		r.URL = &url.URL{Path: "/l", RawQuery: next.RawQuery}
		if q, err = p.Parse(r); err != nil {
			t.Fatalf("the link %q of %q: %v", next, raw, err)
		}
		if k, ok, err := paginate.After[row](q); k != (row{1, 2}) || !ok || err != nil {
			t.Fatal(k, ok, err)
		}
	})
}

// Nothing but what was given out is opened.
func FuzzCursor(f *testing.F) {
	f.Add("AQEAAAAAAAB7fQ")
	f.Add("AgEAAAAAAAB7fQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	var pagers []*paginate.Pager
	for _, encrypt := range []bool{false, true} {
		p, err := paginate.New(paginate.Config{Keys: [][]byte{keyA, keyB}, Encrypt: encrypt})
		if err != nil {
			f.Fatal(err)
		}
		pagers = append(pagers, p)
		f.Add(cursorOf(f, p, "/other", row{1, 2}))
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		r := &http.Request{Method: "GET", URL: &url.URL{Path: "/l", RawQuery: "cursor=" + url.QueryEscape(cursor)}}
		for _, p := range pagers {
			if q, err := p.Parse(r); err == nil && cursor != "" || q.HasCursor() {
				t.Fatalf("%q was opened", cursor)
			}
		}
	})
}

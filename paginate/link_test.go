package paginate_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"example.com/plainware/paginate"
)

// show writes links in a form that is easy to compare.
func show(links []paginate.Link) string {
	var b strings.Builder
	for _, l := range links {
		fmt.Fprintf(&b, "[%s|%s", l.Target, l.Rel)
		for name, value := range l.Params.All() {
			if !strings.EqualFold(name, "rel") {
				fmt.Fprintf(&b, "|%s=%s", name, value)
			}
		}
		b.WriteByte(']')
	}
	return b.String()
}

// paginate 16: what other parsers get wrong, the examples of RFC 8288, section
// 3.5, and what is broken.
func TestParseLinks(t *testing.T) {
	for in, want := range map[string]string{
		`<https://h/?ids=1,2,3>; rel="next"`:      `[https://h/?ids=1,2,3|next]`,
		`<https://h/?a=1;b=2>; rel="next"`:        `[https://h/?a=1;b=2|next]`,
		`<a>; rel=next, <b>; rel=prev`:            `[a|next][b|prev]`,
		`<a>; REL="next"`:                         `[a|next]`,
		`<a> ; rel = "next"`:                      `[a|next]`,
		"<a>\t;\trel\t=\tnext\t,\t<b>;rel=prev":   `[a|next][b|prev]`,
		`<a>; rel="next"; rel="prev"`:             `[a|next]`,
		`<a>; rel="prev next"`:                    `[a|prev next]`,
		`<a>; title="a, b"; rel=next, <b>;rel=x`:  `[a|next|title=a, b][b|x]`,
		`<a>; title="a \"b\" \\"; rel=next`:       `[a|next|title=a "b" \]`,
		`<a>; title="x;rel=evil"; rel=next`:       `[a|next|title=x;rel=evil]`,
		`<a>;rel=next;`:                           `[a|next]`,
		`<a>;;rel=next`:                           `[a|next]`,
		`,, <a>; rel=next,,<b>;rel=prev,`:         `[a|next][b|prev]`,
		`<a>; rel`:                                `[a|]`,
		`<a>; rel=`:                               `[a|]`,
		`<a>; rel=""`:                             `[a|]`,
		`<a>`:                                     `[a|]`,
		`<>; rel=self`:                            `[|self]`,
		`<a>; anchor="#foo"; rel=next`:            `[a|next|anchor=#foo]`,
		`<a>; rel="x\"y"`:                         `[a|x"y]`,
		`<a; rel=next`:                            ``,
		`a; rel=next, <b>; rel=prev`:              ``,
		`<a>; rel="next`:                          `[a|next]`,
		`<a>; rel="next\`:                         `[a|next\]`,
		`<a>; title="x, <b>; rel=next`:            `[a||title=x, <b>; rel=next]`,
		`<a> junk, <b>; rel=next`:                 `[a|][b|next]`,
		`<a>; rel="next" junk; rel=x, <b>; rel=y`: `[a|next][b|y]`,
		``:                  ``,
		` , `:               ``,
		`<a>; =x; rel=next`: `[a|next]`,

		// RFC 8288, section 3.5.
		`<http://example.com/TheBook/chapter2>; rel="previous"; title="previous chapter"`: `[http://example.com/TheBook/chapter2|previous|title=previous chapter]`,
		`</>; rel="http://example.net/foo"`:                                               `[/|http://example.net/foo]`,
		`</terms>; rel="copyright"; anchor="#foo"`:                                        `[/terms|copyright|anchor=#foo]`,
		`</TheBook/chapter2>; rel="previous"; title*=UTF-8'de'letztes%20Kapitel, </TheBook/chapter4>; rel="next"; title*=UTF-8'de'n%c3%a4chstes%20Kapitel`: `[/TheBook/chapter2|previous|title*=UTF-8'de'letztes%20Kapitel][/TheBook/chapter4|next|title*=UTF-8'de'n%c3%a4chstes%20Kapitel]`,
		`<http://example.org/>; rel="start http://example.net/relation/other"`:                                                                             `[http://example.org/|start http://example.net/relation/other]`,
		`<https://example.org/>; rel="start", <https://example.org/index>; rel="index"`:                                                                    `[https://example.org/|start][https://example.org/index|index]`,
	} {
		if got := show(paginate.ParseLinks(nil, in)); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", in, got, want)
		}
	}
	// Several lines are one list, and one that is broken ends with itself.
	if got := show(paginate.ParseLinks(nil, `<a>; rel=x`, `<broken`, `<b>; rel=y`)); got != `[a|x][b|y]` {
		t.Error(got)
	}
	links := paginate.ParseLinks(nil, `<a>; TITLE=x; title=y; media`)
	if v, ok := links[0].Params.Get("Title"); v != "x" || !ok {
		t.Error(v, ok)
	}
	if _, ok := links[0].Params.Get("type"); ok {
		t.Error("a parameter that is not there")
	}
}

func TestLinkHas(t *testing.T) {
	l := paginate.Link{Rel: "prev\tNext  last"}
	for rel, want := range map[string]bool{"next": true, "PREV": true, "last": true, "nex": false, "": false, "prev next": false} {
		if l.Has(rel) != want {
			t.Error(rel)
		}
	}
}

func TestAppendLink(t *testing.T) {
	b := []byte(nil)
	for _, l := range []paginate.Link{
		{Target: "/a?x=1,2;3", Rel: "next"},
		{Target: "", Rel: "self"},
		{Target: "/b", Rel: `a "b" \c`, Params: paginate.Params("; rel=ignored").With("title", `say "hi", \o/`)},
		{Target: "/c", Params: "; rel=kept; flag; title*=UTF-8''x%20y"},
		{Target: "/d"},
	} {
		var err error
		if b, err = paginate.AppendLink(b, l); err != nil {
			t.Fatal(err)
		}
	}
	want := `</a?x=1,2;3>; rel="next", <>; rel="self", </b>; rel="a \"b\" \\c"; title="say \"hi\", \\o/", ` +
		`</c>; rel="kept"; flag=""; title*=UTF-8''x%20y, </d>`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	for _, l := range []paginate.Link{
		{Target: "/a>"}, {Target: "/a b"}, {Target: "/é"}, {Target: "/\r\nEvil: 1"}, {Target: `/"`}, {Target: "<"},
		{Target: "/", Rel: "a\nb"}, {Target: "/", Params: "title=x"}, {Target: "/", Params: "; t\nx=1"},
		{Target: "/", Params: "; a=\"\x00\""}, {Target: "/", Params: "; ="}, {Target: "/", Params: `; a="b" c`},
		{Target: "/", Params: "; a=b, </evil>; rel=next"},
	} {
		if got, err := paginate.AppendLink(b, l); err == nil || len(got) != len(b) {
			t.Errorf("%+v: %s, %v", l, got[len(b):], err)
		}
	}
	if p := paginate.Params("").With("a b", "x").With("a", "\n"); p != "" {
		t.Errorf("%q", p)
	}
}

func TestFind(t *testing.T) {
	base, _ := url.Parse("https://h/books/1?x=y")
	h := http.Header{"Link": {
		`<other>; rel=next; anchor="/books/2"`,
		`<:bad:>; rel=next, <%zz>; rel=next`,
		`<2?a=b>; rel="last next"; anchor=""`,
		`<3>; rel=next`,
	}}
	if u := paginate.Find(h, base, "next"); u == nil || u.String() != "https://h/books/2?a=b" {
		t.Error(u)
	}
	if u := paginate.Find(h, base, "prev"); u != nil {
		t.Error(u)
	}
}

// paginate 17: parsing takes linear time, however the value is made.
func TestParseLinksLinear(t *testing.T) {
	for _, unit := range []string{"<a>;", `<a>; a="\",`, "<", ",", ";", `<a>; "`, "<a>; a=b,", `<a>;x="y" `, "=;"} {
		s := strings.Repeat(unit, 1<<20/len(unit))
		start := time.Now()
		paginate.ParseLinks(nil, s)
		if d := time.Since(start); d > 5*time.Second { // linear is a hundredth of it
			t.Errorf("%q: a megabyte takes %v", unit, d)
		}
	}
}

const github = `<https://api.github.com/repositories/1300192/issues?page=2>; rel="prev", ` +
	`<https://api.github.com/repositories/1300192/issues?page=4>; rel="next", ` +
	`<https://api.github.com/repositories/1300192/issues?page=515>; rel="last", ` +
	`<https://api.github.com/repositories/1300192/issues?page=1>; rel="first"`

func TestAllocs(t *testing.T) {
	values := []string{github}
	links := make([]paginate.Link, 0, 8)
	if n := testing.AllocsPerRun(100, func() { links = paginate.ParseLinks(links[:0], values...) }); n != 0 {
		t.Errorf("ParseLinks: %v allocations", n)
	}
	l := paginate.Link{Target: "/x?page=2", Rel: "next"}
	b := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() {
		for range 4 {
			b, _ = paginate.AppendLink(b, l)
		}
		b = b[:0]
	}); n != 0 {
		t.Errorf("AppendLink: %v allocations", n)
	}
}

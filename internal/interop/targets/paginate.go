package targets

import (
	"net/http"
	"runtime"
	"testing"

	"github.com/gorilla/securecookie"
	peterhellberg "github.com/peterhellberg/link"
	tomnomnom "github.com/tomnomnom/linkheader"

	"example.com/plainware/paginate"
)

// githubLinks is what a list of GitHub's API sends on page 3.
const githubLinks = `<https://api.github.com/repositories/1300192/issues?page=2>; rel="prev", ` +
	`<https://api.github.com/repositories/1300192/issues?page=4>; rel="next", ` +
	`<https://api.github.com/repositories/1300192/issues?page=515>; rel="last", ` +
	`<https://api.github.com/repositories/1300192/issues?page=1>; rel="first"`

// position is what a cursor holds: the place of a row in an order.
type position struct {
	Created string
	ID      int64
}

func paginateMeasures() []Measure {
	values := []string{githubLinks}
	var links []paginate.Link
	four := paginate.ParseLinks(nil, githubLinks)
	theirs := tomnomnom.Parse(githubLinks)

	key := []byte("0123456789abcdef0123456789abcdef")
	at := position{"2026-11-22T01:02:03.123456789Z", 123456}
	pager := must(paginate.New(paginate.Config{Keys: [][]byte{key}, Default: 1}))
	first := must(pager.Parse(get("http://x/posts?sort=created")))
	rows := []position{at, at}
	self := func(p position) position { return p }
	next := must(pager.Parse(get("http://x/posts?sort=created&cursor=" + must(paginate.Cut(first, rows, self)).Next)))
	if k, ok, err := paginate.After[position](next); !ok || err != nil || k != at {
		panic("the cursor does not hold what it should")
	}
	request := get("http://x/posts?sort=created&cursor=" + must(paginate.Cut(first, rows, self)).Next)

	cookie := securecookie.New(key, nil).SetSerializer(securecookie.JSONEncoder{})
	encoded := must(cookie.Encode("cursor", at))

	return []Measure{
		{
			Package: "paginate", Name: "ParseLinks, 4 links",
			Ours: serial(func() { links = paginate.ParseLinks(links[:0], values...) }), MaxAllocs: -1,
			Peers: []Peer{
				{Name: "tomnomnom/linkheader", Run: serial(func() { _ = tomnomnom.Parse(githubLinks) }), MaxRatio: 0.4},
				{Name: "peterhellberg/link", Run: serial(func() { _ = peterhellberg.Parse(githubLinks) }), MaxRatio: 0.03},
			},
		},
		{
			Package: "paginate", Name: "AppendLink, 4 links",
			Ours: serial(func() {
				b := make([]byte, 0, 512)
				for _, l := range four {
					b = must(paginate.AppendLink(b, paginate.Link{Target: l.Target, Rel: l.Rel}))
				}
				runtime.KeepAlive(string(b))
			}), MaxAllocs: 1,
			Peers: []Peer{{Name: "tomnomnom/linkheader", Run: serial(func() { runtime.KeepAlive(theirs.String()) }), MaxRatio: 0.25}},
		},
		{
			Package: "paginate", Name: "cursor, encode (Cut)",
			Ours:  serial(func() { must(paginate.Cut(first, rows, self)) }),
			Peers: []Peer{{Name: "securecookie JSON", Run: serial(func() { must(cookie.Encode("cursor", at)) }), MaxRatio: 0.6}},
		},
		{
			Package: "paginate", Name: "cursor, decode (Parse, After)",
			Ours: serial(func() {
				q := must(pager.Parse(request))
				if _, ok, err := paginate.After[position](q); !ok || err != nil {
					panic("the cursor is not taken")
				}
			}),
			Peers: []Peer{{Name: "securecookie JSON", Run: serial(func() {
				var p position
				if err := cookie.Decode("cursor", encoded, &p); err != nil {
					panic(err)
				}
			}), MaxRatio: 0.7}},
		},
		{
			Package: "paginate", Name: "Handler, first page",
			Ours: func(b *testing.B) {
				h := pager.Handler(nothing)
				r := get("http://x/posts?sort=created&limit=20")
				w := &nullWriter{header: http.Header{}}
				serial(func() { h.ServeHTTP(w, r) })(b)
			}, MaxAllocs: 2,
		},
	}
}

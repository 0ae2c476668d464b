package paginate_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"example.com/plainware/paginate"
)

func linkOf(t *testing.T, p *paginate.Pager, raw string, page paginate.Page[int]) string {
	t.Helper()
	q, err := p.Parse(&http.Request{Method: "GET", Host: "evil.example", URL: &url.URL{Path: "/list", RawQuery: raw}})
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	page.SetLinks(h, q)
	return h.Get("Link")
}

// paginate 14: links keep the bytes and the order of the other parameters, and
// nothing in a query ends the link.
func TestLinkTargets(t *testing.T) {
	p := newPager(t, paginate.Config{Mode: paginate.PageNumber})
	for raw, want := range map[string]string{
		"":                              `<?>; rel="first", <?page=2>; rel="next"`,
		"page=1":                        `<?>; rel="first", <?page=2>; rel="next"`,
		"q=a%2Cb&x=1;2&page=1&x=3&flag": `<?q=a%2Cb&x=1;2&x=3&flag>; rel="first", <?q=a%2Cb&x=1;2&x=3&flag&page=2>; rel="next"`,
		"a=&b&&c==":                     `<?a=&b&c==>; rel="first", <?a=&b&c==&page=2>; rel="next"`,
		"p%61ge=1&limit=5":              `<?limit=5>; rel="first", <?limit=5&page=2>; rel="next"`,
		"q=>; rel=\"x\"\r\nEvil: 1":     `<?q=%3E;%20rel=%22x%22%0D%0AEvil:%201>; rel="first", <?q=%3E;%20rel=%22x%22%0D%0AEvil:%201&page=2>; rel="next"`,
		"q=é":                           `<?q=%C3%A9>; rel="first", <?q=%C3%A9&page=2>; rel="next"`,
	} {
		if got := linkOf(t, p, raw, paginate.Page[int]{Next: "2"}); got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", raw, got, want)
		}
	}
}

// paginate 15: what the client calls this host is in no link.
func TestLinkHost(t *testing.T) {
	p := newPager(t, paginate.Config{Mode: paginate.PageNumber})
	if got := linkOf(t, p, "", paginate.Page[int]{Next: "2", Prev: "1"}); strings.Contains(got, "evil") {
		t.Error(got)
	}
	base := newPager(t, paginate.Config{Mode: paginate.PageNumber, Base: &url.URL{Scheme: "https", Host: "api.example.com", Path: "/v1/"}})
	want := `<https://api.example.com/v1/list>; rel="first", <https://api.example.com/v1/list?page=2>; rel="next"`
	if got := linkOf(t, base, "", paginate.Page[int]{Next: "2"}); got != want {
		t.Error(got)
	}
}

// Links resolve to the same list, also behind a mux that strips a prefix.
func TestLinksResolve(t *testing.T) {
	p := newPager(t, paginate.Config{Mode: paginate.PageNumber, Default: 1})
	h := http.StripPrefix("/api", p.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, _ := p.From(r.Context())
		paginate.Write(w, q, paginate.CutRows(q, []int{1, 2}))
	})))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/api/list?page=2&x=y", nil))
	base, _ := url.Parse("https://host/api/list?page=2&x=y")
	for rel, want := range map[string]string{
		"first": "https://host/api/list?x=y",
		"next":  "https://host/api/list?x=y&page=3",
		"prev":  "https://host/api/list?x=y&page=1",
	} {
		if u := paginate.Find(w.Header(), base, rel); u == nil || u.String() != want {
			t.Errorf("%s: %v", rel, u)
		}
	}
	first := paginate.Find(http.Header{"Link": {`<?>; rel="first"`}}, base, "FIRST")
	if first == nil || first.RawQuery != "" || first.Path != "/api/list" {
		t.Error(first)
	}
}

func TestCutRows(t *testing.T) {
	total := func(n int64) *int64 { return &n }
	pages := newPager(t, paginate.Config{Mode: paginate.PageNumber, Default: 10, MaxOffset: 100})
	rows := newPager(t, paginate.Config{Mode: paginate.RowOffset, Default: 10, MaxOffset: 100})
	for _, tt := range []struct {
		p                *paginate.Pager
		query            string
		got              int
		total            *int64
		items            int
		next, prev, last string
	}{
		{pages, "", 11, nil, 10, "2", "", ""},
		{pages, "", 3, total(3), 3, "", "", "?page=1"},
		{pages, "", 0, total(0), 0, "", "", "?page=1"},
		{pages, "?page=2", 11, total(30), 10, "3", "1", "?page=3"},
		{pages, "?page=2", 11, total(31), 10, "3", "1", "?page=4"},
		{pages, "?page=11", 11, total(10_000), 10, "12", "10", ""},
		{rows, "?offset=5", 11, total(31), 10, "15", "0", "?offset=30"},
		{rows, "?offset=25", 2, nil, 2, "", "15", ""},
	} {
		q := mustParse(t, tt.p, "/l"+tt.query)
		page := paginate.CutRows(q, make([]int, tt.got))
		page.Total = tt.total
		if len(page.Items) != tt.items || page.Next != tt.next || page.Prev != tt.prev {
			t.Errorf("%s: %+v", tt.query, page)
		}
		h := http.Header{}
		page.SetLinks(h, q)
		base, _ := url.Parse("http://h/l")
		last := ""
		if u := paginate.Find(h, base, "last"); u != nil {
			last = "?" + u.RawQuery
		}
		if last != tt.last {
			t.Errorf("%s: last is %q", tt.query, last)
		}
	}
	if page := paginate.CutRows(mustParse(t, pages, "/l"), []int(nil)); page.Items == nil {
		t.Error("nil items")
	}
}

// paginate 18, 20: Write gives HEAD the fields of GET, counts only when told,
// and keeps links that are there.
func TestWrite(t *testing.T) {
	p := newPager(t, paginate.Config{Mode: paginate.PageNumber, Default: 2})
	count := int64(7)
	h := p.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, _ := p.From(r.Context())
		page := paginate.CutRows(q, []string{"a", "b", "c"})
		if q.WantTotal {
			page.Total = &count
		}
		w.Header().Set("Link", `</style.css>; rel="preload"`)
		if err := paginate.Write(w, q, page); err != nil {
			t.Error(err)
		}
	}))
	do := func(method, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
		return w
	}
	get := do("GET", "/l?total=true&page=2")
	if got := get.Body.String(); got != `{"items":["a","b"],"next":"3","prev":"1","total":7}`+"\n" {
		t.Error(got)
	}
	if get.Header().Get("X-Total-Count") != "7" || len(get.Header()["Link"]) != 2 || get.Header().Get("Content-Type") != "application/json" {
		t.Error(get.Header())
	}
	head := do("HEAD", "/l?total=true&page=2")
	if head.Body.Len() != 0 {
		t.Error("HEAD has a body")
	}
	for name := range get.Header() {
		if strings.Join(get.Header()[name], ",") != strings.Join(head.Header()[name], ",") {
			t.Errorf("%s: GET %q, HEAD %q", name, get.Header()[name], head.Header()[name])
		}
	}
	if plain := do("GET", "/l"); plain.Header().Get("X-Total-Count") != "" || strings.Contains(plain.Body.String(), "total") {
		t.Error("counted unasked")
	}
	w := httptest.NewRecorder()
	if err := paginate.Write(w, mustParse(t, p, "/l"), paginate.Page[func()]{Items: []func(){nil}}); err == nil || w.Body.Len() > 0 || len(w.Header()) > 0 {
		t.Error("half an answer:", w.Body, w.Header(), err)
	}
	w = httptest.NewRecorder()
	if err := paginate.Write(w, mustParse(t, p, "/l"), paginate.Page[int]{}); err != nil || w.Body.String() != `{"items":[]}`+"\n" {
		t.Error(w.Body, err)
	}
}

package paginate_test

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"example.com/plainware/paginate"
)

// A list of posts, newest first, with cursors. The "database" is a slice; with
// a real one, Order.Where and Order.OrderBy give the SQL.
func Example() {
	type post struct {
		Created int
		ID      int
	}
	posts := []post{{20, 5}, {20, 4}, {10, 3}, {10, 2}, {10, 1}}

	order := paginate.Order{{Expr: "created", Desc: true}, {Expr: "id", Desc: true, Unique: true}}
	pages, err := paginate.New(paginate.Config{
		Keys:    [][]byte{[]byte("32 bytes or more, random, secret")},
		Order:   order,
		Default: 2,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /posts", pages.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, _ := pages.From(r.Context())
		after, ok, err := paginate.After[post](q)
		if err != nil {
			paginate.WriteError(w, r, err)
			return
		}
		rows := slices.Clone(posts)
		if ok {
			rows = slices.DeleteFunc(rows, func(p post) bool {
				c := cmp.Or(cmp.Compare(p.Created, after.Created), cmp.Compare(p.ID, after.ID))
				return c >= 0
			})
		}
		rows = rows[:min(q.Limit(), len(rows))]
		page, err := paginate.Cut(q, rows, func(p post) post { return p })
		if err != nil {
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		paginate.Write(w, q, page)
	})))

	srv := httptest.NewServer(mux)
	defer srv.Close()
	req, err := http.NewRequest("GET", srv.URL+"/posts", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for p, err := range paginate.Walk(srv.Client(), req, paginate.JSON[post]("items", "")) {
		fmt.Println(p, err)
	}
	// Output:
	// {20 5} <nil>
	// {20 4} <nil>
	// {10 3} <nil>
	// {10 2} <nil>
	// {10 1} <nil>
}

// Pages by number need no keys.
func ExampleNew() {
	pages, err := paginate.New(paginate.Config{Mode: paginate.PageNumber, Default: 10})
	if err != nil {
		fmt.Println(err)
		return
	}
	q, err := pages.Parse(httptest.NewRequest("GET", "/posts?page=3&limit=20", nil))
	fmt.Println(q.Offset, q.Limit(), err)
	_, err = pages.Parse(httptest.NewRequest("GET", "/posts?page=minus", nil))
	fmt.Println(err)
	// Output:
	// 40 21 <nil>
	// paginate: The parameter page must be a whole number from 1 on.
}

func ExamplePager_Handler() {
	pages, err := paginate.New(paginate.Config{Mode: paginate.PageNumber})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := pages.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, _ := pages.From(r.Context())
		fmt.Println("page", q.Page, "of", q.Size)
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/posts?page=2", nil))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/posts?limit=all", nil))
	fmt.Print(w.Code, " ", w.Body)
	// Output:
	// page 2 of 50
	// 400 {"type":"about:blank","title":"Bad Request","status":400,"detail":"The parameter limit must be a whole number that is not negative.","code":"invalid_limit"}
}

func ExamplePager_Parse() {
	pages, err := paginate.New(paginate.Config{Mode: paginate.RowOffset, OffsetParam: "skip"})
	if err != nil {
		fmt.Println(err)
		return
	}
	q, err := pages.Parse(httptest.NewRequest("POST", "/search?skip=100", nil))
	fmt.Println(q.Offset, q.Size, err)
	// Output: 100 50 <nil>
}

func ExampleOrder_Where() {
	order := paginate.Order{
		{Expr: "created", Desc: true},
		{Expr: "COALESCE(rank, 0)"},
		{Expr: "id", Unique: true},
	}
	pages, err := paginate.New(paginate.Config{Keys: [][]byte{[]byte("32 bytes or more, random, secret")}, Order: order})
	if err != nil {
		fmt.Println(err)
		return
	}
	type key struct {
		Created  string
		Rank, ID int
	}
	first, _ := pages.Parse(httptest.NewRequest("GET", "/posts?limit=1", nil))
	page, _ := paginate.Cut(first, []key{{"2026-11-22", 3, 7}, {"2026-11-22", 3, 8}}, func(k key) key { return k })
	q, _ := pages.Parse(httptest.NewRequest("GET", "/posts?limit=1&cursor="+page.Next, nil))

	after, _, err := paginate.After[key](q)
	if err != nil {
		fmt.Println(err)
		return
	}
	// $1 is the tenant.
	where, args, err := order.Where(q, paginate.Postgres, 2, after.Created, after.Rank, after.ID)
	by, _ := order.OrderBy(q)
	fmt.Println("SELECT * FROM posts WHERE tenant = $1 AND", strings.ReplaceAll(where, " AND ", "\n  AND "))
	fmt.Println("ORDER BY", by, "LIMIT", q.Limit())
	fmt.Println(args, err)
	// Output:
	// SELECT * FROM posts WHERE tenant = $1 AND (created <= $2
	//   AND (created < $3 OR (created = $4
	//   AND (COALESCE(rank, 0) > $5 OR (COALESCE(rank, 0) = $6
	//   AND id > $7)))))
	// ORDER BY created DESC, COALESCE(rank, 0) ASC, id ASC LIMIT 2
	// [2026-11-22 2026-11-22 2026-11-22 3 3 7] <nil>
}

func ExampleCut() {
	pages, err := paginate.New(paginate.Config{Keys: [][]byte{[]byte("32 bytes or more, random, secret")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	q, _ := pages.Parse(httptest.NewRequest("GET", "/numbers?limit=3", nil))
	fetched := []int{10, 11, 12, 13} // q.Limit() of them, and so there is more
	page, err := paginate.Cut(q, fetched, func(n int) int { return n })
	fmt.Println(page.Items, page.Next != "", page.Prev != "", err)

	q, _ = pages.Parse(httptest.NewRequest("GET", "/numbers?limit=3&cursor="+page.Next, nil))
	after, ok, err := paginate.After[int](q)
	fmt.Println("rows after", after, ok, err)
	// Output:
	// [10 11 12] true false <nil>
	// rows after 12 true <nil>
}

func ExampleWrite() {
	pages, err := paginate.New(paginate.Config{Mode: paginate.PageNumber, Default: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := pages.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, _ := pages.From(r.Context())
		page := paginate.CutRows(q, []string{"c", "d", "e"})
		if q.WantTotal {
			page.Total = new(int64(5))
		}
		paginate.Write(w, q, page)
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/letters?page=2&total=1", nil))
	fmt.Print(w.Body)
	fmt.Println("X-Total-Count:", w.Header().Get("X-Total-Count"))
	fmt.Println(strings.ReplaceAll(w.Header().Get("Link"), ", ", "\n"))
	// Output:
	// {"items":["c","d"],"next":"3","prev":"1","total":5}
	// X-Total-Count: 5
	// <?total=1>; rel="first"
	// <?total=1&page=3>; rel="next"
	// <?total=1&page=1>; rel="prev"
	// <?total=1&page=3>; rel="last"
}

func ExampleParseLinks() {
	h := http.Header{"Link": {`<https://api.example.com/x?ids=1,2>; rel="next"; title="a, b", </>; rel=first`}}
	for _, l := range paginate.ParseLinks(nil, h["Link"]...) {
		title, _ := l.Params.Get("title")
		fmt.Printf("%s %s %q\n", l.Rel, l.Target, title)
	}
	// Output:
	// next https://api.example.com/x?ids=1,2 "a, b"
	// first / ""
}

func ExampleAppendLink() {
	b, err := paginate.AppendLink(nil, paginate.Link{Target: "/posts?page=2", Rel: "next"})
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err = paginate.AppendLink(b, paginate.Link{Target: "/help", Rel: "help", Params: paginate.Params("").With("title", `How to "page"`)})
	fmt.Println(string(b), err)
	// Output: </posts?page=2>; rel="next", </help>; rel="help"; title="How to \"page\"" <nil>
}

// The client loop in three lines.
func ExampleWalk() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("page") == "" {
			w.Header().Set("Link", `<?page=2>; rel="next"`)
			io.WriteString(w, `["a","b"]`)
			return
		}
		io.WriteString(w, `["c"]`)
	}))
	defer srv.Close()

	req, err := http.NewRequest("GET", srv.URL, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for letter, err := range paginate.Walk(srv.Client(), req, paginate.JSON[string]("", "")) {
		fmt.Println(letter, err)
	}
	// Output:
	// a <nil>
	// b <nil>
	// c <nil>
}

func ExampleNewWalker() {
	w, err := paginate.NewWalker(paginate.WalkerConfig{MaxPages: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", `<?`+r.URL.RawQuery+`x>; rel="next"`) // without end
	}))
	defer srv.Close()
	req, err := http.NewRequest("GET", srv.URL+"?", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for resp, err := range w.Pages(req) {
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(resp.Request.URL.RawQuery)
	}
	// Output:
	//
	// x
	// paginate: more pages than the walk may read
}

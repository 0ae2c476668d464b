package paginate_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/mwtest"
	"example.com/plainware/paginate"
)

var (
	keyA = []byte(strings.Repeat("a", 32))
	keyB = []byte(strings.Repeat("b", 32))
)

type row struct {
	Rank int
	ID   int
}

var byRank = paginate.Order{{Expr: "rank"}, {Expr: "id", Unique: true}}

func newPager(t testing.TB, c paginate.Config) *paginate.Pager {
	t.Helper()
	if c.Mode == paginate.Cursor && c.Keys == nil {
		c.Keys = [][]byte{keyA}
	}
	p, err := paginate.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func parse(p *paginate.Pager, target string, scope ...string) (paginate.Query, error) {
	return p.Parse(httptest.NewRequest("GET", target, nil), scope...)
}

func mustParse(t testing.TB, p *paginate.Pager, target string, scope ...string) paginate.Query {
	t.Helper()
	q, err := parse(p, target, scope...)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	return q
}

// code is what a refusal says, or "" for none.
func code(err error) string {
	if e, ok := errors.AsType[*paginate.Error](err); ok {
		return e.Code()
	}
	return ""
}

// cursorOf returns a cursor of target's list behind the given row.
func cursorOf(t testing.TB, p *paginate.Pager, target string, after row, scope ...string) string {
	t.Helper()
	q := mustParse(t, p, target, scope...)
	q.Size = 1
	page, err := paginate.Cut(q, []row{after, after}, func(r row) row { return r })
	if err != nil {
		t.Fatal(err)
	}
	return page.Next
}

// paginate 1: sizes.
func TestSize(t *testing.T) {
	p := newPager(t, paginate.Config{Default: 20, Max: 100})
	for query, want := range map[string]int{
		"":                                  20,
		"?limit=":                           20,
		"?limit=0":                          20,
		"?limit=1":                          1,
		"?limit=007":                        7,
		"?limit=100":                        100,
		"?limit=101":                        100,
		"?limit=9223372036854775808":        100,
		"?limit=99999999999999999999999999": 100,
		"?l%69mit=5":                        5,
		"?limit=%35":                        5,
		"?limit=-1":                         -1,
		"?limit=1.5":                        -1,
		"?limit=1e3":                        -1,
		"?limit=%2B5":                       -1,
		"?limit=+5":                         -1,
		"?limit=0x10":                       -1,
		"?limit=1;2":                        -1,
		"?limit=٣":                          -1,
		"?limit=5&limit=5":                  -1,
		"?limit=&limit=":                    -1,
	} {
		q, err := p.Parse(&http.Request{Method: "GET", URL: rawURL(query)})
		if want < 0 {
			if code(err) != paginate.CodeLimit {
				t.Errorf("%q: got %v", query, err)
			}
		} else if err != nil || q.Size != want || q.Limit() != want+1 {
			t.Errorf("%q: got %d, %v", query, q.Size, err)
		}
	}
}

func rawURL(query string) *url.URL {
	return &url.URL{Path: "/list", RawQuery: strings.TrimPrefix(query, "?")}
}

// paginate 2: a cursor that differs in anything from one that was given out is
// refused, signed or encrypted.
func TestCursorTampered(t *testing.T) {
	for _, encrypt := range []bool{false, true} {
		p := newPager(t, paginate.Config{Encrypt: encrypt})
		good := cursorOf(t, p, "/list", row{3, 7})
		q := mustParse(t, p, "/list?cursor="+good)
		if k, ok, err := paginate.After[row](q); err != nil || !ok || k != (row{3, 7}) {
			t.Fatal(k, ok, err)
		}
		raw, err := base64.RawURLEncoding.DecodeString(good)
		if err != nil {
			t.Fatal(err)
		}
		var bad []string
		for i := range len(raw) * 8 {
			b := slices.Clone(raw)
			b[i/8] ^= 1 << (i % 8)
			bad = append(bad, base64.RawURLEncoding.EncodeToString(b))
		}
		for i := range good {
			bad = append(bad, good[:i], good[i+1:]) // good[:0] is none at all
		}
		bad = append(bad, good+"A", good+"=", good+"==", good+"%0A", good[:5]+"%0D%0A"+good[5:], good+" ",
			base64.StdEncoding.EncodeToString(append([]byte{1, 0xfb, 0xff}, raw...)),
			strings.Repeat("A", 1025), strings.Repeat("A", 1024), "AQ", "%ZZ")
		for _, s := range bad {
			if s == "" {
				continue
			}
			if _, err := p.Parse(&http.Request{Method: "GET", URL: rawURL("cursor=" + s)}); code(err) != paginate.CodeCursor {
				t.Fatalf("%q: got %v", s, err)
			}
		}
		// A last character with other unused bits stands for the same bytes.
		if rest := len(raw) % 3; rest != 0 {
			const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
			i := strings.IndexByte(alphabet, good[len(good)-1])
			if _, err := parse(p, "/list?cursor="+good[:len(good)-1]+alphabet[i+1:i+2]); code(err) != paginate.CodeCursor {
				t.Fatal("a second spelling passed")
			}
		}
		for _, twice := range []string{"cursor=" + good + "&cursor=" + good, "cursor=&cursor=", "cursor=" + good + "&c%75rsor=" + good} {
			if _, err := p.Parse(&http.Request{Method: "GET", URL: rawURL(twice)}); code(err) != paginate.CodeCursor {
				t.Fatalf("%s: %v", twice, err)
			}
		}
	}
}

// paginate 3: a cursor belongs to one route, filter, sorting and tenant; the
// size, the total and what is Unbound may change, and parameters be sorted anew.
func TestCursorBound(t *testing.T) {
	p := newPager(t, paginate.Config{Unbound: []string{"fields"}})
	const list = "/users/7/posts?sort=-created&tag=a&tag=b&q=x%20y"
	c := "&cursor=" + cursorOf(t, p, list, row{1, 2}, "tenant-1")

	for _, same := range []string{
		list + c,
		list + "&limit=3&total=1" + c,
		list + "&fields=id" + c,
		"/users/7/posts?tag=a&q=x+y&tag=b&sort=-created" + c,
		"/users/7/posts?t%61g=a&tag=b&q=x%20y&&sort=-created" + c,
	} {
		if _, err := parse(p, same, "tenant-1"); err != nil {
			t.Errorf("%s: %v", same, err)
		}
	}
	for _, other := range []string{
		"/users/8/posts?sort=-created&tag=a&tag=b&q=x%20y" + c,
		"/users/7%2Fposts?sort=-created&tag=a&tag=b&q=x%20y" + c,
		"/users/7/posts?sort=created&tag=a&tag=b&q=x%20y" + c,
		"/users/7/posts?sort=-created&tag=b&tag=a&q=x%20y" + c,
		"/users/7/posts?sort=-created&tag=a&q=x%20y" + c,
		list + "&tag=c" + c,
		list + "&page=1" + c,
	} {
		if _, err := parse(p, other, "tenant-1"); code(err) != paginate.CodeCursor {
			t.Errorf("%s: %v", other, err)
		}
	}
	for _, scope := range [][]string{nil, {"tenant-2"}, {"tenant-1", ""}} {
		if _, err := parse(p, list+c, scope...); code(err) != paginate.CodeCursor {
			t.Errorf("scope %q: %v", scope, err)
		}
	}
	// The order of the program is bound too.
	q := newPager(t, paginate.Config{Order: byRank})
	asc := cursorOf(t, q, "/list", row{1, 2})
	desc := newPager(t, paginate.Config{Order: paginate.Order{{Expr: "rank", Desc: true}, {Expr: "id", Unique: true}}})
	if _, err := parse(desc, "/list?cursor="+asc); code(err) != paginate.CodeCursor {
		t.Error("another order:", err)
	}
	// An encrypted cursor does not pass for a signed one, nor the other way.
	enc := newPager(t, paginate.Config{Encrypt: true, Unbound: []string{"fields"}})
	if _, err := parse(enc, list+c, "tenant-1"); err != nil {
		t.Error("a signed cursor stays good when encryption is switched on:", err)
	}
}

// paginate 4: rotation. What an old key signed is read, new cursors are the
// first key's, and a key that is gone, or only half known, is refused.
func TestKeyRotation(t *testing.T) {
	for _, encrypt := range []bool{false, true} {
		pager := func(keys, incoming [][]byte) *paginate.Pager {
			return newPager(t, paginate.Config{Keys: keys, Incoming: incoming, Encrypt: encrypt})
		}
		old := cursorOf(t, pager([][]byte{keyA}, nil), "/l", row{1, 2})
		both := pager([][]byte{keyB, keyA}, nil)
		if _, err := parse(both, "/l?cursor="+old); err != nil {
			t.Error(err)
		}
		fresh := cursorOf(t, both, "/l", row{1, 2})
		if _, err := parse(pager([][]byte{keyB}, nil), "/l?cursor="+fresh); err != nil {
			t.Error("the first key does not sign:", err)
		}
		if _, err := parse(pager([][]byte{keyB}, nil), "/l?cursor="+old); code(err) != paginate.CodeCursor {
			t.Error("a removed key is still good:", err)
		}
		if _, err := parse(pager([][]byte{keyA}, [][]byte{keyB}), "/l?cursor="+fresh); err != nil {
			t.Error("an incoming key does not read:", err)
		}
		if c := cursorOf(t, pager([][]byte{keyA}, [][]byte{keyB}), "/l", row{1, 2}); !encrypt && c != old {
			t.Error("an incoming key signs")
		}
	}
}

// paginate 5: a cursor is good until its time is up, then it is 410.
func TestCursorExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(300 * time.Millisecond) // not on a whole second
		p := newPager(t, paginate.Config{TTL: time.Hour})
		c := cursorOf(t, p, "/l", row{1, 2})
		time.Sleep(time.Hour - time.Second)
		if _, err := parse(p, "/l?cursor="+c); err != nil {
			t.Error("one second before:", err)
		}
		time.Sleep(2 * time.Second)
		_, err := parse(p, "/l?cursor="+c)
		if code(err) != paginate.CodeExpired || err.(*paginate.Error).HTTPStatus() != http.StatusGone {
			t.Error("one second after:", err)
		}
		if _, err := parse(p, "/other?cursor="+c); code(err) != paginate.CodeCursor {
			t.Error("a foreign cursor must not be told that it was good once:", err)
		}
	})
}

// paginate 6: the parts of a scope have their borders.
func TestScopeParts(t *testing.T) {
	p := newPager(t, paginate.Config{})
	c := cursorOf(t, p, "/l", row{1, 2}, "ab", "c")
	for _, scope := range [][]string{{"a", "bc"}, {"abc"}, {"ab", "c", ""}, {"", "ab", "c"}} {
		if _, err := parse(p, "/l?cursor="+c, scope...); code(err) != paginate.CodeCursor {
			t.Errorf("%q: %v", scope, err)
		}
	}
	c = cursorOf(t, p, "/l?a=b&c=d", row{1, 2})
	for _, query := range []string{"a=bc&d=", "a=b%26c%3Dd", "a%3Db=&c=d", "a=b&c=&d="} {
		if _, err := parse(p, "/l?"+query+"&cursor="+c); code(err) != paginate.CodeCursor {
			t.Errorf("%q: %v", query, err)
		}
	}
}

// A key of another type than the cursor's is the client's to mend: by starting
// again.
func TestAfterOtherType(t *testing.T) {
	p := newPager(t, paginate.Config{})
	q := mustParse(t, p, "/l?cursor="+cursorOf(t, p, "/l", row{1, 2}))
	if _, ok, err := paginate.After[[]string](q); ok || code(err) != paginate.CodeCursor {
		t.Error(ok, err)
	}
	q = mustParse(t, p, "/l")
	if k, ok, err := paginate.After[row](q); ok || err != nil || k != (row{}) || q.HasCursor() {
		t.Error(k, ok, err)
	}
}

// Times keep their nanoseconds on the way through a cursor.
func TestAfterTime(t *testing.T) {
	p := newPager(t, paginate.Config{Encrypt: true})
	q := mustParse(t, p, "/l?limit=1")
	at := time.Date(2026, 11, 22, 1, 2, 3, 123456789, time.UTC)
	page, err := paginate.Cut(q, []time.Time{at, at}, func(t time.Time) time.Time { return t })
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := paginate.After[time.Time](mustParse(t, p, "/l?cursor="+page.Next))
	if err != nil || !got.Equal(at) {
		t.Error(got, err)
	}
}

// paginate 18: the first page has no prev, the last no next, an empty list
// neither, and its items are no null.
func TestCutEnds(t *testing.T) {
	p := newPager(t, paginate.Config{Default: 2})
	self := func(r row) row { return r }
	first, err := paginate.Cut(mustParse(t, p, "/l"), []row{{1, 1}, {1, 2}, {1, 3}}, self)
	if err != nil || first.Prev != "" || first.Next == "" || len(first.Items) != 2 {
		t.Error(first, err)
	}
	last, err := paginate.Cut(mustParse(t, p, "/l?cursor="+first.Next), []row{{1, 3}}, self)
	if err != nil || last.Prev == "" || last.Next != "" {
		t.Error(last, err)
	}
	for _, rows := range [][]row{nil, {}} {
		empty, err := paginate.Cut(mustParse(t, p, "/l"), rows, self)
		b, _ := json.Marshal(empty)
		if err != nil || string(b) != `{"items":[]}` {
			t.Errorf("%s %v", b, err)
		}
	}
	// Backwards, rows come last first.
	q := mustParse(t, p, "/l?cursor="+last.Prev)
	if !q.Backward {
		t.Fatal("prev does not lead back")
	}
	back, err := paginate.Cut(q, []row{{1, 2}, {1, 1}}, self)
	if err != nil || back.Prev != "" || back.Next == "" || !slices.Equal(back.Items, []row{{1, 1}, {1, 2}}) {
		t.Error(back, err)
	}
}

// A page whose rows were deleted meanwhile leads back to the row that led to
// it, and forward again, with nothing skipped.
func TestCutEmptyPage(t *testing.T) {
	p := newPager(t, paginate.Config{Default: 2})
	self := func(r row) row { return r }
	where := func(q paginate.Query) string {
		t.Helper()
		k, _, err := paginate.After[row](q)
		if err != nil {
			t.Fatal(err)
		}
		sql, args, err := byRank.Where(q, paginate.SQLite, 1, k.Rank, k.ID)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(sql, args)
	}
	q := mustParse(t, p, "/l?cursor="+cursorOf(t, p, "/l", row{4, 2}))
	if got := where(q); got != "((rank, id) > (?, ?))[4 2]" {
		t.Error(got)
	}
	empty, err := paginate.Cut(q, nil, self)
	if err != nil || empty.Next != "" || empty.Prev == "" {
		t.Fatal(empty, err)
	}
	back := mustParse(t, p, "/l?cursor="+empty.Prev)
	if got := where(back); got != "((rank, id) <= (?, ?))[4 2]" {
		t.Error(got)
	}
	emptied, err := paginate.Cut(back, nil, self)
	if err != nil || emptied.Next == "" || emptied.Prev != "" {
		t.Fatal(emptied, err)
	}
	if got := where(mustParse(t, p, "/l?cursor="+emptied.Next)); got != "((rank, id) > (?, ?))[4 2]" {
		t.Error(got)
	}
}

func TestCutLongKey(t *testing.T) {
	p := newPager(t, paginate.Config{})
	q := mustParse(t, p, "/l?limit=1")
	long := []string{strings.Repeat("x", 1000), ""}
	if _, err := paginate.Cut(q, long, func(s string) string { return s }); err == nil {
		t.Error("a cursor longer than its own limit was given out")
	}
	if _, err := paginate.Cut(q, []func(){nil, nil}, func(f func()) func() { return f }); err == nil {
		t.Error("a key that is no JSON was taken")
	}
}

// paginate 19: pages and offsets that would overflow, or skip too much.
func TestOffsets(t *testing.T) {
	pages := newPager(t, paginate.Config{Mode: paginate.PageNumber, Default: 10})
	rows := newPager(t, paginate.Config{Mode: paginate.RowOffset, Default: 10})
	deep := newPager(t, paginate.Config{Mode: paginate.PageNumber, Default: 1000, MaxOffset: -1})
	for _, tt := range []struct {
		p      *paginate.Pager
		query  string
		offset int
		code   string
	}{
		{pages, "", 0, ""},
		{pages, "?page=", 0, ""},
		{pages, "?page=1", 0, ""},
		{pages, "?page=3", 20, ""},
		{pages, "?page=1001", 10_000, ""},
		{pages, "?page=1002", 0, paginate.CodeFar},
		{pages, "?page=9223372036854775807&limit=1000", 0, paginate.CodeFar},
		{pages, "?page=92233720368547758070&limit=1000", 0, paginate.CodeFar},
		{pages, "?page=0", 0, paginate.CodePage},
		{pages, "?page=-1", 0, paginate.CodePage},
		{pages, "?page=x", 0, paginate.CodePage},
		{pages, "?page=1&page=1", 0, paginate.CodePage},
		{rows, "", 0, ""},
		{rows, "?offset=0", 0, ""},
		{rows, "?offset=10000", 10_000, ""},
		{rows, "?offset=10001", 0, paginate.CodeFar},
		{rows, "?offset=-1", 0, paginate.CodeOffset},
		{rows, "?offset=1&offset=1", 0, paginate.CodeOffset},
		{deep, "?page=1000000", 999_999_000, ""},
		{deep, "?page=9223372036854775807", 0, paginate.CodeFar},
		{pages, "?total=1", 0, ""},
		{pages, "?total=yes", 0, paginate.CodeTotal},
		{pages, "?total=1&total=1", 0, paginate.CodeTotal},
		{pages, "?cursor=nonsense&offset=nonsense", 0, ""},
	} {
		q, err := parse(tt.p, "/l"+tt.query)
		if code(err) != tt.code || q.Offset != tt.offset {
			t.Errorf("%s: %d, %v", tt.query, q.Offset, err)
		}
		if err == nil && q.WantTotal != (tt.query == "?total=1") {
			t.Errorf("%s: WantTotal %v", tt.query, q.WantTotal)
		}
	}
}

// paginate 12: what New refuses, each problem by its field and without keys.
func TestConfig(t *testing.T) {
	secret := []byte("too short, and secret")
	_, err := paginate.New(paginate.Config{
		Keys: [][]byte{secret}, Incoming: [][]byte{nil}, Mode: 0,
		Default: 20, Max: 10, TTL: 200 * 365 * 24 * time.Hour,
		Order:     paginate.Order{{Expr: "id"}, {Expr: " "}},
		SizeParam: "page", PageParam: "p&", Unbound: []string{""},
		Base: &url.URL{Scheme: "ftp", Host: "x", User: url.UserPassword("u", "hidden")},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"Keys[0]", "Incoming[0]", "Default", "TTL", "Order[1]", "Order: the last", "PageParam", "Unbound[0]", "Base"} {
		if !strings.Contains(err.Error(), "paginate: "+want) {
			t.Errorf("%s is missing in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "hidden") {
		t.Error(err)
	}
	for name, c := range map[string]paginate.Config{
		"Keys":        {},
		"Mode":        {Mode: 3},
		"CursorParam": {Mode: paginate.RowOffset, CursorParam: "limit"},
		"Max":         {Mode: paginate.RowOffset, Max: -1},
		"Order":       {Mode: paginate.RowOffset, Order: paginate.Order{}},
	} {
		if _, err := paginate.New(c); err == nil || !strings.Contains(err.Error(), "paginate: "+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Defaults give way to each other.
	if q := mustParse(t, newPager(t, paginate.Config{Max: 10}), "/l"); q.Size != 10 {
		t.Error(q.Size)
	}
	if q := mustParse(t, newPager(t, paginate.Config{Default: 5000}), "/l?limit=9999"); q.Size != 5000 {
		t.Error(q.Size)
	}
}

func TestConformance(t *testing.T) {
	mwtest.Run(t, mwtest.Middleware{New: func(t testing.TB) func(http.Handler) http.Handler {
		return newPager(t, paginate.Config{}).Handler
	}})
}

// The context belongs to its Pager, and the innermost is the package's.
func TestContext(t *testing.T) {
	outer := newPager(t, paginate.Config{Default: 1})
	inner := newPager(t, paginate.Config{Default: 2})
	var called bool
	h := outer.Handler(inner.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		called = true
		o, okO := outer.From(r.Context())
		i, okI := inner.From(r.Context())
		in, ok := paginate.FromContext(r.Context())
		if !okO || !okI || !ok || o.Size != 1 || i.Size != 2 || in.Size != 2 {
			t.Error(o, i, in)
		}
	})))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if !called {
		t.Error("not called")
	}
	if _, ok := outer.From(t.Context()); ok {
		t.Error("a query from nowhere")
	}
	if _, ok := (*paginate.Pager)(nil).From(paginate.NewContext(t.Context(), paginate.Query{})); ok {
		t.Error("a nil Pager has a query")
	}
	ctx := paginate.NewContext(t.Context(), mustParse(t, outer, "/?limit=1"))
	if q, ok := outer.From(ctx); !ok || q.Size != 1 {
		t.Error(q, ok)
	}
}

// Methods that do not read a list pass untouched.
func TestOtherMethods(t *testing.T) {
	p := newPager(t, paginate.Config{})
	var called bool
	h := p.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, ok := paginate.FromContext(r.Context())
		called = !ok
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/?limit=x", nil))
	if !called {
		t.Error("a POST was parsed")
	}
}

// paginate 23: the refusal names the parameter and nothing else.
func TestRefusal(t *testing.T) {
	p := newPager(t, paginate.Config{CursorParam: "after"})
	h := p.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("called") }))
	good := cursorOf(t, p, "/l", row{1, 2})
	for _, bad := range []string{"AAAA", good + "A", good[:len(good)-2] + "AA", "!", strings.Repeat("A", 5000)} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/l?after="+bad, nil))
		want := `{"type":"about:blank","title":"Bad Request","status":400,"detail":"The parameter after is not valid for this list.","code":"invalid_cursor"}` + "\n"
		if w.Code != 400 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/l?limit=x", strings.NewReader("body"))
	h.ServeHTTP(w, r)
	if w.Header().Get("Connection") != "close" {
		t.Error("a body that nobody reads stays on the connection")
	}
	custom := newPager(t, paginate.Config{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		w.WriteHeader(err.(*paginate.Error).HTTPStatus() + 22)
	}})
	w = httptest.NewRecorder()
	custom.Handler(h).ServeHTTP(w, httptest.NewRequest("GET", "/l?limit=x", nil))
	if w.Code != 422 {
		t.Error(w.Code)
	}
}

// Scope binds what only the request's context knows.
func TestHandlerScope(t *testing.T) {
	p := newPager(t, paginate.Config{Scope: func(r *http.Request) []string { return []string{r.Header.Get("Tenant")} }})
	c := cursorOf(t, p, "/l", row{1, 2}, "one")
	for tenant, want := range map[string]int{"one": 200, "two": 400} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/l?cursor="+c, nil)
		r.Header.Set("Tenant", tenant)
		p.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		if w.Code != want {
			t.Error(tenant, w.Code)
		}
	}
}

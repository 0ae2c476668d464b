//go:build linux

package paginate_test

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/mattn/go-sqlite3"

	"example.com/plainware/internal/interop/pgstore/pgserver"
	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/paginate"
)

// post is a row with two columns that many rows share, one of which can be
// NULL, and one that is unique.
type post struct {
	Day  int
	Rank *int
	ID   int
}

func (p post) rank() int {
	if p.Rank == nil {
		return 0
	}
	return *p.Rank
}

// key is what a cursor holds.
type key struct{ Day, Rank, ID int }

func keyOf(p post) key { return key{p.Day, p.rank(), p.ID} }

// database is one that the tests run on.
type database struct {
	name    string
	db      *sql.DB
	dialect paginate.Dialect
}

func databases(t *testing.T) []database {
	t.Helper()
	lite, err := sql.Open("sqlite3", filepath.Join(t.TempDir(), "posts.db"))
	if err != nil {
		t.Fatal(err)
	}
	lite.SetMaxOpenConns(1)
	if _, err := lite.Exec("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lite.Close() })
	// SQLite understands what is written for MySQL.
	dbs := []database{{"SQLite", lite, paginate.SQLite}, {"SQLite as MySQL", lite, paginate.MySQL}}

	srv, err := pgserver.New()
	if errors.Is(err, pgserver.ErrMissing) && os.Getenv(prog.Required) == "" {
		t.Log(err)
		return dbs
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	pg, err := sql.Open("pgx", "postgres://postgres@"+srv.Addr+"/postgres?sslmode=disable&synchronous_commit=off")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pg.Close() })
	return append(dbs, database{"Postgres", pg, paginate.Postgres})
}

// fill makes a new table of n rows: days and ranks repeat, a rank may be NULL.
func (d database) fill(t *testing.T, n int) (rows []post) {
	t.Helper()
	d.exec(t, "DROP TABLE IF EXISTS posts")
	d.exec(t, "CREATE TABLE posts (day INTEGER NOT NULL, rank INTEGER, id INTEGER PRIMARY KEY)")
	rng := rand.New(rand.NewPCG(1, 2))
	tx, err := d.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, id := range rng.Perm(n) {
		p := post{Day: rng.IntN(5), ID: id * 10}
		if r := rng.IntN(4); r > 0 {
			p.Rank = &r
		}
		if _, err := tx.Exec(d.bind("INSERT INTO posts VALUES (?, ?, ?)"), p.Day, p.Rank, p.ID); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, p)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return rows
}

// bind numbers the arguments of a statement where the database wants that.
func (d database) bind(s string) string {
	if d.dialect != paginate.Postgres {
		return s
	}
	for n := 1; strings.Contains(s, "?"); n++ {
		s = strings.Replace(s, "?", fmt.Sprintf("$%d", n), 1)
	}
	return s
}

func (d database) exec(t *testing.T, s string, args ...any) {
	t.Helper()
	if _, err := d.db.Exec(d.bind(s), args...); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
}

// orders are all directions of three columns, of which the first two can be
// left out.
func orders() (all []paginate.Order) {
	columns := paginate.Order{{Expr: "day"}, {Expr: "COALESCE(rank, 0)"}, {Expr: "id", Unique: true}}
	for n := 1; n <= 3; n++ {
		for bits := range 1 << n {
			o := slices.Clone(columns[3-n:])
			for i := range o {
				o[i].Desc = bits&(1<<i) != 0
			}
			all = append(all, o)
		}
	}
	return all
}

// values are those of the order's columns.
func values(o paginate.Order, k key) []any { return []any{k.Day, k.Rank, k.ID}[3-len(o):] }

// sorted is the list as Go sorts it.
func sorted(o paginate.Order, rows []post) []post {
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b post) int {
		x, y := values(o, keyOf(a)), values(o, keyOf(b))
		for i := range o {
			if c := cmp.Compare(x[i].(int), y[i].(int)); c != 0 && o[i].Desc {
				return -c
			} else if c != 0 {
				return c
			}
		}
		return 0
	})
	return rows
}

// list is a list endpoint without HTTP.
type list struct {
	database
	order paginate.Order
	pager *paginate.Pager
}

func (d database) list(t *testing.T, o paginate.Order) list {
	t.Helper()
	p, err := paginate.New(paginate.Config{Keys: [][]byte{[]byte(strings.Repeat("k", 32))}, Order: o, Max: 2000})
	if err != nil {
		t.Fatal(err)
	}
	return list{d, o, p}
}

func (l list) page(t *testing.T, size int, cursor string) paginate.Page[post] {
	t.Helper()
	q, err := l.pager.Parse(&http.Request{Method: "GET", URL: &url.URL{Path: "/posts", RawQuery: fmt.Sprintf("limit=%d&cursor=%s", size, cursor)}})
	if err != nil {
		t.Fatal(err)
	}
	after, _, err := paginate.After[key](q)
	if err != nil {
		t.Fatal(err)
	}
	where, args, err := l.order.Where(q, l.dialect, 2, values(l.order, after)...)
	if err != nil {
		t.Fatal(err)
	}
	by, err := l.order.OrderBy(q)
	if err != nil {
		t.Fatal(err)
	}
	first := "?"
	if l.dialect == paginate.Postgres {
		first = "$1"
	}
	query := "SELECT day, rank, id FROM posts WHERE id >= " + first + " AND " + where + " ORDER BY " + by + fmt.Sprintf(" LIMIT %d", q.Limit())
	rows, err := l.db.Query(query, append([]any{0}, args...)...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var got []post
	for rows.Next() {
		var p post
		if err := rows.Scan(&p.Day, &p.Rank, &p.ID); err != nil {
			t.Fatal(err)
		}
		got = append(got, p)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	page, err := paginate.Cut(q, got, keyOf)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func ids(rows []post) (ids []int) {
	for _, p := range rows {
		ids = append(ids, p.ID)
	}
	return ids
}

// paginate 8, 9, 11: over a thousand rows with many equal leading values each
// row comes once and in order, forward and backward, in every order of up to
// three columns; and prev leads to the page before.
func TestThousandRows(t *testing.T) {
	for _, d := range databases(t) {
		t.Run(d.name, func(t *testing.T) {
			rows := d.fill(t, 1000)
			for _, o := range orders() {
				l := d.list(t, o)
				want := ids(sorted(o, rows))
				sizes := []int{7, 1000, 1001}
				if len(o) == 2 && !o[0].Desc {
					sizes = append(sizes, 1)
				}
				for _, size := range sizes {
					var got []int
					var pages [][]int
					var last paginate.Page[post]
					for cursor := ""; ; cursor = last.Next {
						last = l.page(t, size, cursor)
						got = append(got, ids(last.Items)...)
						pages = append(pages, ids(last.Items))
						if (last.Prev == "") != (len(pages) == 1) {
							t.Fatalf("%v: page %d of %d has prev %q", o, len(pages), size, last.Prev)
						}
						if last.Next == "" {
							break
						}
					}
					if !slices.Equal(got, want) {
						t.Fatalf("%v, pages of %d: the rows differ", o, size)
					}
					for i := len(pages) - 2; i >= 0; i-- {
						last = l.page(t, size, last.Prev)
						if !slices.Equal(ids(last.Items), pages[i]) || last.Next == "" {
							t.Fatalf("%v, pages of %d: back on page %d", o, size, i)
						}
					}
					if last.Prev != "" {
						t.Fatalf("%v: something is before the first page", o)
					}
				}
			}
		})
	}
}

// paginate 10: while rows come and go between the pages, none that stood
// throughout is skipped or repeated, in either direction.
func TestChangingRows(t *testing.T) {
	for _, d := range databases(t) {
		t.Run(d.name, func(t *testing.T) {
			for n, o := range orders() {
				rows := d.fill(t, 200)
				rng := rand.New(rand.NewPCG(uint64(n), 3))
				stood := map[int]bool{}
				for _, p := range rows {
					stood[p.ID] = true
				}
				l := d.list(t, o)
				change := func() {
					for range 5 {
						victim := rng.IntN(200) * 10
						d.exec(t, "DELETE FROM posts WHERE id = ?", victim)
						delete(stood, victim)
						id := rng.IntN(200)*10 + 1 + rng.IntN(9)
						d.exec(t, "DELETE FROM posts WHERE id = ?", id)
						d.exec(t, "INSERT INTO posts VALUES (?, ?, ?)", rng.IntN(5), nil, id)
					}
				}
				seen := map[int]int{}
				walk := func(page paginate.Page[post], step func(paginate.Page[post]) string) paginate.Page[post] {
					for {
						for _, p := range page.Items {
							seen[p.ID]++
						}
						cursor := step(page)
						if cursor == "" {
							return page
						}
						change()
						page = l.page(t, 7, cursor)
					}
				}
				check := func(direction string) {
					t.Helper()
					for id := range stood {
						if seen[id] != 1 {
							t.Fatalf("%v %s: row %d was seen %d times", o, direction, id, seen[id])
						}
					}
					clear(seen)
				}
				last := walk(l.page(t, 7, ""), func(p paginate.Page[post]) string { return p.Next })
				check("forward")
				for _, p := range last.Items {
					seen[p.ID]++ // these are behind the cursor that leads back
				}
				if last.Prev != "" {
					walk(l.page(t, 7, last.Prev), func(p paginate.Page[post]) string { return p.Prev })
				}
				check("backward")
			}
		})
	}
}

// A page that was deleted whole leads back to what is before it.
func TestDeletedPage(t *testing.T) {
	for _, d := range databases(t) {
		t.Run(d.name, func(t *testing.T) {
			for _, o := range orders() {
				want := ids(sorted(o, d.fill(t, 20)))
				l := d.list(t, o)
				first := l.page(t, 10, "")
				for _, id := range want[10:] {
					d.exec(t, "DELETE FROM posts WHERE id = ?", id)
				}
				empty := l.page(t, 10, first.Next)
				if len(empty.Items) != 0 || empty.Next != "" {
					t.Fatal(empty)
				}
				back := l.page(t, 10, empty.Prev)
				if !slices.Equal(ids(back.Items), want[:10]) {
					t.Fatalf("%v: got %v, want %v", o, ids(back.Items), want[:10])
				}
			}
		})
	}
}

// paginate 13: text with everything in it is a value and nothing else.
func TestText(t *testing.T) {
	names := []string{"", "a", "a'b", `a"b`, "a%b", "a;b--", "a\\b", "é", "日本", "x'); DROP TABLE names; --"}
	order := paginate.Order{{Expr: "name", Unique: true}}
	for _, d := range databases(t) {
		t.Run(d.name, func(t *testing.T) {
			d.exec(t, "DROP TABLE IF EXISTS names")
			d.exec(t, "CREATE TABLE names (name TEXT PRIMARY KEY)")
			for _, n := range names {
				d.exec(t, "INSERT INTO names VALUES (?)", n)
			}
			l := d.list(t, order)
			var got []string
			for cursor := ""; ; {
				q, err := l.pager.Parse(&http.Request{Method: "GET", URL: &url.URL{Path: "/n", RawQuery: "limit=1&cursor=" + cursor}})
				if err != nil {
					t.Fatal(err)
				}
				after, _, err := paginate.After[string](q)
				if err != nil {
					t.Fatal(err)
				}
				where, args, err := order.Where(q, d.dialect, 1, after)
				if err != nil {
					t.Fatal(err)
				}
				rows, err := d.db.Query("SELECT name FROM names WHERE "+where+" ORDER BY name LIMIT 2", args...)
				if err != nil {
					t.Fatal(err)
				}
				var page []string
				for rows.Next() {
					var n string
					if err := rows.Scan(&n); err != nil {
						t.Fatal(err)
					}
					page = append(page, n)
				}
				if err := errors.Join(rows.Err(), rows.Close()); err != nil {
					t.Fatal(err)
				}
				cut, err := paginate.Cut(q, page, func(s string) string { return s })
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, cut.Items...)
				if cursor = cut.Next; cursor == "" {
					break
				}
			}
			slices.Sort(names)
			slices.Sort(got)
			if !slices.Equal(got, names) {
				t.Errorf("got %q", got)
			}
		})
	}
}

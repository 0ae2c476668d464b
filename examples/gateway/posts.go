package main

import (
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"example.com/plainware/paginate"
)

// posts is a list in a database that the demo back ends share, as those of one
// service do: a page that one has begun the other can continue.
type posts struct {
	db    *sql.DB
	pages *paginate.Pager
}

type post struct {
	ID      int64  `json:"id"`
	Created string `json:"created"`
	Author  string `json:"author"`
	Title   string `json:"title"`
}

// postKey is what a cursor holds of a post: the values of the order's columns.
type postKey struct {
	Created string
	ID      int64
}

// postOrder is newest first. Several posts have one time, and the id decides.
var postOrder = paginate.Order{{Expr: "created", Desc: true}, {Expr: "id", Desc: true, Unique: true}}

// openPosts fills a database in memory with a hundred posts.
func openPosts() (*posts, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // each connection would be a database of its own
	p := &posts{db: db}
	if err := errors.Join(p.fill(), p.configure()); err != nil {
		db.Close()
		return nil, fmt.Errorf("demo posts: %w", err)
	}
	return p, nil
}

func (p *posts) configure() (err error) {
	// Keys of a real service come from its configuration, the same for all of
	// its processes.
	key := make([]byte, 32)
	rand.Read(key)
	p.pages, err = paginate.New(paginate.Config{
		Keys:    [][]byte{key},
		Order:   postOrder,
		Default: 10,
		Max:     100,
	})
	return err
}

func (p *posts) fill() error {
	_, err := p.db.Exec(`CREATE TABLE post (id INTEGER PRIMARY KEY, created TEXT NOT NULL, author TEXT NOT NULL, title TEXT NOT NULL);
		CREATE INDEX post_order ON post (created DESC, id DESC)`)
	if err != nil {
		return err
	}
	authors := []string{"ann", "bob", "eve"}
	first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 100 {
		created := first.Add(time.Duration(i/4) * 24 * time.Hour).Format(time.RFC3339)
		_, err := p.db.Exec(`INSERT INTO post (created, author, title) VALUES (?, ?, ?)`,
			created, authors[i%len(authors)], "Post number "+strconv.Itoa(i+1))
		if err != nil {
			return err
		}
	}
	return nil
}

// ServeHTTP serves a page of the list, of one author's if the query says so. The
// cursors of one author's list are refused by another's: every parameter is
// bound to them.
func (p *posts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, _ := p.pages.From(r.Context())
	author := r.URL.Query().Get("author")
	page, err := p.page(r, q, author)
	if err == nil && q.WantTotal {
		page.Total = new(int64)
		err = p.db.QueryRowContext(r.Context(), `SELECT count(*) FROM post WHERE ? IN ('', author)`, author).Scan(page.Total)
	}
	if err == nil {
		err = paginate.Write(w, q, page)
	}
	if err != nil {
		paginate.WriteError(w, r, err) // 400 and 410 for cursors, 500 without words for all else
	}
}

func (p *posts) page(r *http.Request, q paginate.Query, author string) (paginate.Page[post], error) {
	var none paginate.Page[post]
	after, _, err := paginate.After[postKey](q)
	if err != nil {
		return none, err
	}
	where, args, err := postOrder.Where(q, paginate.SQLite, 2, after.Created, after.ID)
	if err != nil {
		return none, err
	}
	by, err := postOrder.OrderBy(q)
	if err != nil {
		return none, err
	}
	rows, err := p.db.QueryContext(r.Context(),
		"SELECT id, created, author, title FROM post WHERE ? IN ('', author) AND "+where+
			" ORDER BY "+by+" LIMIT "+strconv.Itoa(q.Limit()),
		append([]any{author}, args...)...)
	if err != nil {
		return none, err
	}
	defer rows.Close()
	var found []post
	for rows.Next() {
		var f post
		if err := rows.Scan(&f.ID, &f.Created, &f.Author, &f.Title); err != nil {
			return none, err
		}
		found = append(found, f)
	}
	if err := rows.Err(); err != nil {
		return none, err
	}
	return paginate.Cut(q, found, func(f post) postKey { return postKey{f.Created, f.ID} })
}

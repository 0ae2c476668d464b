package paginate_test

import (
	"fmt"
	"strings"
	"testing"

	"example.com/plainware/paginate"
)

// The SQL text. That it selects the right rows is tested on real databases.
func TestWhereText(t *testing.T) {
	p := newPager(t, paginate.Config{})
	forward := cursorOf(t, p, "/l", row{1, 2})
	q := mustParse(t, p, "/l?cursor="+forward)
	page, err := paginate.Cut(q, []row{{1, 3}}, func(r row) row { return r })
	if err != nil {
		t.Fatal(err)
	}
	back := mustParse(t, p, "/l?cursor="+page.Prev)

	mixed := paginate.Order{{Expr: "rank", Desc: true}, {Expr: "name"}, {Expr: "id", Desc: true, Unique: true}}
	single := paginate.Order{{Expr: "id", Unique: true}}
	for _, tt := range []struct {
		order   paginate.Order
		q       paginate.Query
		dialect paginate.Dialect
		want    string
		by      string
	}{
		{single, q, paginate.SQLite, "(id > ?) [1]", "id ASC"},
		{single, back, paginate.Postgres, "(id < $5) [1]", "id DESC"},
		{byRank, q, paginate.Postgres, "((rank, id) > ($5, $6)) [1 2]", "rank ASC, id ASC"},
		{byRank, q, paginate.MySQL, "(rank >= ? AND (rank > ? OR (rank = ? AND id > ?))) [1 1 1 2]", "rank ASC, id ASC"},
		{mixed, q, paginate.Postgres, "(rank <= $5 AND (rank < $6 OR (rank = $7 AND (name > $8 OR (name = $9 AND id < $10))))) [1 1 1 2 2 3]",
			"rank DESC, name ASC, id DESC"},
		{mixed, back, paginate.SQLite, "(rank >= ? AND (rank > ? OR (rank = ? AND (name < ? OR (name = ? AND id > ?))))) [1 1 1 2 2 3]",
			"rank ASC, name DESC, id ASC"},
	} {
		values := []any{1, 2, 3}[:len(tt.order)]
		sql, args, err := tt.order.Where(tt.q, tt.dialect, 5, values...)
		if got := fmt.Sprint(sql, " ", args); err != nil || got != tt.want {
			t.Errorf("got  %s %v\nwant %s", got, err, tt.want)
		}
		if by, err := tt.order.OrderBy(tt.q); err != nil || by != tt.by {
			t.Errorf("got %s %v", by, err)
		}
	}
	sql, args, err := byRank.Where(mustParse(t, p, "/l"), paginate.SQLite, 1, 0, 0)
	if err != nil || sql != "1=1" || args != nil {
		t.Error("first page:", sql, args, err)
	}
}

// paginate 12: an order that cannot tell two rows apart is an error everywhere.
func TestOrderUnique(t *testing.T) {
	p := newPager(t, paginate.Config{})
	q := mustParse(t, p, "/l")
	for _, o := range []paginate.Order{nil, {}, {{Expr: "rank"}}, {{Expr: "id", Unique: true}, {Expr: "rank"}}, {{Expr: "", Unique: true}}} {
		if _, _, err := o.Where(q, paginate.SQLite, 1, make([]any, len(o))...); err == nil {
			t.Error("Where accepts", o)
		}
		if _, err := o.OrderBy(q); err == nil {
			t.Error("OrderBy accepts", o)
		}
	}
	if _, _, err := byRank.Where(q, paginate.SQLite, 1, 7); err == nil || !strings.Contains(err.Error(), "2 columns (got 1)") {
		t.Error("a value too few:", err)
	}
	q = mustParse(t, p, "/l?cursor="+cursorOf(t, p, "/l", row{1, 2}))
	if _, _, err := byRank.Where(q, paginate.SQLite, 1, nil, 2); err == nil || !strings.Contains(err.Error(), "rank is NULL") {
		t.Error("NULL:", err)
	}
}

// paginate 13: values are arguments, whatever they look like.
func TestWhereValues(t *testing.T) {
	p := newPager(t, paginate.Config{})
	q := mustParse(t, p, "/l?cursor="+cursorOf(t, p, "/l", row{1, 2}))
	evil := "x'; DROP TABLE posts; --%\x00\""
	for _, d := range []paginate.Dialect{paginate.SQLite, paginate.Postgres, paginate.MySQL} {
		sql, args, err := byRank.Where(q, d, 1, evil, 2)
		if err != nil || strings.ContainsAny(sql, "'%;\x00\"") || args[0] != evil {
			t.Error(sql, args, err)
		}
	}
}

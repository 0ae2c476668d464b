package paginate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Order is the order of a list: its columns, the most significant first. The
// last one must be Unique, so that no two rows have the same place and no row
// is skipped or repeated where a page ends.
//
//	paginate.Order{{Expr: "created", Desc: true}, {Expr: "id", Unique: true}}
//
// An index over the same columns in the same directions makes every page cost
// the same.
type Order []Column

// Column is one column of an [Order].
type Column struct {
	// Expr is a column's name or another SQL expression. It becomes part of
	// the SQL as it is: it must be a constant of the program, never anything
	// that a client sent. It must not be NULL for any row, since NULL compares
	// with nothing: write COALESCE(rank, 0) for a column that can be, and give
	// Where and the cursor the value of that expression.
	Expr string

	// Desc sorts the largest value first.
	Desc bool

	// Unique says that no two rows of the list have the same value.
	Unique bool
}

// Dialect is the SQL of a database.
type Dialect int

// The dialects. SQLite writes its arguments as ?, which others understand too.
const (
	SQLite   Dialect = iota
	Postgres         // $1, $2, …
	MySQL            // ?, and no row values, which its optimizer does not search an index by
)

// Where returns the condition that selects the rows of the page, to be put
// behind WHERE or AND. It is "1=1" on the first page. The values are those of
// the columns in the row that the page continues from, in their order: the
// fields of what [After] returns. They become arguments and never text; first
// is the number of the first one, for [Postgres].
//
// All columns in one direction are compared as a row value, others one by one.
// It returns an error for an order without a unique last column, a wrong number
// of values, and a value that is nil.
func (o Order) Where(q Query, d Dialect, first int, values ...any) (sql string, args []any, err error) {
	if err := o.check(); err != nil {
		return "", nil, err
	}
	if len(values) != len(o) {
		return "", nil, fmt.Errorf("paginate: Where: must have a value for each of %d columns (got %d)", len(o), len(values))
	}
	if q.key == nil {
		return "1=1", nil, nil
	}
	for i, v := range values {
		if v == nil {
			return "", nil, fmt.Errorf("paginate: Where: the value of %s is NULL", o[i].Expr)
		}
	}
	w := where{dialect: d, next: first}
	if d != MySQL && o.uniform() {
		w.row(o, q, values)
	} else {
		w.columns(o, q, values)
	}
	return w.sql.String(), w.args, nil
}

// OrderBy returns what belongs behind ORDER BY; reversed, if the page is
// fetched backwards.
func (o Order) OrderBy(q Query) (sql string, err error) {
	if err := o.check(); err != nil {
		return "", err
	}
	var b strings.Builder
	for i, c := range o {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c.Expr)
		if c.Desc != q.Backward {
			b.WriteString(" DESC")
		} else {
			b.WriteString(" ASC")
		}
	}
	return b.String(), nil
}

func (o Order) check() error {
	var errs []error
	for i, c := range o {
		if strings.TrimSpace(c.Expr) == "" {
			errs = append(errs, fmt.Errorf("paginate: Order[%d]: Expr is empty (got %q)", i, c.Expr))
		}
	}
	switch last := len(o) - 1; {
	case last < 0:
		errs = append(errs, errors.New("paginate: Order: must have a column (got none)"))
	case !o[last].Unique:
		errs = append(errs, fmt.Errorf("paginate: Order: the last column must be Unique (got %s)", o[last].Expr))
	}
	return errors.Join(errs...)
}

func (o Order) uniform() bool {
	for _, c := range o {
		if c.Desc != o[0].Desc {
			return false
		}
	}
	return true
}

// fingerprint tells orders apart.
func (o Order) fingerprint() string {
	var b []byte
	for _, c := range o {
		b = appendPart(b, c.Expr)
		b = strconv.AppendBool(b, c.Desc)
	}
	return string(b)
}

// where builds a condition.
type where struct {
	dialect Dialect
	sql     strings.Builder
	args    []any
	next    int // number of the next argument
}

func (w *where) arg(v any) {
	if w.dialect == Postgres {
		w.sql.WriteByte('$')
		w.sql.WriteString(strconv.Itoa(w.next))
		w.next++
	} else {
		w.sql.WriteByte('?')
	}
	w.args = append(w.args, v)
}

// operator compares a column so that later rows are selected, or earlier ones.
func operator(c Column, q Query, orEqual bool) string {
	switch less := c.Desc != q.Backward; {
	case less && orEqual:
		return " <= "
	case less:
		return " < "
	case orEqual:
		return " >= "
	}
	return " > "
}

// row writes (a, b) > (?, ?).
func (w *where) row(o Order, q Query, values []any) {
	list := func(write func(i int)) {
		if len(o) > 1 {
			w.sql.WriteByte('(')
		}
		for i := range o {
			if i > 0 {
				w.sql.WriteString(", ")
			}
			write(i)
		}
		if len(o) > 1 {
			w.sql.WriteByte(')')
		}
	}
	w.sql.WriteByte('(')
	list(func(i int) { w.sql.WriteString(o[i].Expr) })
	w.sql.WriteString(operator(o[0], q, q.inclusive))
	list(func(i int) { w.arg(values[i]) })
	w.sql.WriteByte(')')
}

// columns writes (a <= ? AND (a < ? OR (a = ? AND b > ?))). The first
// comparison follows from the rest, and is what an index can be searched by.
func (w *where) columns(o Order, q Query, values []any) {
	last := len(o) - 1
	compare := func(i int, op string) {
		w.sql.WriteString(o[i].Expr)
		w.sql.WriteString(op)
		w.arg(values[i])
	}
	w.sql.WriteByte('(')
	if last > 0 {
		compare(0, operator(o[0], q, true))
		w.sql.WriteString(" AND ")
	}
	for i := range last {
		w.sql.WriteByte('(')
		compare(i, operator(o[i], q, false))
		w.sql.WriteString(" OR (")
		compare(i, " = ")
		w.sql.WriteString(" AND ")
	}
	compare(last, operator(o[last], q, q.inclusive))
	w.sql.WriteString(strings.Repeat("))", last))
	w.sql.WriteByte(')')
}

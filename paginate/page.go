package paginate

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
)

// Page is one page of a list, as [Write] sends it.
type Page[T any] struct {
	Items []T `json:"items"`

	// Next and Prev are the value of the parameter that leads to the page
	// after and before this one: a cursor, the number of a page, or an
	// offset. "" is none.
	Next string `json:"next,omitempty"`
	Prev string `json:"prev,omitempty"`

	// Total is the number of rows in the whole list. nil is unknown.
	Total *int64 `json:"total,omitempty"`
}

// Cut makes a page of the rows that were fetched for q: at most [Query.Limit]
// of them, in the order of [Order.OrderBy], the one too many included if there
// is one. The key function returns the values of the order's columns in a row;
// [After] gives them back. They travel as JSON: a time.Time keeps its
// nanoseconds, a float64 its value, and a struct with named fields tells best
// what is what.
//
// Next is set if there was one row too many or the client came backwards, and
// Prev if the client came by a cursor or, backwards, if there was one row too
// many. A page may turn out empty because its rows have been deleted: then what
// leads back includes the row that the request continued from.
//
// Filter before the rows are fetched, or filter Page.Items afterwards, never
// the rows between. The rows are reused. The error is that of encoding the
// values, or that they make a cursor of more than 1,024 characters. Cut is for
// mode [Cursor]; others use [CutRows].
func Cut[T, K any](q Query, rows []T, key func(T) K) (Page[T], error) {
	more := len(rows) > q.Size
	if more {
		rows = rows[:q.Size]
	}
	if q.Backward {
		slices.Reverse(rows)
	}
	page := Page[T]{Items: rows}
	if rows == nil {
		page.Items = []T{}
	}
	hasNext, hasPrev := more, q.key != nil
	if q.Backward {
		hasNext, hasPrev = true, more
	}

	m := q.maker()
	var err error
	if len(rows) == 0 {
		// There is no row to go on from, only the one that led here.
		if q.key != nil && q.Backward {
			page.Next, err = m.cursor(q.key, false, !q.inclusive)
		} else if q.key != nil {
			page.Prev, err = m.cursor(q.key, true, !q.inclusive)
		}
		return page, err
	}
	if hasNext {
		if page.Next, err = at(m, key(rows[len(rows)-1]), false); err != nil {
			return Page[T]{}, err
		}
	}
	if hasPrev {
		if page.Prev, err = at(m, key(rows[0]), true); err != nil {
			return Page[T]{}, err
		}
	}
	return page, nil
}

// CutRows makes a page of the rows that were fetched for q in the modes
// [PageNumber] and [RowOffset]: at most [Query.Limit] of them, the one too many
// included if there is one. Next may lead beyond [Config.MaxOffset], where it
// is refused: a list that seems to end there would be worse.
func CutRows[T any](q Query, rows []T) Page[T] {
	page := Page[T]{Items: rows}
	more := len(rows) > q.Size
	if more {
		page.Items = rows[:q.Size]
	}
	if rows == nil {
		page.Items = []T{}
	}
	if q.pager.cfg.Mode == PageNumber {
		if more {
			page.Next = strconv.Itoa(q.Page + 1)
		}
		if q.Page > 1 {
			page.Prev = strconv.Itoa(q.Page - 1)
		}
		return page
	}
	if more {
		page.Next = strconv.Itoa(q.Offset + q.Size)
	}
	if q.Offset > 0 {
		page.Prev = strconv.Itoa(max(q.Offset-q.Size, 0))
	}
	return page
}

// maker makes the cursors of one page.
type maker struct {
	seals   *seals
	binding [32]byte
	expires int64
}

func (q *Query) maker() maker {
	return maker{q.pager.seals, q.binding(), expiry(q.pager.cfg.TTL)}
}

func (m *maker) cursor(key []byte, backward, inclusive bool) (string, error) {
	return m.seals.seal(cursor{key: key, backward: backward, inclusive: inclusive, expires: m.expires}, m.binding)
}

func at[K any](m maker, key K, backward bool) (string, error) {
	b, err := json.Marshal(key)
	if err != nil {
		return "", err
	}
	return m.cursor(b, backward, false)
}

// Write answers with the page as JSON, with Link fields for the pages around it
// ([Page.SetLinks]) and X-Total-Count if Total is set. It answers HEAD with the
// same fields and no body. An error of encoding is returned before anything is
// written; that of a client which has gone is returned too.
func Write[T any](w http.ResponseWriter, q Query, page Page[T]) error {
	if page.Items == nil {
		page.Items = []T{} // an empty list is no null
	}
	body, err := json.Marshal(page)
	if err != nil {
		return err
	}
	h := w.Header()
	page.SetLinks(h, q)
	if page.Total != nil {
		h["X-Total-Count"] = []string{strconv.FormatInt(*page.Total, 10)}
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = []string{"application/json"}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(body) + 1)}
	if q.head {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, err = w.Write(append(body, '\n'))
	return err
}

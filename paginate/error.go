package paginate

import (
	"net/http"
	"strconv"

	"example.com/plainware/internal/problem"
)

// The codes of [Error].
const (
	CodeLimit   = "invalid_limit"    // the page size is no number, or negative
	CodeCursor  = "invalid_cursor"   // the cursor is not one that was given out for this list
	CodeExpired = "expired_cursor"   // it was, longer than Config.TTL ago
	CodePage    = "invalid_page"     // the page is no number from 1 on
	CodeOffset  = "invalid_offset"   // the offset is no number from 0 on
	CodeFar     = "offset_too_large" // more rows to skip than Config.MaxOffset
	CodeTotal   = "invalid_total"    // neither true nor false
)

// Error says what is wrong with the paging of a request. It is what
// [Config.ErrorHandler] is given and [Pager.Parse] and [After] return.
//
// It does not tell why a cursor is refused. All that a forger could learn from
// is one and the same error; only a cursor that was good once is told apart.
type Error struct {
	Param string // the query parameter
	code  string
	max   int // for CodeFar
}

// Code returns a stable token for programs: one of the constants above.
func (e *Error) Code() string { return e.code }

// HTTPStatus returns 410 (Gone) for a cursor that has expired, so that a client
// knows to begin again, otherwise 400.
func (e *Error) HTTPStatus() int {
	if e.code == CodeExpired {
		return http.StatusGone
	}
	return http.StatusBadRequest
}

// Error returns [Error.Detail] with the name of the package.
func (e *Error) Error() string { return "paginate: " + e.Detail() }

// Detail says in a sentence what is wrong. It is safe to show to the client.
func (e *Error) Detail() string {
	switch e.code {
	case CodeLimit:
		return "The parameter " + e.Param + " must be a whole number that is not negative."
	case CodeExpired:
		return "The parameter " + e.Param + " has expired. Start again without it."
	case CodePage:
		return "The parameter " + e.Param + " must be a whole number from 1 on."
	case CodeOffset:
		return "The parameter " + e.Param + " must be a whole number from 0 on."
	case CodeFar:
		return "The parameter " + e.Param + " would skip more than " + strconv.Itoa(e.max) + " rows."
	case CodeTotal:
		return "The parameter " + e.Param + " must be 1, true, 0 or false."
	}
	return "The parameter " + e.Param + " is not valid for this list."
}

// WriteError answers with the status and code of err, which usually is an
// [*Error], as application/problem+json (RFC 9457). It is what a nil
// [Config.ErrorHandler] does, and what a custom one can fall back to.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	problem.WriteError(w, r, err)
}

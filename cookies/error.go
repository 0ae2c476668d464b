package cookies

import (
	"errors"
	"net/http"

	"example.com/plainware/internal/problem"
)

// What can be wrong with a cookie. None of the texts says more than the name of
// the error: which check failed is of use to an attacker only. Each error has
// an HTTPStatus and a Code; see [WriteError].
var (
	// ErrNotFound: the request has no such cookie. It is http.ErrNoCookie to
	// errors.Is.
	ErrNotFound error = &failure{text: "cookies: no such cookie", code: "cookie_missing", status: http.StatusBadRequest, is: http.ErrNoCookie}

	// ErrInvalid: the value is not one that this cookie's keys have made for
	// this name and binding, or there is more than one that is.
	ErrInvalid error = &failure{text: "cookies: invalid value", code: "cookie_invalid", status: http.StatusBadRequest}

	// ErrExpired: the value is authentic and too old. It is ErrInvalid to
	// errors.Is.
	ErrExpired error = &failure{text: "cookies: expired value", code: "cookie_expired", status: http.StatusBadRequest, is: ErrInvalid}

	// ErrUnknownKey: the value names a key that is not in Keys or Incoming:
	// one that was retired, or an invention. It is ErrInvalid to errors.Is.
	ErrUnknownKey error = &failure{text: "cookies: value under an unknown key", code: "cookie_invalid", status: http.StatusBadRequest, is: ErrInvalid}

	// ErrTooLarge: no browser would keep the value. Nothing was written.
	ErrTooLarge error = &failure{text: "cookies: value too large for a cookie", code: "cookie_too_large", status: http.StatusInternalServerError}
)

// failure is what the sentinels are.
type failure struct {
	text, code string
	status     int
	is         error // what it counts as besides itself
}

func (f *failure) Error() string { return f.text }

// Unwrap makes the narrower errors ErrInvalid, and ErrNotFound the standard
// library's error.
func (f *failure) Unwrap() error { return f.is }

// HTTPStatus is 400 for what the client sent and 500 for what the program tried.
func (f *failure) HTTPStatus() int { return f.status }

// Code is a stable token for the error.
func (f *failure) Code() string { return f.code }

// Detail is the sentence that the client gets to read.
func (f *failure) Detail() string {
	switch f.code {
	case "cookie_missing":
		return "The request lacks a cookie."
	case "cookie_expired":
		return "A cookie of the request is too old."
	case "cookie_too_large":
		return "" // not the client's doing
	}
	return "A cookie of the request is not valid."
}

// CodecError says that a value is authentic and that [Config.Codec] cannot read
// it: another version of the program wrote it. It is ErrInvalid to errors.Is.
type CodecError struct {
	Err error // what the codec returned; it may quote the value
}

// Error does not contain the text of Err, which may quote what was sealed.
func (e *CodecError) Error() string { return "cookies: the codec cannot read an authentic value" }

// Unwrap returns the codec's error.
func (e *CodecError) Unwrap() error { return e.Err }

// Is makes e an ErrInvalid.
func (e *CodecError) Is(target error) bool { return target == ErrInvalid }

// HTTPStatus is 400.
func (e *CodecError) HTTPStatus() int { return http.StatusBadRequest }

// Code is cookie_invalid.
func (e *CodecError) Code() string { return "cookie_invalid" }

// Detail is the sentence that the client gets to read.
func (e *CodecError) Detail() string { return "A cookie of the request is not valid." }

// WriteError answers with err as RFC 9457 problem details: 400 for a cookie that
// is missing, invalid or expired, 500 for one that is too large. It is for
// handlers that cannot do without the value; nothing here calls it.
func WriteError(w http.ResponseWriter, r *http.Request, err error) { problem.WriteError(w, r, err) }

// worse returns the error that says more about why a request has no valid
// value, when it brought several.
func worse(a, b error) error {
	for _, e := range []error{ErrExpired, ErrUnknownKey} {
		if errors.Is(a, e) || errors.Is(b, e) {
			return e
		}
	}
	return ErrInvalid
}

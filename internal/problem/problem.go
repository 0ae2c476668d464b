// Package problem writes the kit's one error body: RFC 9457 problem details
// as application/problem+json.
//
// Every package's WriteError is [WriteError], so that a refusal looks the same
// wherever in the chain it is made.
package problem

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
)

// Problem is the body of a refusal. Beside the members of RFC 9457 section 3.1
// it has two extensions: code, a stable token for programs, and request_id,
// which Write takes from the response header so that no package needs to
// import the one that made it.
type Problem struct {
	Type   string // URI reference; empty means about:blank
	Title  string // empty means the text of Status
	Status int    // 400 to 599; anything else is written as 500
	Detail string // for people; empty leaves the member out
	Code   string // for programs; empty leaves the member out
}

// Error is what every error of the kit that can reach an ErrorHandler
// implements. An error may also have a Detail() string method; its text goes
// to the client, the text of Error() never does.
type Error interface {
	error
	HTTPStatus() int
	Code() string
}

// WriteError answers r with the problem that err describes. An error that is
// not, and does not wrap, an [Error] is a 500 without further words: what it
// says may be internal.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	p := Problem{Status: http.StatusInternalServerError, Code: "internal"}
	// The errors that are not wrapped, nearly all, are recognised without the
	// reflection of errors.As.
	e, ok := err.(Error)
	if ok || errors.As(err, &e) {
		p.Status, p.Code = e.HTTPStatus(), e.Code()
		if d, ok := e.(interface{ Detail() string }); ok {
			p.Detail = d.Detail()
		}
	}
	p.Write(w, r)
}

// bodies are buffers for bodies, which are short. A refusal should not cost more
// than it must: it is what a flood of requests is answered with.
var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// representation lists the fields that describe the body which the problem
// replaces. Whatever else stands in the header, Retry-After and CORS fields
// above all, belongs to the answer and stays.
var representation = [...]string{
	"Content-Encoding", "Content-Language", "Content-Location", "Content-Range",
	"Content-Disposition", "Accept-Ranges", "Etag", "Last-Modified", "Expires", "Trailer",
}

// DeleteRepresentation deletes the fields that describe the body which an error
// replaces, its type and length among them, for packages whose errors may be
// answered by a handler of the user's: length and coding of the one would make a
// broken message of the other.
func DeleteRepresentation(h http.Header) {
	delete(h, "Content-Type")
	delete(h, "Content-Length")
	deleteRepresentation(h)
}

func deleteRepresentation(h http.Header) {
	for _, name := range representation {
		delete(h, name)
	}
}

// Write sends p as the whole response. Header fields that described another
// body are dropped, and the answer is marked no-store unless the header
// already has a Cache-Control, since some of the statuses used (404, 410, 501)
// are otherwise cacheable by default (RFC 9110 section 15.1). Answering HEAD
// sends the same header without the body.
func (p Problem) Write(w http.ResponseWriter, r *http.Request) {
	if p.Status < 400 || p.Status > 599 {
		p.Status = http.StatusInternalServerError
	}
	h := w.Header()
	buf := bodies.Get().(*[]byte)
	defer bodies.Put(buf)
	var requestID string
	if v := h["X-Request-Id"]; len(v) > 0 {
		requestID = v[0]
	}
	body := p.appendJSON((*buf)[:0], requestID)
	*buf = body
	deleteRepresentation(h)
	// One array for all, each with no room to grow into the next.
	v := &[4]string{"application/problem+json", strconv.Itoa(len(body)), "nosniff", "no-store"}
	h["Content-Type"], h["Content-Length"], h["X-Content-Type-Options"] = v[0:1:1], v[1:2:2], v[2:3:3]
	if _, ok := h["Cache-Control"]; !ok {
		h["Cache-Control"] = v[3:4:4]
	}
	w.WriteHeader(p.Status)
	if r == nil || r.Method != http.MethodHead {
		w.Write(body) // a client that is gone has nobody to tell
	}
}

func (p Problem) appendJSON(b []byte, requestID string) []byte {
	if p.Type == "" {
		p.Type = "about:blank"
	}
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	b = appendString(append(b, `{"type":`...), p.Type)
	b = appendString(append(b, `,"title":`...), p.Title)
	b = strconv.AppendInt(append(b, `,"status":`...), int64(p.Status), 10)
	for _, m := range [...]struct{ name, value string }{
		{`,"detail":`, p.Detail}, {`,"code":`, p.Code}, {`,"request_id":`, requestID},
	} {
		if m.value != "" {
			b = appendString(append(b, m.name...), m.value)
		}
	}
	return append(b, "}\n"...)
}

// appendString appends s as a JSON string. Plain text, which is nearly all of
// it, needs no encoder.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			q, _ := json.Marshal(s) // marshalling a string cannot fail
			return append(b, q...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

package forwardauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// document is the input that a policy engine gets unless Config.Input makes
// another. The package comment describes it to users.
type document struct {
	Method  string              `json:"method"`
	Scheme  string              `json:"scheme"`
	Host    string              `json:"host"`
	Path    []string            `json:"path"`
	Query   map[string][]string `json:"query"`
	Target  string              `json:"target"`
	Headers map[string][]string `json:"headers"`
	Client  string              `json:"client,omitempty"`
	Body    *string             `json:"body,omitempty"`
}

// makeInput makes the body of a question in JSON mode.
func (m *Middleware) makeInput(q *question, stripped *http.Request) *Error {
	var input any
	if m.cfg.Input != nil {
		var err error
		r := q.forInput(stripped)
		input, err = m.cfg.Input(r)
		// The server knows of none but the handler's. One that somebody outside has
		// parsed is the handler's too.
		if r.MultipartForm != nil && r.MultipartForm != stripped.MultipartForm {
			r.MultipartForm.RemoveAll()
		}
		if err != nil {
			return &Error{Reason: Unavailable, Err: err}
		}
	} else {
		d, err := m.describe(q)
		if err != nil {
			return err
		}
		input = d
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any{"input": input}); err != nil {
		return &Error{Reason: Unavailable, Err: err}
	}
	q.input = b.Bytes()
	return nil
}

// forInput is the request for Config.Input: one of its own, with what may be
// read of the body, so that the handler's is not used up.
func (q *question) forInput(stripped *http.Request) *http.Request {
	r := stripped.WithContext(stripped.Context())
	r.Body = http.NoBody
	if len(q.body) > 0 {
		r.Body = &replayed{rest: bytes.NewReader(q.body), body: http.NoBody}
	}
	return r
}

// describe makes the document. What cannot be in one, because JSON is text, is
// an error: encoding/json would put U+FFFD in its place, and the engine judge
// what the application does not get.
func (m *Middleware) describe(q *question) (*document, *Error) {
	bad := func(reason Reason, what string) (*document, *Error) {
		return nil, &Error{Reason: reason, Err: errors.New(what)}
	}
	path, rawQuery, _ := strings.Cut(q.target, "?")
	d := &document{
		Method: q.method, Scheme: q.scheme, Host: q.host, Target: q.target,
		Path: []string{}, Headers: make(map[string][]string),
	}
	if rest := strings.TrimPrefix(path, "/"); rest != "" {
		for segment := range strings.SplitSeq(rest, "/") {
			plain, ok := unescape(segment)
			switch {
			case !ok:
				return bad(BadTarget, "target has a percent sign that encodes nothing")
			case !utf8.ValidString(plain):
				return bad(BadTarget, "target is not UTF-8")
			}
			d.Path = append(d.Path, plain)
		}
	}
	// A query that is not well-formed would look emptier than it is to the
	// engine, and may not to the application.
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return bad(BadTarget, "target has a malformed query")
	}
	for name, values := range query {
		if !utf8.ValidString(name) || !allUTF8(values) {
			return bad(BadTarget, "target is not UTF-8")
		}
	}
	if !utf8.ValidString(q.target) {
		return bad(BadTarget, "target is not UTF-8")
	}
	d.Query = query
	for _, name := range m.names {
		if values := m.forwarded(q.r.Header, name); len(values) > 0 {
			if !allUTF8(values) {
				return bad(Unavailable, name+" is not UTF-8")
			}
			d.Headers[strings.ToLower(name)] = values
		}
	}
	// A service that does not judge the client is not told of it, or each
	// client would have a decision of its own.
	if q.client.IsValid() && (m.cache == nil || !m.cache.anyClient) {
		d.Client = q.client.String()
	}
	if q.body != nil {
		if !utf8.Valid(q.body) {
			return bad(BadBody, "body is not UTF-8")
		}
		body := string(q.body)
		d.Body = &body
	}
	return d, nil
}

func allUTF8(values []string) bool {
	return !slices.ContainsFunc(values, func(v string) bool { return !utf8.ValidString(v) })
}

// verdict reads the answer of a policy engine. Whatever is not plainly a
// decision is an error.
func (a *answer) verdict(body []byte) error {
	doc, err := members(body)
	if err != nil {
		return err
	}
	a.allowed, a.status, a.body = false, 0, nil
	outer := a.header
	a.header = make(http.Header)
	if len(outer["Set-Cookie"]) == 0 {
		for _, name := range []string{"Age", "Cache-Control", "Vary"} {
			if values := outer[name]; len(values) > 0 {
				a.header[name] = values
			}
		}
	}
	switch result := doc["result"]; {
	case len(result) == 0:
		return nil // a rule that is undefined for this input: not allowed
	case string(result) == "true":
		a.allowed, a.status = true, http.StatusOK
		return nil
	case string(result) == "false":
		return nil
	case result[0] == '{':
		return a.object(result)
	}
	return errors.New("the result is neither a boolean nor an object")
}

// object reads a result that is an object.
func (a *answer) object(body []byte) error {
	result, err := members(body)
	if err != nil {
		return err
	}
	allow, ok := result["allow"]
	if allowed, also := result["allowed"]; ok && also {
		return errors.New("the result has both allow and allowed")
	} else if also {
		allow, ok = allowed, true
	}
	if !ok || string(allow) != "true" && string(allow) != "false" {
		return errors.New("the result has no boolean allow")
	}
	a.allowed = allow[0] == 't'
	var (
		headers map[string]json.RawMessage
		status  int
		text    string
	)
	if raw, ok := result["headers"]; ok {
		if headers, err = members(raw); err != nil {
			return errors.New("the result has bad headers")
		}
	}
	for name, v := range map[string]any{"http_status": &status, "body": &text} {
		if raw, ok := result[name]; ok && (string(raw) == "null" || json.Unmarshal(raw, v) != nil) {
			return fmt.Errorf("the result has a bad %s", name)
		}
	}
	seen := make(map[string]bool, len(headers))
	for name, raw := range headers {
		key := http.CanonicalHeaderKey(name)
		values, ok := valueList(raw)
		if !ok || !isToken(name) || seen[key] {
			return errors.New("the result has a header that is none, or is there twice")
		}
		if seen[key] = true; !hopByHop(key) {
			a.header[key] = values
		}
	}
	switch {
	case a.allowed:
		a.status = http.StatusOK
		return nil
	case status == 0 && text == "" && len(headers) == 0:
		return nil // nothing to say: the answer is this package's
	case status == 0:
		status = http.StatusForbidden
	case status < 300, status > 499, status == http.StatusNotModified:
		return fmt.Errorf("the result has status %d, which is no denial", status)
	}
	a.status, a.body = status, []byte(text)
	return nil
}

// members reads one JSON object and nothing behind it. A name that is there
// twice is an error: which of the two counts is a matter of the reader.
func members(body []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("the answer is not a JSON object")
	}
	all := make(map[string]json.RawMessage)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, errors.New("the answer is not valid JSON")
		}
		name, _ := t.(string)
		if _, ok := all[name]; ok {
			return nil, errors.New("the answer has a member twice")
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, errors.New("the answer is not valid JSON")
		}
		all[name] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("the answer is not valid JSON")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("the answer has something behind the document")
	}
	return all, nil
}

// valueList reads one string or a list of them.
func valueList(raw json.RawMessage) ([]string, bool) {
	if len(raw) == 0 || raw[0] != '[' {
		raw = slices.Concat([]byte{'['}, raw, []byte{']'})
	}
	var all []*string // null would be "" otherwise
	if json.Unmarshal(raw, &all) != nil || slices.Contains(all, nil) {
		return nil, false
	}
	values := make([]string, len(all))
	for i, v := range all {
		values[i] = *v
	}
	return values, true
}

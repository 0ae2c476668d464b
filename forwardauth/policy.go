package forwardauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
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
		if input, err = m.cfg.Input(stripped); err != nil {
			return &Error{Reason: Unavailable, Err: err}
		}
	} else {
		d, err := m.describe(q)
		if err != nil {
			return &Error{Reason: BadTarget, Err: err}
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

func (m *Middleware) describe(q *question) (*document, error) {
	path, rawQuery, _ := strings.Cut(q.target, "?")
	d := &document{
		Method: q.method, Scheme: q.scheme, Host: q.host, Target: q.target,
		Path: []string{}, Headers: make(map[string][]string),
	}
	if rest := strings.TrimPrefix(path, "/"); rest != "" {
		for segment := range strings.SplitSeq(rest, "/") {
			plain, ok := unescape(segment)
			if !ok {
				return nil, errors.New("target has a percent sign that encodes nothing")
			}
			d.Path = append(d.Path, plain)
		}
	}
	// A query that is not well-formed would look emptier than it is to the
	// engine, and may not to the application.
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, errors.New("target has a malformed query")
	}
	d.Query = query
	for _, name := range m.names {
		if values := m.forwarded(q.r.Header, name); len(values) > 0 {
			d.Headers[strings.ToLower(name)] = values
		}
	}
	if q.client.IsValid() {
		d.Client = q.client.String()
	}
	if q.body != nil {
		body := string(q.body)
		d.Body = &body
	}
	return d, nil
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
		headers map[string]valueList
		status  int
		text    string
	)
	for name, v := range map[string]any{"headers": &headers, "http_status": &status, "body": &text} {
		if raw, ok := result[name]; ok {
			if err := json.Unmarshal(raw, v); err != nil {
				return fmt.Errorf("the result has a bad %s", name)
			}
		}
	}
	seen := make(map[string]bool, len(headers))
	for name, values := range headers {
		key := http.CanonicalHeaderKey(name)
		if !isToken(name) || seen[key] {
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

// valueList is one string or a list of them.
type valueList []string

func (s *valueList) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var one string
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		*s = []string{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(s))
}

package forwardauth_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/forwardauth"
)

// The answers of a policy engine, and what becomes of them.
func TestPolicyAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		status int
		code   string // of a refusal of ours
		user   string
		body   string
	}{
		"true":             {`{"result": true}`, 200, "", "", ""},
		"false":            {`{"result": false}`, 403, "forwardauth_denied", "", ""},
		"undefined":        {`{}`, 403, "forwardauth_denied", "", ""},
		"with id":          {`{"decision_id": "1", "result": true}` + "\n", 200, "", "", ""},
		"object, allow":    {`{"result": {"allow": true, "headers": {"remote-user": "ada"}}}`, 200, "", "ada", ""},
		"object, list":     {`{"result": {"allow": true, "headers": {"Remote-User": ["ada", "bob"]}}}`, 200, "", "ada,bob", ""},
		"object, allowed":  {`{"result": {"allowed": true}}`, 200, "", "", ""},
		"object, deny":     {`{"result": {"allow": false}}`, 403, "forwardauth_denied", "", ""},
		"deny with status": {`{"result": {"allow": false, "http_status": 401, "headers": {"WWW-Authenticate": "Bearer"}, "body": "no"}}`, 401, "", "", "no"},
		"deny with body":   {`{"result": {"allow": false, "body": "no"}}`, 403, "", "", "no"},
		"redirect":         {`{"result": {"allowed": false, "http_status": 302, "headers": {"Location": "/login"}}}`, 302, "", "", ""},

		"null":              {`{"result": null}`, 503, "forwardauth_bad_response", "", ""},
		"text":              {`{"result": "true"}`, 503, "forwardauth_bad_response", "", ""},
		"number":            {`{"result": 1}`, 503, "forwardauth_bad_response", "", ""},
		"list":              {`{"result": [true]}`, 503, "forwardauth_bad_response", "", ""},
		"empty object":      {`{"result": {}}`, 503, "forwardauth_bad_response", "", ""},
		"allow text":        {`{"result": {"allow": "true"}}`, 503, "forwardauth_bad_response", "", ""},
		"allow null":        {`{"result": {"allow": null}}`, 503, "forwardauth_bad_response", "", ""},
		"other case":        {`{"result": {"Allow": true}}`, 503, "forwardauth_bad_response", "", ""},
		"both":              {`{"result": {"allow": false, "allowed": true}}`, 503, "forwardauth_bad_response", "", ""},
		"allow twice":       {`{"result": {"allow": false, "allow": true}}`, 503, "forwardauth_bad_response", "", ""},
		"result twice":      {`{"result": false, "result": true}`, 503, "forwardauth_bad_response", "", ""},
		"two documents":     {`{"result": true}{}`, 503, "forwardauth_bad_response", "", ""},
		"cut":               {`{"result": true`, 503, "forwardauth_bad_response", "", ""},
		"empty":             {``, 503, "forwardauth_bad_response", "", ""},
		"bare true":         {`true`, 503, "forwardauth_bad_response", "", ""},
		"html":              {`<html>`, 503, "forwardauth_bad_response", "", ""},
		"status 200":        {`{"result": {"allow": false, "http_status": 200}}`, 503, "forwardauth_bad_response", "", ""},
		"status 500":        {`{"result": {"allow": false, "http_status": 500}}`, 503, "forwardauth_bad_response", "", ""},
		"status 304":        {`{"result": {"allow": false, "http_status": 304}}`, 503, "forwardauth_bad_response", "", ""},
		"status text":       {`{"result": {"allow": false, "http_status": "401"}}`, 503, "forwardauth_bad_response", "", ""},
		"header name":       {`{"result": {"allow": true, "headers": {"a b": "c"}}}`, 503, "forwardauth_bad_response", "", ""},
		"header twice":      {`{"result": {"allow": true, "headers": {"remote-user": "a", "Remote-User": "b"}}}`, 503, "forwardauth_bad_response", "", ""},
		"header injection":  {`{"result": {"allow": true, "headers": {"Remote-User": "a\r\nb"}}}`, 503, "forwardauth_bad_response", "", ""},
		"header of numbers": {`{"result": {"allow": true, "headers": {"Remote-User": 1}}}`, 503, "forwardauth_bad_response", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := do(t, forwardauth.Config{Mode: forwardauth.JSON, CopyHeaders: user(t)}, says(200, c.answer), request("GET", "/", "Remote-User: evil"))
			if h.StatusCode != c.status || (h.ran != nil) != (c.status == 200) {
				t.Fatalf("status %d, %q", h.StatusCode, h.body)
			}
			switch {
			case c.code != "":
				if got := h.code(t); got != c.code {
					t.Errorf("code %q", got)
				}
			case h.ran != nil:
				if got := strings.Join(h.ran.Header["Remote-User"], ","); got != c.user {
					t.Errorf("the handler got %q", got)
				}
			case h.body != c.body:
				t.Errorf("body %q", h.body)
			}
		})
	}
	// The engine's own answers are not decisions on the request.
	for _, status := range []int{201, 204, 302, 400, 401, 403, 404, 500} {
		if h := do(t, forwardauth.Config{Mode: forwardauth.JSON}, says(status, `{"result": true}`), request("GET", "/")); h.StatusCode != 503 {
			t.Errorf("%d: status %d", status, h.StatusCode)
		}
	}
}

// The document that the package comment describes.
func TestPolicyInput(t *testing.T) {
	s := says(200, `{"result": true}`)
	r := request("POST", "/orders/a%20b/?full=1&full=2&x", "Authorization: Bearer t", "Cookie: a=1; b=2", "X-Secret: s")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("<b>")), 3
	do(t, forwardauth.Config{Mode: forwardauth.JSON, MaxBody: 10, RequestCookies: []string{"b"}}, s, r)
	if q := s.last(t); q.Method != "POST" || q.Header.Get("Content-Type") != "application/json" || len(q.Header["Authorization"])+len(q.Header["Cookie"]) != 0 || q.ContentLength != int64(len(s.bodies[0])) {
		t.Errorf("the question is %s %v", q.Method, q.Header)
	}
	var got any
	if err := json.Unmarshal([]byte(s.bodies[0]), &got); err != nil {
		t.Fatal(err)
	}
	list := func(v ...any) []any { return v }
	want := map[string]any{"input": map[string]any{
		"method": "POST", "scheme": "http", "host": "app.example", "path": list("orders", "a b", ""), "target": "/orders/a%20b/?full=1&full=2&x",
		"query":   map[string]any{"full": list("1", "2"), "x": list("")},
		"headers": map[string]any{"authorization": list("Bearer t"), "cookie": list("b=2")},
		"client":  "192.0.2.7", "body": "<b>",
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}

	// Of the root there is no segment, and no unknown client.
	r = request("GET", "/")
	r.RemoteAddr = "@"
	do(t, forwardauth.Config{Mode: forwardauth.JSON}, s, r)
	if got := s.bodies[1]; got != `{"input":{"method":"GET","scheme":"http","host":"app.example","path":[],"query":{},"target":"/","headers":{}}}`+"\n" {
		t.Errorf("got %s", got)
	}
	// A query that would look different to the application.
	if h := do(t, forwardauth.Config{Mode: forwardauth.JSON}, s, request("GET", "/?a=%zz")); h.StatusCode != 400 {
		t.Errorf("status %d", h.StatusCode)
	}

	// An input of the user's own, made from the request that the handler gets.
	own := forwardauth.Config{Mode: forwardauth.JSON, CopyHeaders: user(t), Input: func(r *http.Request) (any, error) {
		if r.Method == "PUT" {
			return nil, errors.New("no input")
		}
		return []string{r.Host, r.Header.Get("Remote-User")}, nil
	}}
	do(t, own, s, request("GET", "/", "Remote-User: evil"))
	if got := s.bodies[len(s.bodies)-1]; got != `{"input":["app.example",""]}`+"\n" {
		t.Errorf("got %s", got)
	}
	asked := s.count()
	if h := do(t, own, s, request("PUT", "/")); h.StatusCode != 503 || s.count() != asked {
		t.Errorf("status %d", h.StatusCode)
	}
	own.Input = func(*http.Request) (any, error) { return make(chan int), nil }
	if h := do(t, own, s, request("GET", "/")); h.StatusCode != 503 || s.count() != asked {
		t.Errorf("status %d", h.StatusCode)
	}
	if h := do(t, forwardauth.Config{Mode: forwardauth.JSON}, says(200, `{"result": {"allow": false, "http_status": 401, "headers": {"Set-Cookie": ["a=1", "b=2"], "X-Internal": "x"}}}`), request("GET", "/")); !slices.Equal(h.Header["Set-Cookie"], []string{"a=1", "b=2"}) || h.Header.Get("X-Internal") != "" {
		t.Errorf("the client got %v", h.Header)
	}
}

package forwardauth_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"net/url"
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
		"same name twice":   {`{"result": {"allow": true, "headers": {"Remote-User": "a", "Remote-User": "b"}}}`, 503, "forwardauth_bad_response", "", ""},
		"header null":       {`{"result": {"allow": true, "headers": {"Remote-User": null}}}`, 503, "forwardauth_bad_response", "", ""},
		"list of null":      {`{"result": {"allow": true, "headers": {"Remote-User": ["a", null]}}}`, 503, "forwardauth_bad_response", "", ""},
		"list of lists":     {`{"result": {"allow": true, "headers": {"Remote-User": [["a"]]}}}`, 503, "forwardauth_bad_response", "", ""},
		"headers null":      {`{"result": {"allow": true, "headers": null}}`, 503, "forwardauth_bad_response", "", ""},
		"headers list":      {`{"result": {"allow": true, "headers": ["a"]}}`, 503, "forwardauth_bad_response", "", ""},
		"status null":       {`{"result": {"allow": false, "http_status": null}}`, 503, "forwardauth_bad_response", "", ""},
		"body null":         {`{"result": {"allow": false, "body": null}}`, 503, "forwardauth_bad_response", "", ""},
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

// What cannot be in a JSON document as it is would be judged as something else,
// so it is refused, and nobody is asked.
func TestPolicyInputIsText(t *testing.T) {
	for name, c := range map[string]struct {
		target, line, body string
		status             int
		code               string
	}{
		"all text":   {"/caf%C3%A9?a=%C3%A9", "Cookie: a=\u00e9", "\u00e9\x00", 200, ""},
		"path":       {"/a%FF", "", "", 400, "forwardauth_target"},
		"query":      {"/?a=%ff", "", "", 400, "forwardauth_target"},
		"query name": {"/?%ff", "", "", 400, "forwardauth_target"},
		"raw query":  {"/?a=\xff", "", "", 400, "forwardauth_target"},
		"header":     {"/", "Authorization: Bearer \xfe", "", 503, "forwardauth_unavailable"},
		"body":       {"/", "", "a\xff", 400, "forwardauth_body"},
		"not sent":   {"/", "X-Other: \xfe", "", 200, ""},
	} {
		s := says(200, `{"result": true}`)
		r := request("POST", c.target)
		if c.line != "" {
			r = request("POST", c.target, c.line)
		}
		if c.body != "" {
			r.Body, r.ContentLength = newBody(c.body), int64(len(c.body))
		}
		h := do(t, forwardauth.Config{Mode: forwardauth.JSON, MaxBody: 10}, s, r)
		if h.StatusCode != c.status || (s.count() == 1) != (c.status == 200) || c.code != "" && h.code(t) != c.code {
			t.Errorf("%s: status %d, %s", name, h.StatusCode, h.body)
		}
		for _, body := range s.bodies {
			if strings.Contains(body, `\ufffd`) || strings.Contains(body, "\ufffd") {
				t.Errorf("%s: the service got %s", name, body)
			}
		}
	}
}

// An Input may read the body: it gets what MaxBody lets it be, and the handler
// all the same.
func TestPolicyInputBody(t *testing.T) {
	for limit, want := range map[int64]string{0: "", 10: "user=ada"} {
		s := says(200, `{"result": true}`)
		r := request("POST", "/", "Content-Type: application/x-www-form-urlencoded")
		r.Body, r.ContentLength = newBody("user=ada"), 8
		h := do(t, forwardauth.Config{Mode: forwardauth.JSON, MaxBody: limit, Input: func(r *http.Request) (any, error) {
			b, err := io.ReadAll(r.Body)
			r.Form = url.Values{"mine": {"x"}}
			r.Body.Close()
			return string(b), err
		}}, s, r)
		if got := s.bodies[0]; got != `{"input":"`+want+"\"}\n" || h.read != "user=ada" || h.ran.Form != nil {
			t.Errorf("MaxBody %d: the service got %s, the handler read %q, form %v", limit, got, h.read, h.ran.Form)
		}
	}
}

// The files of a form that an Input has read are gone when it has.
func TestPolicyInputForm(t *testing.T) {
	body := "--x\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\n" + strings.Repeat("a", 11<<20) + "\r\n--x--\r\n"
	r := request("POST", "/", "Content-Type: multipart/form-data; boundary=x")
	r.Body, r.ContentLength = newBody(body), int64(len(body))
	var form *multipart.Form
	h := do(t, forwardauth.Config{Mode: forwardauth.JSON, MaxBody: 16 << 20, Input: func(r *http.Request) (any, error) {
		err := r.ParseMultipartForm(0)
		form = r.MultipartForm
		return 1, err
	}}, says(200, `{"result": true}`), r)
	if h.ran == nil || h.ran.MultipartForm != nil || h.read != body || len(form.File["f"]) != 1 {
		t.Fatalf("status %d, %d bytes read", h.StatusCode, len(h.read))
	}
	if f, err := form.File["f"][0].Open(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v, %v", f, err)
	}

	// Those of one that was read outside are the handler's.
	r.Body = newBody(body)
	if err := r.ParseMultipartForm(0); err != nil {
		t.Fatal(err)
	}
	defer r.MultipartForm.RemoveAll()
	h = do(t, forwardauth.Config{Mode: forwardauth.JSON, Input: func(r *http.Request) (any, error) { return r.FormValue("a"), nil }}, says(200, `{"result": true}`), r)
	if h.ran == nil || h.ran.MultipartForm != r.MultipartForm {
		t.Fatalf("status %d, the form is another", h.StatusCode)
	}
	if f, err := h.ran.MultipartForm.File["f"][0].Open(); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
}

package paginate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/paginate"
)

// site is a RoundTripper that answers from a table and counts open bodies.
type site struct {
	pages map[string]string // URL: "Link field\nbody", or a status
	asked []string
	auth  []string
	open  int
}

func (s *site) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	u := r.URL.String()
	s.asked = append(s.asked, u)
	s.auth = append(s.auth, r.URL.Host+" "+r.Header.Get("Authorization"))
	page, ok := s.pages[u]
	resp := &http.Response{StatusCode: 200, Header: http.Header{}, Request: r, ProtoMajor: 1}
	link, body, _ := strings.Cut(page, "\n")
	switch {
	case !ok:
		resp.StatusCode = 404
	case strings.HasPrefix(page, "-> "):
		resp.StatusCode = 302
		resp.Header.Set("Location", page[3:])
	case link != "":
		resp.Header.Set("Link", link)
	}
	s.open++
	resp.Body = &closer{strings.NewReader(body), s}
	return resp, nil
}

type closer struct {
	io.Reader
	s *site
}

func (c *closer) Close() error {
	if c.s != nil {
		c.s.open--
		c.s = nil
	}
	return nil
}

func (s *site) walk(t *testing.T, ctx context.Context, stop int) ([]int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://h/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "secret")
	var items []int
	var ended error
	for item, err := range paginate.Walk(&http.Client{Transport: s}, req, paginate.JSON[int]("", "")) {
		if ended != nil {
			t.Fatal("it goes on after an error")
		}
		if ended = err; err == nil {
			items = append(items, item)
		}
		if len(items) == stop {
			break
		}
	}
	if s.open != 0 {
		t.Errorf("%d bodies are open", s.open)
	}
	for _, a := range s.auth {
		if a != "h secret" && a != "H:80 secret" {
			t.Errorf("paginate 22: asked %q", a)
		}
	}
	return items, ended
}

// paginate 21: what a walk meets. Bodies are closed each time.
// paginate 22: no other origin is asked, so none gets the credentials.
func TestWalk(t *testing.T) {
	three := map[string]string{
		"http://h/1":    "</2>; rel=next\n[1,2]",
		"http://h/2":    "<http://H:80/3>; rel=\"next\"\n[]",
		"http://H:80/3": "<1>; rel=prev\n[3]",
	}
	with := func(url, page string) map[string]string {
		return map[string]string{"http://h/1": "</2>; rel=next\n[1,2]", "http://h/2": page, url: "\n[9]"}
	}
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	none := func(err error) bool { return err == nil }
	for name, tt := range map[string]struct {
		pages map[string]string
		stop  int
		want  []int
		err   func(error) bool
		asked int
	}{
		"three pages":      {three, -1, []int{1, 2, 3}, none, 3},
		"break":            {three, 1, []int{1}, none, 1},
		"break at the end": {three, 3, []int{1, 2, 3}, none, 3},
		"404 on page two": {map[string]string{"http://h/1": "</2?token=x>; rel=next\n[1]"}, -1, []int{1}, func(err error) bool {
			e, ok := errors.AsType[*paginate.StatusError](err)
			return ok && e.Status == 404 && err.Error() == "paginate: http://h/2 answered 404 Not Found"
		}, 2},
		"no JSON":           {with("", "\n{"), -1, []int{1, 2}, is(io.ErrUnexpectedEOF), 2},
		"cycle":             {with("", "</1>; rel=next\n[3]"), -1, []int{1, 2, 3}, is(paginate.ErrCycle), 2},
		"itself":            {with("", "<#x>; rel=next\n[3]"), -1, []int{1, 2, 3}, is(paginate.ErrCycle), 2},
		"foreign host":      {with("http://evil/", "<http://evil/>; rel=next\n[3]"), -1, []int{1, 2, 3}, is(paginate.ErrOrigin), 2},
		"subdomain":         {with("http://x.h/", "<http://x.h/>; rel=next\n[]"), -1, []int{1, 2}, is(paginate.ErrOrigin), 2},
		"other scheme":      {with("https://h/2", "<https://h/2>; rel=next\n[]"), -1, []int{1, 2}, is(paginate.ErrOrigin), 2},
		"other port":        {with("http://h:81/", "<http://h:81/>; rel=next\n[]"), -1, []int{1, 2}, is(paginate.ErrOrigin), 2},
		"no host":           {with("", "<file:///etc/passwd>; rel=next\n[]"), -1, []int{1, 2}, is(paginate.ErrOrigin), 2},
		"redirect":          {with("http://h/3", "-> /3"), -1, []int{1, 2, 9}, none, 3},
		"foreign redirect":  {with("http://evil/", "-> http://evil/"), -1, []int{1, 2}, is(paginate.ErrOrigin), 2},
		"endless redirects": {map[string]string{"http://h/1": "-> /1"}, -1, nil, func(err error) bool { return err != nil }, 10},
	} {
		t.Run(name, func(t *testing.T) {
			s := &site{pages: tt.pages}
			got, err := s.walk(t, t.Context(), tt.stop)
			if !slices.Equal(got, tt.want) || !tt.err(err) || len(s.asked) != tt.asked {
				t.Errorf("got %v, %v after %q", got, err, s.asked)
			}
		})
	}
}

// paginate 21: a context that ends between two pages ends the walk.
func TestWalkCancelled(t *testing.T) {
	s := &site{pages: map[string]string{"http://h/1": "</2>; rel=next\n[1]", "http://h/2": "\n[2]"}}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	why := errors.New("enough")
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://h/1", nil)
	var errs []error
	for _, err := range paginate.Walk(&http.Client{Transport: s}, req, paginate.JSON[int]("", "")) {
		if err != nil {
			errs = append(errs, err)
		}
		cancel(why)
	}
	if len(errs) != 1 || !errors.Is(errs[0], why) || len(s.asked) != 1 || s.open != 0 {
		t.Error(errs, s.asked, s.open)
	}
}

// The next page can be named in the body, and a Reader's error ends the walk
// behind the items that it returns with it.
func TestWalkBody(t *testing.T) {
	s := &site{pages: map[string]string{
		"http://h/1":        "\n" + `{"data":[1],"paging":1,"next":"?page=2"}`,
		"http://h/1?page=2": "</3>; rel=next\n" + `{"data":[2],"next":null}`,
		"http://h/3":        "\n" + `{"data":[3],"next":""}`,
	}}
	req, _ := http.NewRequest("GET", "http://h/1", nil)
	var got []int
	for item, err := range paginate.Walk(&http.Client{Transport: s}, req, paginate.JSON[int]("data", "next")) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, item)
	}
	if !slices.Equal(got, []int{1, 2, 3}) {
		t.Error(got)
	}
	for _, body := range []string{`{"items":[]}`, `{"data":{}}`, `{"data":[],"next":7}`, `[]`} {
		s := &site{pages: map[string]string{"http://h/1": "\n" + body}}
		var errs int
		for _, err := range paginate.Walk(&http.Client{Transport: s}, req, paginate.JSON[int]("data", "next")) {
			if err == nil {
				t.Error("an item of", body)
			}
			errs++
		}
		if errs != 1 || s.open != 0 {
			t.Error(body, errs, s.open)
		}
	}
	broken := errors.New("broken")
	var items, errs int
	for _, err := range paginate.Walk(&http.Client{Transport: s}, req, func(*http.Response) ([]int, string, error) {
		return []int{1, 2}, "", broken
	}) {
		if err == nil {
			items++
		} else if errors.Is(err, broken) {
			errs++
		}
	}
	if items != 2 || errs != 1 {
		t.Error(items, errs)
	}
}

func TestWalker(t *testing.T) {
	pages := map[string]string{
		"http://h/1":     "<http://other/2>; rel=next\n",
		"http://other/2": "<http://h/3>; rel=next\n",
		"http://h/3":     "\n",
	}
	walk := func(c paginate.WalkerConfig) (n int, last error) {
		s := &site{pages: pages}
		redirects := 0
		c.Client = &http.Client{Transport: s, CheckRedirect: func(*http.Request, []*http.Request) error { redirects++; return nil }}
		w, err := paginate.NewWalker(c)
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequest("GET", "http://h/1", nil)
		for resp, err := range w.Pages(req) {
			if last = err; err == nil {
				n++
				if s.open != 1 || resp.StatusCode != 200 {
					t.Error("open bodies:", s.open)
				}
			}
		}
		if s.open != 0 {
			t.Error("open bodies:", s.open)
		}
		return n, last
	}
	if n, err := walk(paginate.WalkerConfig{}); n != 1 || !errors.Is(err, paginate.ErrOrigin) {
		t.Error(n, err)
	}
	if n, err := walk(paginate.WalkerConfig{Origins: []string{"http://OTHER:80/"}}); n != 3 || err != nil {
		t.Error(n, err)
	}
	if n, err := walk(paginate.WalkerConfig{Origins: []string{"http://other"}, MaxPages: 2}); n != 2 || !errors.Is(err, paginate.ErrPages) {
		t.Error(n, err)
	}
	for _, bad := range []string{"", "other", "ftp://h", "http://h/path", "http://u:pw@h", "http://h?x", "http://"} {
		if _, err := paginate.NewWalker(paginate.WalkerConfig{Origins: []string{"http://ok", bad}}); err == nil ||
			!strings.HasPrefix(err.Error(), "paginate: Origins[1]: ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A walk repeats its first request, so that has to be one that can be.
func TestWalkMethod(t *testing.T) {
	for _, method := range []string{"", "GET", "HEAD", "POST"} {
		s := &site{pages: map[string]string{"http://h/1": "\n[]"}}
		req, _ := http.NewRequest("GET", "http://h/1", nil)
		req.Method = method
		var got error
		for _, err := range paginate.Walk(&http.Client{Transport: s}, req, paginate.JSON[int]("", "")) {
			got = err
		}
		if (got != nil) != (method == "POST") {
			t.Error(method, got)
		}
	}
	req, _ := http.NewRequest("GET", "http://h/1", strings.NewReader("x"))
	for _, err := range paginate.Walk(nil, req, paginate.JSON[int]("", "")) {
		if err == nil || fmt.Sprint(err) != "paginate: a walk must begin with a request without a body" {
			t.Error(err)
		}
	}
}

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// pages is a server with three pages of each kind.
func pages(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 1
		fmt.Sscan(r.URL.Query().Get("page"), &n)
		if r.Header.Get("Token") != "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if n < 3 && r.URL.Path != "/body" {
			w.Header().Set("Link", fmt.Sprintf(`<?page=%d>; rel="next"`, n+1))
		}
		switch r.URL.Path {
		case "/array":
			fmt.Fprintf(w, ` [{"n":%d}]`, n)
		case "/object":
			fmt.Fprintf(w, `{"items":[{"n":%d}]}`, n)
		case "/body":
			next := ""
			if n < 3 {
				next = fmt.Sprintf("/body?page=%d", n+1)
			}
			fmt.Fprintf(w, `{"results":[{"n":%d}],"next":%q}`, n, next)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestRun(t *testing.T) {
	url := pages(t)
	const all = "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n"
	for _, tt := range []struct{ args, want string }{
		{url + "/array", all},
		{url + "/object", all},
		{"-items results -next next " + url + "/body", all},
		{"-pages 2 " + url + "/array", "{\"n\":1}\n{\"n\":2}\n"},
	} {
		var out strings.Builder
		if err := run(t.Context(), strings.Fields(tt.args), &out); err != nil || out.String() != tt.want {
			t.Errorf("%s: %v\n%s", tt.args, err, out.String())
		}
	}
}

func TestErrors(t *testing.T) {
	url := pages(t)
	for _, args := range [][]string{
		{}, {"a", "b"}, {"-pages", "x", url}, {"-header", "no colon", url}, {"::"},
		{"-header", "Token: x", url + "/array"}, {"-items", "other", url + "/object"}, {"-h"},
	} {
		if err := run(t.Context(), args, io.Discard); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", args, err)
		}
	}
}

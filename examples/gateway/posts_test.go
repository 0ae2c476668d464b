package main

import (
	"net/http"
	"strings"
	"testing"

	"example.com/plainware/paginate"
)

// The list is whole although its pages come from two back ends in turn, forwards
// through the gateway.
func TestPosts(t *testing.T) {
	g := start(t)
	for query, want := range map[string]int{"": 100, "?limit=7": 100, "?author=ann&limit=5": 34, "?author=nobody": 0} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", g.url+"/posts"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[int64]bool{}
		last := post{Created: "9999", ID: 1 << 60}
		for p, err := range paginate.Walk(newClient(t, false), req, paginate.JSON[post]("items", "")) {
			if err != nil {
				t.Fatal(err)
			}
			if seen[p.ID] || p.Created > last.Created || p.Created == last.Created && p.ID > last.ID {
				t.Errorf("%q: %v after %v", query, p, last)
			}
			seen[p.ID], last = true, p
		}
		if len(seen) != want {
			t.Errorf("%q: %d posts, want %d", query, len(seen), want)
		}
	}
	if res := get(t, newClient(t, false), g.url+"/posts?cursor=nonsense"); res.StatusCode != 400 || !strings.Contains(res.body, `"code":"invalid_cursor"`) {
		t.Errorf("got %d %s", res.StatusCode, res.body)
	}
	if res := get(t, newClient(t, false), g.url+"/posts?total=1&limit=1"); res.Header.Get("X-Total-Count") != "100" {
		t.Errorf("X-Total-Count: %q", res.Header.Get("X-Total-Count"))
	}
}

package forwardauth_test

import (
	"net/http"
	"reflect"
	"sync"
	"testing"

	"example.com/plainware/forwardauth"
)

// What a handler does to its Identity, to the fields in its header, or in
// several goroutines at once, nobody else sees: not the other of the two, not
// who shares the question, not who is answered from the cache.
func TestIdentityIsTheRequestsOwn(t *testing.T) {
	for name, cached := range map[string]bool{"asked": false, "cached": true} {
		inBubble(t, name, func(t *testing.T) {
			var cache *forwardauth.CacheConfig
			if cached {
				cache = cachedBy(memory(t))
			}
			s := says(200, "", "Remote-User: ada", "Remote-Groups: dev", "Remote-Groups: admins", "Cache-Control: max-age=60")
			want := http.Header{"Remote-User": {"ada"}, "Remote-Groups": {"dev", "admins"}}
			m := mustNew(t, forwardauth.Config{Base: s, CopyHeaders: user(t), Cache: cache})
			h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var ids [4]forwardauth.Identity
				var wg sync.WaitGroup
				for i := range ids {
					wg.Go(func() {
						if i%2 == 0 {
							ids[i], _ = m.From(r.Context())
						} else {
							ids[i], _ = forwardauth.FromContext(r.Context())
						}
					})
				}
				wg.Wait()
				for _, id := range ids {
					if !reflect.DeepEqual(id.Header, want) {
						t.Errorf("identity %v", id.Header)
					}
				}
				ids[0].Header["Remote-User"][0] = "eve"
				ids[0].Header["Remote-Groups"] = append(ids[0].Header["Remote-Groups"][:1], "eve")
				if r.Header.Get("Remote-User") != "ada" || r.Header["Remote-Groups"][1] != "admins" {
					t.Errorf("the header became %v", r.Header)
				}
				r.Header["Remote-User"] = append(r.Header["Remote-User"], "eve")
				r.Header["Remote-Groups"][0] = "eve"
			}))
			for range 3 {
				h.ServeHTTP(newRecorder(), request("GET", "/", "Cookie: a=1"))
			}
			if n := s.count(); !cached && n != 3 || cached && n != 1 {
				t.Errorf("%d questions", n)
			}
		})
	}
}

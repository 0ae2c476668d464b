package cookies_test

import (
	"net/http"
	"testing"

	"example.com/plainware/cookies"
	"example.com/plainware/internal/mwtest"
)

// The composition contract of the kit: for requests without the cookie, with one
// that passes through, and with one that is refreshed.
func TestConformance(t *testing.T) {
	for name, tc := range map[string]struct {
		key      []byte // of the value that requests bring; nil is none
		response []string
	}{
		"no cookie": {nil, nil},
		"a cookie":  {keyB, nil},
		"refresh":   {keyA, []string{"Set-Cookie", "Cache-Control"}},
	} {
		t.Run(name, func(t *testing.T) {
			mwtest.Run(t, mwtest.Middleware{
				New: func(t testing.TB) func(http.Handler) http.Handler {
					c := sealed(t, cookies.Config[string]{Keys: keys(keyB, keyA)})
					if tc.key == nil {
						return c.Handler
					}
					pair := "theme=" + encode(t, sealed(t, cookies.Config[string]{Keys: keys(tc.key)}), "dark", "")
					return func(next http.Handler) http.Handler {
						h := c.Handler(next)
						return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							// The suite's own requests have no cookie.
							r.Header["Cookie"] = append(r.Header["Cookie"], pair)
							h.ServeHTTP(w, r)
						})
					}
				},
				RequestHeaders:  []string{"Cookie"},
				ResponseHeaders: tc.response,
			})
		})
	}
}

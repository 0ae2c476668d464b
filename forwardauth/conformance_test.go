package forwardauth_test

import (
	"net/http"
	"testing"

	"example.com/plainware/forwardauth"
	"example.com/plainware/internal/mwtest"
	"example.com/plainware/store"
)

// The composition contract of the kit, in each configuration that takes another
// path. Its requests have paths that a default configuration refuses.
func TestConformance(t *testing.T) {
	for name, c := range map[string]struct {
		service *service
		config  forwardauth.Config
		lines   []string
	}{
		"default": {says(200, ""), forwardauth.Config{}, nil},
		"copies":  {says(200, "", "Remote-User: ada"), forwardauth.Config{CopyHeaders: []forwardauth.HeaderCopy{{From: "Remote-User"}}}, []string{"Remote-User"}},
		"cookies": {says(200, "", "Set-Cookie: a=b"), forwardauth.Config{SuccessCookies: forwardauth.AllCookies()}, []string{"Set-Cookie"}},
		"skip":    {says(500, ""), forwardauth.Config{Skip: func(*http.Request) bool { return true }}, nil},
		"json":    {says(200, `{"result": true}`), forwardauth.Config{Mode: forwardauth.JSON, Input: func(r *http.Request) (any, error) { return r.Method, nil }}, nil},
		"cache":   {says(200, "", "Cache-Control: max-age=5"), forwardauth.Config{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			mwtest.Run(t, mwtest.Middleware{
				New: func(t testing.TB) func(http.Handler) http.Handler {
					c := c
					c.config.Base, c.config.InsecureAmbiguousPaths = c.service, true
					if name == "cache" {
						mem, err := store.NewMemory(store.MemoryConfig{Registers: 64})
						if err != nil {
							t.Fatal(err)
						}
						c.config.Cache = &forwardauth.CacheConfig{Store: mem, Name: "t"}
					}
					return mustNew(t, c.config).Handler
				},
				RequestHeaders:  c.lines,
				ResponseHeaders: c.lines,
			})
		})
	}
}

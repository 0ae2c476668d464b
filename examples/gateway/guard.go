package main

import (
	"net/http"
	"strings"

	"example.com/plainware/forwardauth"
)

// newGuard lets requests through that the service at url allows. What it says of
// the user reaches the back end, and nothing that a client says of itself under
// that name.
func newGuard(url string) (*forwardauth.Middleware, error) {
	return forwardauth.New(forwardauth.Config{
		URL:         url,
		CopyHeaders: []forwardauth.HeaderCopy{{From: "Remote-User"}},
	})
}

// decisions is the demo's decision service, in the place of Authelia,
// oauth2-proxy or one of your own. It knows one token, and sends people with
// a browser to the login page.
func decisions() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); {
		case ok && token == "demo":
			w.Header().Set("Remote-User", "ann")
		case !ok && strings.Contains(r.Header.Get("Accept"), "text/html"):
			http.Redirect(w, r, "/login", http.StatusFound)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="demo"`)
			http.Error(w, "no, or not that token", http.StatusUnauthorized)
		}
	})
}

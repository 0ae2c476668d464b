package main

import (
	"net/http"
	"strings"

	"example.com/plainware/cookies/session"
	"example.com/plainware/forwardauth"
)

// newGuard lets requests through that the service at url allows. What it says of
// the user reaches the back end, and nothing that a client says of itself under
// that name.
func newGuard(url string) (*forwardauth.Middleware, error) {
	return forwardauth.New(forwardauth.Config{
		URL:         url,
		CopyHeaders: []forwardauth.HeaderCopy{{From: "Remote-User"}},
		// It renews the cookie of the login from time to time.
		SuccessCookies: forwardauth.AllCookies(),
	})
}

// decisions is the demo's decision service, in the place of Authelia,
// oauth2-proxy or one of your own. It knows one token, and whoever has logged in
// at the gateway, since it has the sessions too. Other people with a browser it
// sends to the login page.
func decisions(sessions *session.Manager[visitor]) http.Handler {
	return sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if ok && token == "demo" {
			w.Header().Set("Remote-User", "ann")
			return
		}
		user, err := sessions.MustFrom(r.Context()).UserID()
		switch {
		case err != nil:
			http.Error(w, "The session could not be read.", http.StatusServiceUnavailable)
		case user != "" && !ok:
			w.Header().Set("Remote-User", user)
		case !ok && strings.Contains(r.Header.Get("Accept"), "text/html"):
			http.Redirect(w, r, "/login", http.StatusFound)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="demo"`)
			http.Error(w, "no, or not that token", http.StatusUnauthorized)
		}
	}))
}

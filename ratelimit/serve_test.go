package ratelimit_test

import (
	"net/http"
	"net/http/httptest"
)

// reply is what a handler wrote.
type reply struct {
	status int
	header http.Header
	body   string
}

func serve(h http.Handler, r *http.Request) reply {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	res := w.Result()
	return reply{res.StatusCode, res.Header, w.Body.String()}
}

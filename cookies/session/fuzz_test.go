package session_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"example.com/plainware/cookies/session"
)

// cookies 39: no Cookie field makes a session of what is none, or panics.
func FuzzCookie(f *testing.F) {
	m := newManager(f, session.Config[cart]{})
	b := newBrowser(f, m)
	b.login("ann")
	valid := b.cookie
	f.Add("", "")
	f.Add(valid, "")
	f.Add(valid+"; "+valid, "a=b")
	f.Add("x=1;"+valid[:len(valid)-1], valid[:len(valid)-2]+"\n"+valid[len(valid)-1:])
	f.Add(`__Host-Http-sid="`+b.id()+`"`, valid+";")
	f.Add(strings.Repeat(";", 2998)+valid, "")
	f.Add(strings.Repeat(";", 2999)+valid, "")
	f.Fuzz(func(t *testing.T, a, c string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Cookie"] = []string{a, c}
		var got state
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = read(t, m.MustFrom(r.Context()))
		})).ServeHTTP(httptest.NewRecorder(), r)
		// It is that of the id, and only if the cookie is there letter by
		// letter, by the standard library's reading of it too.
		has := false
		for _, v := range r.CookiesNamed(session.DefaultCookie) {
			has = has || v.Value == b.id() && !v.Quoted
		}
		// Where it counts more than 3000 cookies it reads none: its limit is
		// for what it allocates, and the session allocates nothing for them.
		many := strings.Count(a+";"+c, ";")+1 > 3000
		if got.exists && !has && !many || got.exists != (got.user == "ann") {
			t.Errorf("session %+v from %q", got, r.Header["Cookie"])
		}
	})
}

package main

import (
	"bytes"
	"errors"
	"html/template"
	"net/http"
	"strings"
	"time"
	"unicode"

	"example.com/plainware/cookies/session"
	"example.com/plainware/store"
)

// visitor is what the demo keeps of somebody who has logged in.
type visitor struct {
	Since  time.Time
	Visits int
}

// newSessions keeps who has logged in. A session is in the store, so it survives
// a restart of the gateway wherever the store does, and every gateway on the
// same store knows it.
func newSessions(s store.Store) (*session.Manager[visitor], error) {
	return session.New(session.Config[visitor]{
		Store: s,
		Name:  "gateway-login",
		// The demo speaks plain HTTP. Over HTTPS leave this out: the cookie is
		// then one that only HTTPS, only this host and no script gets.
		Insecure:   true,
		Persistent: true,
		// Nothing here revokes all sessions of a user at once, which takes a store
		// that keeps what it is given.
		NoRevokeUser: true,
	})
}

// newLogin returns the demo's login page, which the gateway serves itself.
//
// It believes whoever gives a name. A real one checks a password, or sends the
// browser to an identity provider, before it calls Login.
func newLogin(sessions *session.Manager[visitor]) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		showLogin(w, sessions.MustFrom(r.Context()))
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimSpace(r.FormValue("name"))
		if name == "" || len(name) > 64 || strings.ContainsFunc(name, unicode.IsControl) {
			http.Error(w, "A name has 1 to 64 characters that can be seen.", http.StatusBadRequest)
			return
		}
		s := sessions.MustFrom(r.Context())
		// Login gives the session a new id, so that nobody who has seen or
		// planted the old one is logged in with it.
		err := errors.Join(s.Login(name), s.Update(func(v *visitor) error {
			*v = visitor{Since: time.Now()}
			return nil
		}))
		after(w, r, err)
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		after(w, r, sessions.MustFrom(r.Context()).Logout())
	})
	// Forms of other sites must not log anybody in or out.
	forms := http.NewCrossOriginProtection()
	return forms.Handler(http.MaxBytesHandler(sessions.Handler(mux), 4<<10))
}

// after leads back to the page. Where the store has failed, the session's
// middleware answers in its place.
func after(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil && !errors.Is(err, session.ErrUnavailable) {
		http.Error(w, "The login could not be changed.", http.StatusInternalServerError)
		return
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

func showLogin(w http.ResponseWriter, s *session.Session[visitor]) {
	var page struct {
		Name string
		visitor
	}
	var err error
	if page.Name, err = s.UserID(); err == nil && page.Name != "" {
		err = s.Update(func(v *visitor) error {
			v.Visits++
			page.visitor = *v
			return nil
		})
	}
	var html bytes.Buffer
	if err == nil {
		err = loginPage.Execute(&html, page)
	}
	if err != nil {
		http.Error(w, "The session could not be read.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(html.Bytes())
}

var loginPage = template.Must(template.New("login").Parse(`<!doctype html>
<meta charset="utf-8"><title>gateway</title>
{{if .Name -}}
<p>Logged in as <b>{{.Name}}</b> since {{.Since.Format "15:04:05"}}, {{.Visits}} visits.
Restart the gateway and load this page again, or see <a href="/private">what is guarded</a>.</p>
<form method="post" action="/logout"><button>Log out</button></form>
{{- else -}}
<form method="post" action="/login"><label>Name <input name="name" autofocus></label> <button>Log in</button></form>
{{- end}}
`))

// Package session keeps sessions on the server: a value of a type of your own
// for each browser, in any [store.Store], under a random id in a cookie.
//
//	sess, err := session.New(session.Config[User]{Store: st, Name: "app"})
//	if err != nil {
//		log.Fatal(err)
//	}
//	http.ListenAndServe(addr, sess.Handler(mux))
//
// In a handler:
//
//	s := sess.MustFrom(r.Context())
//	user, err := s.Load()
//	if err != nil {
//		return // the answer is a 503 by now
//	}
//	err = s.Update(func(u *User) error { u.Visits++; return nil })
//
// and, once the password was right, s.Login(name); later s.Logout().
//
// # What can be relied on
//
// The id is 256 random bits, made here and never taken from a request. The
// store knows it by its SHA-256 only, so who reads the store cannot use a
// session. The values in it are not encrypted.
//
// Every save is a compare-and-swap. Updates of concurrent requests all count,
// since those that come late are carried out again on what the others have
// left. A session that was logged out, or revoked by [Manager.RevokeUser], is
// not brought back by a request that was running at the time, and neither is
// the id of before a [Session.Login].
//
// What a request does to its session is saved before the first byte of the
// response is sent: on the first Write, WriteHeader, Flush, ReadFrom or Hijack,
// or when the handler returns. Informational responses (103 Early Hints) come
// before that. If the save fails, the client gets the error and nothing of what
// the handler sends. After a panic nothing is saved, unless what recovers from it
// stands inside and answers as a handler does.
//
// A store that fails is not an empty store: the request is answered with 503,
// and never goes on as if nobody were logged in.
//
// # Cookies and caches
//
// The cookie is [DefaultCookie], Secure, HttpOnly, SameSite=Lax and host-only
// unless Config says otherwise, and rules that a browser would enforce by
// dropping the cookie are checked by [New]. It is deleted by a Logout alone: a
// response cannot know whether another one has set a newer cookie by the time
// it arrives.
//
// A response has Vary: Cookie if a method of its session was called before it
// began.
// One that sets a cookie has Cache-Control: no-store besides, unless the handler
// has set no-store or private itself.
//
// # What it does not do
//
// A session is not for large values: it is read and written as a whole. Where a
// cookie can hold the data itself, the parent package needs no store. SameSite
// is no complete protection from forged requests: use
// [net/http.CrossOriginProtection] inside of it. A request that is under way
// when its session is revoked is not stopped.
//
// # Where it belongs
//
// Outside of whatever asks for the session, inside of timeouts, compression
// and request ids. It wraps the ResponseWriter, with the abilities of the one
// outside, and writes nothing to the request but Pattern and MultipartForm,
// which it copies back after the next handler.
//
// # What it costs
//
// A request that does not use its session: about what WithContext costs, no
// read, and no Vary. One that does: one read, and another one for the mark of
// RevokeUser if somebody is logged in. Within Idle/10 of the last use that was
// written a request that changes nothing writes nothing. An Update is one
// write, Login and Rotate two; an id that Rotate has replaced takes some 200
// bytes of the store for up to a day, and with DestroyOnReuse until Absolute. No
// goroutines, no state in the process.
package session

package forwardauth

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// answer is what the service has decided.
type answer struct {
	allowed bool
	status  int
	header  http.Header // without what Connection names; not to be changed
	body    []byte
	unsent  int64    // how long a body is that was not sent, as HEAD was asked; -1: not known
	from    *url.URL // what was asked
}

// denyFields are what a client gets of a denying answer.
var denyFields = [...]string{
	"Cache-Control", "Content-Encoding", "Content-Language", "Content-Type",
	"Location", "Retry-After", "Set-Cookie", "Vary", "Www-Authenticate",
}

func (m *Middleware) denyHeader(name string) bool {
	return slices.Contains(denyFields[:], name) || slices.Contains(m.deny, name)
}

func (m *Middleware) copied(name string) bool {
	return slices.ContainsFunc(m.copies, func(c headerCopy) bool { return c.from == name })
}

// writeDenial passes a denying answer on.
func (m *Middleware) writeDenial(w http.ResponseWriter, q *question, a *answer) {
	m.signIn(q, a)
	h := w.Header()
	for name, values := range a.header {
		if !m.denyHeader(name) {
			continue
		}
		switch name {
		case "Set-Cookie", "Vary", "Www-Authenticate":
			h[name] = append(slices.Clip(h[name]), values...)
		default:
			h[name] = slices.Clone(values)
		}
	}
	if loc := h["Location"]; m.cfg.ResolveLocation && len(loc) == 1 {
		if u, err := url.Parse(loc[0]); err == nil {
			h["Location"] = []string{a.from.ResolveReference(u).String()}
		}
	}
	if len(h["Cache-Control"]) == 0 {
		h["Cache-Control"] = []string{"no-store"}
	}
	if _, ok := h["Content-Type"]; !ok && len(a.body) > 0 {
		h["Content-Type"] = nil // a type that is guessed could be one that runs scripts
	}
	if a.unsent >= 0 {
		h["Content-Length"] = []string{strconv.FormatInt(int64(len(a.body))+a.unsent, 10)}
	}
	closeIfUnread(w, q.r, q)
	w.WriteHeader(a.status)
	if q.r.Method != http.MethodHead && len(a.body) > 0 {
		w.Write(a.body) // a client that is gone has nobody to tell
	}
}

// signIn makes a redirect of a 401 where the configuration wants it and the
// client is one that shows pages to people.
func (m *Middleware) signIn(q *question, a *answer) {
	if a.status != http.StatusUnauthorized || !acceptsHTML(q.r.Header) {
		return
	}
	a.header = maps.Clone(a.header)
	read := q.method == http.MethodGet || q.method == http.MethodHead
	switch located := len(a.header["Location"]) > 0; {
	case located && m.cfg.RedirectHTML && read:
		a.status = http.StatusFound
	case located && m.cfg.RedirectHTML:
		a.status = http.StatusSeeOther
	case !located && m.cfg.SignIn != "" && read:
		sep := "?"
		if strings.Contains(m.cfg.SignIn, "?") {
			sep = "&"
		}
		back := url.QueryEscape(q.scheme + "://" + q.host + q.target)
		a.status = http.StatusFound
		a.header["Location"] = []string{m.cfg.SignIn + sep + "rd=" + back}
	default:
		return
	}
	// The page that came with the 401 and the challenge are of no use now.
	a.body, a.unsent = nil, 0
	for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Language", "Www-Authenticate"} {
		delete(a.header, name)
	}
}

// acceptsHTML reports whether Accept has text/html, and not only as part of
// */*, which every program sends (RFC 9110, section 12.5.1).
func acceptsHTML(h http.Header) bool {
	for _, line := range h["Accept"] {
		for part := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(part, ";")
			if !strings.EqualFold(strings.TrimSpace(name), "text/html") {
				continue
			}
			refused := false
			for p := range strings.SplitSeq(params, ";") {
				k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
				if q, err := strconv.ParseFloat(v, 64); strings.EqualFold(k, "q") && (err != nil || q <= 0) {
					refused = true
				}
			}
			if !refused {
				return true
			}
		}
	}
	return false
}

package forwardauth

import (
	"net/http"
	"slices"
	"strings"

	"example.com/plainware/internal/respwriter"
)

// CookieRule says which cookies of an allowing answer reach the client. The
// zero value is none. Cookies of a denying answer always do.
type CookieRule struct {
	all   bool
	names []string
}

// AllCookies passes every cookie on: for services that renew their session in
// the course of a decision, and may spread it over several cookies.
func AllCookies() CookieRule { return CookieRule{all: true} }

// NamedCookies passes on the cookies with these names.
func NamedCookies(names ...string) CookieRule { return CookieRule{names: slices.Clone(names)} }

// pick returns the Set-Cookie lines that the rule lets pass, as they are.
func (c CookieRule) pick(lines []string) []string {
	if c.all {
		return lines
	}
	var picked []string
	for _, line := range lines {
		if slices.Contains(c.names, cookieName(line)) {
			picked = append(picked, line)
		}
	}
	return picked
}

// cookieName returns the name in a Set-Cookie line: the one that the client will
// see, as net/http sends a bare CR or LF as a space.
func cookieName(line string) string {
	name, _, _ := strings.Cut(line, "=")
	return strings.Trim(name, " \t\r\n")
}

// withCookies runs next with a writer that adds cookies when the header is
// sent, so that the handler has had its chance to set one of the same name.
func withCookies(next http.Handler, w http.ResponseWriter, r *http.Request, lines []string) {
	writer := respwriter.Make(w, r, respwriter.Func(func(int) error {
		h := w.Header()
		set := h["Set-Cookie"]
		all := slices.Clip(slices.Clone(set))
		for _, line := range lines {
			name := cookieName(line)
			if !slices.ContainsFunc(set, func(own string) bool { return cookieName(own) == name }) {
				all = append(all, line)
			}
		}
		if len(all) > len(set) {
			h["Set-Cookie"] = all
		}
		return nil
	}))
	next.ServeHTTP(writer.Form(), r)
	writer.Finish()
}

// filterCookies returns the Cookie lines with nothing but the named cookies. A
// cookie without a name, which some readers take for one whose name is its
// value, goes.
func filterCookies(lines, names []string) []string {
	var b strings.Builder
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ";") {
			part = strings.Trim(part, " \t")
			name, _, ok := strings.Cut(part, "=")
			if !ok || !slices.Contains(names, strings.Trim(name, " \t")) {
				continue
			}
			if b.Len() > 0 {
				b.WriteString("; ")
			}
			b.WriteString(part)
		}
	}
	if b.Len() == 0 {
		return nil
	}
	return []string{b.String()}
}

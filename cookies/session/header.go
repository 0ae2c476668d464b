package session

import (
	"net/http"
	"slices"
	"strings"
)

// addVary tells caches that the response depends on the cookie (RFC 9110
// section 12.5.5).
func addVary(h http.Header) {
	for name := range members(h["Vary"]) {
		if name == "*" || strings.EqualFold(name, "Cookie") {
			return
		}
	}
	h["Vary"] = append(slices.Clip(h["Vary"]), "Cookie")
}

// untarget deletes the fields that shared caches obey in place of Cache-Control
// (RFC 9213, and the one of which it is the successor). Each operator has one of
// its own, and all their names end alike.
func untarget(h http.Header) {
	for name := range h {
		if name == "Surrogate-Control" || strings.HasSuffix(name, "-Cache-Control") {
			delete(h, name)
		}
	}
}

// keepPrivate keeps a response with a cookie for one person out of shared
// caches (RFC 9111 section 7.3). What the handler has said is left if it does
// that already; a private with field names does not.
func keepPrivate(h http.Header) {
	untarget(h)
	for d := range members(h["Cache-Control"]) {
		if strings.EqualFold(d, "no-store") || strings.EqualFold(d, "private") {
			return
		}
	}
	h["Cache-Control"] = []string{"no-store"}
}

// members ranges over the comma-separated members of a field's lines.
func members(lines []string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, line := range lines {
			for m := range strings.SplitSeq(line, ",") {
				if !yield(strings.Trim(m, " \t")) {
					return
				}
			}
		}
	}
}

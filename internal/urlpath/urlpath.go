// Package urlpath finds what makes a request target mean one thing to a rule in
// front of a back end and another to the back end.
package urlpath

import "strings"

// BadBytes reports whether an escaped path or query has bytes that cannot be in
// one without ending it: control characters, a space, "#".
func BadBytes(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '#' || c == 0x7f {
			return true
		}
	}
	return false
}

// DotSegments reports whether a decoded path has a segment that is . or .., for
// any back end: some take \ for /, and some cut a segment at the first ;.
func DotSegments(path string) bool {
	if strings.IndexByte(path, '.') < 0 {
		return false
	}
	for i := range len(path) {
		if path[i] != '.' || i > 0 && path[i-1] != '/' && path[i-1] != '\\' {
			continue
		}
		end := i + 1
		if end < len(path) && path[end] == '.' {
			end++
		}
		if end == len(path) || strings.IndexByte(`/\;`, path[end]) >= 0 {
			return true
		}
	}
	return false
}

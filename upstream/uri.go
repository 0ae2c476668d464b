package upstream

import (
	"net/http"
	"net/url"
	"strings"

	"example.com/plainware/internal/urlpath"
)

// URI says how the target of a request becomes the target that back ends see.
// The zero value passes it on byte for byte.
//
// Everything works on the escaped path, so that %2F stays %2F, and in this order:
// StripPrefix, the first of Rules that matches, AddPrefix. No rule can make a
// target that begins with // (further slashes at the beginning are dropped), that
// leaves its place by dot segments, or that has a control character or a space
// in it.
//
// Whatever the settings, a request is refused with 400 if its target, path or
// query, has a control character, a space, "#", or an encoded zero byte.
type URI struct {
	// StripPrefix is taken off the path: "/api" makes /api/users /users, and
	// /api itself /. It ends at a segment, so that /apix is not touched; neither is
	// any other path. It must begin with a slash; one at its end does not count.
	// Back ends get what was taken off, as the client wrote it, in
	// X-Forwarded-Prefix, as described at [Forwarded].
	StripPrefix string

	// AddPrefix is put before the path. It must begin with a slash; one at its
	// end does not count.
	AddPrefix string

	// Rules rewrite the path. The first that matches is applied.
	Rules []Rule

	// Query is what happens to a query that is not well formed.
	Query QueryPolicy

	// InsecureDotSegments passes on paths with segments that are "." or ".."
	// after decoding, and with "/" in encoded form or "\" taken for a separator;
	// they are refused with 400 otherwise. Back ends that resolve them find paths
	// that no rule and no mux here has seen.
	InsecureDotSegments bool
}

// QueryPolicy is what happens to the query of a request.
type QueryPolicy uint8

const (
	// QueryAuto is QueryClean if something before the proxy has parsed the
	// query (Request.Form is set), and with a Rewrite; otherwise QueryPass.
	// So nothing here decides upon other parameters than the back end sees.
	QueryAuto QueryPolicy = iota

	// QueryPass passes the query on byte for byte.
	QueryPass

	// QueryClean drops the parameters that url.ParseQuery does not accept,
	// those with a semicolon or a bad escape, and refuses more than 10000 with
	// 400. A query that has neither is passed on byte for byte.
	QueryClean

	// QueryReject refuses with 400 what QueryClean would change.
	QueryReject
)

// maxParameters is what net/url accepts in a query.
const maxParameters = 10000

// badTarget returns why a request target is not forwarded, or "".
func badTarget(r *http.Request, dots bool) string {
	u := r.URL
	if u.Path == "*" {
		if r.Method == http.MethodOptions && u.RawQuery == "" {
			return ""
		}
		return "The target * is for OPTIONS."
	}
	if u.Path != "" && u.Path[0] != '/' || u.Opaque != "" || u.Scheme != "" && u.Host == "" {
		return "The target must be a path, or a URL with a host."
	}
	// Path is decoded, so that it finds %00 as well; RawPath is what was sent,
	// where that is not what Path would be encoded to.
	if urlpath.BadBytes(u.RawPath) || urlpath.BadBytes(u.RawQuery) || strings.IndexByte(u.Path, 0) >= 0 || strings.Contains(u.RawQuery, "%00") || u.Fragment != "" {
		return "The target has characters that must be encoded."
	}
	if !dots && urlpath.DotSegments(u.Path) {
		return "The path has dot segments."
	}
	return ""
}

// escapedPath returns the path of u as the client sent it, also where that has
// characters which u.EscapedPath would encode.
func escapedPath(u *url.URL) string {
	if u.RawPath != "" {
		if p, err := url.PathUnescape(u.RawPath); err == nil && p == u.Path {
			return u.RawPath
		}
	}
	return u.EscapedPath()
}

// setPath makes u send an escaped path. It reports false if that is none.
func setPath(u *url.URL, escaped string) bool {
	path, err := url.PathUnescape(escaped)
	if err != nil || strings.IndexByte(path, 0) >= 0 {
		return false
	}
	u.Path, u.RawPath = path, ""
	if u.EscapedPath() != escaped {
		u.RawPath = escaped
	}
	return true
}

// verbatim makes sure that a path goes out as it is in RawPath. There are
// characters that url.URL encodes even so; they go by way of Opaque, which is
// not possible for a path that begins with two slashes.
func verbatim(u *url.URL) {
	if u.RawPath == "" || u.Opaque != "" || strings.HasPrefix(u.RawPath, "//") {
		return
	}
	if u.EscapedPath() != u.RawPath && escapedPath(u) == u.RawPath {
		u.Opaque = u.RawPath
	}
}

// cleanQuery applies a policy to a query. ok is false if it is refused.
func cleanQuery(query string, policy QueryPolicy) (clean string, ok bool) {
	if query == "" || policy == QueryPass {
		return query, true
	}
	if strings.Count(query, "&") >= maxParameters {
		return "", false
	}
	if wellFormed(query) {
		return query, true
	}
	if policy == QueryReject {
		return "", false
	}
	var b strings.Builder
	for part := range strings.SplitSeq(query, "&") {
		if !wellFormed(part) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(part)
	}
	return b.String(), true
}

// wellFormed reports whether url.ParseQuery takes all of a query.
func wellFormed(query string) bool {
	for i := 0; i < len(query); i++ {
		switch query[i] {
		case ';':
			return false
		case '%':
			if i+2 >= len(query) || !isHex(query[i+1]) || !isHex(query[i+2]) {
				return false
			}
			i += 2
		}
	}
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

package forwardauth

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// lifetime is for how long an allowing answer may be kept, 0 for not at all.
func (m *Middleware) lifetime(a *answer) time.Duration {
	if len(a.header["Set-Cookie"]) > 0 {
		return 0
	}
	for _, line := range a.header["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.Trim(name, " \t"); name != "" && !m.sends(http.CanonicalHeaderKey(name)) {
				return 0
			}
		}
	}
	fresh, ok := freshness(a.header)
	if !ok {
		return 0
	}
	return min(fresh, m.cache.maxTTL)
}

// sends reports whether a field is part of every key: what differs in it has
// a decision of its own. Accept-Encoding is the same in all questions.
func (m *Middleware) sends(name string) bool {
	if name == "Accept-Encoding" {
		return true
	}
	if m.cache.anyClient && (name == forwardedFor || name == realIP) {
		return false
	}
	for _, n := range m.names {
		if n == name {
			return true
		}
	}
	return written(name) && name != loopMark
}

// freshness reads how long an answer is fresh (RFC 9111, sections 4.2 and 5.2).
// A directive that is not understood is ignored, one that is malformed or there
// twice makes the answer stale.
func freshness(h http.Header) (time.Duration, bool) {
	maxAge, sMaxAge := int64(-1), int64(-1)
	for _, line := range h["Cache-Control"] {
		for part := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.Trim(part, " \t"), "=")
			age := &maxAge
			switch strings.ToLower(name) {
			case "no-store", "no-cache", "private":
				return 0, false
			case "s-maxage":
				age = &sMaxAge
			case "max-age":
			default:
				continue
			}
			n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err != nil || *age >= 0 {
				return 0, false
			}
			*age = int64(n)
		}
	}
	if sMaxAge >= 0 {
		maxAge = sMaxAge
	}
	if lines := h["Age"]; len(lines) > 0 {
		age, err := strconv.ParseUint(lines[0], 10, 31)
		if err != nil || len(lines) > 1 {
			return 0, false
		}
		maxAge -= int64(age)
	}
	return time.Duration(maxAge) * time.Second, maxAge > 0
}

package ratelimit

import (
	"net/http"
	"strconv"
	"time"
)

// The names of the fields, in the canonical form of http.Header.
const (
	policyHeader     = "Ratelimit-Policy"
	limitHeader      = "Ratelimit"
	retryHeader      = "Retry-After"
	legacyLimit      = "X-Ratelimit-Limit"
	legacyRemaining  = "X-Ratelimit-Remaining"
	legacyReset      = "X-Ratelimit-Reset"
	maxInteger       = 999_999_999_999_999 // of a structured field, RFC 9651, section 3.3.1
	concurrencyUnits = `;qu="concurrent-requests"`
)

// fields returns the policy's item of RateLimit-Policy, and of RateLimit up to
// the number. Policy names need no escaping.
func (p *policy) fields() (field, item string) {
	field = `"` + p.name + `";q=` + strconv.FormatInt(min(p.limit, maxInteger), 10)
	if p.algorithm == concurrent {
		field += concurrencyUnits
	} else {
		field += ";w=" + strconv.FormatInt(seconds(int64(p.window)), 10)
	}
	return field, `"` + p.name + `";r=`
}

// seconds rounds up, to at least 1.
func seconds(ns int64) int64 { return (max(ns, 1)-1)/int64(time.Second) + 1 }

// write sets the header fields of a response. Their slices have no room to grow,
// so that who appends to one changes no other.
func (l *Limiter) write(h http.Header, rd *round, d *Decision) {
	switch l.headers {
	case Draft10:
		l.writeDraft10(h, rd)
	case Legacy:
		if d.Policy != "" && d.resetAt != 0 {
			reset := (d.resetAt-1)/int64(time.Second) + 1
			v := &[3]string{
				strconv.FormatInt(d.Limit, 10), strconv.FormatInt(d.Remaining, 10), strconv.FormatInt(reset, 10),
			}
			h[legacyLimit], h[legacyRemaining], h[legacyReset] = v[0:1:1], v[1:2:2], v[2:3:3]
		}
	}
	if !d.Allowed && d.RetryAfter > 0 {
		h[retryHeader] = []string{strconv.FormatInt(seconds(int64(d.RetryAfter)), 10)}
	}
}

func (l *Limiter) writeDraft10(h http.Header, rd *round) {
	if len(rd.uses) == 0 {
		return
	}
	policies := l.policyField
	if len(rd.uses) < len(l.enforced) {
		var b []byte
		for i := range rd.uses {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(b, rd.uses[i].p.field...)
		}
		policies = string(b)
	}
	var array [160]byte
	b := array[:0]
	for i := range rd.uses {
		if u := &rd.uses[i]; u.known {
			if len(b) > 0 {
				b = append(b, ", "...)
			}
			b = u.appendItem(b)
		}
	}
	setFields(h, policies, b)
}

// setFields sets both fields, or adds to what another limiter outside has set:
// lists have any number of lines. item may be empty.
func setFields(h http.Header, policies string, item []byte) {
	outerPolicies, outer := h[policyHeader], h[limitHeader]
	if len(outerPolicies) > 0 || len(outer) > 0 {
		h[policyHeader] = append(outerPolicies[:len(outerPolicies):len(outerPolicies)], policies)
		if len(item) > 0 {
			h[limitHeader] = append(outer[:len(outer):len(outer)], string(item))
		}
		return
	}
	v := &[2]string{policies}
	h[policyHeader] = v[0:1:1]
	if len(item) > 0 {
		v[1] = string(item)
		h[limitHeader] = v[1:2:2]
	}
}

// appendItem appends the item of RateLimit.
func (u *use) appendItem(b []byte) []byte {
	b = append(b, u.p.item...)
	b = strconv.AppendInt(b, min(u.remaining(), maxInteger), 10)
	if u.p.algorithm == concurrent {
		return b
	}
	next := u.next()
	if u.refused {
		next = u.retry()
	}
	b = append(b, ";t="...)
	return strconv.AppendInt(b, min(seconds(next), maxInteger), 10)
}

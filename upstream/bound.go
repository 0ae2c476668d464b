package upstream

import (
	"net/http"
	"strings"
)

// NTLM, and Negotiate where NTLM is inside, authenticate the connection and not
// the request: a back end lets in whatever comes over it later, whoever sent
// that (RFC 4559 section 6). A connection that has seen either is not used again.

// bindRequest notes that c carries a request that may authenticate it.
func (c *conn) bindRequest(h http.Header) {
	if !c.h2 && (ofConnection(h["Authorization"]) || ofConnection(h["Proxy-Authorization"])) {
		c.bound = true
	}
}

// bindResponse notes that c has brought a response that asks for that, or is a
// part of it.
func (c *conn) bindResponse(res *http.Response) {
	if !c.h2 && (ofConnection(res.Header["Www-Authenticate"]) ||
		res.StatusCode == http.StatusProxyAuthRequired && ofConnection(res.Header["Proxy-Authenticate"])) {
		c.bound = true
	}
}

// ofConnection reports whether a field of credentials or challenges names a
// scheme that authenticates connections. What only looks like one, in a quoted
// string with a comma, costs no more than a connection.
func ofConnection(values []string) bool {
	for _, v := range values {
		for challenge := range strings.SplitSeq(v, ",") {
			challenge = strings.TrimLeft(challenge, " \t")
			for _, scheme := range [...]string{"NTLM", "Nego"} { // Negotiate, Nego2
				if len(challenge) >= 4 && strings.EqualFold(challenge[:4], scheme) {
					return true
				}
			}
		}
	}
	return false
}

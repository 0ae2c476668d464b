package forwardauth

import (
	"net/http"
	"strings"
)

// Authelia returns the configuration for an Authelia at base, such as
// https://auth.example.com, with its endpoint for ForwardAuth. The fields are
// the caller's to change. Requests must come over https, or from a trusted proxy
// that says so: Authelia refuses others.
func Authelia(base string) Config {
	return Config{
		URL:            join(base, "/api/authz/forward-auth"),
		CopyHeaders:    same("Remote-User", "Remote-Groups", "Remote-Name", "Remote-Email"),
		SuccessCookies: AllCookies(),
	}
}

// Authentik returns the configuration for the outpost of an authentik at base.
// The paths below /outpost.goauthentik.io of the guarded host must lead to
// the outpost, without this middleware: signing in returns there.
func Authentik(base string) Config {
	return Config{
		URL: join(base, "/outpost.goauthentik.io/auth/traefik"),
		CopyHeaders: same("X-Authentik-Username", "X-Authentik-Groups", "X-Authentik-Entitlements",
			"X-Authentik-Email", "X-Authentik-Name", "X-Authentik-Uid", "X-Authentik-Jwt",
			"X-Authentik-Meta-Jwks", "X-Authentik-Meta-Outpost", "X-Authentik-Meta-Provider",
			"X-Authentik-Meta-App", "X-Authentik-Meta-Version"),
		SuccessCookies: AllCookies(),
	}
}

// OAuth2Proxy returns the configuration for an oauth2-proxy at base, which must
// run with --reverse-proxy, --set-xauthrequest and --whitelist-domain for the
// guarded hosts (with their ports, or ":*"): without that flag it leads those
// who have signed in to its own "/" and not back to the page they came from. Its
// endpoint answers 202 or 401; browsers are sent to sign in at base, so that
// this has to be an address that they reach, in a domain of which the proxy
// sets cookies. Where the paths below /oauth2/ of the guarded host lead to the
// proxy, without this middleware, base can be an internal address, and SignIn
// is /oauth2/start.
//
// 202 alone allows. Other parts of the proxy answer with 200, its health check
// above all, which before v7.15.2 one could ask for at any path
// (CVE-2026-34457).
func OAuth2Proxy(base string) Config {
	return Config{
		URL: join(base, "/oauth2/auth"),
		CopyHeaders: same("X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups",
			"X-Auth-Request-Preferred-Username", "X-Auth-Request-Access-Token"),
		SuccessCookies: AllCookies(),
		Allow:          func(status int) bool { return status == http.StatusAccepted },
		SignIn:         join(base, "/oauth2/start"),
	}
}

// join puts a path behind that of a base, and before its query, if it has one:
// what is asked must be the endpoint, and not a page that answers 200 to anybody.
func join(base, path string) string {
	end := len(base)
	if i := strings.IndexAny(base, "?#"); i >= 0 {
		end = i
	}
	return strings.TrimRight(base[:end], "/") + path + base[end:]
}

func same(names ...string) []HeaderCopy {
	copies := make([]HeaderCopy, len(names))
	for i, name := range names {
		copies[i].From = name
	}
	return copies
}

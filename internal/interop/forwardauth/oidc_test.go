package forwardauth_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/forwardauth"
)

// provider is an OpenID provider at which everybody is ada without asking. Its
// access tokens make a session too long for one cookie, and do not compress.
type provider struct {
	*httptest.Server
	key       *rsa.PrivateKey
	refreshed atomic.Int64 // refresh grants (RFC 6749, section 6)
}

func newProvider(t *testing.T) *provider {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{key: key}
	mux := http.NewServeMux()
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token",
			"jwks_uri": p.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		b64 := base64.RawURLEncoding.EncodeToString
		writeJSON(w, map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1",
			"n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes()),
		}}})
	})
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		back := url.Values{"code": {"1"}, "state": {r.FormValue("state")}}
		http.Redirect(w, r, r.FormValue("redirect_uri")+"?"+back.Encode(), http.StatusFound)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("grant_type") == "refresh_token" {
			p.refreshed.Add(1)
		}
		id, err := p.idToken()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		access := make([]byte, 2500)
		rand.Read(access)
		writeJSON(w, map[string]any{
			"token_type": "Bearer", "expires_in": 3600, "id_token": id,
			"access_token": base64.RawURLEncoding.EncodeToString(access), "refresh_token": rand.Text(),
		})
	})
	return p
}

// idToken is a JWS in compact form (RFC 7515, section 7.1).
func (p *provider) idToken() (string, error) {
	claims, err := json.Marshal(map[string]any{
		"iss": p.URL, "aud": "none", "sub": "1", "email": "ada@example.com", "email_verified": true,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
	if err != nil {
		return "", err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(`{"alg":"RS256","kid":"1"}`)) + "." + b64(claims)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	return signed + "." + b64(sig), err
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// answers is a transport that keeps the last answer's status and cookies.
type answers struct {
	status int
	lines  []string
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		a.status, a.lines = res.StatusCode, slices.Clone(res.Header["Set-Cookie"])
	}
	return res, err
}

// forwardauth 34: a session in two cookies that oauth2-proxy renews in the
// course of a decision. Its 202 has two Set-Cookie fields, and both reach the
// browser, each in a field of its own, beside that of the handler.
func testRefresh(t *testing.T, path string) {
	p := newProvider(t)
	// The proxy reads its clock in whole seconds, so it renews a session at the
	// first question after the second in which that was made.
	service := startOAuth2Proxy(t, path, map[string]string{"ada": "lovelace"}, "--provider=oidc", "--oidc-issuer-url="+p.URL, "--cookie-refresh=1ms")
	last := &answers{}
	config := forwardauth.OAuth2Proxy(service)
	config.Base = last
	a := guard(t, config)
	a.Config.Handler = ownCookie(a.Config.Handler)

	c := browser(t)
	at := service + "/oauth2/start?rd=/"
	for range 3 { // to the provider, back with a code, and to the page
		res, err := c.Get(at)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		at = res.Header.Get("Location")
		if res.StatusCode != http.StatusFound {
			t.Fatalf("signing in: status %d, %v", res.StatusCode, res.Header)
		}
	}

	for renewed := range int64(2) {
		var res *http.Response
		for start := time.Now(); len(last.lines) == 0; {
			if res = a.get(t, c, "/"); res.StatusCode != 200 || a.seen.Get("X-Auth-Request-Email") != "ada@example.com" {
				t.Fatalf("status %d, %v; the handler saw %v", res.StatusCode, res.Header, a.seen)
			}
			if time.Since(start) > 10*time.Second {
				t.Fatal("the session was not renewed")
			}
		}
		var names []string
		for _, line := range last.lines {
			name, _, _ := strings.Cut(line, "=")
			names = append(names, name)
		}
		if last.status != 202 || !slices.Equal(names, []string{"_oauth2_proxy_0", "_oauth2_proxy_1"}) {
			t.Errorf("the proxy answers with %d and the cookies %q", last.status, names)
		}
		if got, want := res.Header["Set-Cookie"], append([]string{"own=1"}, last.lines...); !slices.Equal(got, want) {
			t.Errorf("the browser got %d fields %q, want %d %q", len(got), got, len(want), want)
		}
		if n := p.refreshed.Load(); n != renewed+1 {
			t.Errorf("%d refresh grants, want %d", n, renewed+1)
		}
		// The second round asks with the cookies of the first, all of which
		// the proxy needs to read the session.
		last.lines = nil
	}
}

// ownCookie sets a cookie as an application does.
func ownCookie(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "own", Value: "1"})
		next.ServeHTTP(w, r)
	})
}

package forwardauth_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/forwardauth"
)

// exchange is one question to a service and its answer, as its file in testdata
// has it. The files say where they come from; those of services that can be run
// are written by the tests in internal/interop/forwardauth.
type exchange struct {
	Name     string   `json:"name"`
	Question []string `json:"question"` // request line, then the header by name
	Status   int      `json:"status"`
	Answer   []string `json:"answer"`
	Body     string   `json:"body"`
}

func exchanges(t *testing.T, service string) map[string]exchange {
	b, err := os.ReadFile("testdata/" + service + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Exchanges []exchange }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]exchange)
	for _, e := range file.Exchanges {
		all[e.Name] = e
	}
	return all
}

// client is the request that has led to a question: the fields that describe it
// are turned back, and what was forwarded is in its header. Scheme and host are
// those of a trusted proxy.
func (e exchange) client() *http.Request {
	method, target, addr := "", "", ""
	var lines []string
	for _, line := range e.Question[1:] {
		switch name, value, _ := strings.Cut(line, ": "); name {
		case "X-Forwarded-Method":
			method = value
		case "X-Forwarded-Uri":
			target = value
		case "X-Real-Ip":
			addr = value
		case "X-Forwarded-For", "X-Forwarded-Port", "Accept-Encoding":
		default:
			lines = append(lines, line)
		}
	}
	r := request(method, target, lines...)
	r.RemoteAddr = addr + ":4711"
	return r
}

// asked writes a question as the files have it.
func asked(r *http.Request) []string {
	all := []string{r.Method + " " + r.URL.RequestURI()}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, v := range r.Header[name] {
			if name != "X-Forwardauth-Loop" {
				all = append(all, name+": "+v)
			}
		}
	}
	return all
}

// forwardauth 34: the presets ask Authelia, authentik and oauth2-proxy what
// these understand, and what they answer comes to what clients get and handlers
// see.
func TestServices(t *testing.T) {
	type outcome struct {
		status   int
		location string
		cookies  int // how many are set
		identity map[string]string
	}
	const base = "http://auth.example"
	ada := map[string]string{"Remote-User": "ada", "Remote-Groups": "dev,admins", "Remote-Name": "Ada Lovelace", "Remote-Email": "ada@example.com"}
	signIn := func(rest string) string {
		return "https://auth.example.com/?rd=https%3A%2F%2Fapp.example.com%2F" + rest
	}
	proxied := map[string]string{"X-Auth-Request-User": "ada", "X-Auth-Request-Groups": "dev", "Gap-Auth": ""}
	groups := forwardauth.OAuth2Proxy(base)
	groups.URL += "?allowed_groups=admins"
	for service, c := range map[string]struct {
		config   forwardauth.Config
		configs  map[string]forwardauth.Config // for some
		outcomes map[string]outcome
	}{
		"authelia": {forwardauth.Authelia(base), nil, map[string]outcome{
			"signed in":               {200, "", 0, ada},
			"signed in, spoofs":       {200, "", 0, ada},
			"forbidden":               {403, "", 0, nil},
			"nobody, a browser":       {302, signIn("a%3Fb&rm=GET"), 1, nil},
			"nobody, a browser posts": {303, signIn("a&rm=POST"), 1, nil},
			"nobody, a program":       {401, signIn("a&rm=GET"), 1, nil},
			"nobody, spoofs":          {401, signIn("a&rm=GET"), 1, nil},
			"nobody, a script":        {401, signIn("a&rm=GET"), 1, nil},
			"a bad password":          {401, "", 0, nil},
			"an open host":            {200, "", 0, map[string]string{"Remote-User": ""}},
			"an unknown host":         {400, "", 0, nil},
			"plain http":              {400, "", 0, nil},
			"method in small letters": {400, "", 0, nil},
		}},
		"authentik": {forwardauth.Authentik(base), nil, map[string]outcome{
			"signed in":        {200, "", 0, map[string]string{"X-Authentik-Uid": "foo", "Foo": "", "User-Agent": "", "X-Authentik-Entitlements": ""}},
			"nobody":           {302, "http://fake-auth.t.goauthentik.io/auth?client_id=abc&redirect_uri=https%3A%2F%2Fext.t.goauthentik.io%2Foutpost.goauthentik.io%2Fcallback%3FX-authentik-auth-callback%3Dtrue&response_type=code", 1, nil},
			"an open path":     {200, "", 0, map[string]string{"X-Authentik-Uid": ""}},
			"no forwarded URL": {503, "", 0, nil},
		}},
		"oauth2-proxy": {forwardauth.OAuth2Proxy(base), map[string]forwardauth.Config{"not in the group": groups}, map[string]outcome{
			"nobody, a program":    {401, "", 0, nil},
			"nobody, a browser":    {302, base + "/oauth2/start?rd=", 0, nil},
			"signed in":            {200, "", 0, proxied},
			"basic authentication": {200, "", 0, proxied},
			"a broken session":     {401, "", 1, nil},
			"not in the group":     {403, "", 0, nil},
		}},
	} {
		recorded := exchanges(t, service)
		if len(recorded) != len(c.outcomes) {
			t.Errorf("%s: %d exchanges, %d outcomes", service, len(recorded), len(c.outcomes))
		}
		for name, want := range c.outcomes {
			t.Run(service+"/"+name, func(t *testing.T) {
				e, ok := recorded[name]
				if !ok {
					t.Fatal("not in the file")
				}
				config := c.config
				if other, ok := c.configs[name]; ok {
					config = other
				}
				config.TrustedProxies = prefixes(t, "127.0.0.0/8", "192.0.2.0/24")
				s := says(e.Status, e.Body, e.Answer...)
				r := e.client()
				// Beside what the service was sent: what it must not be.
				for _, name := range []string{"Remote-User", "Remote_email", "X-Authentik-Uid", "X_authentik_uid", "X-Auth-Request-User", "X-Forwarded-Uri", "X-Forwarded-Method"} {
					r.Header[name] = []string{"spoofed"}
				}
				h := do(t, config, s, r)
				if got := asked(s.last(t)); !slices.Equal(got, e.Question) {
					t.Errorf("asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(e.Question, "\n"))
				}
				location := h.Header.Get("Location")
				if want.location != "" && strings.HasSuffix(want.location, "rd=") && strings.HasPrefix(location, want.location+"http") {
					location = want.location // what follows has the port of the recording
				}
				if h.StatusCode != want.status || location != want.location || len(h.Header["Set-Cookie"]) != want.cookies || (h.ran != nil) != (want.status == 200) {
					t.Errorf("status %d, header %v", h.StatusCode, h.Header)
				}
				for name, value := range want.identity {
					if got := strings.Join(h.ran.Header[name], "|"); got != value {
						t.Errorf("%s is %q, want %q", name, got, value)
					}
				}
				if h.ran != nil {
					for _, copied := range config.CopyHeaders {
						if h.ran.Header.Get(copied.From) == "spoofed" {
							t.Errorf("%s is the client's", copied.From)
						}
					}
				}
			})
		}
	}
}

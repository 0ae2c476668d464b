package webhook_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"example.com/plainware/webhook"
)

func challenges(t *testing.T) map[string]challenge {
	all := map[string]challenge{}
	for _, c := range readVectors(t).Challenges {
		all[c.Provider] = c
	}
	return all
}

// sameJSON compares an answer with one of the vector file, where plain text
// is a JSON string.
func sameJSON(got []byte, want json.RawMessage) bool {
	var text string
	if json.Unmarshal(want, &text) == nil {
		return string(got) == text
	}
	var b bytes.Buffer
	return json.Compact(&b, want) == nil && bytes.Equal(got, b.Bytes())
}

// webhook 26: challenges that are signed are answered once they are verified,
// and without a challenge text in the answer when they are not.
func TestSignedChallenges(t *testing.T) {
	for name, s := range map[string]webhook.Scheme{
		"slack": webhook.Slack(), "zoom": webhook.Zoom(), "twitch": webhook.Twitch(), "discord": webhook.Discord(),
	} {
		t.Run(name, func(t *testing.T) {
			vec := challenges(t)[name]
			sign, verify := webhook.Secret(secret), webhook.Secret(secret)
			if name == "zoom" {
				sign, verify = webhook.Secret(vec.Secret), webhook.Secret(vec.Secret)
			}
			if name == "discord" {
				sign, verify = keyPair(t, webhook.Ed25519)
			}
			body, header := []byte(vec.Request), http.Header{}
			if name == "twitch" {
				var r struct {
					Header map[string]string
					Body   json.RawMessage
				}
				if err := json.Unmarshal(vec.Request, &r); err != nil {
					t.Fatal(err)
				}
				body = r.Body
				for k, v := range r.Header {
					header.Set(k, v)
				}
			}
			for _, pass := range []bool{false, true} {
				c := webhook.Config{Scheme: s, Keys: []webhook.Key{verify}, PassChallenges: pass, Store: newMemory(t), Name: "x"}
				v := newVerifier(t, c)
				request := func() *http.Request {
					return signed(t, s, sign, webhook.Outgoing{Body: body, Header: header.Clone()})
				}
				for range 2 { // a challenge is no delivery that could be a duplicate
					res, text, ran := serve(t, v, request())
					if ran != pass || res.StatusCode != 200 {
						t.Errorf("status %d, handler ran: %v", res.StatusCode, ran)
					}
					if pass {
						break
					}
					if !sameJSON([]byte(text), vec.Response) || res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Cache-Control") != "no-store" {
						t.Errorf("answer %q, want %s; header %v", text, vec.Response, res.Header)
					}
				}
				// The same with another body, whose signature is wrong.
				r := with(request(), string(body)+" ")
				if text := refused(t, v, r, 401); strings.Contains(text, "challenge") || strings.Contains(text, "Token") {
					t.Errorf("answer %q", text)
				}
				// An event is no challenge.
				if _, _, ran := serve(t, v, signed(t, s, sign, webhook.Outgoing{Header: header.Clone()})); !ran {
					t.Error("an event did not reach the handler")
				}
			}
		})
	}
}

// A Challenge of one's own sees the delivery as it came.
func TestOwnChallenge(t *testing.T) {
	s := webhook.GitHub()
	var got string
	s.Methods = []string{"POST", "PUT"}
	s.Challenge = func(m *webhook.Message, d *webhook.Delivery) *webhook.Answer {
		got = m.Method + " " + string(m.Body) + " " + d.Scheme
		return nil
	}
	for _, method := range []string{"POST", "PUT"} {
		if _, _, ran := serve(t, newVerifier(t, config(s, secret)), signed(t, s, webhook.Secret(secret), webhook.Outgoing{Method: method})); !ran {
			t.Error("the handler did not run")
		}
		if want := method + " " + event + " github"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A challenge that asks for more than a provider's does is left to the handler.
func TestOddChallenges(t *testing.T) {
	s := webhook.Slack()
	v := newVerifier(t, config(s, secret))
	for _, text := range []string{"", "<script>\n", strings.Repeat("x", 257), "a b"} {
		body, _ := json.Marshal(map[string]string{"type": "url_verification", "challenge": text})
		if _, _, ran := serve(t, v, signed(t, s, webhook.Secret(secret), webhook.Outgoing{Body: body})); !ran {
			t.Errorf("%q was answered", text)
		}
	}
}

// webhook 26: nor does Zoom get a signature of a text that is no token of a test.
func TestOddPlainTokens(t *testing.T) {
	s := webhook.Zoom()
	v := newVerifier(t, config(s, secret))
	for token, answered := range map[string]bool{
		"qgg8vlvZRS6UYooatFL8Aw": true, strings.Repeat("x", 256): true, strings.Repeat("x", 257): false, "": false, "a b": false, "v0:1:{\n}": false,
	} {
		body, _ := json.Marshal(map[string]any{"event": "endpoint.url_validation", "payload": map[string]string{"plainToken": token}})
		_, text, ran := serve(t, v, signed(t, s, webhook.Secret(secret), webhook.Outgoing{Body: body}))
		if ran == answered || strings.Contains(text, "encryptedToken") != answered {
			t.Errorf("%q: handler ran: %v, answer %q", token, ran, text)
		}
	}
}

// webhook 26: of Discord's, only an interaction of type 1 is a test: a webhook event
// of type 1 has an event in it and reaches the handler, as do all others.
func TestDiscordPing(t *testing.T) {
	s := webhook.Discord()
	sign, verify := keyPair(t, webhook.Ed25519)
	v := newVerifier(t, webhook.Config{Scheme: s, Keys: []webhook.Key{verify}})
	for body, want := range map[string]bool{
		`{"type":1}`: false, `{"type":1,"id":"1","token":"t"}`: false, `{"type":1,"event":{"type":"APPLICATION_AUTHORIZED"}}`: true,
		`{"type":1,"event":null}`: true, `{"type":0}`: true, `{"type":2}`: true, `{}`: true, `[]`: true, `{"type":"1"}`: true,
	} {
		_, text, ran := serve(t, v, signed(t, s, sign, webhook.Outgoing{Body: []byte(body)}))
		if ran != want || !want && text != `{"type":1}` {
			t.Errorf("%s: handler ran: %v, answer %s", body, ran, text)
		}
	}
}

// webhook 27: challenges by GET: the token decides, and only visible text of
// 256 characters comes back, as plain text.
func TestProbes(t *testing.T) {
	all := challenges(t)
	query := func(name string) string {
		var r struct{ Query string }
		if err := json.Unmarshal(all[name].Request, &r); err != nil {
			t.Fatal(err)
		}
		return r.Query
	}
	meta := webhook.Meta(all["meta"].Secret)
	long := strings.Repeat("x", 257)
	for _, c := range []struct {
		name   string
		scheme webhook.Scheme
		secret string
		query  string
		want   json.RawMessage // nil is 403
	}{
		{"meta", meta, secret, query("meta"), all["meta"].Response},
		{"meta, wrong token", meta, secret, strings.Replace(query("meta"), "hamhock", "ham", 1), nil},
		{"meta, no token", meta, secret, "hub.mode=subscribe&hub.challenge=1", nil},
		{"meta, not configured", webhook.Meta(""), secret, "hub.mode=subscribe&hub.challenge=1&hub.verify_token=", nil},
		{"meta, other mode", meta, secret, strings.Replace(query("meta"), "subscribe", "un", 1), nil},
		{"meta, long", meta, secret, strings.Replace(query("meta"), "1158201444", long, 1), nil},
		{"meta, markup", meta, secret, strings.Replace(query("meta"), "1158201444", url.QueryEscape("<b> x"), 1), nil},
		{"dropbox", webhook.Dropbox(), secret, query("dropbox"), all["dropbox"].Response},
		{"dropbox, long", webhook.Dropbox(), secret, "challenge=" + long, nil},
		{"dropbox, newline", webhook.Dropbox(), secret, "challenge=a%0ab", nil},
		{"dropbox, none", webhook.Dropbox(), secret, "", nil},
		{"dropbox, bad query", webhook.Dropbox(), secret, "challenge=%zz", nil},
		{"x", webhook.X(), all["x-twitter"].Secret, query("x-twitter"), all["x-twitter"].Response},
		{"x, JSON", webhook.X(), secret, "crc_token=" + url.QueryEscape(`{"a":1}`), nil},
		{"x, long", webhook.X(), secret, "crc_token=" + long, nil},
		{"x, none", webhook.X(), secret, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVerifier(t, config(c.scheme, c.secret))
			res, body, ran := serve(t, v, httptest.NewRequest("GET", "/hook?"+c.query, nil))
			if ran {
				t.Error("the handler ran")
			}
			if c.want == nil {
				if res.StatusCode != 403 {
					t.Errorf("status %d, body %q", res.StatusCode, body)
				}
				return
			}
			if res.StatusCode != 200 || !sameJSON([]byte(body), c.want) {
				t.Errorf("status %d, body %q, want %s", res.StatusCode, body, c.want)
			}
			kind := res.Header.Get("Content-Type")
			if res.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(kind, "text/plain") && kind != "application/json" {
				t.Errorf("header %v", res.Header)
			}
		})
	}
	c := config(webhook.Dropbox(), secret)
	c.PassChallenges = true
	refused(t, newVerifier(t, c), httptest.NewRequest("GET", "/?challenge=a", nil), 405)
	// With a signature it is no test, but a delivery by a method that is none of
	// the scheme's.
	r := httptest.NewRequest("GET", "/?challenge=a", nil)
	r.Header.Set("X-Dropbox-Signature", strings.Repeat("0", 64))
	refused(t, newVerifier(t, config(webhook.Dropbox(), secret)), r, 405)
}

// webhook 27: of several keys, X's test is answered with the first.
func TestProbeInRotation(t *testing.T) {
	ask := func(keys ...string) string {
		t.Helper()
		res, text, _ := serve(t, newVerifier(t, config(webhook.X(), keys...)), httptest.NewRequest("GET", "/?crc_token=a", nil))
		if res.StatusCode != 200 {
			t.Errorf("status %d", res.StatusCode)
		}
		return text
	}
	if one := ask(secret); ask(secret, secret2) != one || ask(secret2, secret) == one {
		t.Errorf("answer %q", one)
	}
}

// Intercom asks by HEAD whether there is an endpoint.
func TestHeadProbe(t *testing.T) {
	v := newVerifier(t, config(webhook.Intercom(), secret))
	ask := func(v *webhook.Verifier, method, signature string) *http.Response {
		t.Helper()
		r := httptest.NewRequest(method, "/", nil)
		if signature != "" {
			r.Header.Set("X-Hub-Signature", signature)
		}
		res, body, ran := serve(t, v, r)
		if ran || res.StatusCode == 200 && body != "" {
			t.Errorf("%s: handler ran: %v, answer %q", method, ran, body)
		}
		return res
	}
	for _, signature := range []string{"", "sha1=" + strings.Repeat("0", 40)} {
		if res := ask(v, "HEAD", signature); res.StatusCode != 200 || res.Header.Get("Content-Length") != "0" {
			t.Errorf("signature %q: status %d, header %v", signature, res.StatusCode, res.Header)
		}
	}
	if res := ask(v, "GET", ""); res.StatusCode != 405 || res.Header.Get("Allow") != "HEAD, POST" {
		t.Errorf("GET: status %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
	if res := ask(v, "POST", ""); res.StatusCode != 401 {
		t.Errorf("POST: status %d", res.StatusCode)
	}
	if res := ask(newVerifier(t, config(webhook.Dropbox(), secret)), "HEAD", ""); res.StatusCode != 405 {
		t.Errorf("HEAD of one that is asked by GET: status %d", res.StatusCode)
	}
	c := config(webhook.Intercom(), secret)
	c.PassChallenges = true
	if res := ask(newVerifier(t, c), "HEAD", ""); res.StatusCode != 405 || res.Header.Get("Allow") != "POST" {
		t.Errorf("PassChallenges: status %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
}

// Xero tests an endpoint with deliveries whose signatures are right and wrong,
// and takes an answer with a body for a failure.
func TestXeroIntentToReceive(t *testing.T) {
	s := webhook.Xero()
	c := config(s, secret)
	c.MaxBody = 100
	v := newVerifier(t, c)
	send := func(v *webhook.Verifier, body string, edit func(*http.Request)) *httptest.ResponseRecorder {
		t.Helper()
		r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{Body: []byte(body)})
		edit(r)
		w := httptest.NewRecorder()
		w.Header().Set("Etag", `"outer"`) // of a middleware outside
		v.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		return w
	}
	const test = `{"events":[],"lastEventSequence":0,"firstEventSequence":0,"entropy":"S0m3r4Nd0mt3xt"}`
	for name, c := range map[string]struct {
		body   string
		edit   func(*http.Request)
		status int
	}{
		"right":    {test, func(*http.Request) {}, 200},
		"wrong":    {test, func(r *http.Request) { with(r, test+" ") }, 401},
		"none":     {test, func(r *http.Request) { r.Header.Del(s.Header) }, 401},
		"long":     {strings.Repeat("x", 101), func(*http.Request) {}, 413},
		"method":   {test, func(r *http.Request) { r.Method = "PUT" }, 405},
		"encoding": {test, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 415},
	} {
		w := send(v, c.body, c.edit)
		if w.Code != c.status || w.Body.Len() > 0 {
			t.Errorf("%s: status %d, body %q", name, w.Code, w.Body)
		}
		if h := w.Header(); c.status != 200 && (h.Get("Content-Length") != "0" || h.Get("Cache-Control") != "no-store" || h.Get("Content-Type") != "" || h.Get("Etag") != "") {
			t.Errorf("%s: header %v", name, h)
		}
	}
	// Of a body that fails in a way of its own, no status says that it was taken.
	for claimed, want := range map[int]int{408: 408, 0: 500, 103: 500, 200: 500, 204: 500, 302: 500, 600: 500} {
		w := send(v, test, func(r *http.Request) { r.Body = io.NopCloser(iotest.ErrReader(statusError(claimed))) })
		if w.Code != want || w.Body.Len() > 0 {
			t.Errorf("a body that fails with %d: status %d, body %q", claimed, w.Code, w.Body)
		}
	}
	// A handler of one's own for errors is asked all the same.
	c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) { w.WriteHeader(418) }
	if w := send(newVerifier(t, c), test, func(r *http.Request) { r.Header.Del(s.Header) }); w.Code != 418 {
		t.Errorf("status %d", w.Code)
	}
}

// statusError is the error of a middleware's body.
type statusError int

func (e statusError) Error() string   { return "the body fails" }
func (e statusError) HTTPStatus() int { return int(e) }
func (e statusError) Code() string    { return "body" }

package webhook_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

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
					if !sameJSON([]byte(text), vec.Response) || res.Header.Get("X-Content-Type-Options") != "nosniff" {
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
}

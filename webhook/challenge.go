package webhook

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
)

// maxChallenge bounds what is echoed. Providers send less than a hundred
// characters.
const maxChallenge = 256

// plain is an answer that repeats a text, or nil if the text is not one that a
// provider would send.
func plain(text string) *Answer {
	if text == "" || len(text) > maxChallenge {
		return nil
	}
	for i := range len(text) {
		if text[i] <= ' ' || text[i] >= 0x7f {
			return nil
		}
	}
	return &Answer{ContentType: "text/plain; charset=utf-8", Body: []byte(text)}
}

func jsonAnswer(v any) *Answer {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return &Answer{ContentType: "application/json", Body: b}
}

func slackChallenge(m *Message, _ *Delivery) *Answer {
	var body struct{ Type, Challenge string }
	if !bytes.Contains(m.Body, []byte("url_verification")) || json.Unmarshal(m.Body, &body) != nil || body.Type != "url_verification" {
		return nil
	}
	return plain(body.Challenge)
}

func zoomChallenge(m *Message, d *Delivery) *Answer {
	const event = "endpoint.url_validation"
	var body struct {
		Event   string
		Payload struct{ PlainToken string }
	}
	if !bytes.Contains(m.Body, []byte(event)) || json.Unmarshal(m.Body, &body) != nil || body.Event != event {
		return nil
	}
	if plain(body.Payload.PlainToken) == nil {
		return nil
	}
	return jsonAnswer(struct {
		Plain     string `json:"plainToken"`
		Encrypted string `json:"encryptedToken"`
	}{body.Payload.PlainToken, hex.EncodeToString(m.MAC(d.KeyIndex, body.Payload.PlainToken))})
}

func twitchChallenge(m *Message, _ *Delivery) *Answer {
	// The type is not signed, but an event has no challenge.
	if kind, err := m.Value("Twitch-Eventsub-Message-Type"); err != nil || kind != "webhook_callback_verification" {
		return nil
	}
	var body struct{ Challenge string }
	if json.Unmarshal(m.Body, &body) != nil {
		return nil
	}
	return plain(body.Challenge)
}

func discordChallenge(m *Message, _ *Delivery) *Answer {
	// Of interactions, 1 is PING. Of webhook events, which have an event in
	// them, 1 is an event.
	var body struct {
		Type  int
		Event json.RawMessage
	}
	if json.Unmarshal(m.Body, &body) != nil || body.Type != 1 || body.Event != nil {
		return nil
	}
	return jsonAnswer(struct {
		Type int `json:"type"`
	}{1})
}

func metaProbe(verifyToken string) func(*Message) (*Answer, error) {
	want := sha256.Sum256([]byte(verifyToken))
	return func(m *Message) (*Answer, error) {
		q, err := url.ParseQuery(m.query)
		if err != nil || verifyToken == "" {
			return nil, ErrChallenge
		}
		got := sha256.Sum256([]byte(q.Get("hub.verify_token")))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || q.Get("hub.mode") != "subscribe" {
			return nil, ErrChallenge
		}
		return echo(q.Get("hub.challenge"))
	}
}

// here answers a test that asks for nothing.
func here(*Message) (*Answer, error) { return &Answer{ContentType: "text/plain; charset=utf-8"}, nil }

func dropboxProbe(m *Message) (*Answer, error) {
	q, err := url.ParseQuery(m.query)
	if err != nil {
		return nil, ErrChallenge
	}
	return echo(q.Get("challenge"))
}

func echo(text string) (*Answer, error) {
	if a := plain(text); a != nil {
		return a, nil
	}
	return nil, ErrChallenge
}

func xProbe(m *Message) (*Answer, error) {
	q, err := url.ParseQuery(m.query)
	if err != nil {
		return nil, ErrChallenge
	}
	token := q.Get("crc_token")
	if !isCRCToken(token) {
		return nil, ErrChallenge
	}
	return jsonAnswer(struct {
		Response string `json:"response_token"`
	}{"sha256=" + base64.StdEncoding.EncodeToString(m.MAC(0, token))}), nil
}

// isCRCToken reports whether s is made of the characters of base64. The answer
// is a signature, and with these characters nothing can be written that a
// receiver of X's events would act on.
func isCRCToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '+' && c != '/' && c != '=' && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

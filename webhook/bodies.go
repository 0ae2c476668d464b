package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Mailgun is Mailgun, with the HTTP webhook signing key.
//
// The signature covers a time and a token, and nothing of the event: whoever
// has seen one delivery can send another event with it. So a Store is required,
// in which each token is accepted once and, by the window of
// [Config.Tolerance], never after the store has forgotten it; and the event
// should be looked up with the API before anything depends on it. Mailgun tries
// for some eight hours.
func Mailgun() Scheme {
	return Scheme{
		Name: "mailgun", Algorithm: HMACSHA256, Encoding: Hex, TimeFormat: UnixSeconds, NeedsStore: true, EventField: "event-data.id",
		Verify: verifyMailgun, Sign: signMailgun,
	}
}

type mailgunSignature struct {
	Timestamp string `json:"timestamp"`
	Token     string `json:"token"`
	Signature string `json:"signature"`
}

func verifyMailgun(m *Message) (Result, error) {
	event, ok := object(m.Body, "signature")
	if !ok || event["signature"] == nil {
		return Result{}, ErrNoSignature
	}
	parts, ok := object(event["signature"], "timestamp", "token", "signature")
	s := mailgunSignature{parts.text("timestamp"), parts.text("token"), parts.text("signature")}
	if !ok || s.Token == "" || len(s.Token) > 256 {
		return Result{}, ErrMalformed
	}
	sig, err := m.Decode(s.Signature, Hex)
	if err != nil {
		return Result{}, err
	}
	at, err := m.Time(s.Timestamp, UnixSeconds)
	if err != nil {
		return Result{}, err
	}
	signed := []byte(s.Timestamp + s.Token)
	key, err := m.Match(signed, sig)
	return Result{ID: s.Token, Time: at, Key: key, Signed: signed}, err
}

func signMailgun(o *Outgoing, k Key) error {
	var event map[string]json.RawMessage
	if json.Unmarshal(o.Body, &event) != nil || event == nil {
		return errors.New("webhook: Outgoing.Body: must be a JSON object")
	}
	s := mailgunSignature{Timestamp: strconv.FormatInt(o.Time.Unix(), 10), Token: o.ID}
	sig, err := k.sign(HMACSHA256, []byte(s.Timestamp+s.Token))
	if err != nil {
		return err
	}
	s.Signature = hex.EncodeToString(sig)
	if event["signature"], err = json.Marshal(s); err != nil {
		return err
	}
	o.Body, err = json.Marshal(event)
	return err
}

// Adyen is the standard (payment) webhooks of Adyen; the key is for [SecretHex].
// Each item of a delivery has a signature of its own, and all must be right.
// Eight fields are signed: pspReference, originalReference, merchantAccountCode,
// merchantReference, amount, eventCode and success. Whatever else is there is
// not to be relied on. They are signed with colons between them, and a colon
// in one of them is not told from these.
//
// For a Store, a delivery is the set of its items; one with an item twice is
// refused. Some items of a delivery by themselves are another delivery: where
// several come at once, compare pspReference and eventCode of each.
func Adyen() Scheme {
	return Scheme{Name: "adyen", Algorithm: HMACSHA256, Encoding: Base64, Verify: verifyAdyen, Sign: signAdyen}
}

// adyenSigned returns what the signature of an item covers, and the signature.
func adyenSigned(item members) (signed, signature string, ok bool) {
	var amount, extra members
	part := func(name string, m *members, known ...string) bool {
		raw, there := item[name]
		if !there {
			return true
		}
		*m, ok = object(raw, known...)
		return ok
	}
	if !part("amount", &amount, "value", "currency") || !part("additionalData", &extra, "hmacSignature") {
		return "", "", false
	}
	var psp, original, account, merchant, currency, event string
	var value json.Number
	ok = item.read("pspReference", &psp) && item.read("originalReference", &original) &&
		item.read("merchantAccountCode", &account) && item.read("merchantReference", &merchant) &&
		amount.read("value", &value) && amount.read("currency", &currency) &&
		item.read("eventCode", &event) && extra.read("hmacSignature", &signature)
	success := strings.Trim(string(item["success"]), `"`) // "true", and true in some versions
	return strings.Join([]string{psp, original, account, merchant, value.String(), currency, event, success}, ":"), signature, ok
}

// adyenItems returns the items of a delivery.
func adyenItems(body []byte) (items []members, ok bool) {
	whole, ok := object(body, "notificationItems")
	var raw []json.RawMessage
	if !ok || !whole.read("notificationItems", &raw) || len(raw) > maxAdyenItems {
		return nil, false
	}
	for _, r := range raw {
		wrapper, ok := object(r, "NotificationRequestItem")
		if !ok {
			return nil, false
		}
		item, ok := object(wrapper["NotificationRequestItem"], "pspReference", "originalReference",
			"merchantAccountCode", "merchantReference", "amount", "eventCode", "success", "additionalData")
		if !ok {
			return nil, false
		}
		items = append(items, item)
	}
	return items, true
}

// maxAdyenItems bounds the work of one delivery; Adyen sends up to six.
const maxAdyenItems = 64

func verifyAdyen(m *Message) (Result, error) {
	items, ok := adyenItems(m.Body)
	if !ok {
		return Result{}, ErrMalformed
	}
	if len(items) == 0 {
		return Result{}, ErrNoSignature
	}
	var res Result
	var all []string
	for _, item := range items {
		signed, signature, ok := adyenSigned(item)
		switch {
		case !ok:
			return Result{}, ErrMalformed
		case signature == "":
			return Result{}, ErrNoSignature
		}
		sig, err := m.Decode(signature, Base64)
		if err != nil {
			return Result{}, err
		}
		key, err := m.Match([]byte(signed), sig)
		if err != nil {
			return Result{}, err
		}
		res.Key = max(res.Key, key)
		all = append(all, signed)
	}
	// Nothing signs how often an item is there, or where: one that was captured
	// would otherwise make any number of deliveries.
	slices.Sort(all)
	for i, signed := range all {
		if i > 0 && signed == all[i-1] {
			return Result{}, ErrMalformed
		}
		// With its length, so that items cannot be cut another way.
		res.Signed = append(strconv.AppendInt(res.Signed, int64(len(signed)), 10), ":"+signed...)
	}
	return res, nil
}

func signAdyen(o *Outgoing, k Key) error {
	body, ok := object(o.Body)
	items, ok2 := adyenItems(o.Body)
	if !ok || !ok2 || len(items) == 0 {
		return errors.New("webhook: Outgoing.Body: must be a JSON object with notificationItems, each with one of Adyen's items, and no object of more than 256 members")
	}
	type wrapper struct {
		Item members `json:"NotificationRequestItem"`
	}
	var all []wrapper
	for n, item := range items {
		signed, _, ok := adyenSigned(item)
		if !ok {
			return errors.New("webhook: Outgoing.Body: item " + strconv.Itoa(n) + " is not one of Adyen's")
		}
		sig, err := k.sign(HMACSHA256, []byte(signed))
		if err != nil {
			return err
		}
		extra := members{}
		if data, there := item["additionalData"]; there {
			extra, _ = object(data) // adyenSigned has read it
		}
		extra["hmacSignature"], _ = json.Marshal(base64.StdEncoding.EncodeToString(sig))
		item["additionalData"], _ = json.Marshal(extra)
		all = append(all, wrapper{item})
	}
	body["notificationItems"], _ = json.Marshal(all)
	var err error
	o.Body, err = json.Marshal(body)
	return err
}

// MessageBird is MessageBird (Bird), with the signing key. It signs a JWT with
// hashes of the URL and the body. From when to when it is valid is in the JWT,
// and it may be a second early, as for their own validators.
func MessageBird() Scheme {
	return Scheme{
		Name: "messagebird", Algorithm: HMACSHA256, Encoding: Base64URL, Header: "MessageBird-Signature-JWT", NeedsURL: true,
		Methods: []string{"POST", "GET"}, Strip: []string{"MessageBird-Signature", "MessageBird-Request-Timestamp"},
		Verify: verifyMessageBird, Sign: signMessageBird,
	}
}

type messageBirdClaims struct {
	Issuer      string `json:"iss"`
	NotBefore   int64  `json:"nbf"`
	Expires     int64  `json:"exp"`
	ID          string `json:"jti"`
	URLHash     string `json:"url_hash"`
	PayloadHash string `json:"payload_hash,omitempty"`
}

func verifyMessageBird(m *Message) (Result, error) {
	token, err := m.Value("MessageBird-Signature-JWT")
	if err != nil {
		return Result{}, err
	}
	signed, text, ok := cutLast(token, ".")
	head, claims, ok2 := strings.Cut(signed, ".")
	if !ok || !ok2 || len(token) > 4096 || strings.ContainsAny(token, "\r\n") {
		return Result{}, ErrMalformed
	}
	// RFC 8725 section 3.1: the algorithm is the receiver's choice.
	var header struct {
		Alg  string   `json:"alg"`
		Crit []string `json:"crit"`
	}
	if !decodeJWT(head, &header) || header.Alg != "HS256" || header.Crit != nil {
		return Result{}, ErrMalformed
	}
	sig, err := m.Decode(text, Base64URL)
	if err != nil {
		return Result{}, err
	}
	key, err := m.Match([]byte(signed), sig)
	if err != nil {
		return Result{}, err
	}
	var c messageBirdClaims
	if !decodeJWT(claims, &c) || c.Issuer != "MessageBird" || c.Expires == 0 {
		return Result{}, ErrMalformed
	}
	now := m.Now()
	switch {
	case !now.Before(time.Unix(c.Expires, 0)):
		return Result{}, ErrTooOld
	case now.Before(time.Unix(c.NotBefore, 0).Add(-time.Second)): // whose clocks differ by less
		return Result{}, ErrTooNew
	}
	if !sameHash(c.URLHash, []byte(m.URL)) || (c.PayloadHash != "" || len(m.Body) > 0) && !sameHash(c.PayloadHash, m.Body) {
		return Result{}, ErrMismatch
	}
	return Result{ID: c.ID, Time: time.Unix(c.NotBefore, 0), Key: key, Signed: []byte(signed)}, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func decodeJWT(part string, v any) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(part)
	return err == nil && json.Unmarshal(b, v) == nil
}

func sameHash(text string, b []byte) bool {
	sum := sha256.Sum256(b)
	return subtle.ConstantTimeCompare([]byte(text), []byte(hex.EncodeToString(sum[:]))) == 1
}

func signMessageBird(o *Outgoing, k Key) error {
	sum := sha256.Sum256([]byte(o.URL))
	c := messageBirdClaims{
		Issuer: "MessageBird", NotBefore: o.Time.Unix(), Expires: o.Time.Add(time.Minute).Unix(), ID: o.ID,
		URLHash: hex.EncodeToString(sum[:]),
	}
	if len(o.Body) > 0 {
		sum = sha256.Sum256(o.Body)
		c.PayloadHash = hex.EncodeToString(sum[:])
	}
	claims, err := json.Marshal(c)
	if err != nil {
		return err
	}
	b := []byte(`{"alg":"HS256","typ":"JWT"}`)
	token := base64.RawURLEncoding.EncodeToString(b) + "." + base64.RawURLEncoding.EncodeToString(claims)
	mac := hmac.New(sha256.New, k.secret)
	mac.Write([]byte(token))
	o.Header.Set("MessageBird-Signature-JWT", token+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	return nil
}

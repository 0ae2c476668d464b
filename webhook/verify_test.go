package webhook_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"example.com/plainware/webhook"
)

const (
	secret  = "0123456789abcdef0123456789abcdef"
	secret2 = "fedcba9876543210fedcba9876543210"
	address = "https://hooks.example/in?tenant=7"
	event   = `{"id":"evt_1","type":"thing.created","url":"https:\/\/x.example"}`
)

// signed is a request with a signature of the key.
func signed(t testing.TB, s webhook.Scheme, key webhook.Key, o webhook.Outgoing) *http.Request {
	t.Helper()
	if o.URL == "" {
		o.URL = address
	}
	if o.Body == nil {
		o.Body = []byte(event)
		if s.Name == "twilio" {
			o.Body, o.Header = []byte("From=%2B1&Body=hi"), http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		}
	}
	if err := webhook.Sign(s, &o, key); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(o.Method, o.URL, bytes.NewReader(o.Body))
	maps.Copy(r.Header, o.Header)
	return r
}

// with replaces the body of a request that was signed.
func with(r *http.Request, body string) *http.Request {
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	return r
}

func config(s webhook.Scheme, keys ...string) webhook.Config {
	c := webhook.Config{Scheme: s, URL: "https://hooks.example"}
	for _, k := range keys {
		c.Keys = append(c.Keys, webhook.Secret(k))
	}
	return c
}

// serve sends r through a verifier to a handler that counts and reads.
func serve(t testing.TB, v *webhook.Verifier, r *http.Request) (res *http.Response, body string, ran bool) {
	t.Helper()
	w := httptest.NewRecorder()
	v.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ran = true
		io.Copy(w, r.Body)
	})).ServeHTTP(w, r)
	return w.Result(), w.Body.String(), ran
}

// refused checks that a request does not reach the handler.
func refused(t testing.TB, v *webhook.Verifier, r *http.Request, status int) string {
	t.Helper()
	res, body, ran := serve(t, v, r)
	if res.StatusCode != status || ran {
		t.Errorf("status %d, want %d; handler ran: %v", res.StatusCode, status, ran)
	}
	return body
}

// webhook 3: without a signature, or with an empty one, the answer is 401 and
// the handler does not run.
func TestNoSignature(t *testing.T) {
	for name, preset := range presets {
		s := preset()
		if s.Header == "" || s.Algorithm >= webhook.Ed25519 && s.Algorithm <= webhook.RSAPSSSHA512 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			v := newVerifier(t, config(s, secret))
			for _, set := range []func(http.Header){
				func(h http.Header) { h.Del(s.Header); h.Del(s.AlsoHeader) },
				func(h http.Header) { h.Set(s.Header, ""); h.Del(s.AlsoHeader) },
				func(h http.Header) { h[http.CanonicalHeaderKey(s.Header)] = []string{}; h.Del(s.AlsoHeader) },
			} {
				r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{})
				set(r.Header)
				refused(t, v, r, http.StatusUnauthorized)
			}
		})
	}
}

// webhook 4: two lines of the field are refused, even if both are right.
func TestTwoHeaderLines(t *testing.T) {
	s := webhook.GitHub()
	r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{})
	h := r.Header[s.Header]
	r.Header[s.Header] = append(h, h[0])
	refused(t, newVerifier(t, config(s, secret)), r, http.StatusUnauthorized)
}

// webhook 4: but of Mollie's, which sends a line for each of two secrets.
// webhook 13: of several, one that is right is enough, and nothing else is.
func TestMollieLines(t *testing.T) {
	s := webhook.Mollie()
	o := webhook.Outgoing{Body: []byte(event)}
	if err := webhook.Sign(s, &o, webhook.Secret(secret), webhook.Secret(secret2)); err != nil {
		t.Fatal(err)
	}
	lines := o.Header[s.Header]
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "sha256=") || !strings.HasPrefix(lines[1], "sha256=") {
		t.Fatalf("signed with two keys: %q", lines)
	}
	a, b := lines[0], lines[1]
	wrong := "sha256=" + strings.Repeat("0", 64)
	v := newVerifier(t, config(s, secret))
	many := slices.Repeat([]string{wrong}, 16)
	for name, c := range map[string]struct {
		lines []string
		want  error
	}{
		"new and old":    {[]string{a, b}, nil},
		"old and new":    {[]string{b, a}, nil},
		"in one line":    {[]string{b + ", " + a}, nil},
		"one":            {[]string{a}, nil},
		"without prefix": {[]string{strings.TrimPrefix(a, "sha256=")}, nil},
		"empty beside":   {[]string{"", a}, nil},
		"bad beside":     {[]string{"sha256=zz", a}, nil},
		"sixteen":        {append(many[:15:15], a), nil},
		"the other's":    {[]string{b, b}, webhook.ErrMismatch},
		"seventeen":      {append(many[:16:16], a), webhook.ErrMalformed},
		"empty":          {[]string{"", ""}, webhook.ErrNoSignature},
		"none":           {[]string{}, webhook.ErrNoSignature},
		"bad":            {[]string{"sha256=zz", "sha256="}, webhook.ErrMalformed},
		"other version":  {[]string{"sha512=" + a[7:]}, webhook.ErrMalformed},
		"short":          {[]string{a[:len(a)-2]}, webhook.ErrMalformed},
	} {
		if _, err := v.VerifyBytes(http.Header{s.Header: c.lines}, o.Body); err != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// webhook 5: the SHA-1 signature alone is none for the GitHub preset.
func TestNoDowngrade(t *testing.T) {
	r := signed(t, webhook.GitHubSHA1(), webhook.Secret(secret), webhook.Outgoing{})
	refused(t, newVerifier(t, config(webhook.GitHub(), secret)), r, http.StatusUnauthorized)
}

// webhook 6: Stripe's v0 alone, a second t, a sign or a leading zero in it.
func TestStripeHeader(t *testing.T) {
	s := webhook.Stripe()
	v := newVerifier(t, config(s, secret))
	for name, edit := range map[string]func(string) string{
		"v0 alone":     func(h string) string { return strings.Replace(h, "v1=", "v0=", 1) },
		"two t":        func(h string) string { return h + "," + h[:strings.Index(h, ",")] },
		"t with sign":  func(h string) string { return strings.Replace(h, "t=", "t=+", 1) },
		"leading zero": func(h string) string { return strings.Replace(h, "t=", "t=0", 1) },
		"no pair":      func(h string) string { return h + ",x" },
		"no t":         func(h string) string { return h[strings.Index(h, ",")+1:] },
		"17 digits":    func(h string) string { return strings.Replace(h, "t=", "t=1234567", 1) },
		"17 signatures": func(h string) string {
			return h + strings.Repeat(h[strings.Index(h, ","):], 16)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{})
			r.Header.Set(s.Header, edit(r.Header.Get(s.Header)))
			refused(t, v, r, http.StatusUnauthorized)
		})
	}
}

// webhook 7: the window ends at the tolerance, in both directions, however
// the time is written.
func TestWindow(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	for _, preset := range []func() webhook.Scheme{webhook.Stripe, webhook.Webflow, webhook.Zendesk, webhook.Linear, webhook.Mailgun} {
		s := preset()
		t.Run(s.Name, func(t *testing.T) {
			c := config(s, secret)
			c.Tolerance = 5 * time.Minute
			if s.NeedsStore {
				c.Store, c.Name = newMemory(t), "window"
			}
			v := newVerifier(t, c)
			for _, c := range []struct {
				off  time.Duration
				want error
			}{
				{-5 * time.Minute, nil}, {5 * time.Minute, nil}, {0, nil},
				{5*time.Minute + time.Second, webhook.ErrTooOld}, {-5*time.Minute - time.Second, webhook.ErrTooNew},
				{5*time.Minute + 1, webhook.ErrTooOld}, {1e6 * time.Hour, webhook.ErrTooOld},
			} {
				v.SetClock(func() time.Time { return at.Add(c.off) })
				r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{Time: at})
				d, err := v.Verify(r)
				if err != c.want {
					t.Errorf("%v off: %v, want %v", c.off, err, c.want)
				}
				if err == nil && !d.Time.Equal(at) {
					t.Errorf("time %v", d.Time)
				}
			}
		})
	}
}

// webhook 8: the body is there again, for as many readers as want it.
func TestBodyRestored(t *testing.T) {
	for _, text := range []string{event, "", strings.Repeat("x", 100_000)} {
		for _, chunked := range []bool{false, true} {
			s := webhook.GitHub()
			r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{Body: []byte(text)})
			if chunked {
				r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
				r.Body = io.NopCloser(iotest.OneByteReader(strings.NewReader(text)))
			}
			d, err := newVerifier(t, config(s, secret)).Verify(r)
			if err != nil {
				t.Fatal(err)
			}
			read := func(r io.ReadCloser, err error) {
				t.Helper()
				b, err2 := io.ReadAll(r)
				if err := errors.Join(err, err2, r.Close()); err != nil || string(b) != text {
					t.Errorf("read %d bytes, %v; want %d", len(b), err, len(text))
				}
			}
			read(r.Body, nil)
			read(r.GetBody())
			read(r.GetBody())
			if string(d.Body) != text || r.ContentLength != int64(len(text)) || r.TransferEncoding != nil {
				t.Errorf("Delivery.Body has %d bytes, ContentLength %d, TransferEncoding %q", len(d.Body), r.ContentLength, r.TransferEncoding)
			}
		}
	}
}

// counting counts what is read of a body.
type counting struct {
	r io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}
func (*counting) Close() error { return nil }

// webhook 9: MaxBody bytes pass and one more does not, whether the length was
// announced or not, and no more than that one is read.
func TestMaxBody(t *testing.T) {
	s := webhook.GitHub()
	c := config(s, secret)
	c.MaxBody = 1000
	v := newVerifier(t, c)
	for _, n := range []int{1000, 1001, 100_000} {
		for _, announced := range []bool{true, false} {
			r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{Body: bytes.Repeat([]byte("x"), n)})
			body := &counting{r: r.Body}
			r.Body = body
			if !announced {
				r.ContentLength = -1
			}
			_, err := v.Verify(r)
			switch {
			case n == 1000 && err != nil, n > 1000 && !errors.Is(err, webhook.ErrTooLarge):
				t.Errorf("%d bytes, announced %v: %v", n, announced, err)
			case n > 1000 && announced && body.n > 0, body.n > 1001:
				t.Errorf("%d bytes, announced %v: %d were read", n, announced, body.n)
			}
			if n > 1000 {
				if announced {
					r.ContentLength = int64(n)
				}
				r.Body = io.NopCloser(strings.NewReader(strings.Repeat("x", n)))
				res, _, _ := serve(t, v, r)
				if res.StatusCode != 413 || res.Header.Get("Connection") != "close" {
					t.Errorf("status %d, header %v", res.StatusCode, res.Header)
				}
			}
		}
	}
	// One that is announced to be longer is not looked at any further.
	if _, err := v.Verify(with(httptest.NewRequest("POST", "/", nil), strings.Repeat("x", 1001))); err != webhook.ErrTooLarge {
		t.Errorf("without a signature: %v", err)
	}
	if _, err := v.VerifyBytes(http.Header{}, make([]byte, 1001)); err != webhook.ErrTooLarge {
		t.Errorf("VerifyBytes: %v", err)
	}
}

// webhook 10: any other text is another body, whatever it means.
func TestBodyChanged(t *testing.T) {
	s := webhook.GitHub()
	v := newVerifier(t, config(s, secret))
	const text = "{\"a\": \"x\\/y\",\r\n \"b\": 1}"
	for name, changed := range map[string]string{
		"newline appended": text + "\n",
		"indented":         "{\n  \"a\": \"x\\/y\",\r\n  \"b\": 1\n}",
		"LF":               strings.ReplaceAll(text, "\r\n", "\n"),
		"slash unescaped":  strings.ReplaceAll(text, `\/`, "/"),
		"empty":            "",
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, v, with(signed(t, s, webhook.Secret(secret), webhook.Outgoing{Body: []byte(text)}), changed), 401)
		})
	}
}

// webhook 11: the delivery says which key matched.
func TestKeyIndex(t *testing.T) {
	for name, preset := range presets {
		s := preset()
		if s.NeedsStore || s.Algorithm >= webhook.Ed25519 && s.Algorithm <= webhook.RSAPSSSHA512 || name == "adyen" {
			continue
		}
		r := signed(t, s, webhook.Secret(secret2), webhook.Outgoing{})
		d, err := newVerifier(t, config(s, secret, secret2)).Verify(r)
		if err != nil || d.KeyIndex != 1 {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}

// webhook 13: signatures that are no signatures.
func TestMalformedSignatures(t *testing.T) {
	for _, preset := range []func() webhook.Scheme{webhook.GitHub, webhook.Shopify, webhook.Stripe, webhook.StandardWebhooks, webhook.Sanity, webhook.Recurly, webhook.Gitea} {
		s := preset()
		v := newVerifier(t, config(s, secret))
		// Of one time and ID: at another, a bad one may be the true one.
		o := webhook.Outgoing{ID: "msg_1", Time: time.UnixMilli(1_700_000_000_000)}
		v.SetClock(func() time.Time { return o.Time })
		good := signed(t, s, webhook.Secret(secret), o).Header.Get(s.Header)
		if _, err := v.Verify(signed(t, s, webhook.Secret(secret), o)); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		last := good[len(good)-1:]
		for _, bad := range []string{
			good[:len(good)-1], good[:len(good)-2], good + "00", good + "AA==", good + "=", "*" + good[1:],
			good[:len(good)-2] + "zz", good[:len(good)-3] + "-_" + last, strings.ToUpper(good), " ", "sha256=", "v1=", "=", ",",
			good + "\n", good[:len(good)-4] + "\r\n" + good[len(good)-4:],
		} {
			if bad == strings.ToUpper(good) && (s.Name == "gitea" || s.Name == "recurly") {
				continue // hexadecimal digits may be in either case
			}
			r := signed(t, s, webhook.Secret(secret), o)
			r.Header.Set(s.Header, bad)
			if _, err := v.Verify(r); err == nil {
				t.Errorf("%s: %q passed", s.Name, bad)
			}
		}
	}
}

// webhook 25: what two schemes sign alike has two replay keys.
func TestReplayKeyHasScheme(t *testing.T) {
	a, b := webhook.GitHub(), webhook.GitHub()
	b.Name = "other"
	r := signed(t, a, webhook.Secret(secret), webhook.Outgoing{})
	da, err := newVerifier(t, config(a, secret)).Verify(r)
	if err != nil {
		t.Fatal(err)
	}
	db, err := newVerifier(t, config(b, secret)).Verify(r)
	if err != nil {
		t.Fatal(err)
	}
	if da.ReplayKey() == db.ReplayKey() {
		t.Error("the same replay key")
	}
	if first, again := da.ReplayKey(), da.ReplayKey(); first != again {
		t.Error("two calls give two keys")
	}
}

// webhook 25: where the name of a scheme ends is in the replay key, too.
func TestReplayKeyHasEndOfName(t *testing.T) {
	key := func(name, body string) [32]byte {
		t.Helper()
		s := webhook.GitHub()
		s.Name = name
		d, err := newVerifier(t, config(s, secret)).Verify(signed(t, s, webhook.Secret(secret), webhook.Outgoing{Body: []byte(body)}))
		if err != nil {
			t.Fatal(err)
		}
		return d.ReplayKey()
	}
	if key("acme", "-eu{}") == key("acme-eu", "{}") {
		t.Error("the same replay key")
	}
}

// webhook 28: errors, answers and logs have no secret in them, no signature and
// nothing of the body.
func TestNothingLeaks(t *testing.T) {
	var log bytes.Buffer
	for name, preset := range presets {
		s := preset()
		if s.Algorithm >= webhook.Ed25519 && s.Algorithm <= webhook.RSAPSSSHA512 || name == "adyen" {
			continue
		}
		c := config(s, secret)
		c.Store, c.Name, c.Logger = newMemory(t), "leaks", slog.New(slog.NewTextHandler(&log, nil))
		var seen []string
		c.OnReject = func(r *http.Request, err error) { seen = append(seen, fmt.Sprintf("%v %+v", err, err)) }
		v := newVerifier(t, c)
		r := signed(t, s, webhook.Secret(secret2), webhook.Outgoing{})
		if !strings.Contains(s.Name, "mailgun") {
			r = with(r, `{"private":"body"}`)
		}
		sig := r.Header.Get(s.Header)
		text := refused(t, v, r, 401)
		if len(seen) != 1 {
			t.Errorf("%s: OnReject was called %d times", name, len(seen))
		}
		all := text + strings.Join(seen, "") + log.String() + fmt.Sprintf("%v %+v %#v %s", c.Keys, c.Keys, c.Keys, c.Keys)
		for _, word := range []string{secret, secret2, "private"} {
			if strings.Contains(all, word) {
				t.Errorf("%s: %q is in %q", name, word, all)
			}
		}
		if len(sig) > 20 && strings.Contains(all, sig[len(sig)-20:]) {
			t.Errorf("%s: the signature is in %q", name, all)
		}
	}
}

// A 401 is the same whatever was wrong, so that it does not tell how near a
// guess was.
func TestOneRefusal(t *testing.T) {
	s := webhook.Stripe()
	v := newVerifier(t, config(s, secret))
	var answers []string
	for _, edit := range []func(*http.Request){
		func(r *http.Request) { r.Header.Del(s.Header) },
		func(r *http.Request) { r.Header.Set(s.Header, "t=1,v1=zz") },
		func(r *http.Request) {
			*r = *signed(t, s, webhook.Secret(secret), webhook.Outgoing{Time: time.Unix(1, 0)})
		},
		func(r *http.Request) { with(r, "other") },
	} {
		r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{})
		edit(r)
		res, body, _ := serve(t, v, r)
		answers = append(answers, fmt.Sprint(res.StatusCode, res.Header, body))
	}
	if len(slices.Compact(answers)) != 1 {
		t.Errorf("%d answers: %q", len(answers), answers)
	}
	var problem struct {
		Status int
		Code   string
	}
	_, text, _ := strings.Cut(answers[0], "{")
	if err := json.Unmarshal([]byte("{"+text), &problem); err != nil || problem.Code != "webhook_unverified" || problem.Status != 401 {
		t.Errorf("%+v, %v", problem, err)
	}
}

// webhook 29: with StripHeaders the handler sees no signature, and no secret that
// a provider has leaked; the caller's request keeps them.
func TestStripHeaders(t *testing.T) {
	s := webhook.GitHub()
	for _, strip := range []bool{true, false} {
		c := config(s, secret)
		c.StripHeaders = strip
		r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{})
		r.Header.Set("X-Github-Encoded-Secret", "c2VjcmV0")
		r.Header.Set("X-Github-Event", "push")
		newVerifier(t, c).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if gone := r.Header.Get(s.Header) == "" && r.Header.Get("X-Github-Encoded-Secret") == ""; gone != strip {
				t.Errorf("StripHeaders %v: %v", strip, r.Header)
			}
			if r.Header.Get("X-Github-Event") == "" {
				t.Error("the event is gone")
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
		if r.Header.Get(s.Header) == "" {
			t.Error("the caller's header was changed")
		}
	}
}

// webhook 30: a content encoding is refused; identity is none.
func TestContentEncoding(t *testing.T) {
	s := webhook.GitHub()
	v := newVerifier(t, config(s, secret))
	for encoding, status := range map[string]int{"gzip": 415, "identity, gzip": 415, "": 415, "identity": 200, "Identity": 200} {
		r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{})
		r.Header["Content-Encoding"] = []string{encoding}
		res, _, ran := serve(t, v, r)
		if res.StatusCode != status || ran != (status == 200) {
			t.Errorf("%q: status %d", encoding, res.StatusCode)
		}
		if status == 415 && res.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("header %v", res.Header)
		}
	}
}

func TestMethods(t *testing.T) {
	s := webhook.GitHub()
	r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{})
	r.Method = "PUT"
	res, _, ran := serve(t, newVerifier(t, config(s, secret)), r)
	if res.StatusCode != 405 || res.Header.Get("Allow") != "POST" || ran {
		t.Errorf("status %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
	r.Method = "PUT"
	res, _, _ = serve(t, newVerifier(t, config(webhook.Dropbox(), secret)), r)
	if res.StatusCode != 405 || res.Header.Get("Allow") != "GET, POST" {
		t.Errorf("status %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
}

// webhook 32: a signature of one version is none of the other's.
func TestStandardWebhooksVersions(t *testing.T) {
	sign, verify := keyPair(t, webhook.Ed25519)
	v1 := signed(t, webhook.StandardWebhooks(), webhook.Secret(secret), webhook.Outgoing{})
	v1a := signed(t, webhook.StandardWebhooksEd25519(), sign, webhook.Outgoing{})
	symmetric := newVerifier(t, config(webhook.StandardWebhooks(), secret))
	public := newVerifier(t, webhook.Config{Scheme: webhook.StandardWebhooksEd25519(), Keys: []webhook.Key{verify}})
	refused(t, symmetric, v1a, 401)
	refused(t, public, v1, 401)
	if _, err := public.Verify(signed(t, webhook.StandardWebhooksEd25519(), sign, webhook.Outgoing{})); err != nil {
		t.Error(err)
	}
	// Both in one field, as a sender that changes over has them.
	r := signed(t, webhook.StandardWebhooks(), webhook.Secret(secret), webhook.Outgoing{})
	r.Header.Set("Webhook-Signature", v1a.Header.Get("Webhook-Signature")+" "+r.Header.Get("Webhook-Signature"))
	if _, err := symmetric.Verify(r); err != nil {
		t.Error(err)
	}
}

// webhook 13: an ID is 512 bytes at most, whoever has signed it.
func TestLongID(t *testing.T) {
	s := webhook.StandardWebhooks()
	v := newVerifier(t, config(s, secret))
	for n, want := range map[int]error{1: nil, 512: nil, 513: webhook.ErrMalformed} {
		id, at := strings.Repeat("i", n), fmt.Sprint(time.Now().Unix())
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(id + "." + at + "." + event))
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {at}, "Webhook-Signature": {"v1," + base64Of(mac.Sum(nil))}}
		if d, err := v.VerifyBytes(h, []byte(event)); err != want || err == nil && d.ID != id {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// webhook 33: the boundary between ID and time cannot be moved.
func TestBoundaryMoved(t *testing.T) {
	s := webhook.StandardWebhooks()
	r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{ID: "a.b"})
	v := newVerifier(t, config(s, secret))
	if d, err := v.Verify(r); err != nil || d.ID != "a.b" {
		t.Fatalf("%+v, %v", d, err)
	}
	r.Header.Set("Webhook-Id", "a")
	r.Header.Set("Webhook-Timestamp", "b."+r.Header.Get("Webhook-Timestamp"))
	refused(t, v, r, 401)
}

// webhook 34: tokens of any length are compared, and only the right one passes.
func TestTokens(t *testing.T) {
	for _, preset := range []func() webhook.Scheme{webhook.GitLabToken, webhook.Telegram, webhook.Postmark, webhook.PhonePe} {
		s := preset()
		v := newVerifier(t, config(s, secret))
		for _, token := range []string{secret[:31], secret + "0", secret2, "0", strings.Repeat("x", 5000)} {
			refused(t, v, signed(t, s, webhook.Secret(token), webhook.Outgoing{}), 401)
		}
		if _, err := v.Verify(signed(t, s, webhook.Secret(secret), webhook.Outgoing{})); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

// webhook 36: what is allocated before a body arrives does not depend on the
// length that was announced.
func TestAnnouncedLength(t *testing.T) {
	s := webhook.GitHub()
	c := config(s, secret)
	c.MaxBody = 1 << 30
	v := newVerifier(t, c)
	r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{})
	r.ContentLength = 1 << 29
	var most int
	r.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
		most = max(most, len(p))
		return 0, io.ErrUnexpectedEOF
	}))
	if _, err := v.Verify(r); !errors.Is(err, webhook.ErrBody) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
	if most > 64<<10 {
		t.Errorf("a buffer of %d bytes for nothing", most)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// An error of a limit outside keeps its status.
func TestBodyErrors(t *testing.T) {
	s := webhook.GitHub()
	v := newVerifier(t, config(s, secret))
	for _, c := range []struct {
		err    error
		status int
	}{{io.ErrUnexpectedEOF, 400}, {&http.MaxBytesError{Limit: 1}, 413}, {late{}, 408}} {
		r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{})
		r.Body = io.NopCloser(iotest.ErrReader(c.err))
		refused(t, v, r, c.status)
	}
}

type late struct{}

func (late) Error() string   { return "late" }
func (late) HTTPStatus() int { return 408 }
func (late) Code() string    { return "late" }

func TestEventID(t *testing.T) {
	for body, want := range map[string]string{
		`{"id":"evt_1"}`: "evt_1", `{"id":42}`: "42", `{"ID":"x"}`: "", `{"id":null}`: "", `[]`: "", `{"id":""}`: "",
	} {
		s := webhook.Stripe()
		d, err := newVerifier(t, config(s, secret)).Verify(signed(t, s, webhook.Secret(secret), webhook.Outgoing{Body: []byte(body)}))
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := d.EventID(); id != want && !(want == "" && id == "null") || ok != (want != "") {
			t.Errorf("%s: %q, %v", body, id, ok)
		}
	}
	d, err := newVerifier(t, config(webhook.PagerDuty(), secret)).Verify(
		signed(t, webhook.PagerDuty(), webhook.Secret(secret), webhook.Outgoing{Body: []byte(`{"event":{"id":"e"}}`)}))
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := d.EventID(); id != "e" || !ok {
		t.Errorf("%q, %v", id, ok)
	}
	d, err = newVerifier(t, config(webhook.Twitch(), secret)).Verify(
		signed(t, webhook.Twitch(), webhook.Secret(secret), webhook.Outgoing{ID: "msg"}))
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := d.EventID(); id != "msg" || !ok {
		t.Errorf("%q, %v", id, ok)
	}
}

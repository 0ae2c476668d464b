package forwardauth_test

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/plainware/forwardauth"
)

// A target that passes is one that every reader takes for the same path, but for
// whether a reserved character is encoded: it is its own cleaned and normalised
// form, and what a proxy behind writes; another one that passes and decodes to
// the same path differs in nothing but that. The service is told exactly what
// the client sent.
func FuzzTarget(f *testing.F) {
	for _, s := range plainTargets {
		f.Add(s)
	}
	for _, s := range oddTargets {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return // no server lets it through
		}
		s := says(200, "")
		r := request("GET", "/")
		r.RequestURI, r.URL = target, u
		h := do(t, forwardauth.Config{}, s, r)
		if h.ran == nil {
			if h.StatusCode != 400 || s.count() != 0 {
				t.Fatalf("%q: status %d, %d questions", target, h.StatusCode, s.count())
			}
			return
		}
		if got := s.last(t).Header["X-Forwarded-Uri"]; len(got) != 1 || got[0] != target {
			t.Fatalf("%q: the service got %q", target, got)
		}
		raw, _, _ := strings.Cut(target, "?")
		if got := u.EscapedPath(); got != raw {
			t.Fatalf("%q: a proxy would send %q", target, got)
		}
		if got := spelling(raw, true); got != raw {
			t.Fatalf("%q: the normal form is %q", target, got)
		}
		// All reserved characters encoded, it is the strict encoding of what it
		// decodes to: nothing else was free.
		if got, want := spelling(raw, false), encoded(u.Path); got != want {
			t.Fatalf("%q is %q with reserved characters encoded, but the path is %q", target, got, want)
		}
		for _, p := range []string{u.Path, withoutParameters(u.Path)} {
			clean := path.Clean(p)
			if strings.HasSuffix(p, "/") && clean != "/" {
				clean += "/"
			}
			if clean != p {
				t.Fatalf("%q: the path is %q, cleaned %q", target, p, clean)
			}
		}
		if strings.Count(raw, "/") != strings.Count(u.Path, "/") || strings.ContainsAny(u.Path, "\\\x00") {
			t.Fatalf("%q: the path is %q", target, u.Path)
		}
		if twice, err := url.PathUnescape(u.Path); err == nil && twice != u.Path {
			t.Fatalf("%q: decoded twice it is %q", target, twice)
		}
		if strings.ContainsAny(target, "# \r\n") || !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") {
			t.Fatalf("%q has passed", target)
		}
	})
}

const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"

// spelling writes a path anew, byte by byte as RFC 3986, section 6.2.2, has it:
// unreserved characters as they are, all others encoded in upper case, except
// that reserved ones stay as they came if asSent.
func spelling(raw string, asSent bool) string {
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		c, sent := raw[i], raw[i:i+1]
		if c == '%' {
			sent = raw[i : i+3]
			n, _ := strconv.ParseUint(raw[i+1:i+3], 16, 8)
			c, i = byte(n), i+2
		}
		switch reserved := strings.IndexByte("!$&'()*+,:;=@[]", c) >= 0; {
		case strings.IndexByte(unreserved, c) >= 0, sent == "/":
			b.WriteByte(c)
		case reserved && asSent && len(sent) == 1:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// encoded is the strictest encoding of a decoded path.
func encoded(plain string) string {
	var b strings.Builder
	for i := range len(plain) {
		if c := plain[i]; c == '/' || strings.IndexByte(unreserved, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// withoutParameters is a path as a servlet container reads it.
func withoutParameters(plain string) string {
	segments := strings.Split(plain, "/")
	for i := range segments {
		segments[i], _, _ = strings.Cut(segments[i], ";")
	}
	return strings.Join(segments, "/")
}

// Whatever a client calls its field, the handler has nothing that could be
// taken for the one of the service, and the service is told nothing by it.
func FuzzHeaderName(f *testing.F) {
	for _, line := range spoofed {
		name, _, _ := strings.Cut(line, ":")
		f.Add(name)
	}
	for _, name := range []string{"X_Forwarded_Uri", "x.real.ip", "X-Forwarded-For", "Cookie", "Host", ":protocol", "", "X-Forwardauth_Loop"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		s := says(200, "", "Remote-User: ada")
		r := request("GET", "/")
		r.Header[name] = []string{"evil-value"}
		h := do(t, forwardauth.Config{CopyHeaders: user(t)}, s, r)
		if h.ran == nil {
			return
		}
		if got := identityHeaders(h.ran.Header); len(got) != 1 || got[0] != "Remote-User=ada" {
			t.Fatalf("%q: the handler got %q", name, got)
		}
		sent := map[string]bool{"Accept": true, "Accept-Language": true, "Authorization": true, "Cookie": true, "User-Agent": true, "X-Requested-With": true, "X-Forwardauth-Loop": true}
		for key, values := range s.last(t).Header {
			if strings.Contains(strings.Join(values, ","), "evil-value") && !sent[key] {
				t.Fatalf("%q: the service got %s %q", name, key, values)
			}
		}
	})
}

// An answer of a policy engine allows only if a strict reader takes it for a
// plain yes, and never breaks anything.
func FuzzPolicyAnswer(f *testing.F) {
	for _, s := range []string{
		`{"result": true}`, `{"result": false}`, `{}`, `{"result": {"allow": true, "headers": {"Remote-User": ["a", "b"]}}}`,
		`{"result": {"allowed": false, "http_status": 401, "headers": {"a": "b"}, "body": "x"}}`, `{"result": true} x`, `[]`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		h := do(t, forwardauth.Config{Mode: forwardauth.JSON, CopyHeaders: user(t)}, says(200, answer), request("GET", "/"))
		if h.ran != nil && !strings.Contains(answer, "true") {
			t.Fatalf("%q allows", answer)
		}
		if h.ran == nil && (h.StatusCode < 300 || h.StatusCode >= 500 && h.StatusCode != 503) {
			t.Fatalf("%q: status %d", answer, h.StatusCode)
		}
		for _, values := range h.Header {
			if strings.ContainsAny(strings.Join(values, ""), "\r\n\x00") {
				t.Fatalf("%q: the client got %v", answer, h.Header)
			}
		}
	})
}

// An entry of the store that is not one is a miss, whatever it is.
func FuzzCacheEntry(f *testing.F) {
	f.Add([]byte{1}, 3)
	f.Add([]byte("plain"), 50)
	f.Fuzz(func(t *testing.T, noise []byte, at int) {
		mem := memory(t)
		s := says(200, "", fresh...)
		m := mustNew(t, forwardauth.Config{Base: s, CopyHeaders: user(t), Cache: cachedBy(mem)})
		ask := func() *http.Request { return serve(m, request("GET", "/", "Cookie: a=b")).ran }
		ask()
		for key := range mem.Scan(t.Context(), "") {
			good, _, _ := mem.Get(t.Context(), key)
			at = min(max(at, 0), len(good))
			bad := append(append([]byte(nil), good[:at]...), noise...)
			if string(bad) == string(good) {
				return
			}
			if err := mem.Put(t.Context(), key, bad, 0); err != nil {
				t.Fatal(err)
			}
		}
		if r := ask(); r == nil || s.count() != 2 || r.Header.Get("Remote-User") != "ada" {
			t.Fatalf("%d questions", s.count())
		}
	})
}

// What is accepted as an entry of the cache comes out again as it went in; for
// everything else there is no panic, although only holders of a key write
// entries.
func FuzzIdentity(f *testing.F) {
	m := mustNew(f, forwardauth.Config{CopyHeaders: user(f)})
	for _, h := range []http.Header{nil, {"Remote-User": {"ada"}}, {"Remote-User": {""}, "Remote-Groups": {"dev", strings.Repeat("a", 300)}}} {
		f.Add(forwardauth.AppendIdentity(m, h))
	}
	f.Add("\x01\xff\xff\xff\xff\x7f")
	f.Fuzz(func(t *testing.T, entry string) {
		h, ok := forwardauth.ReadIdentity(m, entry)
		if !ok {
			return
		}
		again, ok := forwardauth.ReadIdentity(m, forwardauth.AppendIdentity(m, h))
		if !ok || !reflect.DeepEqual(h, again) {
			t.Fatalf("%q: %q came out as %q", entry, h, again)
		}
	})
}

// What the package reads of fields that clients and services have made up: it
// finds no more in them than a reader by the letter of the RFC does.
func FuzzFields(f *testing.F) {
	for _, s := range []string{
		"text/html", "text/html;q=0", "TEXT/HTML ; q=0.0, */*", "a/b, text/html;level=1;q=0.5", "text/html;q=NaN", "text/htmlx",
		"a=1; b=2; c", "b=2=3;  b = 4 ;a", "=x; b", "sid=a; Path=/; Secure", " sid =b", "sid",
		"max-age=5", "s-maxage=4, max-age=9", "max-age=5, no-store", `max-age="7"`, "max-age=-1", "max-age=5, max-age=6", "private, max-age=1",
		"120", "-1", "99999999999", "Wed, 21 Oct 2100 07:28:00 GMT", "1.5", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		lower := strings.ToLower(line)

		// text/html must be there, in full, and refusing it is enough.
		if forwardauth.AcceptsHTML(http.Header{"Accept": {line}}) && !strings.Contains(lower, "text/html") {
			t.Errorf("%q accepts HTML", line)
		}
		if !strings.ContainsAny(line, ",") && forwardauth.AcceptsHTML(http.Header{"Accept": {line + ";q=0"}}) {
			t.Errorf("%q with q=0 accepts HTML", line)
		}
		if !forwardauth.AcceptsHTML(http.Header{"Accept": {line, "text/html"}}) {
			t.Errorf("%q hides the line after it", line)
		}

		// Only named cookies pass, as they were sent, and filtering twice is
		// filtering once.
		kept := forwardauth.FilterCookies([]string{line}, []string{"a", "b"})
		for _, one := range kept {
			for part := range strings.SplitSeq(one, ";") {
				name, _, ok := strings.Cut(strings.Trim(part, " \t"), "=")
				if name = strings.Trim(name, " \t"); !ok || name != "a" && name != "b" || !strings.Contains(line, strings.Trim(part, " \t")) {
					t.Errorf("%q: %q has passed", line, part)
				}
			}
		}
		if again := forwardauth.FilterCookies(kept, []string{"a", "b"}); len(kept) > 1 || !slices.Equal(kept, again) {
			t.Errorf("%q: filtered %q, and again %q", line, kept, again)
		}
		if got := forwardauth.FilterCookies([]string{line}, []string{}); got != nil {
			t.Errorf("%q: %q has passed without a name", line, got)
		}

		// The name of a cookie is what net/http takes it for.
		if c, err := http.ParseSetCookie(line); err == nil && forwardauth.CookieName(line) != c.Name {
			t.Errorf("%q: the cookie is %q, not %q", line, c.Name, forwardauth.CookieName(line))
		}

		// Fresh is only what says so, and an answer that is not to be kept is
		// not, whatever else it says. Age only makes it older.
		fresh, ok := forwardauth.Freshness(http.Header{"Cache-Control": {line}})
		if ok && (fresh <= 0 || !strings.Contains(lower, "max-age") && !strings.Contains(lower, "s-maxage")) {
			t.Errorf("%q is fresh for %v", line, fresh)
		}
		for _, no := range []string{"no-store", "private", "No-Cache", "max-age=x"} {
			if d, ok := forwardauth.Freshness(http.Header{"Cache-Control": {line, no}}); ok {
				t.Errorf("%q and %s: fresh for %v", line, no, d)
			}
		}
		if older, still := forwardauth.Freshness(http.Header{"Cache-Control": {line}, "Age": {"1"}}); still && (!ok || older != fresh-time.Second) {
			t.Errorf("%q: fresh for %v, a second later for %v", line, fresh, older)
		}
		if d, ok := forwardauth.Freshness(http.Header{"Cache-Control": {"max-age=5"}, "Age": {line}}); ok && (d <= 0 || d > 5*time.Second) {
			t.Errorf("Age %q: fresh for %v", line, d)
		}

		if d := forwardauth.RetryAfter(http.Header{"Retry-After": {line}}); d < 0 || d > 24*time.Hour {
			t.Errorf("Retry-After %q is %v", line, d)
		} else if n, err := strconv.ParseUint(line, 10, 16); err == nil && d != time.Duration(n)*time.Second {
			t.Errorf("Retry-After %q is %v", line, d)
		}
	})
}

package forwardauth_test

import (
	"net/http"
	"net/url"
	"path"
	"reflect"
	"strings"
	"testing"

	"example.com/plainware/forwardauth"
)

// A target that passes is one that every reader takes for the same path: it is
// its own cleaned, decoded and re-encoded form, and the service is told exactly
// what the client sent.
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
		clean := path.Clean(u.Path)
		if strings.HasSuffix(u.Path, "/") && clean != "/" {
			clean += "/"
		}
		if clean != u.Path || strings.Count(raw, "/") != strings.Count(u.Path, "/") || strings.ContainsAny(u.Path, "\\\x00") {
			t.Fatalf("%q: the path is %q, cleaned %q", target, u.Path, clean)
		}
		if twice, err := url.PathUnescape(u.Path); err == nil && twice != u.Path {
			t.Fatalf("%q: decoded twice it is %q", target, twice)
		}
		if strings.ContainsAny(target, "# \r\n") || !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") {
			t.Fatalf("%q has passed", target)
		}
	})
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

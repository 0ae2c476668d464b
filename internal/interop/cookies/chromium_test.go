package cookies

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/plainware/cookies"
	"example.com/plainware/internal/cookieattr"
)

var keyA, keyB = cookies.GenerateKey(), cookies.GenerateKey()

func sealed(t *testing.T, c cookies.Config[string]) *cookies.Cookie[string] {
	t.Helper()
	if c.Keys == nil {
		c.Keys = [][]byte{keyA}
	}
	c.Codec = cookies.String()
	cookie, err := cookies.NewSealed(c)
	if err != nil {
		t.Fatal(err)
	}
	return cookie
}

const home = "https://shop.example"

// The browser accepts what Set writes, keeps it as declared, shows it to scripts
// or not, sends it back so that Get reads it, and drops it when told to.
func TestBrowserLife(t *testing.T) {
	const value = "the value"
	kinds := map[string]*cookies.Cookie[string]{}
	for name, c := range map[string]cookies.Config[string]{
		"strictest":   {Name: cookies.HostOnly("strictest"), SameSite: http.SameSiteStrictMode},
		"host":        {Name: "__Host-script", ScriptReadable: true, MaxAge: time.Hour},
		"partitioned": {Name: "__Host-part", Partitioned: true, SameSite: http.SameSiteNoneMode},
		"domain":      {Name: "__Secure-wide", Domain: "shop.example", Session: true},
		"http":        {Name: "__Http-http", MaxAge: cookies.MaxAgeLimit},
		"plain":       {Name: "plain", Insecure: true, ScriptReadable: true},
		"chunks":      {Name: "__Host-chunks", Chunks: cookies.MaxChunks},
	} {
		kinds[name] = sealed(t, c)
	}
	long := strings.Repeat("v", 11000)
	valueOf := func(name string) string {
		if name == "chunks" {
			return long
		}
		return value
	}
	srv := serve(t, map[string]http.HandlerFunc{
		"/set": func(w http.ResponseWriter, r *http.Request) {
			for name, c := range kinds {
				if err := c.Set(w, r, valueOf(name)); err != nil {
					t.Errorf("%s: Set: %v", name, err)
				}
			}
		},
		"/get": func(w http.ResponseWriter, r *http.Request) {
			for name, c := range kinds {
				if v, _, err := c.Get(r); v != valueOf(name) || err != nil {
					t.Errorf("%s: Get: %d bytes, %v", name, len(v), err)
				}
			}
		},
		"/shrink": func(w http.ResponseWriter, r *http.Request) {
			if err := kinds["chunks"].Set(w, r, "short"); err != nil {
				t.Error(err)
			}
		},
		"/delete": func(w http.ResponseWriter, r *http.Request) {
			for _, c := range kinds {
				c.Delete(w)
			}
		},
		"/gone": func(w http.ResponseWriter, r *http.Request) {
			for name, c := range kinds {
				if v, _, err := c.Get(r); err != cookies.ErrNotFound {
					t.Errorf("%s: after Delete: %d bytes, %v", name, len(v), err)
				}
			}
		},
	})
	b := open(t, srv)
	b.visit(home + "/set")
	kept := b.cookies()
	for name, want := range map[string]cookie{
		"__Host-Http-strictest": {HTTPOnly: true, Secure: true, Domain: "shop.example", SameSite: "Strict", Expires: 24 * 3600},
		"__Host-script":         {Secure: true, Domain: "shop.example", SameSite: "Lax", Expires: 3600},
		"__Host-part":           {HTTPOnly: true, Secure: true, Domain: "shop.example", SameSite: "None", Expires: 24 * 3600, PartitionKey: &struct{ TopLevelSite string }{home}},
		"__Secure-wide":         {HTTPOnly: true, Secure: true, Domain: ".shop.example", SameSite: "Lax", Session: true},
		"__Http-http":           {HTTPOnly: true, Secure: true, Domain: "shop.example", SameSite: "Lax", Expires: 400 * 24 * 3600},
		"plain":                 {Domain: "shop.example", SameSite: "Lax", Expires: 24 * 3600},
		"__Host-chunks":         {HTTPOnly: true, Secure: true, Domain: "shop.example", SameSite: "Lax", Expires: 24 * 3600},
		"__Host-chunks~3":       {HTTPOnly: true, Secure: true, Domain: "shop.example", SameSite: "Lax", Expires: 24 * 3600},
	} {
		got, ok := kept[name]
		if !ok {
			t.Errorf("%s was not kept", name)
			continue
		}
		if !want.Session {
			life := got.Expires - float64(time.Now().Unix())
			if life > want.Expires+1 || life < want.Expires-120 {
				t.Errorf("%s is kept for %.0f s, want %.0f", name, life, want.Expires)
			}
		}
		if (got.PartitionKey == nil) != (want.PartitionKey == nil) || got.PartitionKey != nil && *got.PartitionKey != *want.PartitionKey {
			t.Errorf("%s is in the partition %v", name, got.PartitionKey)
		}
		got.Name, got.Value, got.PartitionKey, got.Expires = "", "", nil, want.Expires
		want.Path, want.PartitionKey = "/", nil
		if got != want {
			t.Errorf("%s is kept as\n%+v, want\n%+v", name, got, want)
		}
	}
	visible := names(b.script("document.cookie"))
	slices.Sort(visible)
	if want := []string{"__Host-script", "plain"}; !slices.Equal(visible, want) {
		t.Errorf("scripts see %q", visible)
	}
	b.visit(home + "/get")

	b.visit(home + "/shrink")
	for name := range b.cookies() {
		if strings.Contains(name, "~") {
			t.Errorf("%s is left of a longer value", name)
		}
	}
	b.visit(home + "/set")
	b.visit(home + "/delete")
	for name := range b.cookies() {
		t.Errorf("%s is left after Delete", name)
	}
	b.visit(home + "/gone")
}

// The rules that the constructor checks are those that the browser enforces: of
// all combinations of prefix and attributes, it keeps those that are accepted
// here and drops in silence those that are refused.
func TestBrowserRules(t *testing.T) {
	type declared struct {
		a    cookieattr.Attributes
		line string
	}
	var all []declared
	for _, prefix := range []string{"", "__Secure-", "__Http-", "__Host-", "__Host-Http-", "__sEcure-", "__HTTP-", "__HOST-", "__host-http-"} {
		for mask := range 1 << 6 {
			has := func(bit int) bool { return mask>>bit&1 != 0 }
			a := cookieattr.Attributes{Name: fmt.Sprint(prefix, len(all)), Path: "/", Partitioned: has(0), ScriptReadable: has(1), Insecure: has(2)}
			line := a.Name + "=v; Max-Age=600"
			if has(3) {
				a.Domain = "shop.example"
				line += "; Domain=shop.example"
			}
			if has(4) {
				a.Path = "/set"
			}
			line += "; Path=" + a.Path
			if has(5) {
				a.SameSite = http.SameSiteNoneMode
				line += "; SameSite=None"
			}
			if !a.Insecure {
				line += "; Secure"
			}
			if !a.ScriptReadable {
				line += "; HttpOnly"
			}
			if a.Partitioned {
				line += "; Partitioned"
			}
			all = append(all, declared{a, line})
		}
	}
	const batch = 64 // a browser keeps only so many of one site
	srv := serve(t, map[string]http.HandlerFunc{
		"/set/{from}": func(w http.ResponseWriter, r *http.Request) {
			var from int
			fmt.Sscan(r.PathValue("from"), &from)
			for _, d := range all[from : from+batch] {
				w.Header().Add("Set-Cookie", d.line)
			}
		},
	})
	b := open(t, srv)
	accepted := 0
	for from := 0; from < len(all); from += batch {
		b.clear()
		b.visit(fmt.Sprint(home, "/set/", from))
		kept := b.cookies()
		for _, d := range all[from : from+batch] {
			_, problems := cookieattr.New(d.a)
			_, ok := kept[d.a.Name]
			if ok != (problems == nil) {
				t.Errorf("%s\nkept: %v, problems: %v", d.line, ok, problems)
			}
			if ok {
				accepted++
			}
		}
	}
	if accepted == 0 || accepted == len(all) {
		t.Errorf("%d of %d were kept", accepted, len(all))
	}
}

// cookies 15: the browser keeps name and value of 4096 bytes, which Set writes,
// and drops 4097, which it refuses; and it caps a life at 400 days.
func TestBrowserLimits(t *testing.T) {
	raw := func(size int) string {
		return fmt.Sprintf("__Host-raw-%d=", size) + strings.Repeat("v", size-len(fmt.Sprintf("__Host-raw-%d", size))) + "; Path=/; Secure; Max-Age=60"
	}
	c := sealed(t, cookies.Config[string]{Name: "__Host-n123"})
	most := 0
	for n := range 4096 {
		if _, err := c.Encode(strings.Repeat("v", n), ""); err != nil {
			break
		}
		most = n
	}
	srv := serve(t, map[string]http.HandlerFunc{
		"/set": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Set-Cookie", raw(4096))
			w.Header().Add("Set-Cookie", raw(4097))
			w.Header().Add("Set-Cookie", "__Host-long=v; Path=/; Secure; Max-Age=99999999")
			w.Header().Add("Set-Cookie", "path-1024=v; Path=/"+strings.Repeat("p", 1023))
			w.Header().Add("Set-Cookie", "path-1025=v; Path=/"+strings.Repeat("p", 1024))
			if err := c.Set(w, r, strings.Repeat("v", most)); err != nil {
				t.Error(err)
			}
			if err := c.Set(w, r, strings.Repeat("v", most+1)); err != cookies.ErrTooLarge {
				t.Errorf("one byte more: %v", err)
			}
		},
		"/get": func(w http.ResponseWriter, r *http.Request) {
			if v, _, err := c.Get(r); len(v) != most || err != nil {
				t.Errorf("the largest value: %d bytes, %v", len(v), err)
			}
		},
	})
	b := open(t, srv)
	b.visit(home + "/set")
	kept := b.cookies()
	if _, ok := kept["__Host-raw-4096"]; !ok {
		t.Error("4096 bytes were dropped")
	}
	if _, ok := kept["__Host-raw-4097"]; ok {
		t.Error("4097 bytes were kept")
	}
	if got := kept["__Host-n123"]; len(got.Name)+len(got.Value) < 4094 || len(got.Name)+len(got.Value) > 4096 {
		t.Errorf("ours has %d bytes", len(got.Name)+len(got.Value))
	}
	if life := kept["__Host-long"].Expires - float64(time.Now().Unix()); life > 400*24*3600+60 || life < 399*24*3600 {
		t.Errorf("a life of 99999999 s became one of %.0f s", life)
	}
	// A path that is too long is ignored, and the cookie gets another.
	if kept["path-1024"].Path == kept["path-1025"].Path || len(kept["path-1024"].Path) != 1024 {
		t.Errorf("paths of %d and %d bytes", len(kept["path-1024"].Path), len(kept["path-1025"].Path))
	}
	b.visit(home + "/get")
}

// cookies 21: a subdomain plants a cookie of the same name; the browser sends
// both, and the valid one is read.
func TestBrowserTossing(t *testing.T) {
	c := sealed(t, cookies.Config[string]{Name: "theme"})
	stranger := sealed(t, cookies.Config[string]{Name: "theme", Keys: [][]byte{keyB}})
	sent := 0
	srv := serve(t, map[string]http.HandlerFunc{
		"shop.example/set": func(w http.ResponseWriter, r *http.Request) { c.Set(w, r, "ours") },
		"evil.shop.example/toss": func(w http.ResponseWriter, r *http.Request) {
			text, err := stranger.Encode("theirs", "")
			if err != nil {
				t.Error(err)
			}
			w.Header().Add("Set-Cookie", "theme="+text+"; Domain=shop.example; Path=/page; Secure")
		},
		"shop.example/page": func(w http.ResponseWriter, r *http.Request) {
			sent = len(r.CookiesNamed("theme"))
			if v, _, err := c.Get(r); v != "ours" || err != nil {
				t.Errorf("got %q, %v", v, err)
			}
		},
	})
	b := open(t, srv)
	b.visit(home + "/set")
	b.visit("https://evil.shop.example/toss")
	b.visit(home + "/page")
	if sent != 2 {
		t.Errorf("the browser sent %d of the name", sent)
	}
}

// cookies 5: after a change of keys the browser takes the value that the
// middleware writes anew, and sends that one.
func TestBrowserRefresh(t *testing.T) {
	const name = "__Host-theme"
	before := sealed(t, cookies.Config[string]{Name: name, Keys: [][]byte{keyA}})
	after := sealed(t, cookies.Config[string]{Name: name, Keys: [][]byte{keyB, keyA}})
	var old []bool
	page := after.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, info, err := after.Get(r)
		if v, ok := after.From(r.Context()); v != "dark" || !ok || err != nil {
			t.Errorf("got %q, %v, %v", v, ok, err)
		}
		old = append(old, info.NeedsRefresh)
		io.WriteString(w, "page")
	}))
	srv := serve(t, map[string]http.HandlerFunc{
		"/set":  func(w http.ResponseWriter, r *http.Request) { before.Set(w, r, "dark") },
		"/page": page.ServeHTTP,
	})
	b := open(t, srv)
	b.visit(home + "/set")
	b.visit(home + "/page")
	b.visit(home + "/page")
	if !slices.Equal(old, []bool{true, false}) {
		t.Errorf("under an old key: %v", old)
	}
}

// A partitioned cookie of an embedded site belongs to the site that embeds it:
// another one that embeds the same gets nothing.
func TestBrowserPartition(t *testing.T) {
	c := sealed(t, cookies.Config[string]{Name: "__Host-widget", Partitioned: true, SameSite: http.SameSiteNoneMode})
	seen := map[string]string{} // what the widget found, by the site around it
	embed := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `<iframe src="https://widget.example/frame?in=%s"></iframe>`, r.Host)
	}
	srv := serve(t, map[string]http.HandlerFunc{
		"one.example/":   embed,
		"other.example/": embed,
		"widget.example/frame": func(w http.ResponseWriter, r *http.Request) {
			in := r.FormValue("in")
			switch v, _, err := c.Get(r); {
			case err == nil:
				seen[in] += "," + v
			case errors.Is(err, cookies.ErrNotFound):
				seen[in] += ",none"
				c.Set(w, r, in)
			default:
				t.Error(err)
			}
		},
	})
	b := open(t, srv)
	for _, site := range []string{"one.example", "other.example", "one.example", "other.example"} {
		b.visit("https://" + site + "/")
	}
	for _, site := range []string{"one.example", "other.example"} {
		if want := ",none," + site; seen[site] != want {
			t.Errorf("in %s the widget found %q, want %q", site, seen[site], want)
		}
	}
}

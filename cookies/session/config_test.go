package session_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/plainware/cookies"
	"example.com/plainware/cookies/session"
	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

// cookies 17, 18, 20: what a browser would enforce in silence is an error, and
// so is everything else that makes no sense.
func TestConfig(t *testing.T) {
	st := newStore(t)
	type config = session.Config[cart]
	for _, c := range []struct {
		name string
		c    config
		want string // "": it is fine
	}{
		{"least", config{Store: st, Name: "app"}, ""},
		{"everything", config{
			Store: st, Name: "a.B-c_9", Idle: time.Second, Absolute: 400 * 24 * time.Hour, Grace: time.Hour, RotateEvery: time.Hour + 1,
			DestroyOnReuse: true, Codec: cookies.JSON[cart](), MaxSize: -1, Cookie: "__Http-sid", Domain: "shop.example",
			Path: "/shop", SameSite: http.SameSiteNoneMode, Partitioned: true, Persistent: true, NoRevokeUser: true,
		}, ""},
		{"no idle", config{Store: st, Name: "app", Idle: -1}, ""},
		{"no absolute", config{Store: st, Name: "app", Absolute: -1}, ""},
		{"no rotation", config{Store: st, Name: "app", RotateEvery: -1, Grace: -1}, ""},
		{"insecure", config{Store: st, Name: "app", Insecure: true}, ""},

		{"nothing", config{}, "session: Store: is required (got nil)\nsession: Name: must be 1 to 64 letters, digits, dots, dashes and underscores (got \"\")"},
		{"name", config{Store: st, Name: "a/b"}, `session: Name: must be 1 to 64 letters, digits, dots, dashes and underscores (got "a/b")`},
		{"long name", config{Store: st, Name: strings.Repeat("a", 65)}, "session: Name: must be 1 to 64 letters"},
		{"idle", config{Store: st, Name: "app", Idle: time.Millisecond}, "session: Idle: must be between 1s and 400 days (got 1ms)"},
		{"absolute", config{Store: st, Name: "app", Absolute: 401 * 24 * time.Hour}, "session: Absolute: must be between 1s and 400 days (got 9624h0m0s)"},
		{"endless", config{Store: st, Name: "app", Idle: -1, Absolute: -1}, "session: Absolute: must not be without limit when Idle is (got both negative)"},
		{"grace", config{Store: st, Name: "app", Grace: time.Hour + 1}, "session: Grace: must be at most 1h0m0s (got 1h0m0.000000001s)"},
		{"rotate every", config{Store: st, Name: "app", RotateEvery: 10 * time.Second}, "session: RotateEvery: must be longer than Grace, 10s (got 10s)"},
		{"ids for a day", config{Store: st, Name: "app", Grace: -1, RotateEvery: 8640 * time.Millisecond, Absolute: -1}, ""},
		{"too many ids for a day", config{Store: st, Name: "app", Grace: -1, RotateEvery: 8639 * time.Millisecond, Absolute: 30 * 24 * time.Hour}, "session: RotateEvery: must be at least 1/10000 of the 24h0m0s for which old ids are remembered, 8.64s (got 8.639s)"},
		{"ids for less", config{Store: st, Name: "app", Grace: -1, RotateEvery: time.Second, Absolute: 10_000 * time.Second}, ""},
		{"ids for longer", config{Store: st, Name: "app", RotateEvery: time.Hour - time.Minute, Absolute: 400 * 24 * time.Hour, DestroyOnReuse: true}, ""},
		{"too many ids for longer", config{Store: st, Name: "app", RotateEvery: 57 * time.Minute, Absolute: 400 * 24 * time.Hour, DestroyOnReuse: true}, "session: RotateEvery: must be at least 1/10000 of the 9600h0m0s for which old ids are remembered, 57m36s (got 57m0s)"},
		{"reuse", config{Store: st, Name: "app", DestroyOnReuse: true, Absolute: -1}, "session: DestroyOnReuse: needs an Absolute (got true)"},
		{"cookie", config{Store: st, Name: "app", Cookie: "a;b"}, `session: Cookie: is not a token, RFC 9110 section 5.6.2 (got "a;b")`},
		{"host and domain", config{Store: st, Name: "app", Domain: "shop.example"}, `session: Domain: must be empty for a name with the prefix __Host-Http- (got "shop.example")`},
		{"host and path", config{Store: st, Name: "app", Cookie: "__HOST-sid", Path: "/a"}, `session: Path: must be / for a name with the prefix __Host- (got "/a")`},
		{"insecure and prefix", config{Store: st, Name: "app", Cookie: "__Secure-sid", Insecure: true}, "session: Insecure: must not be set for a name with the prefix __Secure- (got true)"},
		{"insecure and none", config{Store: st, Name: "app", Insecure: true, SameSite: http.SameSiteNoneMode}, "session: Insecure: must not be set with SameSite=None (got true)"},
		{"insecure and partitioned", config{Store: st, Name: "app", Insecure: true, Partitioned: true}, "session: Insecure: must not be set with Partitioned (got true)"},
		{"path", config{Store: st, Name: "app", Cookie: "sid", Path: "/a;b"}, "session: Path: "},
		{"same site", config{Store: st, Name: "app", SameSite: 9}, "session: SameSite: must be Lax, Strict or None (got 9)"},
		{"store that forgets", config{Store: forgetful{st.mem}, Name: "app"}, "session: Store: cannot keep"},
		{"store that forgets, no revocation", config{Store: forgetful{st.mem}, Name: "app", NoRevokeUser: true}, ""},
	} {
		m, err := session.New(c.c)
		switch {
		case c.want == "":
			if err != nil || m == nil {
				t.Errorf("%s: %v", c.name, err)
			}
		case err == nil || m != nil:
			t.Errorf("%s: no error", c.name)
		case !strings.HasPrefix(err.Error(), c.want):
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

// forgetful is a store without Keep.
type forgetful struct{ store.Store }

// A Keep that fails is an error of New, which says what an operator can do.
func TestKeepFails(t *testing.T) {
	st := newStore(t)
	st.inject(func(c storetest.Call) storetest.Fault {
		if c.Method == "Keep" {
			return storetest.Fault{Before: errDown}
		}
		return storetest.Fault{}
	})
	_, err := session.New(session.Config[cart]{Store: st, Name: "app"})
	if err == nil || !strings.Contains(err.Error(), errDown.Error()) || !strings.Contains(err.Error(), "NoRevokeUser") {
		t.Errorf("error %v", err)
	}
}

// The cookie is what Config says it is.
func TestCookieAttributes(t *testing.T) {
	for _, c := range []struct {
		c          session.Config[cart]
		name, rest string
	}{
		{session.Config[cart]{SameSite: http.SameSiteStrictMode}, "__Host-Http-sid", "; Path=/; HttpOnly; Secure; SameSite=Strict"},
		{session.Config[cart]{Insecure: true}, "sid", "; Path=/; HttpOnly; SameSite=Lax"},
		{session.Config[cart]{Persistent: true}, "__Host-Http-sid", "; Max-Age=86400; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{session.Config[cart]{Persistent: true, Absolute: 90 * time.Second}, "__Host-Http-sid", "; Max-Age=90; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{session.Config[cart]{Persistent: true, Absolute: -1}, "__Host-Http-sid", "; Max-Age=34560000; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{
			session.Config[cart]{Cookie: "__Secure-sid", Domain: "shop.example", Path: "/a", SameSite: http.SameSiteNoneMode, Partitioned: true},
			"__Secure-sid", "; Path=/a; Domain=shop.example; HttpOnly; Secure; SameSite=None; Partitioned",
		},
	} {
		b := newBrowser(t, newManager(t, c.c))
		res := b.add("pen")
		if got, want := res.Header.Get("Set-Cookie"), c.name+"="+b.id()+c.rest; got != want {
			t.Errorf("Set-Cookie %q, want %q", got, want)
		}
		b.wantItems("pen")
	}
}

// A rotated id lives no longer in the browser than its session does.
func TestPersistentAfterRotate(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, Persistent: true}))
	b.add("pen")
	b.m = newManager(t, session.Config[cart]{Store: st, Persistent: true, Absolute: time.Hour})
	res := b.rotate()
	if age := res.Cookies()[0].MaxAge; age > 3600 || age < 3500 {
		t.Errorf("Max-Age %d", age)
	}
}

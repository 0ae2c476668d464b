package cookies_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"example.com/plainware/cookies"
)

// secret stands for what a secret store or an environment variable has.
const secret = `
incoming:ck1_rKysrKysrKysrKysrKysrKysrKysrKysrKysrKysrKw  # writes from Monday
ck1_oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE           # writes
`

// A cart that only the program can read, kept by the browser.
func ExampleNewSealed() {
	type Cart struct{ Items []string }

	keys, incoming, err := cookies.ParseKeys(secret) // os.Getenv("COOKIE_KEYS")
	if err != nil {
		log.Fatal(err)
	}
	cart, err := cookies.NewSealed(cookies.Config[Cart]{
		Name:     cookies.HostOnly("cart"),
		Keys:     keys,
		Incoming: incoming,
	})
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("POST /add/{item}", func(w http.ResponseWriter, r *http.Request) {
		v, _, err := cart.Get(r)
		if err != nil && !errors.Is(err, cookies.ErrNotFound) {
			log.Print(err) // expired, or not ours: a new cart
		}
		v.Items = append(v.Items, r.PathValue("item"))
		if err := cart.Set(w, r, v); err != nil {
			cookies.WriteError(w, r, err)
			return
		}
		fmt.Fprintln(w, "in the cart:", v.Items)
	})

	var jar []*http.Cookie
	for _, item := range []string{"tea", "cup"} {
		r := httptest.NewRequest("POST", "/add/"+item, nil)
		for _, c := range jar {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		jar = w.Result().Cookies()
		fmt.Print(w.Body)
	}
	fmt.Println(jar[0].Name, jar[0].HttpOnly, jar[0].Secure, jar[0].MaxAge)
	// Output:
	// in the cart: [tea]
	// in the cart: [tea cup]
	// __Host-Http-cart true true 86400
}

// A setting that scripts may read and nobody else may make.
func ExampleNewSigned() {
	theme, err := cookies.NewSigned(cookies.Config[string]{
		Name:           "theme",
		Keys:           [][]byte{cookies.GenerateKey()},
		Codec:          cookies.String(),
		ScriptReadable: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	w := httptest.NewRecorder()
	if err := theme.Set(w, nil, "dark"); err != nil {
		log.Fatal(err)
	}

	r := httptest.NewRequest("GET", "/", nil)
	r.AddCookie(w.Result().Cookies()[0])
	v, _, err := theme.Get(r)
	fmt.Println(v, err)

	r = httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", "theme=light")
	_, _, err = theme.Get(r)
	fmt.Println(err)
	// Output:
	// dark <nil>
	// cookies: invalid value
}

// Every problem of a configuration is named at once.
func ExampleNewSealed_invalid() {
	_, err := cookies.NewSealed(cookies.Config[string]{Name: "__Host-cart", Domain: "example.com", Keys: [][]byte{[]byte("hunter2")}})
	fmt.Println(err)
	// Output:
	// cookies: Domain: must be empty for a name with the prefix __Host- (got "example.com")
	// cookies: Keys[0]: has fewer than 32 bytes (got 7)
}

// The middleware reads the cookie once, and writes again what an old key sealed.
func ExampleCookie_Handler() {
	oldKey, newKey := cookies.GenerateKey(), cookies.GenerateKey()
	config := cookies.Config[string]{Name: "theme", Codec: cookies.String()}
	config.Keys = [][]byte{oldKey}
	before, err := cookies.NewSealed(config)
	if err != nil {
		log.Fatal(err)
	}
	config.Keys = [][]byte{newKey, oldKey}
	theme, err := cookies.NewSealed(config)
	if err != nil {
		log.Fatal(err)
	}

	h := theme.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, ok := theme.From(r.Context())
		fmt.Fprintln(w, v, ok)
	}))

	text, err := before.Encode("dark", "")
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: "theme", Value: text})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Print(w.Body)
	_, info, err := theme.Decode(w.Result().Cookies()[0].Value, "")
	fmt.Println("set again, now under the new key:", err == nil && !info.NeedsRefresh)
	// Output:
	// dark true
	// set again, now under the new key: true
}

// Without the middleware, a handler decides when to write a value again.
func ExampleCookie_Refresh() {
	key := cookies.GenerateKey()
	theme, err := cookies.NewSealed(cookies.Config[string]{Name: "theme", Keys: [][]byte{key}, Sliding: true})
	if err != nil {
		log.Fatal(err)
	}
	text, err := theme.Encode("dark", "")
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: "theme", Value: text})
	refreshed, err := theme.Refresh(httptest.NewRecorder(), r)
	fmt.Println(refreshed, err) // not half of a day old yet
	// Output: false <nil>
}

// What the value is besides valid.
func ExampleCookie_Get() {
	theme, err := cookies.NewSealed(cookies.Config[string]{Name: "theme", Keys: [][]byte{cookies.GenerateKey()}})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	_, _, err = theme.Get(r)
	fmt.Println(errors.Is(err, cookies.ErrNotFound), errors.Is(err, http.ErrNoCookie))

	w := httptest.NewRecorder()
	if err := theme.Set(w, r, "dark"); err != nil {
		log.Fatal(err)
	}
	r.AddCookie(w.Result().Cookies()[0])
	v, info, err := theme.Get(r)
	fmt.Println(v, info.ExpiresAt.Sub(info.IssuedAt), info.NeedsRefresh, err)
	// Output:
	// true true
	// dark 24h0m0s false <nil>
}

// A response sets a cookie once: the last word counts.
func ExampleCookie_Set() {
	theme, err := cookies.NewSigned(cookies.Config[string]{Name: "theme", Keys: [][]byte{cookies.GenerateKey()}})
	if err != nil {
		log.Fatal(err)
	}
	r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
	fmt.Println(theme.Set(w, r, "dark"), theme.Set(w, r, "light"), len(w.Header()["Set-Cookie"]))
	fmt.Println(theme.Set(w, r, strings.Repeat("long", 1024)))
	// Output:
	// <nil> <nil> 1
	// cookies: value too large for a cookie
}

func ExampleCookie_Delete() {
	theme, err := cookies.NewSigned(cookies.Config[string]{Name: "__Host-theme", Keys: [][]byte{cookies.GenerateKey()}})
	if err != nil {
		log.Fatal(err)
	}
	w := httptest.NewRecorder()
	theme.Delete(w)
	fmt.Println(w.Header().Get("Set-Cookie"))
	// Output: __Host-theme=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax
}

// A value that travels in a link, bound to the account that it is for.
func ExampleCookie_Encode() {
	unsubscribe, err := cookies.NewSealed(cookies.Config[string]{Name: "unsubscribe", Keys: [][]byte{cookies.GenerateKey()}})
	if err != nil {
		log.Fatal(err)
	}
	text, err := unsubscribe.Encode("newsletter", "account 7")
	if err != nil {
		log.Fatal(err)
	}
	v, _, err := unsubscribe.Decode(text, "account 7")
	fmt.Println(v, err)
	_, _, err = unsubscribe.Decode(text, "account 8")
	fmt.Println(err)
	// Output:
	// newsletter <nil>
	// cookies: invalid value
}

// In a test of a handler, no cookie and no key are needed.
func ExampleCookie_NewContext() {
	theme, err := cookies.NewSealed(cookies.Config[string]{Name: "theme", Keys: [][]byte{cookies.GenerateKey()}})
	if err != nil {
		log.Fatal(err)
	}
	page := func(ctx context.Context) string {
		v, _ := theme.From(ctx)
		return "the page is " + v
	}
	fmt.Println(page(theme.NewContext(context.Background(), "dark")))
	// Output: the page is dark
}

// A type of its own needs no reference to the cookie that carries it.
func ExampleFromContext() {
	type Theme string
	theme, err := cookies.NewSealed(cookies.Config[Theme]{Name: "theme", Keys: [][]byte{cookies.GenerateKey()}})
	if err != nil {
		log.Fatal(err)
	}
	ctx := theme.NewContext(context.Background(), "dark")
	v, ok := cookies.FromContext[Theme](ctx)
	fmt.Println(v, ok)
	// Output: dark true
}

// A key is made once and kept as text.
func ExampleGenerateKey() {
	text := cookies.FormatKey(cookies.GenerateKey())
	key, err := cookies.ParseKey(text)
	fmt.Println(text[:4], len(text), len(key), err)
	// Output: ck1_ 47 32 <nil>
}

func ExampleParseKeys() {
	keys, incoming, err := cookies.ParseKeys(secret)
	fmt.Println(len(keys), len(incoming), err)
	_, _, err = cookies.ParseKeys("ck1_aHVudGVyMg,hunter2")
	fmt.Println(err)
	// Output:
	// 1 1 <nil>
	// cookies: key 1: has fewer than 32 bytes (got 7)
	// cookies: key 2: does not begin with ck1_
}

func ExampleHostOnly() {
	fmt.Println(cookies.HostOnly("sid"))
	// Output: __Host-Http-sid
}

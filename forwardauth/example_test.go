package forwardauth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"example.com/plainware/forwardauth"
	"example.com/plainware/store"
)

// get is a client that shows what it gets.
func get(h http.Handler, target, cookie string) {
	r := httptest.NewRequest("GET", target, nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("Location"), w.Body)
}

func ExampleNew() {
	// The decision service, which usually is another program.
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Rules are for the path, decoded and without the query.
		target, err := url.ParseRequestURI(r.Header.Get("X-Forwarded-Uri"))
		if err != nil {
			http.Error(w, "no target", http.StatusBadRequest)
			return
		}
		switch c, err := r.Cookie("session"); {
		case err != nil:
			w.Header().Set("Location", "https://login.example.com/?rd="+url.QueryEscape(target.String()))
			w.WriteHeader(http.StatusFound)
		case strings.HasPrefix(target.Path+"/", "/admin/"):
			http.Error(w, "not for "+c.Value, http.StatusForbidden)
		default:
			w.Header().Set("Remote-User", c.Value)
		}
	}))
	defer service.Close()

	auth, err := forwardauth.New(forwardauth.Config{
		URL:         service.URL + "/verify",
		CopyHeaders: []forwardauth.HeaderCopy{{From: "Remote-User"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	h := auth.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := forwardauth.FromContext(r.Context())
		fmt.Fprintf(w, "hello %s", id.Header.Get("Remote-User"))
	}))

	get(h, "/orders", "session=ada")
	get(h, "/admin?page=1", "session=ada")
	get(h, "/orders", "")
	// Output:
	// 200  hello ada
	// 403  not for ada
	//
	// 302 https://login.example.com/?rd=%2Forders
}

// A policy engine that speaks like Open Policy Agent.
func ExampleNew_policyEngine() {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Input struct {
				Method string
				Path   []string
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"result": q.Input.Method == "GET" && len(q.Input.Path) > 0 && q.Input.Path[0] == "public"})
	}))
	defer engine.Close()

	auth, err := forwardauth.New(forwardauth.Config{
		URL:  engine.URL + "/v1/data/http/authz/allow",
		Mode: forwardauth.JSON,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			http.Error(w, "no", err.(*forwardauth.Error).HTTPStatus())
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	h := auth.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "yes") }))
	get(h, "/public/x", "")
	get(h, "/private/x", "")
	// Output:
	// 200  yes
	// 403  no
}

// A decision that the service lets be kept is asked for once.
func ExampleCacheConfig() {
	asked := 0
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Cache-Control", "max-age=60")
	}))
	defer service.Close()

	mem, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	auth, err := forwardauth.New(forwardauth.Config{
		URL:   service.URL,
		Cache: &forwardauth.CacheConfig{Store: mem, Name: "shop", MaxTTL: time.Minute},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	h := auth.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := auth.From(r.Context())
		fmt.Fprint(w, id.Cached)
	}))
	get(h, "/", "session=ada")
	get(h, "/", "session=ada")
	fmt.Println(asked)
	// Output:
	// 200  false
	// 200  true
	// 1
}

func ExampleAuthelia() {
	c := forwardauth.Authelia("https://auth.example.com")
	c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	c.Timeout = time.Second
	auth, err := forwardauth.New(c)
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	fmt.Println(c.URL)
	// Output: https://auth.example.com/api/authz/forward-auth
}

func ExampleAuthentik() {
	fmt.Println(forwardauth.Authentik("https://auth.example.com").URL)
	// Output: https://auth.example.com/outpost.goauthentik.io/auth/traefik
}

func ExampleOAuth2Proxy() {
	c := forwardauth.OAuth2Proxy("https://auth.example.com")
	fmt.Println(c.URL)
	fmt.Println(c.SignIn)
	// Output:
	// https://auth.example.com/oauth2/auth
	// https://auth.example.com/oauth2/start
}

func ExampleNewContext() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		id, ok := forwardauth.FromContext(r.Context())
		fmt.Println(id.Header.Get("Remote-User"), ok)
	}
	ctx := forwardauth.NewContext(context.Background(), forwardauth.Identity{Header: http.Header{"Remote-User": {"ada"}}})
	handler(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil))
	// Output: ada true
}

func ExampleWriteError() {
	auth, err := forwardauth.New(forwardauth.Config{
		URL: "http://127.0.0.1:4181/verify",
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			fmt.Println("refused:", err)
			forwardauth.WriteError(w, r, err)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	get(auth.Handler(http.NotFoundHandler()), "/a/..%2fadmin", "")
	// Output:
	// refused: forwardauth: ambiguous request target
	// 400  {"type":"about:blank","title":"Bad Request","status":400,"detail":"The request target can be understood in more than one way.","code":"forwardauth_target"}
}

func ExampleNamedCookies() {
	c := forwardauth.Authelia("https://auth.example.com")
	c.SuccessCookies = forwardauth.NamedCookies("authelia_session")
	auth, err := forwardauth.New(c)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(auth.Close())
	// Output: <nil>
}

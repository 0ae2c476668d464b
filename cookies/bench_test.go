package cookies_test

import (
	"bytes"
	"net/http"
	"testing"

	"example.com/plainware/cookies"
)

// payload has the size of a small struct in JSON.
var payload = bytes.Repeat([]byte("0123456789abcdef"), 8)

func rawBytes(t testing.TB, make func(cookies.Config[[]byte]) (*cookies.Cookie[[]byte], error)) *cookies.Cookie[[]byte] {
	t.Helper()
	return must[[]byte](t)(make(cookies.Config[[]byte]{Name: "__Host-cart", Keys: keys(keyA, keyB), Codec: cookies.Bytes()}))
}

// header is a ResponseWriter for what only sets cookies.
type header struct{ h http.Header }

func (w header) Header() http.Header         { return w.h }
func (w header) Write(p []byte) (int, error) { return len(p), nil }
func (w header) WriteHeader(int)             {}

func BenchmarkEncode(b *testing.B) {
	for name, make := range map[string]func(cookies.Config[[]byte]) (*cookies.Cookie[[]byte], error){
		"e1": cookies.NewSealed[[]byte], "s1": cookies.NewSigned[[]byte],
	} {
		b.Run(name, func(b *testing.B) {
			c := rawBytes(b, make)
			b.ReportAllocs()
			for b.Loop() {
				c.Encode(payload, "")
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, make := range map[string]func(cookies.Config[[]byte]) (*cookies.Cookie[[]byte], error){
		"e1": cookies.NewSealed[[]byte], "s1": cookies.NewSigned[[]byte],
	} {
		b.Run(name, func(b *testing.B) {
			c := rawBytes(b, make)
			text, err := c.Encode(payload, "")
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				c.Decode(text, "")
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	c := rawBytes(b, cookies.NewSealed)
	text, err := c.Encode(payload, "")
	if err != nil {
		b.Fatal(err)
	}
	r := request("consent=yes; __Host-cart=" + text + "; theme=dark")
	b.ReportAllocs()
	for b.Loop() {
		c.Get(r)
	}
}

func BenchmarkGetParallel(b *testing.B) {
	c := rawBytes(b, cookies.NewSealed)
	text, err := c.Encode(payload, "")
	if err != nil {
		b.Fatal(err)
	}
	r := request("consent=yes; __Host-cart=" + text + "; theme=dark")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Get(r)
		}
	})
}

func BenchmarkSet(b *testing.B) {
	c := rawBytes(b, cookies.NewSealed)
	r := request()
	b.ReportAllocs()
	for b.Loop() {
		c.Set(header{http.Header{}}, r, payload)
	}
}

func BenchmarkHandler(b *testing.B) {
	c := rawBytes(b, cookies.NewSealed)
	h := c.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	text, err := c.Encode(payload, "")
	if err != nil {
		b.Fatal(err)
	}
	for name, r := range map[string]*http.Request{"cookie": request("__Host-cart=" + text), "none": request()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(header{}, r)
			}
		})
	}
}

package front

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestEach(t *testing.T) {
	Each(t, func(t *testing.T, start func(*testing.T, http.Handler) Server) {
		s := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "HTTP/%d.%d", r.ProtoMajor, r.ProtoMinor)
		}))
		_, body, err := s.Get(t, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, want, _ := strings.Cut(t.Name(), "/") // TestEach/HTTP/1.1
		if got := strings.TrimSuffix(body, ".0"); got != want {
			t.Errorf("served over %s", got)
		}
	})
}

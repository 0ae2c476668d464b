package forwardauth_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

var record = flag.Bool("record", false, "write what services are asked and answer to the testdata of the package")

// exchange is one question and its answer, as the tests of the package replay
// them.
type exchange struct {
	Name     string   `json:"name"`
	Question []string `json:"question"` // request line, then the header by name
	Status   int      `json:"status"`
	Answer   []string `json:"answer"` // the header by name
	Body     string   `json:"body,omitempty"`
}

// recorder is a transport that keeps what goes through it.
type recorder struct {
	base      http.RoundTripper
	name      string // of the next exchange; "" keeps nothing
	exchanges []exchange
}

func (rec *recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := rec.base.RoundTrip(r)
	if err != nil || rec.name == "" {
		return res, err
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	rec.exchanges = append(rec.exchanges, exchange{
		Name:     rec.name,
		Question: append([]string{r.Method + " " + r.URL.RequestURI()}, lines(r.Header, "X-Forwardauth-Loop")...),
		Status:   res.StatusCode,
		Answer:   lines(res.Header, "Date", "Content-Length"),
		Body:     string(body),
	})
	rec.name = ""
	return res, nil
}

// lines writes a header without some of its fields.
func lines(h http.Header, without ...string) (all []string) {
	for name, values := range h {
		for _, v := range values {
			if !slices.Contains(without, name) {
				all = append(all, name+": "+v)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b string) int {
		a, _, _ = strings.Cut(a, ":")
		b, _, _ = strings.Cut(b, ":")
		return strings.Compare(a, b)
	})
	return all
}

// write writes the exchanges when the flag says so.
func (rec *recorder) write(t *testing.T, file, source string) {
	if !*record || t.Failed() {
		return
	}
	b, err := json.MarshalIndent(struct {
		Source    string     `json:"source"`
		Exchanges []exchange `json:"exchanges"`
	}{source, rec.exchanges}, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("../../../forwardauth/testdata/"+file, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

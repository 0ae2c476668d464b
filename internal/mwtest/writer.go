package mwtest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

var writerRules = []rule{
	{"abilities", "the writer offers Flusher, Hijacker and ReaderFrom to type assertions exactly when the writer outside does", both, checkAbilities},
	{"no abilities", "nothing is offered that the writer outside lacks", http1, checkNoAbilities},
	{"unwrap", "a wrapper leads by Unwrap to the writer outside", both, checkUnwrap},
	{"hijack", "a hijacked connection carries what the handler writes and what the client has sent, and nothing else", http1, checkHijack},
	{"read from", "a file that is copied to the writer, as http.ServeContent does it, reaches ReadFrom of the writer outside, on the way to sendfile", http1, checkReadFrom},
}

// abilities lists the optional interfaces of a writer that handlers assert.
func abilities(w http.ResponseWriter) string {
	var has []string
	if _, ok := w.(http.Flusher); ok {
		has = append(has, "Flusher")
	}
	if _, ok := w.(http.Hijacker); ok {
		has = append(has, "Hijacker")
	}
	if _, ok := w.(io.ReaderFrom); ok {
		has = append(has, "ReaderFrom")
	}
	return strings.Join(has, ", ")
}

// inside serves one GET through an outer handler that may replace the
// writer, and returns when the handler is done.
func (e *env) inside(outer func(http.ResponseWriter) http.ResponseWriter, h func(outer, w http.ResponseWriter)) {
	var out http.ResponseWriter
	ran := false
	mw := e.wrap(func(w http.ResponseWriter, r *http.Request) {
		ran = true
		h(out, w)
	})
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out = outer(w)
		mw.ServeHTTP(out, r)
	}))
	if _, err := e.fetch(s.Transport, e.request(s, "GET", "/", nil)); err != nil {
		e.errorf("%v", err)
		return
	}
	if !ran {
		e.errorf("the handler was not called")
	}
}

func checkAbilities(e *env) {
	e.inside(func(w http.ResponseWriter) http.ResponseWriter { return w },
		func(outer, w http.ResponseWriter) {
			if got, want := abilities(w), abilities(outer); got != want {
				e.errorf("the handler's writer offers (%s), the server's (%s)", got, want)
			}
			if _, ok := outer.(http.Hijacker); ok {
				return // rule "hijack"
			}
			if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
				e.errorf("ResponseController.Hijack without a Hijacker outside: %v, want http.ErrNotSupported", err)
			}
		})
}

// bare and bareFlusher hide the rest of a writer, as wrappers without Unwrap
// do.
type bare struct{ http.ResponseWriter }

type bareFlusher struct {
	http.ResponseWriter
	http.Flusher
}

func checkNoAbilities(e *env) {
	e.inside(func(w http.ResponseWriter) http.ResponseWriter { return bare{w} },
		func(outer, w http.ResponseWriter) {
			if got := abilities(w); got != "" {
				e.errorf("the handler's writer offers (%s) over a writer that has nothing", got)
			}
			rc := http.NewResponseController(w)
			if _, _, err := rc.Hijack(); !errors.Is(err, http.ErrNotSupported) {
				e.errorf("ResponseController.Hijack over a writer that has nothing: %v, want http.ErrNotSupported", err)
			}
			if err := rc.Flush(); !errors.Is(err, http.ErrNotSupported) {
				e.errorf("ResponseController.Flush over a writer that has nothing: %v, want http.ErrNotSupported", err)
			}
			io.WriteString(w, "still works")
		})
	e.inside(func(w http.ResponseWriter) http.ResponseWriter { return bareFlusher{w, w.(http.Flusher)} },
		func(outer, w http.ResponseWriter) {
			if got := abilities(w); got != "" && got != "Flusher" {
				e.errorf("the handler's writer offers (%s) over a writer that has only Flusher", got)
			}
		})
}

func checkUnwrap(e *env) {
	e.inside(func(w http.ResponseWriter) http.ResponseWriter { return w },
		func(outer, w http.ResponseWriter) {
			for range 100 {
				if w == outer {
					return
				}
				u, ok := w.(interface{ Unwrap() http.ResponseWriter })
				if !ok {
					e.errorf("%T has no Unwrap", w)
					return
				}
				w = u.Unwrap()
			}
			e.errorf("Unwrap does not end")
		})
}

func checkHijack(e *env) {
	for name, hijack := range map[string]func(http.ResponseWriter) (io.ReadWriteCloser, io.Reader, error){
		"http.Hijacker": func(w http.ResponseWriter) (io.ReadWriteCloser, io.Reader, error) {
			h, ok := w.(http.Hijacker)
			if !ok {
				return nil, nil, fmt.Errorf("%T has no Hijack", w)
			}
			c, rw, err := h.Hijack()
			return c, rw, err
		},
		"ResponseController": func(w http.ResponseWriter) (io.ReadWriteCloser, io.Reader, error) {
			c, rw, err := http.NewResponseController(w).Hijack()
			return c, rw, err
		},
	} {
		s := e.serve(e.wrap(func(w http.ResponseWriter, r *http.Request) {
			c, br, err := hijack(w)
			if err != nil {
				e.errorf("%s: %v", name, err)
				return
			}
			defer c.Close()
			io.WriteString(c, "you said ")
			io.Copy(c, io.LimitReader(br, 12))
			if _, err := io.WriteString(w, "x"); err == nil {
				e.errorf("%s: a later Write succeeds", name)
			}
		}))
		c, br := e.raw(s, "GET / HTTP/1.1\r\nHost: a\r\n\r\nwith it")
		io.WriteString(c, "later")
		got, err := io.ReadAll(br)
		if want := "you said with itlater"; string(got) != want || err != nil {
			e.errorf("%s: the client got %q, %v; want %q", name, shorten(string(got)), err, want)
		}
	}
}

// countReadFrom is a writer with all abilities that counts ReadFrom.
type countReadFrom struct {
	http.ResponseWriter
	http.Flusher
	http.Hijacker
	calls *int
}

func (c countReadFrom) ReadFrom(r io.Reader) (int64, error) {
	*c.calls++
	return c.ResponseWriter.(io.ReaderFrom).ReadFrom(r)
}

func (c countReadFrom) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func checkReadFrom(e *env) {
	content := strings.Repeat("0123456789", 30_000)
	name := filepath.Join(e.t.TempDir(), "content")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		e.t.Fatal(err)
	}
	for _, before := range []string{"", "begun "} {
		calls := 0
		mw := e.wrap(func(w http.ResponseWriter, r *http.Request) {
			f, err := os.Open(name)
			if err != nil {
				e.t.Error(err)
				return
			}
			defer f.Close()
			if before != "" {
				io.WriteString(w, before)
			}
			if n, err := io.CopyN(w, f, int64(len(content))); n != int64(len(content)) || err != nil {
				e.errorf("copying a file to the writer: %d, %v", n, err)
			}
			if _, ok := w.(io.ReaderFrom); ok && calls == 0 { // else see rule "abilities"
				e.errorf("ReadFrom of the writer outside is not called, after a Write of %q", before)
			}
		})
		s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mw.ServeHTTP(countReadFrom{w, w.(http.Flusher), w.(http.Hijacker), &calls}, r)
		}))
		a, err := e.fetch(s.Transport, e.request(s, "GET", "/", nil))
		if err != nil {
			e.errorf("%v", err)
		} else if a.Body != before+content {
			e.errorf("the file arrives changed, %d bytes", len(a.Body))
		}
	}
}

// Package front serves a handler over each version of HTTP on a real socket,
// for tests that ask whether the version makes a difference. HTTP/3 is
// quic-go's.
package front

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"maps"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/quic-go/quic-go/http3"
)

// Server is a running server and a client that speaks its version of HTTP and
// trusts its certificate. Both end with the test.
type Server struct {
	URL    string
	Addr   string // host:port; TCP, or UDP with HTTP/3
	Client *http.Client
}

// Each runs f over HTTP/1.1, HTTP/2 and HTTP/3, as a subtest each. start may be
// called several times.
func Each(t *testing.T, f func(t *testing.T, start func(*testing.T, http.Handler) Server)) {
	t.Run("HTTP/1.1", func(t *testing.T) { f(t, HTTP1) })
	t.Run("HTTP/2", func(t *testing.T) { f(t, HTTP2) })
	t.Run("HTTP/3", func(t *testing.T) { f(t, HTTP3) })
}

// HTTP1 serves h over HTTP/1.1 without TLS.
func HTTP1(t *testing.T, h http.Handler) Server {
	t.Helper()
	s := quiet(h)
	s.Start()
	t.Cleanup(s.Close)
	return Server{URL: s.URL, Addr: s.Listener.Addr().String(), Client: s.Client()}
}

// HTTP2 serves h over HTTP/2 with TLS.
func HTTP2(t *testing.T, h http.Handler) Server {
	t.Helper()
	s := quiet(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return Server{URL: s.URL, Addr: s.Listener.Addr().String(), Client: s.Client()}
}

// HTTP3 serves h over HTTP/3.
func HTTP3(t *testing.T, h http.Handler) Server {
	t.Helper()
	// Borrow a certificate, and the client that trusts it.
	lender := quiet(http.NotFoundHandler())
	lender.StartTLS()
	defer lender.Close()
	roots := lender.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs

	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &http3.Server{
		Handler:   h,
		TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: lender.TLS.Certificates}),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve(conn)
	}()
	transport := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(func() {
		transport.Close()
		s.Close()
		conn.Close()
		<-served
	})
	addr := conn.LocalAddr().String()
	return Server{URL: "https://" + addr, Addr: addr, Client: &http.Client{Transport: transport}}
}

// quiet is a server that logs nothing: tests abort requests on purpose.
func quiet(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	return s
}

// Get asks for a path with header fields and reads the whole answer. The error
// is that of the exchange, or of a body that was cut short; the response is nil
// in the first case only.
func (s Server) Get(t *testing.T, path string, header http.Header) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	res, err := s.Client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

// Upload posts a form with one file, too large for ParseMultipartForm to keep
// in memory, and ignores the answer.
func (s Server) Upload(t *testing.T, path string) {
	t.Helper()
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	f, err := form.CreateFormFile("file", "name")
	if err != nil {
		t.Fatal(err)
	}
	// A form parsed with a limit of n keeps n plus 10 MiB in memory.
	f.Write(make([]byte, 11<<20))
	form.Close()
	res, err := s.Client.Post(s.URL+path, form.FormDataContentType(), &b)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}

// CopiedRequest shows what a middleware that copies the request leaves for
// those outside: the pattern that a mux below it has matched, and how many
// files of an upload nobody has removed when the server has ended.
func CopiedRequest(t *testing.T, wrap func(http.Handler) http.Handler) (pattern string, files int) {
	t.Helper()
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /f/{id}", func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil {
			t.Error(err)
		}
	})
	h := wrap(mux)
	t.Run("upload", func(t *testing.T) { // the server has ended when this has
		HTTP1(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			pattern = r.Pattern
		})).Upload(t, "/f/1")
	})
	left, err := filepath.Glob(filepath.Join(tmp, "multipart-*"))
	if err != nil {
		t.Fatal(err)
	}
	return pattern, len(left)
}

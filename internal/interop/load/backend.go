package load

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// sizes are the lengths of the bodies by path.
var sizes = map[string]int{Short: 128, Page: 10 << 10, Large: 1 << 20, Chunked: 16 << 10}

const answerHead = "HTTP/1.1 200 OK\r\nServer: backend\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n" +
	"Content-Type: application/octet-stream\r\nCache-Control: max-age=0, private\r\n" +
	"ETag: \"5f3a-1b2c3d4e\"\r\nX-Request-Id: 0123456789abcdef\r\n"

// answers are whole responses, made once: a back end that costs next to nothing
// leaves the processor to what is measured.
func answers() map[string][]byte {
	all := map[string][]byte{}
	for path, n := range sizes {
		if path != Chunked {
			all[path] = append([]byte(answerHead+"Content-Length: "+strconv.Itoa(n)+"\r\n\r\n"), bytes.Repeat([]byte("x"), n)...)
			continue
		}
		b := []byte(answerHead + "Transfer-Encoding: chunked\r\n\r\n")
		for range 8 {
			b = fmt.Appendf(b, "%x\r\n%s\r\n", n/8, bytes.Repeat([]byte("x"), n/8))
		}
		all[path] = append(b, "0\r\n\r\n"...)
	}
	return all
}

// backEnd starts a server of HTTP/1.1 that does nothing it need not.
func backEnd() (addr string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	all := answers()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReaderSize(c, 64<<10)
				for {
					path, err := readRequest(r)
					if err != nil {
						return
					}
					if _, err := c.Write(all[path]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), nil
}

// readRequest reads one request with its body, which has a known length.
func readRequest(r *bufio.Reader) (path string, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	_, rest, _ := bytes.Cut(line, []byte(" "))
	target, _, _ := bytes.Cut(rest, []byte(" "))
	path = string(target)
	length := 0
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return "", err
		}
		if len(line) == 2 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(": ")); strings.EqualFold(string(name), "Content-Length") {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return "", err
			}
		}
	}
	_, err = r.Discard(length)
	return path, err
}

// grpcBackEnd starts a server that answers unary calls over h2c with what they
// sent.
func grpcBackEnd() (addr string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Content-Type"] = []string{"application/grpc"}
		h["Trailer"] = []string{"Grpc-Status"}
		io.Copy(w, r.Body)
		h["Grpc-Status"] = []string{"0"}
	})}
	go s.Serve(l)
	return l.Addr().String(), nil
}

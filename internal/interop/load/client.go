package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// fields are those of a browser's request.
const fields = "Host: example.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
	"Referer: http://example.test/\r\nX-Request-Id: 7b0f1c5e9d3a4c2b\r\n"

// client sends the jobs of one address.
type client struct {
	addr string
	idle chan *clientConn
	grpc *http.Client
}

type clientConn struct {
	net.Conn
	r *bufio.Reader
}

func newClient(addr string) *client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &client{
		addr: addr, idle: make(chan *clientConn, 1024),
		grpc: &http.Client{Transport: &http.Transport{Protocols: protocols, DisableCompression: true}},
	}
}

func (c *client) run(j Job) error {
	conns := min(j.Conns, j.N)
	errs := make(chan error, conns)
	for i := range conns {
		n := j.N / conns
		if i < j.N%conns {
			n++
		}
		go func() {
			if j.GRPC {
				errs <- c.calls(n)
			} else {
				errs <- c.requests(j, n)
			}
		}()
	}
	var all []error
	for range conns {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// requests sends n requests over one connection.
func (c *client) requests(j Job, n int) error {
	var conn *clientConn
	select {
	case conn = <-c.idle:
	default:
		nc, err := net.Dial("tcp", c.addr)
		if err != nil {
			return err
		}
		conn = &clientConn{nc, bufio.NewReaderSize(nc, 64<<10)}
	}
	method, body := "GET", []byte(nil)
	head := fields
	if j.Post > 0 {
		method, body = "POST", bytes.Repeat([]byte("p"), j.Post)
		head += "Content-Type: application/octet-stream\r\nContent-Length: " + strconv.Itoa(j.Post) + "\r\n"
	}
	req := append([]byte(method+" "+j.Path+" HTTP/1.1\r\n"+head+"\r\n"), body...)
	want := sizes[j.Path]
	for range n {
		if _, err := conn.Write(req); err != nil {
			conn.Close()
			return err
		}
		got, err := readResponse(conn.r)
		if err == nil && got != want {
			err = fmt.Errorf("%d bytes of %s, want %d", got, j.Path, want)
		}
		if err != nil {
			conn.Close()
			return err
		}
	}
	c.idle <- conn
	return nil
}

// readResponse reads one response with status 200 and returns the length of its
// body. It knows no more of HTTP than the proxies here send, and costs little.
func readResponse(r *bufio.Reader) (length int, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("answered %q", line)
	}
	length = -1
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return 0, err
		}
		if len(line) == 2 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(": ")); string(name) == "Content-Length" {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
	if length >= 0 {
		_, err = r.Discard(length)
		return length, err
	}
	for length = 0; ; {
		if line, err = r.ReadSlice('\n'); err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return 0, err
		}
		if _, err := r.Discard(int(n) + 2); err != nil {
			return 0, err
		}
		if length += int(n); n == 0 {
			return length, nil
		}
	}
}

// message is a gRPC message of 123 bytes with its prefix.
var message = "\x00\x00\x00\x00\x7b" + strings.Repeat("m", 123)

// calls makes n unary calls, one after the other.
func (c *client) calls(n int) error {
	for range n {
		req, err := http.NewRequest("POST", "http://"+c.addr+"/echo.Echo/Unary", strings.NewReader(message))
		if err != nil {
			return err
		}
		req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Accept-Encoding": {"gzip"}, "User-Agent": {"grpc-go/1.85.0"}}
		res, err := c.grpc.Do(req)
		if err != nil {
			return err
		}
		got, err := io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil {
			return err
		}
		if got != int64(len(message)) || res.Trailer.Get("Grpc-Status") != "0" {
			return fmt.Errorf("%d bytes, trailers %v", got, res.Trailer)
		}
	}
	return nil
}

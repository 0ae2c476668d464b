package xconnect

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestWith(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"nothing set", "", "http2xconnect=1"},
		{"another setting", "http2debug=1", "http2debug=1,http2xconnect=1"},
		{"several", "a=1,b=2", "a=1,b=2,http2xconnect=1"},
		{"on", "http2xconnect=1", "http2xconnect=1"},
		{"off", "http2xconnect=0", "http2xconnect=0"},
		{"off among others", "a=1,http2xconnect=0,b=2", "a=1,http2xconnect=0,b=2"},
		{"off at the end", "a=1,http2xconnect=0", "a=1,http2xconnect=0"},
		{"the longer name of another", "http2xconnected=0", "http2xconnected=0,http2xconnect=1"},
		{"the name as a value", "a=http2xconnect=0", "a=http2xconnect=0,http2xconnect=1"},
		{"without a value", "http2xconnect", "http2xconnect,http2xconnect=1"},
		{"comma at the end", "a=1,", "a=1,,http2xconnect=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := with(c.in); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// The effect rests on the order of import paths, so renaming the module to a
// path that sorts late must not pass without notice.
func TestPathSortsEarly(t *testing.T) {
	type here struct{}
	path := reflect.TypeFor[here]().PkgPath()
	for _, reader := range []string{"golang.org/x/net/http2", "net/http", "net/http/internal/http2"} {
		if path >= reader {
			t.Errorf("%s is initialized after %s, which reads GODEBUG before it is changed", path, reader)
		}
	}
}

// printsSettings is a program that prints "on" or "off": whether the first
// SETTINGS frame of a net/http server holds ENABLE_CONNECT_PROTOCOL = 1.
const printsSettings = `package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	IMPORT
)

type once chan net.Conn

func (l once) Accept() (net.Conn, error) { return <-l, nil }
func (l once) Close() error              { return nil }
func (l once) Addr() net.Addr            { return &net.TCPAddr{} }

func main() {
	client, server := net.Pipe()
	srv := &http.Server{Protocols: new(http.Protocols)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	l := make(once, 1)
	l <- server
	go srv.Serve(l)
	go io.WriteString(client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	head := make([]byte, 9)
	if _, err := io.ReadFull(client, head); err != nil {
		log.Fatal(err)
	}
	if head[3] != 4 {
		log.Fatalf("first frame of type %d", head[3])
	}
	body := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(client, body); err != nil {
		log.Fatal(err)
	}
	state := "off"
	for ; len(body) >= 6; body = body[6:] {
		if binary.BigEndian.Uint16(body) == 8 && binary.BigEndian.Uint32(body[2:]) == 1 {
			state = "on"
		}
	}
	fmt.Print(state)
}
`

// Start order, in programs of their own: what a server really sends.
func TestStartOrder(t *testing.T) {
	type here struct{}
	blank := `_ "` + reflect.TypeFor[here]().PkgPath() + `"`
	with, without := build(t, blank), build(t, "")
	for _, c := range []struct {
		name, program, godebug, want string
	}{
		{"with the import", with, "", "on"},
		{"without it", without, "", "off"},
		{"beside another setting", with, "http2debug=0", "on"},
		{"switched off by the operator", with, "http2xconnect=0", "off"},
		{"switched off among others", with, "madvdontneed=1,http2xconnect=0", "off"},
		{"switched on by the operator", without, "http2xconnect=1", "on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), c.program)
			cmd.Env = append(withoutGODEBUG(), "GODEBUG="+c.godebug)
			if got := run(t, cmd); got != c.want {
				t.Errorf("extended CONNECT is %s, want %s", got, c.want)
			}
		})
	}
}

// A copy at a path that sorts after net/http is too late: what the doc warns
// of is so, and the programs of TestStartOrder can tell the difference.
func TestLatePath(t *testing.T) {
	dir := t.TempDir()
	source, err := os.ReadFile("xconnect.go")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "go.mod"), "module zzz.example\n\ngo 1.26.0\n")
	write(t, filepath.Join(dir, "xconnect", "xconnect.go"), string(source))
	write(t, filepath.Join(dir, "main.go"), strings.Replace(printsSettings, "IMPORT", `_ "zzz.example/xconnect"`, 1))
	program := filepath.Join(dir, "program.exe")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	run(t, cmd)
	cmd = exec.CommandContext(t.Context(), program)
	cmd.Env = withoutGODEBUG()
	if got := run(t, cmd); got != "off" {
		t.Errorf("extended CONNECT is %s, want off", got)
	}
}

// build compiles the program with one more import, as a main package of this
// module, and returns its path.
func build(t *testing.T, imports string) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	write(t, source, strings.Replace(printsSettings, "IMPORT", imports, 1))
	program := filepath.Join(dir, "program.exe")
	run(t, exec.CommandContext(t.Context(), "go", "build", "-o", program, source))
	return program
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, &stderr)
	}
	return string(out)
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// withoutGODEBUG is the environment as it was before this package changed it.
func withoutGODEBUG() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "GODEBUG=") {
			env = append(env, e)
		}
	}
	return env
}

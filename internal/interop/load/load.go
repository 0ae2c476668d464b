// Package load makes HTTP requests and answers them, in a process of its own,
// so that the process which measures a proxy between the two does nothing
// else: its CPU time and its allocations are the proxy's.
//
// The process is the measuring program once more. Its main calls [Main] first.
package load

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
)

// env marks the process that Main is to serve in.
const env = "PLAINWARE_LOAD"

// Job is a number of equal requests, sent over connections that are kept for
// the next Job with the same Addr. Each connection sends its next
// request when it has the whole answer to the last.
type Job struct {
	Addr  string // of the proxy, host:port
	Path  string // one of those that the back ends know
	Post  int    // bytes of the request body; 0 is a GET
	GRPC  bool   // unary calls over h2c; Path and Post have no effect
	Conns int    // connections, or calls at a time
	N     int    // requests in all
}

// The paths that the back ends know.
const (
	Short   = "/128"     // 128 bytes
	Page    = "/10k"     // 10 KiB
	Large   = "/1m"      // 1 MiB
	Chunked = "/chunked" // 16 KiB in eight chunks
)

// Process is the process that makes load and answers it.
type Process struct {
	BackEnds []string // two of HTTP/1.1, host:port
	H2C      string   // one that speaks HTTP/2 without TLS

	mu    sync.Mutex
	cmd   *exec.Cmd
	in    io.WriteCloser
	jobs  *json.Encoder
	reply *json.Decoder
}

// Start starts the process. It ends with this one.
func Start() (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), env+"=1")
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.jobs, p.reply = json.NewEncoder(p.in), json.NewDecoder(out)
	var hello struct {
		BackEnds []string
		H2C      string
	}
	if err := p.reply.Decode(&hello); err != nil {
		return nil, fmt.Errorf("the load process did not start: %w", err)
	}
	p.BackEnds, p.H2C = hello.BackEnds, hello.H2C
	return p, nil
}

// Run does j. Every answer that is not the expected one is an error.
func (p *Process) Run(j Job) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.jobs.Encode(j); err != nil {
		return err
	}
	var failure string
	if err := p.reply.Decode(&failure); err != nil {
		return err
	}
	if failure != "" {
		return fmt.Errorf("load: %s", failure)
	}
	return nil
}

// Main does the work of the process that [Start] has started, and does not
// return. In any other it returns at once.
func Main() {
	if os.Getenv(env) == "" {
		return
	}
	runtime.GOMAXPROCS(1)
	if err := serve(os.Stdin, os.Stdout); err != io.EOF {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve answers jobs until the other process is gone, which is io.EOF.
func serve(in io.Reader, out io.Writer) error {
	var hello struct {
		BackEnds []string
		H2C      string
	}
	for range 2 {
		addr, err := backEnd()
		if err != nil {
			return err
		}
		hello.BackEnds = append(hello.BackEnds, addr)
	}
	var err error
	if hello.H2C, err = grpcBackEnd(); err != nil {
		return err
	}
	replies, jobs := json.NewEncoder(out), json.NewDecoder(in)
	if err := replies.Encode(hello); err != nil {
		return err
	}
	clients := map[string]*client{}
	for {
		var j Job
		if err := jobs.Decode(&j); err != nil {
			return err
		}
		c := clients[j.Addr]
		if c == nil {
			c = newClient(j.Addr)
			clients[j.Addr] = c
		}
		failure := ""
		if err := c.run(j); err != nil {
			failure = err.Error()
		}
		if err := replies.Encode(failure); err != nil {
			return err
		}
	}
}

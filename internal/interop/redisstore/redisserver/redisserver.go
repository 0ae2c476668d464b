// Package redisserver starts redis-server for tests.
package redisserver

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"example.com/plainware/internal/interop/prog"
)

// ReadyWithin bounds the start of a server.
const ReadyWithin = 30 * time.Second

// Server is a redis-server on a port and in a directory of its own.
type Server struct {
	Addr string
	Args []string // of its command line, the program among them

	t    testing.TB
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{}
}

// Start starts a server until the end of the test, and returns when it answers.
// The arguments are its configuration, as on its command line. Without any it
// keeps nothing.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	path := prog.Need(t, "redis-server")
	s := &Server{Addr: prog.Addr(t), t: t}
	_, port, _ := net.SplitHostPort(s.Addr)
	s.Args = append([]string{
		path, "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--daemonize", "no",
	}, args...)
	s.Run()
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("redis-server printed:\n%s", s.out.String())
		}
	})
	return s
}

// Run starts it again after Kill, where it was.
func (s *Server) Run() {
	s.t.Helper()
	s.cmd = exec.Command(s.Args[0], s.Args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, done := s.cmd, make(chan struct{})
	s.done = done
	go func() {
		cmd.Wait()
		close(done)
	}()
	c := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1})
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), ReadyWithin)
	defer cancel()
	for c.Ping(ctx).Err() != nil {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-done:
			s.t.Fatalf("redis-server ended:\n%s", s.out.String())
		case <-ctx.Done():
			s.t.Fatalf("redis-server is not ready after %v", ReadyWithin)
		}
	}
}

// Kill ends the server at once, as kill -9 does.
func (s *Server) Kill() {
	s.cmd.Process.Kill()
	<-s.done
}

// Signal sends it a signal, SIGSTOP or SIGCONT.
func (s *Server) Signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

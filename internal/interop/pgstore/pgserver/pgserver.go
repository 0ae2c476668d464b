//go:build linux

// Package pgserver runs a PostgreSQL server for tests: a cluster of its own in
// a temporary directory, on a free port. The programs must be installed.
package pgserver

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.com/plainware/internal/interop/prog"
)

// A Server is one cluster, running or not. Its methods are not for concurrent
// use.
type Server struct {
	Addr string // host:port, the same after a restart

	release  func() // Addr
	bin, dir string
	cred     *syscall.Credential
	cmd      *exec.Cmd
	exited   chan struct{}
	paused   []int
}

// ErrMissing is returned by New if the programs are not installed. It is
// [prog.ErrMissing].
var ErrMissing = fmt.Errorf("pgserver: initdb and postgres are %w: install the package postgresql", prog.ErrMissing)

const patience = 60 * time.Second

// New makes a cluster and starts it. Its superuser is postgres, without a
// password, and its encoding is UTF-8. Close must be called.
func New() (s *Server, err error) {
	bin, err := find()
	if err != nil {
		return nil, err
	}
	s = &Server{bin: bin, release: func() {}}
	if s.dir, err = os.MkdirTemp("", "pgserver"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.dropPrivileges(); err != nil {
		return nil, err
	}
	initdb := s.command("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pgserver: initdb: %w: %s", err, out)
	}
	if s.Addr, s.release, err = prog.Reserve(); err != nil {
		return nil, err
	}
	if err = s.Start(); err != nil {
		return nil, err
	}
	return s, nil
}

// find returns the directory of the newest installed server.
func find() (string, error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(p), nil
	}
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	major := func(dir string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		return n
	}
	slices.SortFunc(dirs, func(a, b string) int { return major(b) - major(a) })
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			return dir, nil
		}
	}
	return "", ErrMissing
}

// dropPrivileges finds somebody else to run the server as, since it refuses to
// run as root.
func (s *Server) dropPrivileges() error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return err
	}
	s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(s.dir, int(uid), int(gid))
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	return cmd
}

// URL is how to connect to the database postgres as its superuser, with
// params, such as "sslmode=disable&x=y", appended.
func (s *Server) URL(params string) string { return s.DatabaseURL("postgres", params) }

// DatabaseURL is URL for another database.
func (s *Server) DatabaseURL(database, params string) string {
	u := "postgres://postgres@" + s.Addr + "/" + database + "?sslmode=disable"
	if params != "" {
		u += "&" + params
	}
	return u
}

// Start starts the server, and returns when it takes connections.
func (s *Server) Start() error {
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = s.command("postgres", "-D", s.data(), "-p", port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=300")
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.exited = exited
	go func(cmd *exec.Cmd) {
		cmd.Wait()
		close(exited)
	}(s.cmd)
	pidfile := filepath.Join(s.data(), "postmaster.pid")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	giveUp := time.After(patience)
	for {
		select {
		case <-exited:
			out, _ := os.ReadFile(log.Name())
			return fmt.Errorf("pgserver: the server has exited: %s", out)
		case <-giveUp:
			return errors.New("pgserver: the server does not get ready")
		case <-tick.C:
			b, _ := os.ReadFile(pidfile)
			// A file left by a crash is rewritten before the server is ready.
			if pid, _, _ := bytes.Cut(b, []byte("\n")); string(pid) == strconv.Itoa(s.cmd.Process.Pid) && bytes.HasSuffix(bytes.TrimSpace(b), []byte("ready")) {
				return nil
			}
		}
	}
}

// Stop shuts the server down, without waiting for its clients.
func (s *Server) Stop() error { return s.end(syscall.SIGINT) }

// Crash ends the server as a crash does, so that the next Start recovers.
func (s *Server) Crash() error { return s.end(syscall.SIGQUIT) }

func (s *Server) end(sig syscall.Signal) error {
	if s.cmd == nil || s.cmd.Process == nil {
		return nil
	}
	s.Resume()
	s.cmd.Process.Signal(sig)
	select {
	case <-s.exited:
		s.cmd = nil
		return nil
	case <-time.After(patience):
		s.cmd.Process.Kill()
		<-s.exited
		s.cmd = nil
		return errors.New("pgserver: the server did not stop and was killed")
	}
}

// Pause stops all processes of the server in their tracks: connections stay
// open, and nobody answers.
func (s *Server) Pause() error {
	pids := []int{s.cmd.Process.Pid}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // gone
		}
		// pid (comm) state ppid …
		rest := string(b[bytes.LastIndexByte(b, ')')+1:])
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(s.cmd.Process.Pid) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids { // the parent first, so that there are no new ones
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && err != syscall.ESRCH {
			return err
		}
	}
	s.paused = pids
	return nil
}

// Resume ends a Pause.
func (s *Server) Resume() {
	for _, pid := range slices.Backward(s.paused) {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	s.paused = nil
}

// Close stops the server and removes the cluster.
func (s *Server) Close() error {
	err := errors.Join(s.Crash(), os.RemoveAll(s.dir))
	s.release()
	return err
}

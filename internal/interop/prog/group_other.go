//go:build !linux

package prog

import (
	"os"
	"os/exec"
)

func bind(*exec.Cmd) {}

func kill(p *os.Process) { p.Kill() }

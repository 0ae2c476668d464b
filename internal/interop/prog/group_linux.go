package prog

import (
	"os"
	"os/exec"
	"syscall"
)

// bind gives a program a process group of its own, in which whatever it starts is,
// and has it end with this process.
func bind(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGTERM
}

// kill kills the group.
func kill(p *os.Process) { syscall.Kill(-p.Pid, syscall.SIGKILL) }

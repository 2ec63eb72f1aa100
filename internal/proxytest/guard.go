//go:build unix

package proxytest

import (
	"io"
	"os/exec"
	"strconv"
	"syscall"
)

// guard starts a process that kills a process group once this process has ended, however it ended: only
// then is the pipe closed that it reads from. Linux can kill a child with its parent (PR_SET_PDEATHSIG),
// but not that child's workers, which keep the port, and it does so when the thread ends that started it.
// release ends the guard, which leaves the group alone then.
func guard(group int) (release func(), err error) {
	cmd := exec.Command("sh", "-c", `read -r released || kill -s KILL -- "-$1"`, "sh", strconv.Itoa(group))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C in a terminal does not end it first
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_, _ = io.WriteString(stdin, "released\n") // fails if a person has killed the guard
		_ = stdin.Close()
		_ = cmd.Wait()
	}, nil
}

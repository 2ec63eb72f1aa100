package redistest

import (
	"os"
	"os/exec"
	"runtime"
)

// A process is a running program. Linux kills it when the thread that started it ends.
// So the goroutine that starts the program keeps its thread until the program ends.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.SysProcAttr = dieWithParent()
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the error only says that the process was killed
		}
	}()
	return p, <-started
}

func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill ends the process with SIGKILL and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(os.Kill) // fails if the process has ended already
	<-p.ended
}

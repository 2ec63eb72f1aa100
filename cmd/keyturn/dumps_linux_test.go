package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The memory of serve has keys. No core dump may write them to a disk, and no other process of the
// same user may read them: the kernel shows that by giving the files in /proc/PID to root.
func TestServeMemoryIsPrivate(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "keyturn") // a copy that another user may run
	built, err := os.ReadFile(builtBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, built, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--addr", "127.0.0.1:0")
	cmd.Env = cleanEnv(envSecret + "=" + testSecret)
	if os.Geteuid() == 0 {
		// What root's process owns belongs to root in any case.
		const other = 65534
		for dir := filepath.Dir(program); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	}
	out := new(syncBuffer)
	cmd.Stdout, cmd.Stderr = out, io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	wait(t, func() bool { return strings.Contains(out.String(), "Ctrl-C ends it") })

	proc := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid))
	info, err := os.Stat(filepath.Join(proc, "mem"))
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		t.Errorf("%s/mem belongs to user %d: other processes of that user can read it", proc, uid)
	}
	limits, err := os.ReadFile(filepath.Join(proc, "limits"))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			found = true
			if got := strings.Fields(rest); got[0] != "0" || got[1] != "0" {
				t.Errorf("the limits of core dumps = %q, want 0", got)
			}
		}
	}
	if !found {
		t.Errorf("limits = %s", limits)
	}
}

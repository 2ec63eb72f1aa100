package main

import (
	"fmt"
	"syscall"
)

// noDumps keeps the memory of this process, which has keys, from disks and from other processes of
// the same user: no core dump is written, and neither ptrace nor /proc/PID/mem is open to them.
//
// The limit alone does not do it. If the kernel pipes dumps into a program (core(5), "Piping core
// dumps to a program"), as distributions do, the limit does not count, and PR_SET_DUMPABLE does.
func noDumps() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, new(syscall.Rlimit)); err != nil {
		return fmt.Errorf("core dumps cannot be turned off: %w", err)
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0); errno != 0 {
		return fmt.Errorf("the memory cannot be kept from other processes: %w", errno)
	}
	return nil
}

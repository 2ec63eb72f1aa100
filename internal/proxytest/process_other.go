//go:build unix && !linux

package proxytest

import "syscall"

func dieWithParent(*syscall.SysProcAttr) {}

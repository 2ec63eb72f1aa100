//go:build !unix

package server

import (
	"net"
	"syscall"
)

func acceptAll(syscall.RawConn, int) []net.Conn { return nil }

//go:build unix

package server

import (
	"net"
	"os"
	"syscall"
)

// acceptAll returns the connections that wait to be accepted, most of them at the most, and has the
// kernel complete no further ones. Closing the listener is not enough: the runtime does that only when the goroutine in
// Accept has come back.
func acceptAll(raw syscall.RawConn, most int) (all []net.Conn) {
	err := raw.Control(func(listener uintptr) {
		defer syscall.Shutdown(int(listener), syscall.SHUT_RD) // ends to listen on Linux; elsewhere it fails, and Close does
		for range most {
			fd, _, err := syscall.Accept(int(listener)) // which does not wait: the runtime has made it so
			if err == syscall.EINTR || err == syscall.ECONNABORTED {
				continue
			}
			if err != nil {
				return
			}
			syscall.CloseOnExec(fd)
			f := os.NewFile(uintptr(fd), "")
			if c, err := net.FileConn(f); err == nil {
				all = append(all, c)
			}
			f.Close() // net.FileConn has a copy
		}
	})
	if err != nil {
		return nil // the listener is closed already
	}
	return all
}

//go:build unix

package server

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// The name of a socket is removed once. Afterwards it may be that of the next server, whose socket may
// even have the inode of this one: ext4 gives it out again at once.
func TestUnixSocketOfTheNextServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := listenUnix(t.Context(), path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	next, err := listenUnix(t.Context(), path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	first.(*unixListener).info = next.(*unixListener).info // the inode is the same
	first.Close()                                          // as the end of a Server does again
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket of the next server is gone: %v", err)
	}
}

// Everyone who can read a folder can lock it. That does not keep a server from its start.
func TestUnixSocketInALockedFolder(t *testing.T) {
	folder := t.TempDir()
	d, err := os.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		l, err := listenUnix(t.Context(), filepath.Join(folder, "s"), 0o600)
		if err == nil {
			err = l.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the server does not start")
	}
}

// The end of a listener takes no more connections than wait for it, however fast more come.
func TestPatientListenerEndsInAFlood(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	for range 3 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	raw, err := inner.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	all := acceptAll(raw, 2)
	for _, c := range all {
		c.Close()
	}
	if len(all) != 2 {
		t.Errorf("%d connections", len(all))
	}
	if c, err := net.Dial("tcp", inner.Addr().String()); err == nil {
		c.Close()
		t.Error("a connection after the end")
	}
}

//go:build unix

package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// dialTime is how long a program that listens on a socket may take to accept a connection.
const dialTime = time.Second

// A unixListener is a socket with a name of its own. At its end it removes the name, unless that leads
// to another socket by then.
type unixListener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
}

// listenUnix listens on a socket at path.
//
// The socket is made in a new folder that is ours alone, gets its mode there, and is then linked to
// its place. So it never has another mode there, whatever the umask, and a file that somebody puts at
// path meanwhile is not followed, not opened and not replaced.
func listenUnix(ctx context.Context, path string, mode fs.FileMode) (_ net.Listener, err error) {
	folder := filepath.Dir(path)
	unlock, err := lockFolder(folder)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	own, err := os.MkdirTemp(folder, ".kt")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(own)
	made := filepath.Join(own, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // its name will be another one
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if err := os.Chmod(made, mode); err != nil {
		return nil, err
	}
	if err := os.Link(made, path); err != nil { // not Rename, which replaces what is there
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	return &unixListener{l, path, info}, nil
}

// lockFolder holds a lock on a folder, so that of two servers that start at once the second one finds
// the socket of the first.
func lockFolder(folder string) (unlock func(), err error) {
	d, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		d.Close()
		return nil, err
	}
	return func() { d.Close() }, nil
}

// removeStale removes a socket on which nothing listens, as a server leaves it that was killed. It
// removes nothing else, and follows no link.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file that is no socket: choose another path, or remove it")
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("there is a socket of the user with the ID %d: choose another path, or remove it", stat.Uid)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) { // also a program that is too busy to accept
		return syscall.EADDRINUSE
	}
	return os.Remove(path)
}

// Close ends the listener, and removes its name.
func (l *unixListener) Close() error {
	err := l.UnixListener.Close()
	if now, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(now, l.info) {
		err = errors.Join(err, os.Remove(l.path))
	}
	return err
}

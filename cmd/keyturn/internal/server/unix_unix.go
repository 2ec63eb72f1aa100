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
	"sync"
	"syscall"
	"time"
)

// dialTime is how long a program that listens on a socket may take to accept a connection.
const dialTime = time.Second

// A unixListener is a socket with a name of its own. At its end it removes the name, unless that leads
// to another socket by then.
type unixListener struct {
	*net.UnixListener
	path   string
	info   fs.FileInfo
	unlink sync.Once // guards the name
}

// listenUnix listens on a socket at path.
//
// The socket is made in a new folder that is ours alone, gets its mode there, and is then linked to
// its place. So it never has another mode there, whatever the umask, and a file that another user puts
// at path meanwhile is not followed, not opened and not replaced.
func listenUnix(ctx context.Context, path string, mode fs.FileMode) (_ net.Listener, err error) {
	folder := filepath.Dir(path)
	unlock, err := lockFolder(ctx, folder)
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
	if err := os.Link(made, path); err != nil { // not Rename, which replaces an existing file
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	return &unixListener{UnixListener: l, path: path, info: info}, nil
}

// lockTime is how long a server that starts waits for the lock of another one, which needs it for
// milliseconds, or for dialTime at the most.
const lockTime = 2 * dialTime

// lockFolder holds a lock on a folder, so that of two servers that start at once the second one finds
// the socket of the first. Every user who may read the folder can lock it, and must not keep a server from
// its start: so after a while it does without.
func lockFolder(ctx context.Context, folder string) (unlock func(), err error) {
	d, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	for {
		switch err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case err != nil && err != syscall.EWOULDBLOCK && err != syscall.EINTR:
			d.Close()
			return nil, err
		case ctx.Err() != nil:
			d.Close()
			return nil, ctx.Err()
		case err == nil, wait.Err() != nil:
			return func() { d.Close() }, nil
		}
		settle(wait, 10*time.Millisecond)
	}
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

// Close removes the name, once, and ends the listener. While the listener is open, no other socket can have
// its inode. Afterwards the next server's may: ext4 gives a free inode out again at once.
func (l *unixListener) Close() (err error) {
	l.unlink.Do(func() {
		if now, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(now, l.info) {
			err = os.Remove(l.path)
		}
	})
	return errors.Join(err, l.UnixListener.Close())
}

//go:build unix

package main

import (
	"io/fs"
	"os"
	"syscall"
)

// openRegular opens a file that was a regular one before. If it is a pipe now, it does not wait until
// another program writes to that.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errNotRegular
	}
	return f, nil
}

// standingOf returns who owns a file, and who may use it. ok is false for what is neither a file
// nor a pipe, such as a terminal: its mode says nothing of what is read from it.
func standingOf(info fs.FileInfo) (s standing, ok bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Type()&^fs.ModeNamedPipe != 0 {
		return standing{}, false
	}
	return standing{mode: info.Mode(), uid: int(stat.Uid), gid: int(stat.Gid), us: os.Geteuid()}, true
}

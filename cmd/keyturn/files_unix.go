//go:build unix

package main

import (
	"io/fs"
	"os"
	"syscall"
)

// standingOf returns who owns a file, and who may use it. ok is false for what is neither a file
// nor a pipe, such as a terminal: its mode says nothing of what is read from it.
func standingOf(info fs.FileInfo) (s standing, ok bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Type()&^fs.ModeNamedPipe != 0 {
		return standing{}, false
	}
	return standing{mode: info.Mode(), uid: int(stat.Uid), gid: int(stat.Gid), us: os.Geteuid()}, true
}

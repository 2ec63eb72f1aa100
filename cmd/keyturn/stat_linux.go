package main

import (
	"io/fs"
	"syscall"
)

// statOf returns the stamp that a file has, and whether the file system gives one.
func statOf(info fs.FileInfo) (fileStamp, bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileStamp{}, false
	}
	return fileStamp{device: uint64(s.Dev), inode: s.Ino, size: s.Size, changed: s.Ctim.Nano()}, true
}

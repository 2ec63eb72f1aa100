//go:build !unix

package main

import (
	"io/fs"
	"os"
)

// openRegular opens a file that was a regular one before.
func openRegular(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	return os.Open(path)
}

// standingOf knows nothing of a file: who may use it does not show in its mode here.
func standingOf(fs.FileInfo) (s standing, ok bool) { return standing{}, false }

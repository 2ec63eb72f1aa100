// Package snapshot has snapshot files: bytes that are replaced as a whole, so that a process which
// ends at any moment leaves the old ones or the new ones. Other packages seal them.
package snapshot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// MaxBytes is the largest file that is read.
const MaxBytes = 1 << 30

// Read returns the bytes of the file, or nil if it does not exist.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err == nil && len(b) > MaxBytes {
		return nil, fmt.Errorf("%s has more than %d bytes", path, MaxBytes)
	}
	return b, err
}

// Write replaces the file: it writes a new one beside it, of mode 0600, brings it to the disk, and
// renames it. A crash leaves the old file or the new one.
func Write(path string, b []byte) (err error) {
	os.Remove(path + ".new") // of a process that ended meanwhile
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	// The rename is on the disk once the folder is. Some systems cannot sync a folder; then a crash
	// may bring the old file back, which is as good as one that was written a little earlier.
	if dir, openErr := os.Open(filepath.Dir(path)); openErr == nil {
		_ = dir.Sync()
		dir.Close()
	}
	return nil
}

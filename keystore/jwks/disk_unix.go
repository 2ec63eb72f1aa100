//go:build unix

package jwks

import (
	"io/fs"
	"os"
	"syscall"
)

// openFlags are for a file that became a link or a pipe a moment ago: it is not followed, and not
// waited for.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// onlyOurs reports whether a file or folder belongs to the user that this process runs as, and only
// that user and root can write it.
func onlyOurs(is fs.FileInfo) bool {
	return isOurs(is) && is.Mode().Perm()&0o022 == 0
}

// isOurs reports whether a file or folder belongs to the user that this process runs as.
func isOurs(is fs.FileInfo) bool {
	stat, ok := is.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

//go:build unix

package jwks

import (
	"io/fs"
	"os"
	"syscall"
)

// openFlags are those with which a file is opened: what became a link or a pipe a
// moment ago is not followed, and not waited for.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// onlyOurs reports whether a file or folder is of the user that we run as, and no
// other but root can write it.
func onlyOurs(is fs.FileInfo) bool {
	stat, ok := is.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid() && is.Mode().Perm()&0o022 == 0
}

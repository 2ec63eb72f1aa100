//go:build !unix

package jwks

import "io/fs"

const openFlags = 0

// onlyOurs cannot tell from a mode who may write: the folder's own rules say so.
func onlyOurs(fs.FileInfo) bool { return true }

// Package backup writes and reads the file of "keyturn keys backup": rings as a store has them, still
// sealed. So a backup needs no KEK, and the file is as secret as the store. docs/formats.md, "Backup",
// has its bytes.
//
// A [Writer] and a [Reader] hold one ring in memory at a time, however many the file has. The file ends
// with the number of its rings and a digest, so a truncated or damaged file is an error of the Reader,
// and never a smaller backup. The digest is no proof of origin: each field proves itself when
// rotation.Rotator.Restore opens it.
package backup

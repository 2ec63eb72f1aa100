package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/keystore"
)

// maxFileBytes is the largest file that the command accepts.
const maxFileBytes = 1 << 20

// A fileUse is what a file is for. It decides who may be able to change the file, and who to read it.
type fileUse int

const (
	holdsRules  fileUse = iota // a configuration, or public keys: they say whose tokens are good
	holdsSecret                // a secret, or KEKs
)

// An inputFile is a file that a flag, or a field of the file of --config, names.
type inputFile struct {
	name string // of the flag or the field
	path string
	info fs.FileInfo // of the open file: a path may lead to another file a moment later
	text []byte
}

// readFile reads the file that name names, of at most maxFileBytes. what it is to hold is for the
// error, which does not repeat the path of a file that cannot be opened: by mistake that may be the
// secret itself, or the text of the JWK Set. A file that others can change is refused, and one that
// they can read is remarked on.
func (a *app) readFile(name, path, what string, use fileUse) (*inputFile, error) {
	f, err := openInput(path, a.openNamed())
	a.seen.note(name, path, use, f, err)
	if err == nil {
		f.name = name
		return f, a.judgeFile(f, use)
	}
	if errors.Is(err, errTooLarge) {
		return nil, usagef("the file of %s %v", name, err)
	}
	return nil, usagef("cannot read the file of %s: %v; it takes the path of a file that holds %s", name, causeOf(err), what)
}

// follow returns f for a server that reads it again. It returns nil for a pipe, which is read once.
func (f *inputFile) follow(use fileUse) *server.File {
	if !f.info.Mode().IsRegular() {
		return nil
	}
	return server.NewFile(f.name, f.text, func() ([]byte, error) {
		again, err := openInput(f.path, openRegular)
		if err != nil {
			return nil, causeOf(err)
		}
		again.name = f.name
		return again.text, again.refuse(use)
	})
}

// causeOf returns an error without the path that the operating system puts before it.
func causeOf(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

var (
	errTooLarge   = errors.New("is larger than 1 MiB: is it the right one?")
	errNotRegular = errors.New("is no regular file any more")
)

// openInput opens and reads a file.
func openInput(path string, open func(string) (*os.File, error)) (*inputFile, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := &inputFile{path: path}
	if in.info, err = f.Stat(); err != nil {
		return nil, err
	}
	if in.text, err = io.ReadAll(io.LimitReader(f, maxFileBytes+1)); err != nil {
		return nil, err
	}
	if len(in.text) > maxFileBytes {
		return nil, errTooLarge
	}
	return in, nil
}

// judgeFile refuses a file that others can change, and remarks on one that they can read.
func (a *app) judgeFile(f *inputFile, use fileUse) error {
	if err := f.refuse(use); err != nil {
		return err
	}
	if s, ok := standingOf(f.info); ok {
		if what, mend := s.remark(use); what != "" {
			a.note("the file of %s %s: %s %s", f.name, what, mend, shellWord(f.path))
		}
	}
	return nil
}

// refuse refuses a file that others can change.
func (f *inputFile) refuse(use fileUse) error {
	if s, ok := standingOf(f.info); ok {
		if why, mend := s.refusal(use); why != "" {
			return usagef("the file of %s %s: %s %s", f.name, why, mend, shellWord(f.path))
		}
	}
	return nil
}

// judgeSet judges the file of a JWK Set once more, as one with a secret, if there is one among its
// keys.
func (a *app) judgeSet(f *inputFile, keys []*keystore.Key) error {
	if slices.ContainsFunc(keys, func(k *keystore.Key) bool { return k.Algorithm().Symmetric() }) {
		return a.judgeFile(f, holdsSecret)
	}
	return nil
}

// A standing is who owns a file, and who may use it, on a Unix.
type standing struct {
	mode     fs.FileMode
	uid, gid int
	us       int // the user that this process runs as
}

// The bits of a file's mode.
const (
	groupReads, groupWrites   = 0o040, 0o020
	othersRead, othersWrite   = 0o004, 0o002
	readableByGroupOrByOthers = groupReads | othersRead
)

// refusal returns why a file must not be used, and the command that mends it, without the path.
//
// A file that others can change lets them choose the secret, the keys or the rules. Root can change
// every file anyway. The permissions of a pipe are its own, but the owner of a pipe does not choose
// what is in it. The owner of a file can always change it, whatever its mode.
func (s standing) refusal(use fileUse) (why, mend string) {
	switch {
	case s.mode.IsRegular() && s.uid != 0 && s.uid != s.us:
		return fmt.Sprintf("belongs to the user with the ID %d, who can change it", s.uid), fmt.Sprintf("chown %d", s.us)
	case s.mode&othersWrite != 0:
		return fmt.Sprintf("can be changed by every user of this machine (mode %04o)", s.mode.Perm()), "chmod o-w"
	case use == holdsSecret && s.sharedGroup(groupWrites):
		return fmt.Sprintf("can be changed by the group with the ID %d (mode %04o)", s.gid, s.mode.Perm()), "chmod g-w"
	}
	return "", ""
}

// remark returns what may be wrong with a file that is used all the same, and the command that mends
// it, without the path.
//
// A secret that a group can read is usual where it is not ours: Kubernetes gives root's file to a
// group of the pod (fsGroup).
func (s standing) remark(use fileUse) (what, mend string) {
	own := s.uid == s.us
	switch {
	case use == holdsRules && s.sharedGroup(groupWrites):
		return fmt.Sprintf("can be changed by the group with the ID %d (mode %04o)", s.gid, s.mode.Perm()), "chmod g-w"
	case use == holdsSecret && own && s.mode&readableByGroupOrByOthers != 0:
		return fmt.Sprintf("is readable by group or others (mode %04o)", s.mode.Perm()), "chmod 600"
	case use == holdsSecret && s.mode&othersRead != 0:
		return fmt.Sprintf("is readable by every user of this machine (mode %04o)", s.mode.Perm()), "chmod o-r"
	}
	return "", ""
}

// sharedGroup reports whether a group has a permission that is not ours alone. On many systems each
// user has a group of the same ID, and no other user is in it.
func (s standing) sharedGroup(bit fs.FileMode) bool { return s.mode&bit != 0 && s.gid != s.us }

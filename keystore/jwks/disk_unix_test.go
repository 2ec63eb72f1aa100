//go:build unix

package jwks_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// If other users can put files into a folder, nothing is read from it or written to it. Open does
// not wait there either.
func TestFilesOthersCanMake(t *testing.T) {
	tests := []struct {
		name string
		make func(dir, file string) error
		good bool
	}{
		{name: "its own", make: func(string, string) error { return nil }, good: true},
		{name: "a folder that a link leads to", good: true, make: func(dir, _ string) error {
			return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir+"2", dir))
		}},
		{name: "a pipe", make: func(_, file string) error { return errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600)) }},
		{name: "a folder", make: func(_, file string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) }},
		{name: "the group may write the folder", good: true, make: func(dir, _ string) error { return os.Chmod(dir, 0o770|os.ModeSetgid) }},
		{name: "all may write the folder", good: true, make: func(dir, _ string) error { return os.Chmod(dir, 0o777) }},
		{name: "the group may write the file, as fsGroup does", make: func(dir, file string) error {
			return errors.Join(os.Chmod(dir, 0o770|os.ModeSetgid), os.Chmod(file, 0o660))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "sets")
			virtual(t, func(t *testing.T) {
				w := newWorld(t, jwkstest.NewInMemory(t), jwks.Config{Dir: dir})
				s := w.ready(jwks.SourceConfig{})
				synctest.Wait() // it is saved
				file := filepath.Join(dir, jwks.File(s))
				if err := errors.Join(s.Close(t.Context()), tt.make(dir, file)); err != nil {
					t.Fatal(err)
				}
				w.issuer.Misbehave(jwkstest.Status(500))
				s = w.open(jwks.SourceConfig{})
				synctest.Wait()
				w.wantState(s, map[bool]jwks.State{true: jwks.Stale, false: jwks.Cold}[tt.good])
				if told := strings.Contains(w.log.String(), "on disk is not used"); told == tt.good {
					t.Errorf("told: %v", told)
				}
				if is, err := os.Stat(dir); err != nil || is.Mode().Perm() != 0o700 {
					t.Errorf("%v, %v: want mode 0700", is.Mode(), err)
				}
			})
		})
	}
}

// In a folder where others can put files, as in a Kubernetes volume with fsGroup, the files are in a
// folder of ours inside it, which is made and repaired. What others put in its place is not used.
func TestFolderInsideSharedOne(t *testing.T) {
	type test struct {
		name   string
		share  func(dir string) error // before the first process
		meddle func(dir, own string) error
		want   jwks.State // of the second process
	}
	nothing := func(string, string) error { return nil }
	shared := func(dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "lost+found"), nil, 0o600), os.Chmod(dir, 0o775|os.ModeSetgid))
	}
	tests := []test{
		{"a mounted volume", shared, nothing, jwks.Stale},
		{"an empty one", func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, nothing, jwks.Stale},
		{"the mode of the folder inside changes", shared, func(_, own string) error { return os.Chmod(own, 0o770) }, jwks.Stale},
		{"a link in its place", shared, func(_, own string) error { return errors.Join(os.Rename(own, own+"2"), os.Symlink(own+"2", own)) }, jwks.Cold},
		{"a file in its place", shared, func(_, own string) error { return errors.Join(os.RemoveAll(own), os.WriteFile(own, nil, 0o600)) }, jwks.Cold},
	}
	if os.Geteuid() == 0 { // who else may chown
		another := func(dir string) error { return os.Chown(dir, 4321, 4321) }
		tests = append(tests, test{"a folder of another user", another, nothing, jwks.Stale},
			test{"a folder of another user in its place", another, func(_, own string) error { return os.Chown(own, 4321, 4321) }, jwks.Cold})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := tt.share(dir); err != nil {
				t.Fatal(err)
			}
			before, err := os.Stat(dir)
			if err != nil {
				t.Fatal(err)
			}
			own := filepath.Join(dir, fmt.Sprintf("keyturn-%d", os.Geteuid()))
			d := &diskTest{dir: dir}
			d.restart(t, 0, false, func(t *testing.T, w *world, s *jwks.Source) {
				synctest.Wait()
				if is, err := os.Stat(filepath.Join(own, jwks.File(s))); err != nil || is.Mode().Perm() != 0o600 {
					t.Fatalf("the file is not inside: %v", err)
				}
			})
			if err := tt.meddle(dir, own); err != nil {
				t.Fatal(err)
			}
			d.restart(t, time.Hour, true, func(t *testing.T, w *world, s *jwks.Source) { w.wantState(s, tt.want) })
			after, err := os.Stat(dir)
			if err != nil || after.Mode() != before.Mode() {
				t.Errorf("the mode of the folder of all changed from %v to %v", before.Mode(), after.Mode())
			}
		})
	}
}

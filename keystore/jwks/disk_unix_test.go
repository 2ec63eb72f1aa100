//go:build unix

package jwks_test

import (
	"errors"
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
		{name: "the group may write the folder", make: func(dir, _ string) error { return os.Chmod(dir, 0o770) }},
		{name: "all may write the folder", make: func(dir, _ string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }},
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
				before, err := os.Lstat(file)
				if err != nil {
					t.Fatal(err)
				}
				w.issuer.Misbehave(jwkstest.Status(500))
				s = w.open(jwks.SourceConfig{})
				synctest.Wait()
				w.wantState(s, map[bool]jwks.State{true: jwks.Stale, false: jwks.Cold}[tt.good])
				if told := strings.Contains(w.log.String(), "on disk is not used"); told == tt.good {
					t.Errorf("told: %v", told)
				}
				if strings.Contains(tt.name, "folder") && !tt.good {
					w.issuer.Behave()
					time.Sleep(time.Minute)
					w.wantKey(s, w.a)
					if after, err := os.Lstat(file); err != nil || !os.SameFile(before, after) {
						t.Errorf("a new file was put there: %v", err)
					}
				}
			})
		})
	}
}

//go:build unix

package jwks

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A fileOf is a file of some user.
type fileOf struct {
	fs.FileInfo
	mode fs.FileMode
	uid  int
}

func (f fileOf) Mode() fs.FileMode { return f.mode }
func (f fileOf) Sys() any          { return &syscall.Stat_t{Uid: uint32(f.uid)} }

func TestOnlyOurs(t *testing.T) {
	own := os.Geteuid()
	for _, tt := range []struct {
		name string
		is   fs.FileInfo
		want bool
	}{
		{"a file", fileOf{mode: 0o600, uid: own}, true},
		{"one that all may read", fileOf{mode: 0o644, uid: own}, true},
		{"a folder", fileOf{mode: fs.ModeDir | 0o700, uid: own}, true},
		{"the group may write", fileOf{mode: 0o620, uid: own}, false},
		{"others may write", fileOf{mode: 0o602, uid: own}, false},
		{"a folder of all", fileOf{mode: fs.ModeDir | fs.ModeSticky | 0o777, uid: own}, false},
		{"another's", fileOf{mode: 0o600, uid: own + 1}, false},
		{"another's folder", fileOf{mode: fs.ModeDir | 0o755, uid: own + 1}, false},
	} {
		if got := onlyOurs(tt.is); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestJudgeFolder(t *testing.T) {
	own := os.Geteuid()
	set := strings.Repeat("0a", 32) + ".jwks"
	for _, tt := range []struct {
		name    string
		is      fs.FileInfo
		entries []string
		want    folderUse
	}{
		{"ours", fileOf{mode: fs.ModeDir | 0o700, uid: own}, nil, asItIs},
		{"ours, with the files of others", fileOf{mode: fs.ModeDir | 0o755, uid: own}, []string{"x"}, asItIs},
		{"ours, after fsGroup", fileOf{mode: fs.ModeDir | fs.ModeSetgid | 0o770, uid: own}, []string{set, set + ".1.tmp"}, repaired},
		{"a volume, as root", fileOf{mode: fs.ModeDir | fs.ModeSetgid | 0o775, uid: own}, []string{set, "lost+found"}, inside},
		{"an empty volume, as root", fileOf{mode: fs.ModeDir | fs.ModeSetgid | 0o775, uid: own}, nil, inside},
		{"a volume", fileOf{mode: fs.ModeDir | fs.ModeSetgid | 0o775, uid: own + 1}, nil, inside},
		{"another's, with our files", fileOf{mode: fs.ModeDir | 0o700, uid: own + 1}, []string{set}, inside},
		{"/tmp, as root", fileOf{mode: fs.ModeDir | fs.ModeSticky | 0o777, uid: own}, []string{"x"}, inside},
	} {
		if got := judgeFolder(tt.is, tt.entries); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A folder that is exchanged after it was judged, by someone who may write the folder around it, does not
// lead the repair to another folder of ours.
func TestRepairOfFolderThatWasExchanged(t *testing.T) {
	around, elsewhere := t.TempDir(), t.TempDir()
	dir := filepath.Join(around, "sets")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o770), os.Chmod(elsewhere, 0o755)); err != nil {
		t.Fatal(err)
	}
	is, err := os.Lstat(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := New(Config{})
	if err := errors.Join(os.Rename(dir, dir+" before"), os.Symlink(elsewhere, dir)); err != nil {
		t.Fatal(err)
	}
	if err := c.repair(dir, is); err == nil {
		t.Error("another folder than that which was judged is repaired")
	}
	if now, err := os.Stat(elsewhere); err != nil || now.Mode().Perm() != 0o755 {
		t.Errorf("%v: the mode of another folder is %v", err, now.Mode())
	}
	if err := errors.Join(os.Remove(dir), os.Rename(dir+" before", dir), c.repair(dir, is)); err != nil {
		t.Error(err)
	}
	if now, err := os.Stat(dir); err != nil || now.Mode().Perm() != 0o700 {
		t.Errorf("%v: the mode is %v", err, now.Mode())
	}
}

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
)

// seenAt notes a file as one that was read long after its last change.
func seenAt(t *testing.T, path string) *seenFiles {
	t.Helper()
	s := new(seenFiles)
	in, err := openInput(path, openRegular)
	s.note("--config", path, holdsRules, in, err)
	if in != nil {
		s.files[0].stamp = stampOf(in.info, time.Now().Add(time.Hour))
	}
	return s
}

// A file whose inode is as it was is not read. Whatever can change the content, or who may change it,
// changes that.
func TestFilesAreReadWhenTheirInodeChanges(t *testing.T) {
	const text = "the content"
	for name, change := range map[string]func(path string) error{
		"the same length":      func(path string) error { return os.WriteFile(path, []byte("THE CONTENT"), 0o600) },
		"replaced":             func(path string) error { return replace(path, "another one", 0o600) },
		"removed":              os.Remove,
		"its mode":             func(path string) error { return os.Chmod(path, 0o666) },
		"its time is put back": func(path string) error { return backdated(path, "THE CONTENT") },
		"a link some folders away": func(path string) error { // as a ConfigMap is
			data := filepath.Join(filepath.Dir(filepath.Dir(path)), "..data")
			return os.Rename(data+"_next", data)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for folder, content := range map[string]string{"1": text, "2": "another one"} {
				if err := os.MkdirAll(filepath.Join(dir, folder, "d"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, folder, "f"), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for link, to := range map[string]string{"..data": "1", "..data_next": "2"} {
				if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(dir, "..data", "f")
			if name == "a link some folders away" {
				path = filepath.Join(dir, "x", "f")
				if err := os.Symlink("..data", filepath.Join(dir, "x")); err != nil {
					t.Fatal(err)
				}
			}
			s := seenAt(t, path)
			if s.again() != s.sum() {
				t.Fatal("the file has changed before")
			}
			time.Sleep(20 * time.Millisecond) // several ticks of the kernel's clock
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			if s.again() == s.sum() {
				t.Error("the change is not seen")
			}
		})
	}
}

// backdated writes a file and sets its times to those that it had.
func backdated(path, text string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Chtimes(path, info.ModTime(), info.ModTime())
}

// A file that is as it was is not read, except each thirtieth time: a file system may lie. One that has
// changed just now is read each time, since the kernel's clock may not have ticked.
func TestFilesAreNotReadEachTime(t *testing.T) {
	path := file(t, "the content")
	s := seenAt(t, path)
	s.files[0].sum = server.Sum{1} // which a reading would correct
	for look := 1; look <= 2*readAll; look++ {
		if read := s.again() != s.sum(); read != (look%readAll == 0) {
			t.Errorf("look %d: read = %v", look, read)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for after, settled := range map[time.Duration]bool{0: false, 4 * time.Second: false, 6 * time.Second: true} {
		changed, _ := statOf(info)
		if got := stampOf(info, time.Unix(0, changed.changed).Add(after)); (got != fileStamp{}) != settled {
			t.Errorf("%v after its change: %+v", after, got)
		}
	}
	if dir, err := os.Stat(filepath.Dir(path)); err != nil || stampOf(dir, time.Now().Add(time.Hour)) != (fileStamp{}) {
		t.Errorf("a folder has a stamp: %v", err)
	}
}

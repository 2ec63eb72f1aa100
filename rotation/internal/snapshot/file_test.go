package snapshot

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	if b, err := Read(path); b != nil || err != nil {
		t.Errorf("without a file: %q, %v", b, err)
	}
	if err := os.WriteFile(path, []byte("open to all"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "and another"} {
		if err := Write(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if b, err := Read(path); err != nil || !bytes.Equal(b, []byte(want)) {
			t.Errorf("%q, %v, want %q", b, err, want)
		}
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("it leaves %v, %v", files, err)
	}
}

func TestFileThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "missing", "s"), nil); err == nil {
		t.Error("there is no such folder")
	}
	if err := os.Mkdir(filepath.Join(dir, "s"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "s"), nil); err == nil {
		t.Error("a folder was replaced")
	}
	if b, err := Read(filepath.Join(dir, "s")); err == nil {
		t.Errorf("a folder was read: %q", b)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("it leaves %v, %v", files, err)
	}
}

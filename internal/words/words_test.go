package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func TestCount(t *testing.T) {
	tree := fstest.MapFS{
		"a.go":                {Data: []byte("// Package a is what is\n// left.\npackage a\n\nvar x = \"nobody\" // for good\n")},
		"b/c.md":              {Data: []byte("Whoever reads,\nand no more.\n")},
		"b/a_test.go":         {Data: []byte("// nobody\npackage b\n")},
		"b/testdata/c.md":     {Data: []byte("nobody\n")},
		"b/node_modules/c.md": {Data: []byte("nobody\n")},
		".git/c.md":           {Data: []byte("nobody\n")},
		"b/d.go":              {Data: []byte("package b // somebodyish\n")},
	}
	files, err := count(tree)
	if err != nil {
		t.Fatal(err)
	}
	comments, pages := total(files)
	if want := (tally{9, 2}); comments != want {
		t.Errorf("comments = %v, want %v", comments, want)
	}
	if want := (tally{5, 2}); pages != want {
		t.Errorf("pages = %v, want %v", pages, want)
	}
	var out bytes.Buffer
	if err := printWords(&out, files, false); err == nil {
		t.Error("no error above the limit")
	}
	for _, want := range []string{"a.go:1: Package a", "a.go:5: for good", "b/c.md:1: Whoever", "b/c.md:2: and no more."} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, &out)
		}
	}
}

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	src := `// Package p is measured.
package p

// A T is documented.
type T struct{}

// Alias is documented.
type Alias = T

// ErrHere is documented.
var ErrHere = there.ErrHere

func (*T) Bare() {}

// Said is documented.
func (T) Said() {
	_ = 1
}

type hidden struct{}

func (hidden) Shown() {}

const Bare = 1 // documented behind

var Loud = 2
`
	if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := measure(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if m.lines != 26 || m.comments != 5 || m.exported != 5 {
		t.Errorf("lines, comments, exported = %d, %d, %d, want 26, 5, 5", m.lines, m.comments, m.exported)
	}
	if len(m.undocumented) != 2 || !strings.HasSuffix(m.undocumented[0], "T.Bare") || !strings.HasSuffix(m.undocumented[1], "Loud") {
		t.Errorf("undocumented = %q, want T.Bare and Loud", m.undocumented)
	}
	if p50, p90, longest := m.lengths(); p50 != 1 || p90 != 3 || longest != 3 {
		t.Errorf("lengths = %d, %d, %d, want 1, 3, 3", p50, p90, longest)
	}
}

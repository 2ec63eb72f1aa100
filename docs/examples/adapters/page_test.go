package adapters

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPage: each program of docs/adapters.md is in one of these files, byte for byte, and each adapter
// that TestVectors runs has its section.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../adapters.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(page, -1)
	for _, block := range blocks {
		if !strings.Contains(code.String(), string(block[1])) {
			t.Errorf("no file here has this code of docs/adapters.md:\n%s", block[1])
		}
	}
	for _, a := range adapters {
		name, _, _ := strings.Cut(a.name, " ")
		if !regexp.MustCompile("(?m)^## .*" + regexp.QuoteMeta(name)).Match(page) {
			t.Errorf("docs/adapters.md has no section for %s", name)
		}
	}
	if len(blocks) < 10 {
		t.Errorf("docs/adapters.md has %d programs", len(blocks))
	}
}

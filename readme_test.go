package keyturn_test

import (
	"regexp"
	"strings"
	"testing"
)

// TestReadme checks that the README's programs run and that its figures were measured: each program
// stands in readme_example_test.go, and each figure of its table in docs/benchmarks.md.
func TestReadme(t *testing.T) {
	readme := read(t, "README.md")
	programs := read(t, "readme_example_test.go")
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readme, -1)
	if len(blocks) != 4 {
		t.Errorf("the README has %d programs, want 4", len(blocks))
	}
	for _, block := range blocks {
		program := strings.TrimSpace(block[1])
		indented := "\t" + strings.ReplaceAll(program, "\n", "\n\t")
		if !strings.Contains(programs, program) && !strings.Contains(programs, indented) {
			t.Errorf("readme_example_test.go lacks this program of the README:\n%s", program)
		}
	}
	for _, command := range []string{"go run ./cmd/keyturn serve", "make test"} {
		if !strings.Contains(readme, command) {
			t.Errorf("the README lacks %q", command)
		}
	}
	benchmarks := read(t, "docs/benchmarks.md")
	figures := regexp.MustCompile(`[0-9.]+ (ns|µs)`).FindAllString(readme, -1)
	if len(figures) < 4 {
		t.Errorf("the README's figures are %q, want at least 4", figures)
	}
	for _, figure := range figures {
		if !strings.Contains(benchmarks, " "+figure+" ") {
			t.Errorf("docs/benchmarks.md lacks %s, a figure of the README", figure)
		}
	}
	if n := strings.Count(readme, "\n"); n >= 120 {
		t.Errorf("the README has %d lines, want less than 120", n)
	}
}

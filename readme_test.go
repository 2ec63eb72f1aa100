package keyturn_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestReadme holds the README to what runs and to what was measured: each program of it stands in
// readme_example_test.go, and each figure of its table in docs/benchmarks.md.
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

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestContributing: docs/CONTRIBUTING.md names every target of the Makefile that has a description.
func TestContributing(t *testing.T) {
	page := read(t, "docs/CONTRIBUTING.md")
	targets := regexp.MustCompile(`(?m)^([a-z-]+):.* ## `).FindAllStringSubmatch(read(t, "Makefile"), -1)
	if len(targets) < 10 {
		t.Fatalf("targets = %q", targets)
	}
	for _, target := range targets {
		if name := target[1]; name != "help" && !strings.Contains(page, "\n    make "+name+" ") {
			t.Errorf("docs/CONTRIBUTING.md lacks make %s", name)
		}
	}
}

// TestSecretsAreTheirOwners: each command of the documentation and the help that writes a secret to
// a file makes one that other users cannot read.
func TestSecretsAreTheirOwners(t *testing.T) {
	said := 0
	walk(t, ".", func(file string) {
		if strings.HasSuffix(file, "_test.go") || !strings.HasSuffix(file, ".go") && !strings.HasSuffix(file, ".md") {
			return
		}
		doc, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(doc)) {
			before, after, ok := strings.Cut(line, "openssl rand")
			if !ok || !strings.Contains(after, " > ") {
				continue
			}
			if said++; !strings.HasSuffix(before, "(umask 077; ") {
				t.Errorf("%s: a secret in a file that all can read: %s", file, line)
			}
		}
	})
	if said < 5 {
		t.Errorf("only %d lines that make a secret were found", said)
	}
}

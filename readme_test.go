package keyturn_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestReadme: the program of the README is the Example of package middleware,
// and it names the two commands.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("middleware/example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(readme), "```go\n")
	program, _, ok := strings.Cut(program, "```")
	if !ok || strings.Count(program, "\n") < 10 {
		t.Fatal("the README has no program")
	}
	indented := "\t" + strings.ReplaceAll(strings.TrimSpace(program), "\n", "\n\t")
	if !strings.Contains(string(example), indented) {
		t.Errorf("the README's program is not in middleware/example_test.go:\n%s", program)
	}
	for _, command := range []string{"go run ./cmd/keyturn serve", "make test"} {
		if !strings.Contains(string(readme), command) {
			t.Errorf("the README lacks %q", command)
		}
	}
	if n := strings.Count(string(readme), "\n"); n > 150 {
		t.Errorf("the README has %d lines, want at most 150", n)
	}
}

// TestContributing: every target of the Makefile that has a description is named.
func TestContributing(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("docs/CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	targets := regexp.MustCompile(`(?m)^([a-z-]+):.* ## `).FindAllStringSubmatch(string(makefile), -1)
	if len(targets) < 10 {
		t.Fatalf("targets = %q", targets)
	}
	for _, target := range targets {
		if name := target[1]; name != "help" && !strings.Contains(string(page), "\n    make "+name+" ") {
			t.Errorf("docs/CONTRIBUTING.md lacks make %s", name)
		}
	}
}

// TestSecretsAreTheirOwners: whoever types what the documentation and the help say makes a
// file that nobody else can read.
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

package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Mutants are edits of today's code and name today's tests. Both must exist.
func TestMutantsApply(t *testing.T) {
	dir, all := t.TempDir(), make(map[string][]string) // all: the tests by package
	for _, m := range mutants {
		if _, err := m.overlay("../..", dir); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		name, _, _ := strings.Cut(m.names, "/") // of the test, without its subtests
		chosen, err := regexp.Compile(name)
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		tests, ok := all[m.pkg]
		if !ok {
			tests = testsOf(t, "../../"+m.pkg)
			all[m.pkg] = tests
		}
		if !slices.ContainsFunc(tests, chosen.MatchString) {
			t.Errorf("%s: no test of %s matches %q", m.name, m.pkg, m.names)
		}
		if strings.HasPrefix(m.want, "Test") && !slices.Contains(tests, m.want) || m.want == "" {
			t.Errorf("%s: %s has no test %q", m.name, m.pkg, m.want)
		}
	}
}

// testsOf returns the names of the tests in a folder.
func testsOf(t *testing.T, dir string) []string {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range testFunc.FindAllSubmatch(text, -1) {
			names = append(names, string(match[1]))
		}
	}
	return names
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// A mistake is caught by what names it, and by nothing else.
func TestVerdict(t *testing.T) {
	m := mutant{tests: tests{"./x", "TestA"}, want: "I1"}
	failed := errors.New("exit status 1")
	for _, tt := range []struct {
		name, out string
		err       error
		caught    bool
	}{
		{"by its rule", "--- FAIL: TestA (0s)\n    --- FAIL: TestA/x (0s)\n        a_test.go:1: seed 3: I1 no false reject: a token\nFAIL\n", failed, true},
		{"by another one", "--- FAIL: TestA (0s)\n        a_test.go:1: seed 3: I11 progress: I am stuck\nFAIL\n", failed, false},
		{"by what only led to it", "--- FAIL: TestA (0s)\n        a_test.go:1: seed 3: I11 progress\n   0.1s I1 sign\nFAIL\n", failed, false},
		{"not at all", "ok  \tx\t0.1s\n", nil, false},
		{"it does not build", "# x\nx.go:1:1: I1\nFAIL\tx [build failed]\n", failed, false},
		{"it panics", "--- FAIL: TestA (0s)\n        a_test.go:1: I1\npanic: nil map\n", failed, false},
		{"it runs for ever", "--- FAIL: TestA (0s)\n        a_test.go:1: I1\npanic: test timed out after 2m0s\n\trunning tests:\n\t\tTestA/x (1m59s)\n", failed, false},
		{"the go command fails", "go: cannot find main module\n", failed, false},
	} {
		by, err := m.verdict([]byte(tt.out), tt.err)
		if (err == nil) != tt.caught || tt.caught && !strings.HasPrefix(by, "a_test.go:1: seed 3: I1 ") {
			t.Errorf("%s: %q, %v", tt.name, by, err)
		}
	}
	m.want = "TestA"
	if by, err := m.verdict([]byte("--- FAIL: TestAB (0s)\n--- FAIL: TestA/x (0s)\n"), failed); by != "--- FAIL: TestA/x (0s)" || err != nil {
		t.Errorf("by a test's name: %q, %v", by, err)
	}
}

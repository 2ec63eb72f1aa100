package main

import (
	"os"
	"regexp"
	"testing"
)

// The mistakes are edits of the code as it is: if it changes, so do they.
func TestMutantsApply(t *testing.T) {
	for _, m := range mutants {
		if _, err := m.overlay("../..", t.TempDir()); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		if _, err := regexp.Compile(m.run); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		if _, err := os.Stat("../../" + m.pkg); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

func TestFailedNamesTests(t *testing.T) {
	out := []byte("ok\n--- FAIL: TestA (0.1s)\n    --- FAIL: TestA/x (0.1s)\n--- FAIL: TestB (0s)\nFAIL\n")
	if got := failed(out); len(got) != 2 || got[0] != "TestA" || got[1] != "TestB" {
		t.Errorf("%q", got)
	}
	out = []byte("panic: test timed out after 2m0s\n\trunning tests:\n\t\tTestC/x (1m59s)\n")
	if got := failed(out); len(got) != 1 || got[0] != "TestC" {
		t.Errorf("%q", got)
	}
}

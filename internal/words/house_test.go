package main

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// What the house promises about its code.
const (
	maxFunction     = 59 // lines
	maxFunctionP90  = 24 // lines
	maxTestFunction = 80 // lines
	minDensity      = 20 // per cent of lines that are comments, where the code is hardest
	maxRotation     = 3600
	maxExported     = 75
)

// hardest are the packages that need the most comments.
var hardest = []string{"rotation", "rotation/internal/protocol"}

func TestFunctionsAreShort(t *testing.T) {
	var all measured
	for _, dir := range folders(t) {
		all.functions = append(all.functions, measureFolder(t, dir, false).functions...)
		for _, f := range measureFolder(t, dir, true).functions {
			if f.lines > maxTestFunction {
				t.Errorf("%s: %s has %d lines, at most %d for a function of a test", f.at, f.name, f.lines, maxTestFunction)
			}
		}
	}
	for _, f := range all.functions {
		if f.lines > maxFunction {
			t.Errorf("%s: %s has %d lines, at most %d", f.at, f.name, f.lines, maxFunction)
		}
	}
	if _, p90, _ := all.lengths(); p90 > maxFunctionP90 {
		t.Errorf("nine of ten functions have up to %d lines, at most %d", p90, maxFunctionP90)
	}
	if len(all.functions) < 1000 {
		t.Errorf("only %d functions were found", len(all.functions))
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, dir := range folders(t) {
		for _, name := range measureFolder(t, dir, false).undocumented {
			t.Errorf("%s has no comment", name)
		}
	}
}

func TestHardCodeIsCommented(t *testing.T) {
	for _, dir := range hardest {
		if m := measureFolder(t, dir, false); m.density() < minDensity {
			t.Errorf("%.1f %% of the lines of %s are comments, at least %d %%", m.density(), dir, minDensity)
		}
	}
}

// TestRotationIsSmall holds the package that services embed to the size that go doc can show.
func TestRotationIsSmall(t *testing.T) {
	m := measureFolder(t, "rotation", false)
	if m.lines > maxRotation {
		t.Errorf("rotation has %d lines, at most %d", m.lines, maxRotation)
	}
	if m.exported > maxExported {
		t.Errorf("rotation exports %d names, at most %d", m.exported, maxExported)
	}
}

// folders returns all folders with Go files, from the root of the repository.
func folders(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != root && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case filepath.Ext(name) == ".go":
			dir, err := filepath.Rel(root, filepath.Dir(name))
			all = append(all, dir)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func measureFolder(t *testing.T, dir string, tests bool) *measured {
	t.Helper()
	m, err := measure(filepath.Join(root, dir), tests)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The command mutants proves the checker: it builds the protocol with one mistake at a
// time, and runs the tests that are to find it. A mistake that nothing finds is a hole
// in the tests, and ends the command with 1.
//
//	go run ./internal/mutants          # all of them
//	go run ./internal/mutants -only w  # those whose name contains "w"
//	go run ./internal/mutants -list
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	only := flag.String("only", "", "run the mutants whose name contains `TEXT`")
	list := flag.Bool("list", false, "say what there is, and run nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	survivors := 0
	for _, m := range mutants {
		if !strings.Contains(m.name, *only) {
			continue
		}
		if *list {
			fmt.Printf("%-36s %s %s\n", m.name, m.pkg, m.run)
			continue
		}
		began := time.Now()
		caught, err := m.test(ctx, ".")
		if err != nil {
			survivors++
			fmt.Printf("%-36s CANNOT TELL: %v\n", m.name, err)
			continue
		}
		took := time.Since(began).Round(time.Second / 10)
		if len(caught) == 0 {
			survivors++
			fmt.Printf("%-36s SURVIVED %s -run '%s' (%v)\n", m.name, m.pkg, m.run, took)
			continue
		}
		fmt.Printf("%-36s caught by %s (%v)\n", m.name, strings.Join(caught, ", "), took)
	}
	if survivors > 0 {
		fmt.Printf("%d were not caught\n", survivors)
		os.Exit(1)
	}
}

// An edit replaces a text that a file has once.
type edit struct{ file, old, new string }

// A mutant is the code with a mistake, and the tests that are to find it.
type mutant struct {
	name  string
	edits []edit
	pkg   string
	run   string // a regular expression of tests' names
}

// test returns the names of the tests that fail with the mistake. root is the root of
// the module.
func (m mutant) test(ctx context.Context, root string) ([]string, error) {
	dir, err := os.MkdirTemp("", "mutant")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	overlay, err := m.overlay(root, dir)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-vet=off", "-count=1", "-timeout", "2m", "-overlay", overlay, "-run", m.run, m.pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), m.env()...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == nil {
		if bytes.Contains(out, []byte("no tests to run")) {
			return nil, fmt.Errorf("no test is called %s", m.run)
		}
		return nil, nil
	}
	if caught := failed(out); len(caught) > 0 {
		return caught, nil
	}
	return nil, fmt.Errorf("it does not build, or nothing ran: %w\n%s", err, out)
}

// env makes random histories find the mistake soon.
func (m mutant) env() []string { return []string{"KEYTURN_HISTORIES=400"} }

// overlay writes the changed files into dir, and what tells the go command of them.
func (m mutant) overlay(root, dir string) (string, error) {
	files := make(map[string]string) // by path
	for _, e := range m.edits {
		path, err := filepath.Abs(filepath.Join(root, e.file))
		if err != nil {
			return "", err
		}
		text, ok := files[path]
		if !ok {
			b, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("%s has %d times: %s", e.file, n, e.old)
		}
		files[path] = strings.Replace(text, e.old, e.new, 1)
	}
	replace := make(map[string]string)
	for path, text := range files {
		changed := filepath.Join(dir, fmt.Sprintf("%d%s", len(replace), filepath.Ext(path)))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[path] = changed
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, errors.Join(err, os.WriteFile(overlay, b, 0o600))
}

// A mistake may also make a test run for ever.
var failure = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)|^\t+(Test\S+) \([0-9hms]+\)$`)

// failed returns the tests of the output that failed, or that panicked.
func failed(out []byte) []string {
	var names []string
	for _, match := range failure.FindAllSubmatch(out, -1) {
		name, _, _ := strings.Cut(string(match[1])+string(match[2]), "/")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

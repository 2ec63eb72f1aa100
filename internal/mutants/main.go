// Command mutants tests the tests of the protocol. It builds the code with one mistake at a time, and
// runs the tests that should find it. If they pass, or fail with another rule than the one that the
// mistake breaks, the tests have a hole. Then the command exits with 1, as it does if a test fails
// without any mistake. table.go has the mistakes.
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
	"maps"
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
	var chosen []mutant
	for _, m := range mutants {
		if strings.Contains(m.name, *only) {
			chosen = append(chosen, m)
		}
	}
	if *list {
		for _, m := range chosen {
			fmt.Printf("%-46s %-24s %s -run '%s'\n", m.name, m.want, m.pkg, m.names)
		}
		return
	}
	if len(chosen) == 0 {
		fmt.Printf("no mutant's name has %q\n", *only)
		os.Exit(1)
	}
	if !baselines(ctx, chosen) || !caught(ctx, chosen) {
		os.Exit(1)
	}
}

// baselines runs the tests without a mistake, once for each package, and reports whether they pass. A
// test that fails anyway would seem to find every mistake.
func baselines(ctx context.Context, chosen []mutant) bool {
	names := make(map[string][]string) // by package
	for _, m := range chosen {
		if !slices.Contains(names[m.pkg], m.names) {
			names[m.pkg] = append(names[m.pkg], m.names)
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(names)) {
		began, all := time.Now(), tests{pkg, strings.Join(names[pkg], "|")}
		if out, err := all.run(ctx, ".", "", 5*time.Minute); err != nil {
			fmt.Printf("without a mistake %s fails: %v\n%s", all, err, out)
			return false
		}
		fmt.Printf("%-46s %s passes (%v)\n", "without a mistake", pkg, time.Since(began).Round(time.Second/10))
	}
	return true
}

// caught reports whether every mistake is found, and prints how.
func caught(ctx context.Context, chosen []mutant) bool {
	survivors := 0
	for _, m := range chosen {
		began := time.Now()
		by, err := m.test(ctx, ".")
		took := time.Since(began).Round(time.Second / 10)
		if err != nil {
			survivors++
			fmt.Printf("%-46s NOT CAUGHT (%v): %v\n", m.name, took, err)
			continue
		}
		fmt.Printf("%-46s caught by %s (%v): %.110s\n", m.name, m.want, took, by)
	}
	if survivors > 0 {
		fmt.Printf("%d of %d were not caught\n", survivors, len(chosen))
	}
	return survivors == 0
}

// An edit replaces a text that occurs exactly once in a file. So it fails if the code changes.
type edit struct{ file, old, new string }

// tests are some of a package's tests.
type tests struct {
	pkg   string
	names string // a regular expression
}

func (t tests) String() string { return fmt.Sprintf("%s -run '%s'", t.pkg, t.names) }

// A mutant is the code with one mistake, and the tests that must find it.
type mutant struct {
	name  string
	edits []edit
	tests
	want string // an invariant or a test, which must stand as a word in the tests' output
}

// test returns the line of the output that names the mistake, or an error that says why none does.
func (m mutant) test(ctx context.Context, root string) (string, error) {
	dir, err := os.MkdirTemp("", "mutant")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	overlay, err := m.overlay(root, dir)
	if err != nil {
		return "", err
	}
	out, err := m.tests.run(ctx, root, overlay, 90*time.Second)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return m.verdict(out, err)
}

// run runs the tests for at most limit, with the changed files of overlay, or without if that is "".
func (t tests) run(ctx context.Context, root, overlay string, limit time.Duration) ([]byte, error) {
	args := []string{"test", "-vet=off", "-count=1", "-timeout", limit.String(), "-run", t.names}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, t.pkg)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "KEYTURN_HISTORIES=400") // enough to find a mistake soon
	out, err := cmd.CombinedOutput()
	if err == nil && bytes.Contains(out, []byte("no tests to run")) {
		err = errors.New("there is no such test")
	}
	return out, err
}

var (
	brief  = regexp.MustCompile(`(?m)^\s*--- FAIL: .*$|^\s+\w+_test\.go:\d+: .*$`)
	broken = regexp.MustCompile(`(?m)^panic: .*$|^fatal error: .*$|\[build failed\]|\[setup failed\]`)
)

// verdict returns the line of the tests' output that names the mistake. A mutant that cannot be built,
// panics or runs into the timeout does not count as found.
func (m mutant) verdict(out []byte, err error) (string, error) {
	if err == nil {
		return "", fmt.Errorf("it survives %s", m.tests)
	}
	if line := broken.Find(out); line != nil {
		return "", fmt.Errorf("it is no mistake that a test could find: %s\n%.2000s", line, out)
	}
	want := regexp.MustCompile(`\b` + regexp.QuoteMeta(m.want) + `\b`)
	lines := brief.FindAll(out, -1)
	for _, line := range lines {
		if want.Match(line) {
			return string(bytes.TrimSpace(line)), nil
		}
	}
	if len(lines) == 0 {
		return "", fmt.Errorf("%w\n%.2000s", err, out)
	}
	return "", fmt.Errorf("want %s of %s, which fails otherwise:\n%.2000s", m.want, m.tests, bytes.Join(lines, []byte("\n")))
}

// overlay writes the changed files into dir, and returns the file that tells the go command to build
// with them (go help build, -overlay). The source tree itself stays as it is.
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

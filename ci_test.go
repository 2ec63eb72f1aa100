package keyturn_test

import (
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const workflow = ".github/workflows/ci.yml"

// TestWorkflow checks that the hosted CI reads only, pins each action by its commit, and calls
// targets of the Makefile.
func TestWorkflow(t *testing.T) {
	text := read(t, workflow)
	var parsed struct {
		Permissions map[string]string
		Jobs        map[string]struct {
			Permissions map[string]string
			Strategy    struct{ Matrix struct{ Target []string } }
			Steps       []struct{ Uses, Run string }
		}
	}
	if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
		t.Fatal(err)
	}
	if p := parsed.Permissions; len(p) != 1 || p["contents"] != "read" {
		t.Errorf("permissions are %q, want contents: read alone", p)
	}
	var called []string
	for name, job := range parsed.Jobs {
		if job.Permissions != nil {
			t.Errorf("job %s has permissions of its own", name)
		}
		called = append(called, job.Strategy.Matrix.Target...)
		for _, step := range job.Steps {
			if target, ok := strings.CutPrefix(step.Run, "make "); ok && !strings.HasPrefix(target, "${{") {
				called = append(called, strings.Fields(target)[0])
			}
		}
	}
	if len(called) < 8 {
		t.Errorf("the jobs call only %q", called)
	}
	makefile := read(t, "Makefile")
	for _, target := range called {
		if !strings.Contains(makefile, "\n"+target+": ") {
			t.Errorf("the Makefile has no target %q", target)
		}
	}
	pinned := regexp.MustCompile(`uses: [a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+\n`)
	if uses, ok := strings.Count(text, "uses: "), len(pinned.FindAllString(text, -1)); uses == 0 || uses != ok {
		t.Errorf("%d of %d actions are pinned by commit, with their version beside it", ok, uses)
	}
}

// TestToolsArePinned checks that each tool that the Makefile and the scripts of CI run by "go run" or
// "go install" has an exact version. go.sum does not cover these.
func TestToolsArePinned(t *testing.T) {
	tool := regexp.MustCompile(`\b[a-z0-9.-]+\.[a-z]+/[\w./-]+@(\S+)`)
	exact := regexp.MustCompile(`^v\d+\.\d+\.\d+(-0\.\d{14}-[0-9a-f]{12}|-\d{14}-[0-9a-f]{12})?$`)
	found := 0
	for _, file := range []string{"Makefile", ".ci/run", ".ci/setup", ".ci/beside", ".ci/stages", workflow} {
		for _, m := range tool.FindAllStringSubmatch(read(t, file), -1) {
			if found++; !exact.MatchString(m[1]) {
				t.Errorf("%s: %s has no exact version", file, m[0])
			}
		}
	}
	if found < 4 {
		t.Errorf("only %d tools were found", found)
	}
}

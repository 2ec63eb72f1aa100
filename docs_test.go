package keyturn_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/keyturn/keyturn/rotation"
)

// link finds the target of a Markdown link. Code is taken out before.
var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

var inlineCode = regexp.MustCompile("`[^`]*`")

// TestLinks checks that each relative link of each page leads to a file, and its fragment to a
// heading of that file.
func TestLinks(t *testing.T) {
	links := 0
	for _, page := range pages(t) {
		for _, target := range link.FindAllStringSubmatch(inlineCode.ReplaceAllString(proseOf(t, page), ""), -1) {
			u, err := url.Parse(target[1])
			if err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if u.Scheme != "" {
				continue
			}
			links++
			to := page
			if u.Path != "" {
				to = path.Join(path.Dir(page), u.Path)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: the link %s leads nowhere: %v", page, target[1], err)
			} else if u.Fragment != "" && !slices.Contains(anchors(t, to), u.Fragment) {
				t.Errorf("%s: the link %s names no heading of %s; those are %q", page, target[1], to, anchors(t, to))
			}
		}
	}
	if links < 40 {
		t.Errorf("only %d links were found", links)
	}
}

// TestGlossaryIsLinked checks that each page in docs that uses the glossary's words links it.
func TestGlossaryIsLinked(t *testing.T) {
	for _, page := range pages(t) {
		switch {
		case path.Dir(page) != "docs", page == "docs/glossary.md":
			continue
		case slices.Contains([]string{"docs/benchmarks.md", "docs/faults.md", "docs/CONTRIBUTING.md", "docs/SECURITY.md", "docs/CHANGELOG.md"}, page):
			continue // measurements, and pages about the project
		}
		if !strings.Contains(proseOf(t, page), "](glossary.md") {
			t.Errorf("%s does not link docs/glossary.md", page)
		}
	}
}

// TestIndex checks that docs/README.md links every other page in docs.
func TestIndex(t *testing.T) {
	index := proseOf(t, "docs/README.md")
	for _, page := range pages(t) {
		if path.Dir(page) == "docs" && page != "docs/README.md" && !strings.Contains(index, "]("+path.Base(page)) {
			t.Errorf("docs/README.md does not link %s", page)
		}
	}
}

// TestProtocolPage checks that docs/protocol.md has each invariant of the checker, and each
// timeline.
func TestProtocolPage(t *testing.T) {
	page := strings.ToLower(read(t, "docs/protocol.md"))
	invariant := regexp.MustCompile(`\{"(I\d+) ([^"]+)", `)
	timeline := regexp.MustCompile(`func TestTimeline([A-Z][a-z]*)`)
	var invariants, timelines int
	for _, file := range goFiles(t, "rotation/rotationtest") {
		if !strings.HasSuffix(file, "_test.go") {
			continue
		}
		text := read(t, file)
		for _, found := range invariant.FindAllStringSubmatch(text, -1) {
			invariants++
			if row := strings.ToLower("| " + found[1] + " | **" + found[2]); !strings.Contains(page, row) {
				t.Errorf("docs/protocol.md has no row that begins with %q", row)
			}
		}
		for _, found := range timeline.FindAllStringSubmatch(text, -1) {
			timelines++
			if row := strings.ToLower("| " + found[1] + " |"); !strings.Contains(page, row) {
				t.Errorf("docs/protocol.md has no row that begins with %q", row)
			}
		}
	}
	if invariants < 12 || timelines < 12 {
		t.Errorf("only %d invariants and %d timelines were found", invariants, timelines)
	}
}

// TestNamedTestsExist checks that each test, fuzz target and benchmark that a page names exists.
func TestNamedTestsExist(t *testing.T) {
	var code strings.Builder
	for _, file := range goFiles(t, ".") {
		if strings.HasSuffix(file, "_test.go") {
			code.WriteString(read(t, file))
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w+)(…?)`")
	found := 0
	for _, page := range pages(t) {
		for _, name := range named.FindAllStringSubmatch(read(t, page), -1) {
			found++
			declared := "func " + name[1]
			if name[2] == "" { // otherwise it is how the names of several begin
				declared += "("
			}
			if !strings.Contains(code.String(), declared) {
				t.Errorf("%s: there is no test %s", page, name[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d names were found", found)
	}
}

// TestNamedPagesExist checks that each page that the code names exists.
func TestNamedPagesExist(t *testing.T) {
	named := regexp.MustCompile(`docs/[\w-]+\.md`)
	found := 0
	for _, file := range goFiles(t, ".") {
		for _, page := range named.FindAllString(read(t, file), -1) {
			found++
			if _, err := os.Stat(page); err != nil {
				t.Errorf("%s names %s: %v", file, page, err)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d names were found", found)
	}
}

// TestPolicyTable checks that docs/rotation.md has each field of a policy.
func TestPolicyTable(t *testing.T) {
	page := read(t, "docs/rotation.md")
	for _, field := range reflect.VisibleFields(reflect.TypeFor[rotation.Policy]()) {
		if !strings.Contains(page, "\n| `"+field.Name+"` |") {
			t.Errorf("the table of docs/rotation.md has no row for Policy.%s", field.Name)
		}
	}
}

// TestMovedNamesExist checks that each name that docs/CHANGELOG.md says to type instead of an old
// one exists, and that each old name that stays does.
func TestMovedNamesExist(t *testing.T) {
	_, table, _ := strings.Cut(read(t, "docs/CHANGELOG.md"), "### Moved")
	table, _, _ = strings.Cut(table, "###")
	dirs := map[string]string{"ring": "rotation/ring", "rotation": "rotation", "rediskeys": "rotation/rediskeys", "keystore": "keystore"}
	name := regexp.MustCompile(`\b(ring|rotation|rediskeys|keystore)\.([A-Z]\w*)`)
	rows := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.Contains(cells[1], "`") {
			continue
		}
		rows++
		now := cells[2] + cells[3]
		if strings.Contains(cells[1], "; stay") {
			now += cells[1]
		}
		for _, found := range name.FindAllStringSubmatch(now, -1) {
			if !slices.Contains(exported(t, dirs[found[1]]), found[2]) {
				t.Errorf("docs/CHANGELOG.md: there is no %s", found[0])
			}
		}
	}
	if rows < 5 {
		t.Errorf("only %d moves were found", rows)
	}
}

// exported returns the top-level names that a package exports.
func exported(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				names = append(names, d.Name.Name)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						names = append(names, spec.Name.Name)
					case *ast.ValueSpec:
						for _, n := range spec.Names {
							names = append(names, n.Name)
						}
					}
				}
			}
		}
	}
	return names
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

// pages returns all Markdown files that are neither test data nor another project's.
func pages(t *testing.T) []string {
	t.Helper()
	var all []string
	walk(t, ".", func(file string) {
		if path.Ext(file) == ".md" && !strings.Contains(file, "testdata/") {
			all = append(all, file)
		}
	})
	return all
}

// proseOf returns a page without its blocks of code.
func proseOf(t *testing.T, page string) string {
	t.Helper()
	var prose strings.Builder
	inCode := false
	for line := range strings.Lines(read(t, page)) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			inCode = !inCode
		} else if !inCode {
			prose.WriteString(line)
		}
	}
	return prose.String()
}

// anchors returns the fragments by which the headings of a page are reached.
func anchors(t *testing.T, page string) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(proseOf(t, page)) {
		heading := strings.TrimLeft(line, "#")
		if heading == line {
			continue
		}
		all = append(all, anchor(heading))
	}
	return all
}

// anchor returns the fragment by which a heading is reached, as the usual hosts make it: in lower
// case, without punctuation, with hyphens for spaces.
func anchor(heading string) string {
	var a strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(heading)) {
		switch {
		case r == ' ':
			a.WriteByte('-')
		case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
			a.WriteRune(r)
		}
	}
	return a.String()
}

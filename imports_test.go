package keyturn_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/keyturn/keyturn"

// allowed is the map: which packages of ours each package may import outside its tests. A
// package that is not here yet needs a row, so that a change to the graph is an edit to see.
var allowed = map[string][]string{
	".":                           {},
	"keystore":                    {},
	"keystore/keystoretest":       {"keystore"},
	"keystore/jwks":               {"keystore", "internal/jose", "internal/unknown"},
	"keystore/jwks/jwkstest":      {},
	"cache":                       {},
	"verifier":                    {"keystore", "cache", "internal/jwt"},
	"verifier/verifiertest":       {"verifier", "keystore", "rotation"},
	"rotation":                    {"keystore", "rotation/ring", "rotation/internal/protocol", "rotation/internal/seal", "rotation/internal/token", "internal/unknown", "internal/jwk"},
	"rotation/ring":               {"keystore"},
	"rotation/internal/protocol":  {"rotation/ring"},
	"rotation/internal/seal":      {"rotation/ring", "keystore", "internal/jwk"},
	"rotation/internal/token":     {"keystore", "internal/jwt"},
	"rotation/rediskeys":          {"rotation", "rotation/ring"},
	"rotation/rotationtest":       {"rotation", "rotation/ring"},
	"middleware":                  {"verifier", "keystore", "internal/jwk"},
	"internal/jose":               {},
	"internal/jwk":                {"keystore"},
	"internal/jwt":                {},
	"internal/unknown":            {},
	"internal/mutants":            {},
	"internal/redistest":          {},
	"internal/words":              {},
	"docs/examples":               {},
	"docs/examples/fleet":         {everything},
	"docs/examples/issuer":        {everything},
	"docs/examples/reader":        {everything},
	"cmd/keyturn":                 {everything},
	"cmd/keyturn/internal/server": {everything},
	"bench":                       {everything},
	"bench/compare":               {everything},
	"bench/compare/report":        {},
	"bench/faults":                {everything},
}

const everything = "everything of ours"

// unreachable is what a service that only verifies must not get, however indirectly.
var unreachable = []string{
	"net/http",
	"github.com/lestrrat-go/jwx",
	"github.com/redis/go-redis",
	module + "/rotation",
	module + "/internal/jose",
}

// maxModules is how many nested modules there may be. One that is too many is a burden on
// whoever releases, one that is missing is a burden on whoever only verifies.
const maxModules = 5

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		name := short(p.ImportPath)
		row, ok := allowed[name]
		if !ok {
			t.Errorf("package %s has no row in the table", name)
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module) || slices.Contains(row, everything) {
				continue
			}
			if !slices.Contains(row, short(imp)) {
				t.Errorf("%s imports %s; it may import %q", name, short(imp), row)
			}
		}
	}
}

func TestKeystoreImportsOnlyTheStandardLibrary(t *testing.T) {
	for _, p := range packages(t) {
		if short(p.ImportPath) != "keystore" {
			continue
		}
		for _, imp := range p.Imports {
			if first, _, _ := strings.Cut(imp, "/"); strings.Contains(first, ".") {
				t.Errorf("keystore imports %s", imp)
			}
		}
	}
}

// jwx reads JWKs, in one place, so that leaving it is one package's work. bench/compare imports it
// to compare its verdicts on tokens with ours.
func TestOnlyJoseImportsJWX(t *testing.T) {
	for _, p := range packages(t) {
		if name := short(p.ImportPath); name == "internal/jose" || name == "bench/compare" {
			continue
		}
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if strings.HasPrefix(imp, "github.com/lestrrat-go/") {
				t.Errorf("%s imports %s", short(p.ImportPath), imp)
			}
		}
	}
}

func TestVerifierReaches(t *testing.T) {
	for _, dep := range strings.Fields(string(run(t, ".", "go", "list", "-deps", "./verifier"))) {
		for _, not := range unreachable {
			if strings.HasPrefix(dep+"/", not+"/") {
				t.Errorf("verifier reaches %s", dep)
			}
		}
	}
}

// A service that verifies, publishes or rotates keys links no module that is deprecated upstream.
func TestOnlyJWKSReachesJWX(t *testing.T) {
	for _, pkg := range []string{"verifier", "middleware", "rotation"} {
		for _, dep := range strings.Fields(string(run(t, ".", "go", "list", "-deps", "./"+pkg))) {
			if strings.HasPrefix(dep, "github.com/lestrrat-go/") {
				t.Errorf("%s reaches %s", pkg, dep)
			}
		}
	}
}

func TestNestedModules(t *testing.T) {
	if nested := modules(t)[1:]; len(nested) > maxModules {
		t.Errorf("%d nested modules, at most %d: %s", len(nested), maxModules, nested)
	}
}

// Time is an argument: whoever needs a clock has a Now in its Config, and time.Now is its default,
// named but not called.
func TestNobodyCallsTimeNow(t *testing.T) {
	for _, dir := range []string{"keystore", "cache", "verifier", "rotation", "middleware"} {
		for _, file := range goFiles(t, dir) {
			if isTest(file) {
				continue
			}
			eachCall(t, file, func(call *ast.CallExpr, _ []ast.Node, at token.Position) {
				if selector(call) == "time.Now" {
					t.Errorf("%s: calls time.Now; take the time as an argument", at)
				}
			})
		}
	}
}

// A test that cannot run must not look like one that passed. It may skip on somebody's laptop, but
// not in CI: docs/CONTRIBUTING.md has the few lines. What a fuzz target skips is not a test, what
// counts allocations runs a second time without the race detector, and CI never asks for -short.
func TestNobodySkipsInCI(t *testing.T) {
	for _, file := range goFiles(t, ".") {
		if !strings.HasSuffix(file, "_test.go") {
			continue
		}
		eachCall(t, file, func(call *ast.CallExpr, within []ast.Node, at token.Position) {
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
				return
			}
			for _, n := range within {
				switch n := n.(type) {
				case *ast.CallExpr:
					if fn, ok := n.Fun.(*ast.SelectorExpr); ok && fn.Sel.Name == "Fuzz" {
						return
					}
				case *ast.IfStmt:
					switch cond := n.Cond.(type) {
					case *ast.Ident:
						if cond.Name == "raceEnabled" {
							return
						}
					case *ast.CallExpr:
						if selector(cond) == "testing.Short" {
							return
						}
					}
				case *ast.FuncDecl:
					if asksForCI(n) {
						return
					}
				}
			}
			t.Errorf("%s: skips without asking for CI: see docs/CONTRIBUTING.md", at)
		})
	}
}

// asksForCI reports whether fn has os.Getenv("CI") in it.
func asksForCI(fn *ast.FuncDecl) bool {
	found := false
	ast.Inspect(fn, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && selector(call) == "os.Getenv" {
			arg, ok := call.Args[0].(*ast.BasicLit)
			found = found || ok && arg.Value == `"CI"`
		}
		return true
	})
	return found
}

// A listed is what `go list -json` says of a package.
type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// packages returns all packages of all modules here. Those with only test files are among them.
func packages(t *testing.T) []listed {
	t.Helper()
	var all []listed
	for _, dir := range modules(t) {
		dec := json.NewDecoder(bytes.NewReader(run(t, dir, "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")))
		for {
			var p listed
			if err := dec.Decode(&p); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
	}
	return all
}

// modules returns the folders with a go.mod: "." first.
func modules(t *testing.T) []string {
	t.Helper()
	var dirs []string
	walk(t, ".", func(file string) {
		if path.Base(file) == "go.mod" {
			dirs = append(dirs, path.Dir(file))
		}
	})
	slices.Sort(dirs)
	return dirs
}

// goFiles returns the Go files in and below dir.
func goFiles(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	walk(t, dir, func(file string) {
		if path.Ext(file) == ".go" {
			files = append(files, file)
		}
	})
	return files
}

func walk(t *testing.T, dir string, visit func(file string)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch name := d.Name(); {
		case d.IsDir() && (name == "node_modules" || strings.HasPrefix(name, ".") && name != "."):
			return fs.SkipDir
		case !d.IsDir():
			visit(filepath.ToSlash(file))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// isTest reports whether file is a test, or in a package that is only for tests.
func isTest(file string) bool {
	return strings.HasSuffix(file, "_test.go") || strings.HasSuffix(path.Dir(file), "test")
}

// eachCall calls visit with each call in a file and with the nodes around it, outermost first.
func eachCall(t *testing.T, file string, visit func(call *ast.CallExpr, within []ast.Node, at token.Position)) {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var within []ast.Node
	ast.Inspect(f, func(n ast.Node) bool {
		if n == nil {
			within = within[:len(within)-1]
			return true
		}
		if call, ok := n.(*ast.CallExpr); ok {
			visit(call, within, set.Position(call.Pos()))
		}
		within = append(within, n)
		return true
	})
}

// selector returns "time.Now" for a call of time.Now.
func selector(call *ast.CallExpr) string {
	if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
		if x, ok := sel.X.(*ast.Ident); ok {
			return x.Name + "." + sel.Sel.Name
		}
	}
	return ""
}

// short returns an import path as the table spells it.
func short(importPath string) string {
	if rest := strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/"); rest != "" {
		return rest
	}
	return "."
}

func run(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if e := new(exec.ExitError); errors.As(err, &e) {
			stderr = e.Stderr
		}
		t.Fatalf("%s in %s: %v\n%s", strconv.Quote(name+" "+strings.Join(args, " ")), dir, err, stderr)
	}
	return out
}

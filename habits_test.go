package keyturn_test

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// Time is an argument. A type that needs a clock has a field Now, whose default is time.Now: the
// code names that function, and does not call it.
func TestTimeNowIsOnlyADefault(t *testing.T) {
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

// A test that cannot run must not look like one that passed. It may skip on a laptop, but not in
// CI: docs/CONTRIBUTING.md shows how. Three skips are fine anywhere: of an input in a fuzz target;
// of an allocation count under the race detector, since CI also runs without it; and with -short,
// which CI never sets.
func TestSkipsAskForCI(t *testing.T) {
	for _, file := range goFiles(t, ".") {
		if !strings.HasSuffix(file, "_test.go") {
			continue
		}
		eachCall(t, file, func(call *ast.CallExpr, around []ast.Node, at token.Position) {
			sel, ok := call.Fun.(*ast.SelectorExpr)
			skips := ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name)
			if skips && !slices.ContainsFunc(around, excusesSkip) {
				t.Errorf("%s: skips without asking for CI: see docs/CONTRIBUTING.md", at)
			}
		})
	}
}

// excusesSkip reports whether n, a node around a skip, makes it one of those that are fine.
func excusesSkip(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.CallExpr:
		fn, ok := n.Fun.(*ast.SelectorExpr)
		return ok && fn.Sel.Name == "Fuzz"
	case *ast.IfStmt:
		switch cond := n.Cond.(type) {
		case *ast.Ident:
			return cond.Name == "raceEnabled"
		case *ast.CallExpr:
			return selector(cond) == "testing.Short"
		}
	case *ast.FuncDecl:
		return asksForCI(n)
	}
	return false
}

// asksForCI reports whether fn calls os.Getenv("CI").
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

// TestSecretFilesArePrivate: each command of the documentation and the help that writes a secret to
// a file makes one that other users cannot read.
func TestSecretFilesArePrivate(t *testing.T) {
	said := 0
	walk(t, ".", func(file string) {
		if strings.HasSuffix(file, "_test.go") || !strings.HasSuffix(file, ".go") && !strings.HasSuffix(file, ".md") {
			return
		}
		for line := range strings.Lines(read(t, file)) {
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

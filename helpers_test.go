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
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/keyturn/keyturn"

// A listed is the part of the output of `go list -json` for a package that tests need.
type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// packages returns all packages of all modules here, also those that have only test files.
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

// walk calls visit with each file, node_modules and hidden folders apart.
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

// isTest reports whether file is a test, or of a package for tests.
func isTest(file string) bool {
	return strings.HasSuffix(file, "_test.go") || strings.HasSuffix(path.Dir(file), "test")
}

// eachCall calls visit with each call in a file and with the nodes around it, outermost first.
func eachCall(t *testing.T, file string, visit func(call *ast.CallExpr, around []ast.Node, at token.Position)) {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var around []ast.Node
	ast.Inspect(f, func(n ast.Node) bool {
		if n == nil {
			around = around[:len(around)-1]
			return true
		}
		if call, ok := n.(*ast.CallExpr); ok {
			visit(call, around, set.Position(call.Pos()))
		}
		around = append(around, n)
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

// run returns the output of a command that it runs in dir.
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

// read returns the text of a file.
func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

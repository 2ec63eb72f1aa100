package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A measured is a folder of Go files: how much of it is comments, how long its functions are, and
// which exported names have no comment.
type measured struct {
	lines, comments int
	functions       []function
	exported        int      // top-level names, and methods of exported types, without aliases
	undocumented    []string // aliases included
}

// A function is one with a body, in lines from its func to its closing brace.
type function struct {
	name  string
	at    token.Position
	lines int
}

// density is the share of lines that hold nothing but a comment, in percent.
func (m *measured) density() float64 { return 100 * float64(m.comments) / float64(max(m.lines, 1)) }

// lengths returns the median, the 90th percentile and the maximum of the functions' lengths.
func (m *measured) lengths() (p50, p90, longest int) {
	var all []int
	for _, f := range m.functions {
		all = append(all, f.lines)
	}
	if len(all) == 0 {
		return 0, 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], all[min(len(all)*9/10, len(all)-1)], all[len(all)-1]
}

// measure reads the Go files of one folder: its tests, or the others.
func measure(dir string, tests bool) (*measured, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	m := new(measured)
	set := token.NewFileSet()
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") != tests {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, err := parser.ParseFile(set, name, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		m.addLines(string(src))
		for _, d := range f.Decls {
			m.addDecl(set, d)
		}
	}
	return m, nil
}

func (m *measured) addLines(src string) {
	for line := range strings.Lines(src) {
		m.lines++
		if strings.HasPrefix(strings.TrimSpace(line), "//") {
			m.comments++
		}
	}
}

func (m *measured) addDecl(set *token.FileSet, d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Body != nil {
			at := set.Position(d.Pos())
			m.functions = append(m.functions, function{d.Name.Name, at, set.Position(d.End()).Line - at.Line + 1})
		}
		if receiver := receiverName(d); d.Name.IsExported() && (receiver == "" || ast.IsExported(receiver)) {
			m.addName(set.Position(d.Pos()), strings.TrimPrefix(receiver+"."+d.Name.Name, "."), false, d.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() {
					m.addName(set.Position(spec.Pos()), spec.Name.Name, spec.Assign.IsValid(), d.Doc, spec.Doc, spec.Comment)
				}
			case *ast.ValueSpec:
				for i, name := range spec.Names {
					if name.IsExported() {
						alias := i < len(spec.Values) && isNameOf(spec.Values[i], name.Name)
						m.addName(set.Position(spec.Pos()), name.Name, alias, d.Doc, spec.Doc, spec.Comment)
					}
				}
			}
		}
	}
}

// isNameOf reports whether e is another package's name, so that the constant or variable of the same
// name is an alias of it.
func isNameOf(e ast.Expr, name string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == name
}

// addName counts an exported name. One of the comments has to say something.
func (m *measured) addName(at token.Position, name string, alias bool, docs ...*ast.CommentGroup) {
	if !alias {
		m.exported++
	}
	if !slices.ContainsFunc(docs, func(c *ast.CommentGroup) bool { return c.Text() != "" }) {
		m.undocumented = append(m.undocumented, fmt.Sprintf("%s: %s", at, name))
	}
}

// receiverName returns the type that d is a method of, or "".
func receiverName(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	t := d.Recv.List[0].Type
	for {
		switch of := t.(type) {
		case *ast.StarExpr:
			t = of.X
		case *ast.IndexExpr:
			t = of.X
		case *ast.IndexListExpr:
			t = of.X
		case *ast.Ident:
			return of.Name
		default:
			return ""
		}
	}
}

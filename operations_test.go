package keyturn_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestOperations: whatever the packages that keep keys in step can say has a row in
// docs/operations.md, with what happened and what to do.
func TestOperations(t *testing.T) {
	said := seen(t, "docs/operations.md")
	for _, text := range spokenTexts(t) {
		if !slices.ContainsFunc(text.fragments, func(f string) bool { return strings.Contains(said, f) }) {
			t.Errorf("%s: no row of docs/operations.md begins with one of %q", text.at, text.fragments)
		}
	}
}

// seen returns the first cells of all rows of a page's tables that have three. It is an
// error if one of the others is empty.
func seen(t *testing.T, page string) string {
	t.Helper()
	doc, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for line := range strings.Lines(string(doc)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 3 || slices.ContainsFunc(cells, func(c string) bool { return strings.TrimSpace(c) == "" }) {
			t.Errorf("%s: not what you see, what happened and what to do: %s", page, line)
		}
		said.WriteString(cells[0] + "\n")
	}
	return said.String()
}

// A spoken text is one that the code can say, by what is always the same in it, and where.
type spoken struct {
	fragments []string
	at        string
}

// unspoken are the texts that need no row, by how they begin: they come up while a program
// is written, or a command line, and say themselves what to change.
var unspoken = []string{
	"Config.", "SignerConfig.", "NewSigner needs", "NewRotator needs", "the claims, a", "want a JSON object",
	"a tenant of %d bytes", "material for", "not plain",
}

// wrapped are the files whose texts stand behind one of the exported errors, and say only
// what is wrong with one field of a ring, or one line of a KEK.
var wrapped = []string{"codec.go", "seal.go", "material.go", "kek.go", "claims.go", "change.go", "signingkey.go"}

func spokenTexts(t *testing.T) []spoken {
	t.Helper()
	var all []spoken
	add := func(value string, at token.Position) {
		for _, prefix := range []string{"rotation: ", "rediskeys: ", "keystore: "} {
			value = strings.TrimPrefix(value, prefix)
		}
		unspoken := slices.ContainsFunc(unspoken, func(p string) bool { return strings.HasPrefix(value, p) })
		if f := fragments(value); !unspoken && len(f) > 0 {
			all = append(all, spoken{f, at.String()})
		}
	}
	for _, dir := range []string{"rotation", "rotation/ring", "rotation/rediskeys", "keystore", "keystore/jwks"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			texts(f, func(name, value string, pos token.Pos) {
				exported := strings.HasPrefix(name, "Err")
				switch {
				case dir == "keystore/jwks" && name != "Step",
					dir == "keystore" && !exported,
					dir == "rotation/rediskeys" && !exported && name != "errUnexpected" && name != "code",
					dir == "rotation" && !exported && slices.Contains(wrapped, filepath.Base(file)):
				case name == "Step":
					all = append(all, spoken{[]string{"`jwks: " + value + ": "}, set.Position(pos).String()})
				case name == "code" && strings.ToUpper(value) == value: // else it is one in words, of an old version
					all = append(all, spoken{[]string{"`" + value + "`"}, set.Position(pos).String()})
				case name == "code":
				default:
					add(value, set.Position(pos))
				}
			})
		}
	}
	if len(all) < 70 {
		t.Fatalf("only %d texts were found", len(all))
	}
	return all
}

// policyText returns the text of a PolicyError: its Reason is said of a field, or of the policy.
func policyText(n *ast.CompositeLit, text func(ast.Expr) string) string {
	parts := make(map[string]string)
	for _, e := range n.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			parts[identifier(kv.Key)] = text(kv.Value)
		}
	}
	if _, between := parts["Inequality"]; between {
		return "the policy does not hold %s: " + parts["Reason"]
	}
	return "Policy." + parts["Field"] + " " + parts["Reason"]
}

// texts calls visit with each text that a file gives to errors.New, fmt.Errorf, refuse, an Error
// or a RefusedError. A package's variable gives its name; so does a [jwks.Step], and a code that
// Redis answers with.
func texts(f *ast.File, visit func(name, value string, pos token.Pos)) {
	var name string
	consts := make(map[string]string)
	text := func(e ast.Expr) string { return literal(e, consts) }
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == len(spec.Names) {
			for i, name := range spec.Names {
				consts[name.Name] = literal(spec.Values[i], nil)
			}
		}
		return true
	})
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			name = ""
		case *ast.ValueSpec:
			name = n.Names[0].Name
			if id, ok := n.Type.(*ast.Ident); ok && id.Name == "Step" {
				visit("Step", text(n.Values[0]), n.Pos())
			}
		case *ast.CompositeLit:
			if identifier(n.Type) == "PolicyError" {
				visit("", policyText(n, text), n.Pos())
				return false
			}
			if len(n.Elts) == 2 && strings.HasPrefix(identifier(n.Elts[1]), "Err") {
				visit("code", text(n.Elts[0]), n.Pos())
			}
		case *ast.KeyValueExpr:
			if key := identifier(n.Key); key == "Reason" || key == "Text" {
				visit("", text(n.Value), n.Pos())
			}
		case *ast.CallExpr:
			switch callee := selector(n); {
			case callee == "errors.New", callee == "fmt.Errorf":
				visit(name, text(n.Args[0]), n.Pos())
			case strings.HasSuffix(callee, ".refuse") && len(n.Args) == 3:
				visit("", text(n.Args[1]), n.Pos())
			}
		}
		return true
	})
}

func identifier(e ast.Expr) string {
	if id, ok := e.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// literal returns the text of an expression: what is in quotes or one of consts, added up, or
// the format of a call of Sprintf.
func literal(e ast.Expr, consts map[string]string) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value)
		return text
	case *ast.Ident:
		return consts[e.Name]
	case *ast.BinaryExpr:
		return literal(e.X, consts) + literal(e.Y, consts)
	case *ast.CallExpr:
		if selector(e) == "fmt.Sprintf" {
			return literal(e.Args[0], consts)
		}
	}
	return ""
}

// verb finds what is not always the same, and where one part of a text ends.
var verb = regexp.MustCompile(`%[-+#.0-9]*[a-zA-Z]|[:;,] `)

// fragments returns the parts of a text that are always the same, without those too short
// to find it by.
func fragments(text string) []string {
	const short = 12
	var all []string
	for _, part := range verb.Split(text, -1) {
		if part = strings.Trim(part, " :;,()"); len(part) >= short || part != "" && part == text {
			all = append(all, part)
		}
	}
	return all
}

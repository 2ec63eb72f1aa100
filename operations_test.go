package keyturn_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/backup"
)

// TestOperations checks that each error of the packages that keep keys in sync is quoted by a
// section of docs/operations.md.
func TestOperations(t *testing.T) {
	var said strings.Builder
	for _, s := range sections(t) {
		said.WriteString(s.quotes + "\n")
	}
	for _, text := range spokenTexts(t) {
		if !slices.ContainsFunc(text.fragments, func(f string) bool { return strings.Contains(said.String(), f) }) {
			t.Errorf("%s: no section of docs/operations.md quotes one of %q", text.at, text.fragments)
		}
	}
}

// TestOperationsSections checks that each section that quotes an error says what happened, has a
// command to paste, and is reached from the index by symptom.
func TestOperationsSections(t *testing.T) {
	page := read(t, "docs/operations.md")
	quoting := 0
	for _, s := range sections(t) {
		if s.quotes == "" {
			continue
		}
		quoting++
		if len(strings.Fields(s.prose)) < 8 {
			t.Errorf("the section %q does not say what happened", s.heading)
		}
		if len(s.commands) == 0 {
			t.Errorf("the section %q has no command", s.heading)
		}
		index := s.within // a chapter that the index names as a whole, or the section itself
		if !strings.Contains(page, "](#"+anchor(s.heading)+") |") && !strings.Contains(page, "](#"+anchor(index)+") |") {
			t.Errorf("the index by symptom leads neither to %q nor to %q", s.heading, index)
		}
	}
	if quoting < 30 {
		t.Errorf("only %d sections quote an error", quoting)
	}
}

// TestOperationsCommands checks that the command understands each line of docs/operations.md that
// calls it. No Redis listens, so it may well say that it cannot tell.
func TestOperationsCommands(t *testing.T) {
	t.Setenv("KEYTURN_KEK_FILE", "no-such-file") // of the shell in which an operator has worked
	t.Setenv("KEYTURN_REDIS_PASSWORD", "wrong")
	program := filepath.Join(t.TempDir(), "keyturn")
	run(t, ".", "go", "build", "-o", program, "./cmd/keyturn")
	folder := t.TempDir()
	backupFile(t, filepath.Join(folder, "rings.ktb"))
	if err := os.WriteFile(filepath.Join(folder, "old.secret"), []byte("a secret of an old program, 32 bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	vars := strings.NewReplacer("$REDIS", "redis://127.0.0.1:1", "$TOKEN", "a.b.c", "$T", "acme", "$PENDING_KID", "one", "$KID", "two",
		"https://login.acme.example", "https://127.0.0.1:1", "--issuer-url", "--allow-loopback --issuer-url", `"`, "")
	lines := 0
	for _, s := range sections(t) {
		for _, line := range s.commands {
			line, _, _ = strings.Cut(line, " #")
			args := strings.Fields(vars.Replace(line))
			if len(args) == 0 || args[0] != "keyturn" {
				continue
			}
			lines++
			cmd := exec.CommandContext(t.Context(), program, args[1:]...)
			cmd.Dir = folder
			cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KEYTURN_") })
			cmd.Env = append(cmd.Env, "KEYTURN_KEK=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY=")
			if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() == 2 {
				t.Errorf("docs/operations.md: %s: %s", line, out)
			}
		}
	}
	if lines < 20 {
		t.Errorf("only %d lines call the command", lines)
	}
}

// backupFile writes a backup without rings.
func backupFile(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := backup.NewWriter(f, time.Now())
	if err == nil {
		_, err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A section is a heading of docs/operations.md and what follows, up to the next one.
type section struct {
	heading, within string // within: the chapter it is in
	quotes          string // the errors, on lines that begin with >, as one line
	prose           string
	commands        []string // of its blocks of code
}

func sections(t *testing.T) []section {
	t.Helper()
	var all []section
	chapter, inCode := "", false
	for line := range strings.Lines(read(t, "docs/operations.md")) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "```") {
			inCode = !inCode
			continue
		}
		if heading := strings.TrimLeft(line, "#"); !inCode && heading != line {
			heading = strings.TrimSpace(heading)
			if strings.HasPrefix(line, "## ") {
				chapter = heading
			}
			all = append(all, section{heading: heading, within: chapter})
			continue
		}
		s := &all[len(all)-1]
		switch quote, isQuote := strings.CutPrefix(line, "> "); {
		case inCode:
			s.commands = append(s.commands, line)
		case isQuote:
			s.quotes += quote + " "
		default:
			s.prose += line + "\n"
		}
	}
	return all
}

// A spoken text is one that the code can say: its constant parts, and where it stands.
type spoken struct {
	fragments []string
	at        string
}

// unspoken are the texts that need no section, by how they begin. They come up while a program or a
// command line is written, and say themselves what to change.
var unspoken = []string{
	"Config.", "SignerConfig.", "NewSigner needs", "NewRotator needs", "the claims, a", "want a JSON object",
	"a tenant of %d bytes", "material for", "not plain",
}

// wrapped are the files whose texts stand behind one of the exported errors, and say only
// what is wrong with one field of a ring, or one line of a KEK.
var wrapped = []string{"keks.go", "write.go"}

func spokenTexts(t *testing.T) []spoken {
	t.Helper()
	var all []spoken
	add := func(value string, at token.Position) {
		for _, prefix := range []string{"rotation: ", "rediskeys: ", "keystore: ", "revocations: "} {
			value = strings.TrimPrefix(value, prefix)
		}
		unspoken := slices.ContainsFunc(unspoken, func(p string) bool { return strings.HasPrefix(value, p) })
		if f := fragments(value); !unspoken && len(f) > 0 {
			all = append(all, spoken{f, at.String()})
		}
	}
	for _, dir := range []string{"rotation", "rotation/ring", "rotation/internal/protocol", "rotation/internal/seal", "rotation/rediskeys", "keystore", "keystore/jwks", "verifier/revocations"} {
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
					dir == "rotation/internal/seal" && !exported,
					dir == "verifier/revocations" && !exported,
					dir == "rotation/rediskeys" && !exported && name != "errUnexpected" && name != "code",
					dir == "rotation" && !exported && slices.Contains(wrapped, filepath.Base(file)):
				case name == "Step":
					all = append(all, spoken{[]string{"`jwks: " + value + ": "}, set.Position(pos).String()})
				case name == "code" && dir != "rotation/rediskeys": // a list of errors
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

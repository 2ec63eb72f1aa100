package keyturn_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// allowed is the map of the house: the packages of ours that each package may import outside its
// tests. A new package needs a row, so that every change of the graph is an edit to this table.
var allowed = map[string][]string{
	".":                                   {},
	"keystore":                            {},
	"keystore/keystoretest":               {"keystore"},
	"keystore/jwks":                       {"keystore", "keystore/jwks/internal/queue", "internal/jose", "internal/unknown"},
	"keystore/jwks/internal/queue":        {"internal/unknown"},
	"keystore/jwks/jwkstest":              {},
	"cache":                               {},
	"verifier":                            {"keystore", "cache", "internal/jwt", "internal/unknown", "verifier/internal/trie"},
	"verifier/internal/trie":              {},
	"verifier/verifiertest":               {"verifier", "keystore", "rotation"},
	"verifier/revocations":                {"verifier", "keystore", "rotation", "rotation/ring", "rotation/rediskeys", "verifier/revocations/internal/codec", "verifier/revocations/internal/rules", "verifier/revocations/internal/table"},
	"verifier/revocations/internal/codec": {"verifier/revocations/internal/table"},
	"verifier/revocations/internal/rules": {"verifier/revocations/internal/codec", "verifier/revocations/internal/table"},
	"verifier/revocations/internal/table": {},
	"rotation":                            {"keystore", "rotation/ring", "rotation/store", "rotation/internal/held", "rotation/internal/protocol", "rotation/internal/seal", "rotation/internal/synced", "rotation/internal/token", "internal/jwk"},
	"rotation/ring":                       {"keystore"},
	"rotation/internal/protocol":          {"keystore", "rotation/ring"},
	"rotation/store":                      {"rotation/ring"},
	"rotation/backup":                     {"rotation/ring", "rotation/store"},
	"rotation/internal/held":              {"rotation/ring", "rotation/store", "rotation/internal/protocol", "rotation/internal/seal", "keystore"},
	"rotation/internal/seal":              {"rotation/ring", "keystore", "internal/jwk"},
	"rotation/internal/synced":            {"keystore", "rotation/ring", "rotation/store", "rotation/internal/held", "rotation/internal/protocol", "rotation/internal/seal", "rotation/internal/snapshot", "internal/unknown"},
	"rotation/internal/snapshot":          {},
	"rotation/internal/token":             {"keystore", "internal/jwt"},
	"rotation/rediskeys":                  {"rotation", "rotation/ring"},
	"rotation/rotationtest":               {"rotation", "rotation/ring"},
	"middleware":                          {"verifier", "keystore", "internal/fold", "internal/jwk", "internal/jwt"},
	"metrics":                             {"verifier", "cache", "rotation", "rotation/ring", "keystore/jwks"},
	"internal/jose":                       {},
	"internal/jwk":                        {},
	"internal/fold":                       {},
	"internal/freeport":                   {},
	"internal/jwt":                        {},
	"internal/unknown":                    {},
	"internal/mutants":                    {},
	"internal/providertest":               {},
	"internal/proxytest":                  {"internal/freeport"},
	"internal/redistest":                  {"internal/freeport"},
	"internal/words":                      {},
	"docs/examples":                       {},
	"docs/examples/auth0":                 {everything},
	"docs/examples/adapters":              {"middleware", "verifier", "docs/examples/adapters/testdata/greetings"},
	"docs/examples/elasticache":           {"rotation/rediskeys"},
	"docs/examples/fleet":                 {everything},
	"docs/examples/issuer":                {everything},
	"docs/examples/reader":                {everything},
	"docs/examples/tenants":               {everything},
	"docs/prometheus":                     {},
	"docs/examples/providers":             {},
	"cmd/keyturn":                         {everything},
	"cmd/keyturn/internal/doctor":         {everything},
	"cmd/keyturn/internal/drill":          {},
	"cmd/keyturn/internal/server":         {everything},
	"bench":                               {everything},
	"bench/compare":                       {everything},
	"bench/edge":                          {},
	"bench/compare/report":                {},
	"bench/faults":                        {everything},
	"bench/scale":                         {everything},
	"bench/wycheproof":                    {everything},
}

const everything = "everything of ours"

// order is the order of the folders, the lowest first. A package imports from its own folder and
// from lower ones, so no arrow between folders runs back up. internal is no room of its own: its
// packages stand where their users need them.
var order = []string{
	"internal/jose", "internal/jwt", "internal/unknown", "internal/fold",
	"keystore", "cache", "internal/jwk",
	"rotation", "verifier", "middleware", "metrics",
	"internal/freeport", "internal/redistest", "internal/providertest", "internal/proxytest", "internal/mutants", "internal/words",
	"cmd", "bench", "docs", ".",
}

const (
	jwx   = "github.com/lestrrat-go"
	redis = "github.com/redis/go-redis"
)

// unreachable has the packages that a package must not import, not even through others: a service
// that only verifies, or only rotates, does not pay for them.
var unreachable = map[string][]string{
	"verifier":   {jwx, redis, "net/http", module + "/rotation", module + "/internal/jose"},
	"middleware": {jwx, redis, module + "/rotation", module + "/internal/jose"},
	"rotation":   {jwx, redis, "net/http", module + "/verifier", module + "/internal/jose"},
}

// pure are the packages that decide from their arguments alone: a model checker can call them. They
// import nothing of impure.
var (
	pure   = []string{"rotation/ring", "rotation/internal/protocol"}
	impure = []string{"bytes", "context", "crypto", "encoding", "io", "log", "math/rand", "net", "os", "sync"}
)

// onlyImporter has the packages that have one importer, outside tests. It makes leaving jwx the
// work of one package. bench/compare compares its verdicts with ours, in a module of its own.
var onlyImporter = map[string]string{
	jwx:                       "internal/jose",
	module + "/internal/jose": "keystore/jwks",
}

// maxModules bounds the nested modules. Each one costs work at a release, and each missing one
// costs users dependencies that they do not need.
const maxModules = 5

func TestImports(t *testing.T) {
	stale := maps.Clone(allowed)
	for _, p := range packages(t) {
		name := short(p.ImportPath)
		delete(stale, name)
		row, ok := allowed[name]
		if !ok {
			t.Errorf("package %s has no row in the table", name)
			continue
		}
		for _, imp := range p.Imports {
			if isOurs(imp) && !slices.Contains(row, everything) && !slices.Contains(row, short(imp)) {
				t.Errorf("%s imports %s; it may import %q", name, short(imp), row)
			}
		}
	}
	for name := range stale {
		t.Errorf("the table has a row for %s, which is no package", name)
	}
}

func TestFoldersAreInOrder(t *testing.T) {
	for _, p := range packages(t) {
		from := folder(short(p.ImportPath))
		height := slices.Index(order, from)
		if height < 0 {
			t.Errorf("the folder %s has no place in the order", from)
		}
		for _, imp := range p.Imports {
			if to := folder(short(imp)); isOurs(imp) && to != from && slices.Index(order, to) > height {
				t.Errorf("%s imports %s, which is in a higher folder", short(p.ImportPath), short(imp))
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

func TestOnlyImporter(t *testing.T) {
	for _, p := range packages(t) {
		name := short(p.ImportPath)
		for _, imp := range p.Imports {
			for of, only := range onlyImporter {
				if within(imp, of) && name != only && name != "bench/compare" {
					t.Errorf("%s imports %s; only %s may", name, imp, only)
				}
			}
		}
		for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
			if within(imp, jwx) && name != "internal/jose" && name != "bench/compare" {
				t.Errorf("a test of %s imports %s", name, imp)
			}
		}
	}
}

func TestReach(t *testing.T) {
	for pkg, list := range unreachable {
		for _, dep := range strings.Fields(string(run(t, ".", "go", "list", "-deps", "./"+pkg))) {
			if slices.ContainsFunc(list, func(not string) bool { return within(dep, not) }) {
				t.Errorf("%s reaches %s", pkg, dep)
			}
		}
	}
}

func TestPurePackages(t *testing.T) {
	for _, p := range packages(t) {
		if !slices.Contains(pure, short(p.ImportPath)) {
			continue
		}
		for _, imp := range p.Imports {
			if slices.ContainsFunc(impure, func(not string) bool { return within(imp, not) }) {
				t.Errorf("%s imports %s", short(p.ImportPath), imp)
			}
		}
	}
}

func TestNestedModules(t *testing.T) {
	if nested := modules(t)[1:]; len(nested) > maxModules {
		t.Errorf("%d nested modules, at most %d: %s", len(nested), maxModules, nested)
	}
}

// isOurs reports whether an import path is of this repository.
func isOurs(importPath string) bool { return within(importPath, module) }

// within reports whether an import path is dir or below it.
func within(importPath, dir string) bool { return strings.HasPrefix(importPath+"/", dir+"/") }

// folder returns the folder of a package, as order spells it.
func folder(name string) string {
	first, rest, _ := strings.Cut(name, "/")
	if first == "internal" {
		second, _, _ := strings.Cut(rest, "/")
		return first + "/" + second
	}
	return first
}

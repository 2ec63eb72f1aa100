// Package providers_test runs the Go lines of docs/providers.md against issuers of each provider's
// shape. The YAML of the page is run by cmd/keyturn.
package providers_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/providertest"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// A setUp is what the Go lines of a provider take.
type setUp struct {
	client *jwks.Client
	env    map[string]string
	files  map[string]string // paths, by those on the page
}

// lines are the Go lines of the page by name.
var lines = map[string]func(setUp) ([]verifier.Tenant, error){
	"auth0": alone(auth0), "okta": alone(okta), "entraDirectory": alone(entraDirectory), "entraAny": alone(entraAny), "google": alone(google),
	"apple": alone(apple), "cognitoID": alone(cognitoID), "cognitoAccess": alone(cognitoAccess), "firebase": alone(firebase),
	"supabase": alone(supabase), "clerk": alone(clerk), "keycloak": alone(keycloak), "keycloakInCluster": alone(keycloakInCluster),
	"linkedIn": alone(linkedIn), "githubActions": alone(githubActions), "gitlab": alone(gitlab), "cloudflareAccess": alone(cloudflareAccess),
	"googleIAP": alone(googleIAP), "awsALB": alone(awsALB), "spiffe": alone(spiffe),
	"entraCustomers": func(s setUp) ([]verifier.Tenant, error) {
		return entraCustomers(s.client, map[string]string{"acme": "aaaabbbb-0000-cccc-1111-dddd2222eeee", "globex": "bbbbcccc-1111-dddd-2222-eeee3333ffff"})
	},
	"supabaseMoving": func(s setUp) ([]verifier.Tenant, error) {
		return list(supabaseMoving(s.client, []byte(s.env["SUPABASE_JWT_SECRET"])))
	},
	"oracle": func(s setUp) ([]verifier.Tenant, error) {
		return list(oracle(s.client, s.files["/run/secrets/idcs-token"]))
	},
	"kubernetes": func(s setUp) ([]verifier.Tenant, error) {
		return list(kubernetes(s.client, s.files["/var/run/secrets/kubernetes.io/serviceaccount/token"]))
	},
	"mastra": func(s setUp) ([]verifier.Tenant, error) { return list(mastra([]byte(s.env["MASTRA_JWT_SECRET"]))) },
}

// handlers are those of providers whose token is not in Authorization.
var handlers = map[string]func(*verifier.Verifier, http.Handler) http.Handler{
	"cloudflareAccess": cloudflareHandler, "googleIAP": iapHandler, "awsALB": albHandler,
}

func alone(f func(*jwks.Client) (verifier.Tenant, error)) func(setUp) ([]verifier.Tenant, error) {
	return func(s setUp) ([]verifier.Tenant, error) { return list(f(s.client)) }
}

func list(t verifier.Tenant, err error) ([]verifier.Tenant, error) { return []verifier.Tenant{t}, err }

// TestProviders: the Go lines of each provider accept its tokens, and refuse the nearest wrong ones
// for the right reason.
func TestProviders(t *testing.T) {
	for _, p := range providertest.All() {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			v := newVerifier(t, newSetUp(t, providertest.NewNetwork(t, p), p), p)
			for _, token := range p.Tokens {
				verdict(t, v, token)
			}
			handle(t, v, p)
		})
	}
}

// newSetUp opens a client in n, and writes the files of p.
func newSetUp(t *testing.T, n *providertest.Network, p providertest.Provider) setUp {
	t.Helper()
	client := jwks.New(jwks.Config{TLS: n.TLS(), LookupNetIP: n.LookupNetIP, DialContext: n.DialContext})
	t.Cleanup(func() { client.Close(context.Background()) })
	s := setUp{client: client, env: p.Env, files: make(map[string]string)}
	for path, text := range p.Files {
		s.files[path] = filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(s.files[path], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// newVerifier runs the Go lines of p.
func newVerifier(t *testing.T, s setUp, p providertest.Provider) *verifier.Verifier {
	t.Helper()
	if lines[p.Name] == nil {
		t.Fatal("the page has no Go lines")
	}
	tenants, err := lines[p.Name](s)
	if err != nil {
		t.Fatal(err)
	}
	v, err := verifier.New(verifier.Config{Tenants: tenants})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func verdict(t *testing.T, v *verifier.Verifier, token providertest.Token) {
	t.Helper()
	got, err := v.Verify(t.Context(), token.Text)
	if bad := new(verifier.Error); errors.As(err, &bad) {
		if string(bad.Reason) != token.Reason {
			t.Errorf("%s: refused, reason %q, want %q: %v", token.Name, bad.Reason, token.Reason, err)
		}
		return
	}
	switch {
	case err != nil:
		t.Errorf("%s: %v", token.Name, err)
	case token.Reason != "":
		t.Errorf("%s: accepted, want reason %q", token.Name, token.Reason)
	case got.Tenant() != token.Tenant || got.Subject() != token.Subject:
		t.Errorf("%s: tenant %q, subject %q, want %q, %q", token.Name, got.Tenant(), got.Subject(), token.Tenant, token.Subject)
	}
}

// handle presents the tokens to the handler of the page: in the provider's header, or else as bearer
// tokens.
func handle(t *testing.T, v *verifier.Verifier, p providertest.Provider) {
	t.Helper()
	protect, ok := handlers[p.Name]
	if ok != (p.Header != "") {
		t.Errorf("the page has a handler: %v; the token is in the header %q", ok, p.Header)
	}
	if !ok {
		protect = func(v *verifier.Verifier, next http.Handler) http.Handler { return middleware.Require(v)(next) }
	}
	h := protect(v, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	status := func(token string) int {
		r := httptest.NewRequest("GET", "/", nil)
		switch {
		case token == "":
		case p.Header != "":
			r.Header.Set(p.Header, token)
			r.Header.Set("Authorization", "Bearer of.the.client") // proxies pass it on
		default:
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	for _, token := range p.Tokens {
		want := http.StatusOK
		if token.Reason != "" {
			want = http.StatusUnauthorized
		}
		if got := status(token.Text); got != want {
			t.Errorf("%s: status %d, want %d", token.Name, got, want)
		}
	}
	if got := status(""); got != http.StatusUnauthorized {
		t.Errorf("no token: status %d", got)
	}
}

// TestPage: the Go blocks of the page are the program of docs/examples/auth0 and the functions of
// lines_test.go, each of which is run.
func TestPage(t *testing.T) {
	page, lines, program := read(t, "../../providers.md"), read(t, "lines_test.go"), read(t, "../auth0/main.go")
	var blocks strings.Builder
	for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(page, -1) {
		blocks.WriteString(block[1] + "\n")
	}
	function := regexp.MustCompile(`(?ms)^func (\w+)\(.*?^}\n`)
	tested := make(map[string]string)
	for _, f := range function.FindAllStringSubmatch(program+lines, -1) {
		tested[f[1]] = f[0]
	}
	for _, f := range function.FindAllStringSubmatch(blocks.String(), -1) {
		if tested[f[1]] != f[0] {
			t.Errorf("the page has another %s than the tested one:\n%s", f[1], tested[f[1]])
		}
		delete(tested, f[1])
	}
	for name := range tested {
		t.Errorf("the page lacks %s", name)
	}
	if imports := regexp.MustCompile(`(?s)\nimport \(.*?\n\)\n`).FindString(program); !strings.Contains(page, imports) || imports == "" {
		t.Errorf("the page has other imports than docs/examples/auth0:%s", imports)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

package examples_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
)

// TestTenantsOfAFile adds, suspends and removes tenants while the service runs. A bad row changes nothing.
func TestTenantsOfAFile(t *testing.T) {
	t.Parallel()
	s := &site{t: t, dir: t.TempDir()}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", s.dir, "./tenants").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := filepath.Join(s.dir, "tenants.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	const acme = `{"id": "acme", "issuer": "https://acme.example", "audience": "api", "secret_file": "acme.secret"}`
	const globex = `{"id": "globex", "issuer": "https://globex.example", "audience": "api", "secret_file": "globex.secret"}`
	suspended := strings.Replace(globex, "}", `, "suspended": true}`, 1)
	a, g := s.signed("acme"), s.signed("globex")
	write("[" + acme + "]")
	url := s.start("tenants", "-tenants", file, "-every", "20ms")
	s.becomes(url, a, http.StatusOK)
	s.becomes(url, g, http.StatusUnauthorized)
	write("[" + acme + "," + globex + "]")
	s.becomes(url, g, http.StatusOK)
	write("[" + acme + "," + suspended + "]")
	s.becomes(url, g, http.StatusUnauthorized)
	write("[" + globex + `,{"id": "acme"}]`) // acme's row is bad, and that of globex counts
	s.becomes(url, g, http.StatusOK)
	s.becomes(url, a, http.StatusOK)
	write("[" + acme + "]")
	s.becomes(url, g, http.StatusUnauthorized)
	s.becomes(url, a, http.StatusOK)
}

// signed makes a secret for the tenant, and returns a token.
func (s *site) signed(tenant string) string {
	s.t.Helper()
	secret := strings.Repeat(tenant, 8)
	if err := os.WriteFile(filepath.Join(s.dir, tenant+".secret"), []byte(secret+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	signer, err := rotation.NewStaticSigner(keystore.ID{Tenant: tenant}, keystore.HS256, []byte(secret), rotation.SignerConfig{})
	if err != nil {
		s.t.Fatal(err)
	}
	token, err := signer.Sign(s.t.Context(), tenant, map[string]any{"iss": "https://" + tenant + ".example", "aud": "api", "sub": "ann"})
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// becomes waits until the service answers with that status.
func (s *site) becomes(url, token string, want int) {
	s.t.Helper()
	status, body := 0, ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if status, body = s.ask("GET", url+"/hello", token); status == want {
			return
		}
	}
	s.t.Errorf("%d %q, want %d", status, body, want)
}

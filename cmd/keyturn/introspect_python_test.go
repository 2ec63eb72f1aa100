package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

// python returns a Python that has Authlib. Debian's packages are for its own Python alone, which may not be the
// first one of the path.
func python(t *testing.T) string {
	t.Helper()
	var last error
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if last = exec.CommandContext(t.Context(), name, "-c", "import authlib, requests").Run(); last == nil {
			return name
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(last)
	}
	t.Skipf("no Python has Authlib and Requests (make setup brings them): %v", last)
	return ""
}

// TestPythonAsksAboutTokens: a service in Python asks about a token with a standard client, and revokes it.
func TestPythonAsksAboutTokens(t *testing.T) {
	t.Parallel()
	python := python(t)
	redistest.Need(t)
	config := fmt.Sprintf(`revocations:
  redis: redis://%s
  kek_file: kek
  clients: [{id: orders, secret_file: orders.secret, may: [introspect, revoke]}]
tenants:
`, redistest.Run(t, redistest.Options{}).Addr()) + tenantLine("acme", "")
	s := startServe(t, nil, "--config", configFolder(t, config, map[string]string{
		"kek": newKEK(), "acme.secret": secretOf("acme"), "orders.secret": testSecret,
	}))
	waitUntil(t, time.Minute, func() bool { return askAt(t, s.url, "GET", "/readyz", "").status == http.StatusOK })
	token := hs256(secretOf("acme"), plainHeader, in(time.Hour, `,"sub":"ann","jti":"1","aud":"api","iss":"https://acme.example"`))
	cmd := exec.CommandContext(t.Context(), python, "testdata/introspect.py", s.url, "orders")
	cmd.Stdin = strings.NewReader(testSecret + "\n" + token + "\n")
	out, err := cmd.CombinedOutput()
	var before, after struct {
		Active bool
		Sub    string
		Tenant string
	}
	status := 0
	if err != nil || json.Unmarshal(out, &[]any{&before, &after, &status}) != nil {
		t.Fatalf("introspect.py: %v\n%s\nlog: %s", err, out, s.log)
	}
	if !before.Active || before.Sub != "ann" || before.Tenant != "acme" || after.Active || status != http.StatusUnauthorized {
		t.Errorf("%s", out)
	}
	if a := s.ask(t, "GET", "/api/x", token); a.status != http.StatusUnauthorized {
		t.Errorf("the revoked token: %d %s", a.status, a.body)
	}
}

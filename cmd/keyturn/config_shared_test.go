package main

import (
	"strings"
	"testing"
)

// With one secret for two tenants, each of them forges the other's tokens. That is refused, whether
// the secret comes from a file, a variable or a JWK Set, unless both tenants say so.
func TestConfigSharedSecret(t *testing.T) {
	const more = ", any_audience: true"
	static := func(id, more string) string {
		return "  - {id: " + id + ", kind: static, secret_file: s" + more + ", issuer: " + id + ", any_audience: true}\n"
	}
	for name, second := range map[string]string{
		"another file": "kind: static, secret_file: same, issuer: b" + more,
		"another kid":  "kind: static, secret_file: s, kid: k, issuer: b" + more,
		"a variable":   "kind: static, secret_env: S, issuer: b" + more,
		"a JWK Set":    "kind: jwks, jwks_file: set.json, algorithms: [HS256], issuer: b" + more,
		// Whatever else is odd about a set, its secrets serve.
		"a JWK Set with a byte order mark":   "kind: jwks, jwks_file: bom.json, algorithms: [HS256], issuer: b" + more,
		"a JWK Set with an odd key":          "kind: jwks, jwks_file: odd.json, algorithms: [HS256], issuer: b" + more,
		"a JWK Set with members in capitals": "kind: jwks, jwks_file: capitals.json, algorithms: [HS256], issuer: b" + more,
		// RFC 2104, section 2: a key is filled up with zeros.
		"zeros after it": "kind: static, secret_file: zeros, issuer: b" + more,
	} {
		t.Run(name, func(t *testing.T) {
			serve := func(first, second string) result {
				path := configFolder(t, "tenants:\n"+first+second,
					map[string]string{
						"s": testSecret, "same": testSecret + "\n", "zeros": testSecret + "\x00", "set.json": secretSet, "bom.json": "\ufeff" + secretSet,
						"odd.json":      strings.Replace(secretSet, "[", `[{"kid":7},{"kty":"EC","kty":"EC"},null,`, 1),
						"capitals.json": strings.Replace(secretSet, "}]}", `,"K":"AAAA","KTY":"RSA","Kid":"other"}],"KEYS":[]}`, 1),
					})
				r := call{env: map[string]string{"S": testSecret}}.run(t, "serve", "--addr", "127.0.0.1:99999", "--config", path)
				if strings.Contains(r.stderr, testSecret) {
					t.Errorf("the secret is in %s", r.stderr)
				}
				return r
			}
			const waiver = ", shared_secret: true"
			b, waived := "  - {id: b, "+second+"}\n", "  - {id: b, "+second+waiver+"}\n"
			refused := []string{`line 3 (tenant "b"): its secret is that of tenant "a" (line 2)`, "shared_secret: true"}
			serve(static("a", ""), b).wantUsage(t, refused...)
			serve(static("a", waiver), b).wantUsage(t, refused...)
			serve(static("a", ""), waived).wantUsage(t, refused...)
			if r := serve(static("a", waiver), waived); !strings.Contains(r.stderr, "--addr: cannot listen there") {
				t.Errorf("with both waivers: %s", r.stderr)
			}
		})
	}
}

// The waiver is for secrets, and the log names it at the start.
func TestConfigSharedSecretWaiver(t *testing.T) {
	path := configFolder(t, "tenants:\n  - {id: j, kind: jwks, jwks_url: https://x.example, algorithms: [ES256], issuer: i, any_audience: true, shared_secret: true}\n", nil)
	keyturn(t, "serve", "--config", path).wantUsage(t, `line 2 (tenant "j"): shared_secret is for tenants with a secret`)
	acme := strings.Replace(acmeTenant, "}", ", shared_secret: true}", 1)
	globex := strings.NewReplacer("id: acme", "id: globex", "acme.example", "globex.example").Replace(acme)
	s := startServe(t, nil, "--config", configFolder(t, "tenants:\n"+acme+globex, map[string]string{"s": testSecret}))
	if !strings.Contains(s.log.String(), "waivers: shared_secret") {
		t.Errorf("log = %s", s.log)
	}
}

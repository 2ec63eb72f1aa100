package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Sets of real issuers that are not as the RFCs want them, with tokens that are good. They are beside
// the repository.
func TestVerifyRealSets(t *testing.T) {
	folder := filepath.Join("..", "..", "..", "shared", "cases")
	if _, err := os.Stat(folder); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for _, tt := range []struct{ set, alg, token, note string }{
		{set: "good", alg: "RS256", token: "good"},
		{set: "dotnet-empty-arrays", alg: "RS256", token: "good"},
		{set: "null-members", alg: "RS256", token: "good"},
		{set: "padded-n", alg: "RS256", token: "good", note: `irregular key 0 ("k1"): "n" is padded`},
		{set: "66-keys", alg: "RS256", token: "good"},
		{set: "duplicate-kid", alg: "RS256", token: "good"},
		{set: "bom", alg: "RS256", token: "good"},
		{set: "ec-stripped-zero", alg: "ES256", token: "ec-stripped-zero", note: "lacks leading zero bytes"},
		{set: "jwk-ed25519-token-eddsa", alg: "EdDSA,Ed25519", token: "jwk-ed25519-token-eddsa"},
	} {
		t.Run(tt.set, func(t *testing.T) {
			token, err := os.ReadFile(filepath.Join(folder, tt.token+".token"))
			if err != nil {
				t.Fatal(err)
			}
			set, err := os.ReadFile(filepath.Join(folder, tt.set+".jwks.json"))
			if err != nil {
				t.Fatal(err)
			}
			text := strings.TrimSpace(string(token))
			verify := func(token string) result {
				return keyturn(t, "verify", "--jwks", file(t, string(set)), "--alg", tt.alg, "--json", token)
			}
			r := verify(text)
			if r.code != exitYes || strings.Contains(r.stderr, "ALARM") || strings.Contains(r.stderr, "skipped") || !strings.Contains(r.stderr, tt.note) {
				t.Errorf("%+v", r)
			}
			if irregular := strings.Contains(r.stderr, "irregular"); irregular != (tt.note != "") {
				t.Errorf("stderr = %s", r.stderr)
			}
			if r := verify(text[:len(text)-12] + "AAAA" + text[len(text)-8:]); r.code != exitNo || r.reason(t) != "signature" {
				t.Errorf("with another signature: %+v", r)
			}
		})
	}
}

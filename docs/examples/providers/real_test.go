package providers_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/providertest"
)

type metadata struct {
	Issuer     string   `json:"issuer"`
	JWKSURI    string   `json:"jwks_uri"`
	Algorithms []string `json:"id_token_signing_alg_values_supported"`
}

// TestRealMetadata: where metadata of an issuer of the page was found in public, the issuer of the
// tests is spelled like it, and has its keys at the same place. It is beside the repository.
func TestRealMetadata(t *testing.T) {
	paths, err := filepath.Glob("../../../../shared/real/oidc/*.json")
	if err != nil || len(paths) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no documents in ../shared/real: %v", err)
		}
		t.Skip("no documents in ../shared/real")
	}
	directory := regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`) // that of the page is another one
	found := make(map[string][]metadata)
	for _, path := range paths {
		var m metadata
		if json.Unmarshal([]byte(directory.ReplaceAllString(read(t, path), "TID")), &m) == nil {
			found[m.Issuer] = append(found[m.Issuer], m)
		}
	}
	compared := 0
	for _, p := range providertest.All() {
		for url, page := range p.Pages {
			var ours metadata
			if !strings.HasSuffix(url, "/.well-known/openid-configuration") || json.Unmarshal([]byte(directory.ReplaceAllString(page.Body, "TID")), &ours) != nil {
				continue
			}
			theirs := found[ours.Issuer]
			if len(theirs) == 0 {
				continue
			}
			compared++
			if !slices.ContainsFunc(theirs, func(m metadata) bool { return m.JWKSURI == ours.JWKSURI && slices.Contains(m.Algorithms, "RS256") }) {
				t.Errorf("%s: %+v, found in public: %+v", p.Name, ours, theirs)
			}
		}
	}
	if compared < 3 {
		t.Errorf("%d issuers of the page are among the public documents", compared)
	}
}

package jwks

import (
	"strings"
	"testing"
)

// Whatever the metadata says, keys are read only from a URL that the guard permits, and only for
// the issuer that the metadata names.
func FuzzMetadata(f *testing.F) {
	const issuer = "https://issuer.example"
	for _, doc := range []string{
		`{"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/keys"}`,
		`{"issuer":"https://issuer.example/","jwks_uri":"https://issuer.example/keys"}`,
		`{"Issuer":"https://issuer.example","jwks_uri":"https://issuer.example/keys"}`,
		`{"issuer":"https://issuer.example","issuer":"x","jwks_uri":"https://issuer.example/keys"}`,
		`{"issuer":"https://issuer.example","jwks_uri":"http://127.0.0.1/keys"}`,
		`{"issuer":"https://issuer.example","jwks_uri":7}`, `null`, `[]`, ``,
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		u, failed := guard{}.jwksURI(doc, issuer)
		if (u == nil) == (failed == nil) {
			t.Fatalf("jwksURI = %v, %v", u, failed)
		}
		if u != nil && (u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "") {
			t.Errorf("keys at %q", u)
		}
		if u != nil && !strings.Contains(string(doc), "issuer") {
			t.Errorf("no issuer, and keys at %q", u)
		}
	})
}

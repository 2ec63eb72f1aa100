package wycheproof

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/verifier"
)

// TestTokens runs the vectors of JWS and JWK. Their payloads are no claims, so a verifier refuses
// each of them, and the test looks at the parts:
//
//   - The header, and the spelling of the signature, are judged by a verifier, in a token that has
//     claims for a payload. It gets to the signature only if it has accepted the header, and has
//     found a key for it. Then the reason is the signature, which is for the old payload.
//   - The spelling of the payload is judged by a verifier, in the token as it is.
//   - The signature is judged by the keys that the verifier has found.
func TestTokens(t *testing.T) {
	all := &verdicts{met: make(map[string]bool)}
	for _, tt := range []struct {
		schema      string
		cases, good int
	}{
		{"json_web_signature_schema_v1.json", 401, 35},
		{"json_web_key_schema_v1.json", 26, 7},
		{"json_web_crypto_schema_v1.json", 83, 5}, // of JWS, JWE and JWK
		{"json_web_encryption_schema_v1.json", 139, 0},
	} {
		t.Run(tt.schema, func(t *testing.T) {
			cases, good := 0, 0
			for _, f := range files(t, tt.schema, "json_web_") {
				for _, g := range f.Groups {
					j := newJudge(t, g)
					for _, v := range g.Tests {
						cases++
						got := j.accepts(t, v.text())
						if got {
							good++
						}
						all.add(t, f.name, v, "its key", v.JWE == nil, got) // no JWE is a token
					}
				}
			}
			if cases != tt.cases || good != tt.good {
				t.Errorf("%d cases, %d of them good; want %d and %d", cases, good, tt.cases, tt.good)
			}
		})
	}
	all.checkAllMet(t, "json_web_")
}

// A judge is a verifier with the keys of a group. Any algorithm is on its list, so that the keys
// alone decide which is right.
type judge struct {
	*verifier.Verifier
	keys *askedStore
}

// An askedStore remembers the keys that it returned last.
type askedStore struct {
	keystore.KeyStore
	last []*keystore.Key
}

func (s *askedStore) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	keys, err := s.KeyStore.Lookup(id, alg)
	s.last = keys
	return keys, err
}

func newJudge(t *testing.T, g group) judge {
	t.Helper()
	set, parse := g.Public, jwks.Parse
	if set == nil {
		set, parse = g.Private, jwks.ParseWithSecrets
	}
	if !bytes.Contains(set, []byte(`"keys"`)) {
		set = []byte(`{"keys":[` + string(set) + `]}`)
	}
	keys, _, err := parse("acme", set)
	if err != nil {
		t.Fatal(err)
	}
	static, err := keystore.NewStatic(keys...)
	if err != nil {
		t.Fatal(err)
	}
	store := &askedStore{KeyStore: static}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: store, Algorithms: keystore.Algorithms(),
		AnyIssuer: true, AnyAudience: true, AllowNoExpiry: true, MixedFamilies: true,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return judge{v, store}
}

// accepts reports whether all parts of a token pass.
func (j judge) accepts(t *testing.T, token string) bool {
	t.Helper()
	_, asIs := j.Verify(t.Context(), token)
	if !errors.Is(asIs, verifier.ErrMalformed) {
		t.Errorf("a token without claims: %v", asIs)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 || strings.Contains(asIs.Error(), "base64url") {
		return false
	}
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"ann"}`))
	j.keys.last = nil
	if _, err := j.Verify(t.Context(), parts[0]+"."+claims+"."+parts[2]); !errors.Is(err, verifier.ErrSignature) {
		if err == nil {
			t.Error("a signature passed for other claims")
		}
		return false
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatalf("the verifier decodes a signature that is not base64url: %v", err)
	}
	for _, k := range j.keys.last {
		if k.Verify([]byte(parts[0]+"."+parts[1]), sig) {
			return true
		}
	}
	return false
}

// TestSpelling looks at cases whose key keyturn refuses, so that TestTokens shows nothing of them:
// the parts that are not base64url are refused for that.
func TestSpelling(t *testing.T) {
	wrong := map[int]bool{374: true, 375: true} // bits that are not used are set
	for id := 360; id <= 373; id++ {
		wrong[id] = id != 367 && id != 370 // the padding that these speak of is missing in the file
	}
	for _, f := range files(t, "json_web_signature_schema_v1.json", "json_web_") {
		for _, g := range f.Groups {
			j := newJudge(t, g)
			for _, v := range g.Tests {
				if v.ID < 357 || v.ID > 377 {
					continue
				}
				_, err := j.Verify(t.Context(), v.text())
				if err == nil || strings.Contains(err.Error(), "base64url") != wrong[v.ID] {
					t.Errorf("case %d (%s): %v, want a complaint about base64url: %v", v.ID, v.Comment, err, wrong[v.ID])
				}
			}
		}
	}
}

package wycheproof

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
)

const (
	none  = keystore.Algorithm("")
	es256 = keystore.ES256
	es384 = keystore.ES384
	es512 = keystore.ES512
)

var (
	ecdsaAlgorithms = []keystore.Algorithm{es256, es384, es512}
	eddsaAlgorithms = []keystore.Algorithm{keystore.EdDSA, keystore.Ed25519}
	pssAlgorithms   = []keystore.Algorithm{keystore.PS256, keystore.PS384, keystore.PS512}
	rsaAlgorithms   = append([]keystore.Algorithm{keystore.RS256, keystore.RS384, keystore.RS512}, pssAlgorithms...)
	hmacAlgorithms  = []keystore.Algorithm{keystore.HS256, keystore.HS384, keystore.HS512}
)

// A kind is a kind of signatures or MACs, whose vectors have one schema.
type kind struct {
	name, schema, prefix string

	// cases is how many cases the files have together. good is how many signatures of these
	// verify. A new version of the vectors changes them.
	cases, good int

	// algorithms are those of JWS. A valid signature must verify with those that fit the group of
	// the vectors, and with no other. An invalid one must not verify with those that fit. (It may
	// be a valid one with another algorithm.)
	algorithms []keystore.Algorithm
	fit        func(group) []keystore.Algorithm
}

var kinds = []kind{
	{"ECDSA with signatures as in JWS", "ecdsa_p1363_verify_schema_v1.json", "ecdsa_", 7548, 597, ecdsaAlgorithms, fitECDSA},
	{"ECDSA with signatures in DER", "ecdsa_verify_schema_v1.json", "ecdsa_secp", 16878, 0, ecdsaAlgorithms, fitNothing},
	{"EdDSA", "eddsa_verify_schema_v1.json", "ed", 238, 88, eddsaAlgorithms, fitEd25519},
	{"RSASSA-PKCS1-v1_5", "rsassa_pkcs1_verify_schema_v1.json", "rsa_", 6202, 84, rsaAlgorithms, fitPKCS1},
	{"RSASSA-PKCS1-v1_5, as it is made", "rsassa_pkcs1_generate_schema_v1.json", "rsa_", 158, 72, rsaAlgorithms, fitPKCS1},
	{"RSASSA-PSS", "rsassa_pss_verify_schema_v1.json", "rsa_", 2406, 514, pssAlgorithms, fitPSS},
	{"RSASSA-PSS with parameters in the key", "rsassa_pss_with_parameters_verify_schema.json", "rsa_", 1091, 261, pssAlgorithms, fitPSS},
	{"HMAC", "mac_test_schema_v1.json", "hmac_", 2080, 90, hmacAlgorithms, fitHMAC},
}

// byHash returns which of three algorithms takes the hash of a group.
func byHash(g group, with256, with384, with512 keystore.Algorithm) []keystore.Algorithm {
	switch g.SHA {
	case "SHA-256":
		return []keystore.Algorithm{with256}
	case "SHA-384":
		return []keystore.Algorithm{with384}
	case "SHA-512":
		return []keystore.Algorithm{with512}
	}
	return nil
}

func fitNothing(group) []keystore.Algorithm { return nil }

func fitECDSA(g group) []keystore.Algorithm {
	pub, ok := g.publicKey().(*ecdsa.PublicKey)
	if !ok {
		return nil
	}
	switch pub.Curve.Params().Name {
	case "P-256":
		return byHash(g, es256, none, none)
	case "P-384":
		return byHash(g, none, es384, none)
	case "P-521":
		return byHash(g, none, none, es512)
	}
	return nil
}

func fitEd25519(g group) []keystore.Algorithm {
	if _, ok := g.publicKey().(ed25519.PublicKey); ok {
		return eddsaAlgorithms
	}
	return nil
}

func fitPKCS1(g group) []keystore.Algorithm {
	return byHash(g, keystore.RS256, keystore.RS384, keystore.RS512)
}

// fitPSS wants a salt as long as the hash, and one hash function for both uses (RFC 7518, section
// 3.5).
func fitPSS(g group) []keystore.Algorithm {
	hashes := byHash(g, keystore.PS256, keystore.PS384, keystore.PS512)
	if g.MGFSHA != g.SHA || len(hashes) == 0 || g.SaltLen != hashes[0].Hash().Size() {
		return nil
	}
	return hashes
}

// fitHMAC takes no truncated MAC (RFC 7518, section 3.2).
func fitHMAC(g group) []keystore.Algorithm {
	hashes := byHash(g, keystore.HS256, keystore.HS384, keystore.HS512)
	if len(hashes) == 0 || g.TagBits != 8*hashes[0].Hash().Size() {
		return nil
	}
	return hashes
}

// publicKey returns the public key of the group, or nil if Go does not know its kind.
func (g group) publicKey() crypto.PublicKey {
	for _, der := range [][]byte{g.PKCS1, g.KeyPKCS1} {
		if pub, err := x509.ParsePKCS1PublicKey(der); err == nil {
			return pub
		}
	}
	pub, err := x509.ParsePKIXPublicKey(g.DER)
	if err != nil {
		return nil
	}
	return pub
}

func TestSignatures(t *testing.T) {
	all := &verdicts{met: make(map[string]bool)}
	t.Run("kinds", func(t *testing.T) {
		for _, k := range kinds {
			t.Run(k.name, func(t *testing.T) {
				t.Parallel()
				cases, good := 0, 0
				for _, f := range files(t, k.schema, k.prefix) {
					for _, g := range f.Groups {
						g.SHA = hashOf(f, g)
						r := newRun(t, f, g, k)
						for _, v := range g.Tests {
							cases++
							good += r.check(t, v, all)
						}
					}
				}
				if cases != k.cases || good != k.good {
					t.Errorf("%d cases, %d of them good; want %d and %d", cases, good, k.cases, k.good)
				}
			})
		}
	})
	all.checkAllMet(t, "ecdsa_", "ed", "rsa_", "hmac_")
}

// hashOf returns the hash of a group. The files of HMAC say it in their name only.
func hashOf(f file, g group) string {
	if name, ok := strings.CutPrefix(f.name, "hmac_sha"); ok {
		return "SHA-" + strings.TrimSuffix(name, "_test.json")
	}
	return g.SHA
}

// A run is one group, with the keys that can be made of it.
type run struct {
	kind
	file string
	fit  map[keystore.Algorithm]bool
	keys map[keystore.Algorithm]*keystore.Key
}

func newRun(t *testing.T, f file, g group, k kind) *run {
	t.Helper()
	r := &run{k, f.name, make(map[keystore.Algorithm]bool), make(map[keystore.Algorithm]*keystore.Key)}
	for _, alg := range k.fit(g) {
		r.fit[alg] = true
	}
	pub := g.publicKey()
	for _, alg := range k.algorithms {
		if key, err := keystore.NewPublic(keystore.ID{}, alg, pub); err == nil {
			r.keys[alg] = key
			checkJWK(t, f.name, g, key)
		}
	}
	return r
}

// check returns 1 if the signature verifies with one of the keys, and else 0.
func (r *run) check(t *testing.T, v vector, all *verdicts) (good int) {
	t.Helper()
	for _, alg := range r.algorithms {
		if v.Result != "valid" && !r.fit[alg] {
			continue
		}
		key, sig := r.keys[alg], v.Sig
		if v.Tag != nil {
			sig = v.Tag
			key, _ = keystore.NewSecret(keystore.ID{}, alg, v.Key)
		}
		got := key != nil && key.Verify(v.Msg, sig)
		if got {
			good = 1
		}
		all.add(t, r.file, v, string(alg), r.fit[alg], got)
	}
	return good
}

// checkJWK checks that package jwks reads the key of a group from its JWK, too.
func checkJWK(t *testing.T, name string, g group, want *keystore.Key) {
	t.Helper()
	for _, jwk := range []json.RawMessage{g.PublicJWK, g.KeyJWK} {
		var head struct{ Alg keystore.Algorithm }
		if jwk == nil || json.Unmarshal(jwk, &head) != nil || head.Alg != "" && head.Alg != want.Algorithm() {
			continue
		}
		keys, skipped, err := jwks.Parse("", []byte(`{"keys":[`+string(jwk)+`]}`))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, k := range keys {
			pub, _ := k.Public()
			wanted, _ := want.Public()
			found = found || k.Algorithm() == want.Algorithm() && pub.(interface{ Equal(crypto.PublicKey) bool }).Equal(wanted)
		}
		if !found {
			t.Errorf("%s: package jwks does not read the %s key of %s: %v", name, want.Algorithm(), jwk, skipped)
		}
	}
}

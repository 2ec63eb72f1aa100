package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"github.com/keyturn/keyturn/keystore"
)

// privateKeys returns a key for each algorithm, as NewKey takes it.
func privateKeys(t *testing.T) map[keystore.Algorithm]any {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[keystore.Algorithm]any)
	curves := map[keystore.Algorithm]elliptic.Curve{keystore.ES256: elliptic.P256(), keystore.ES384: elliptic.P384(), keystore.ES512: elliptic.P521()}
	for _, alg := range keystore.Algorithms() {
		switch {
		case alg.Symmetric():
			keys[alg] = []byte("a secret that is as long as HS512 wants it to be: sixty-four bytes")
		case curves[alg] != nil:
			if keys[alg], err = ecdsa.GenerateKey(curves[alg], rand.Reader); err != nil {
				t.Fatal(err)
			}
		case alg == keystore.EdDSA, alg == keystore.Ed25519:
			keys[alg] = edKey
		default:
			keys[alg] = rsaKey
		}
	}
	return keys
}

// secret32 returns a secret for HS256.
func secret32() []byte { return []byte("a secret of thirty-two bytes, ok") }

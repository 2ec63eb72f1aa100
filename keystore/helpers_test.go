package keystore_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// The tests sign by hand, so that a key and its test cannot share a mistake.

var (
	rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		return k
	})
	ed25519Key = sync.OnceValue(func() ed25519.PrivateKey {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		return k
	})
	p256Key, p384Key, p521Key = onCurve(elliptic.P256()), onCurve(elliptic.P384()), onCurve(elliptic.P521())
)

func onCurve(c elliptic.Curve) func() *ecdsa.PrivateKey {
	return sync.OnceValue(func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			panic(err)
		}
		return k
	})
}

// secret64 is long enough for every HS*.
var secret64 = []byte(strings.Repeat("0123456789abcdef", 4))

// A signer is a key of the tests with its signing half.
type signer struct {
	alg  keystore.Algorithm
	key  func(t *testing.T, id keystore.ID) *keystore.Key
	sign func(msg []byte) []byte
}

// signers returns one signer for each algorithm.
func signers() []signer {
	hashes := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}
	curveKeys := map[string]func() *ecdsa.PrivateKey{"256": p256Key, "384": p384Key, "512": p521Key}
	var all []signer
	for _, alg := range keystore.Algorithms() {
		family, bits := string(alg)[:2], string(alg)[2:]
		switch family {
		case "HS":
			newHash := map[string]func() hash.Hash{"256": sha256.New, "384": sha512.New384, "512": sha512.New}[bits]
			all = append(all, signer{alg, secretKey(alg, secret64), func(msg []byte) []byte {
				mac := hmac.New(newHash, secret64)
				mac.Write(msg)
				return mac.Sum(nil)
			}})
		case "RS", "PS":
			h := hashes[bits]
			all = append(all, signer{alg, publicKey(alg, &rsaKey().PublicKey), func(msg []byte) []byte {
				var opts crypto.SignerOpts = h
				if family == "PS" {
					opts = &rsa.PSSOptions{SaltLength: h.Size(), Hash: h}
				}
				return signWith(rsaKey(), h, msg, opts)
			}})
		case "ES":
			h, key := hashes[bits], curveKeys[bits]()
			all = append(all, signer{alg, publicKey(alg, &key.PublicKey), func(msg []byte) []byte {
				r, s, err := ecdsa.Sign(rand.Reader, key, sum(h, msg))
				if err != nil {
					panic(err)
				}
				size := (key.Curve.Params().BitSize + 7) / 8
				sig := make([]byte, 2*size)
				r.FillBytes(sig[:size])
				s.FillBytes(sig[size:])
				return sig
			}})
		case "Ed":
			all = append(all, signer{alg, publicKey(alg, ed25519Key().Public()), func(msg []byte) []byte {
				return ed25519.Sign(ed25519Key(), msg)
			}})
		}
	}
	return all
}

func secretKey(alg keystore.Algorithm, secret []byte) func(*testing.T, keystore.ID) *keystore.Key {
	return func(t *testing.T, id keystore.ID) *keystore.Key {
		t.Helper()
		k, err := keystore.NewSecret(id, alg, secret)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
}

func publicKey(alg keystore.Algorithm, pub crypto.PublicKey) func(*testing.T, keystore.ID) *keystore.Key {
	return func(t *testing.T, id keystore.ID) *keystore.Key {
		t.Helper()
		k, err := keystore.NewPublic(id, alg, pub)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
}

func sum(h crypto.Hash, msg []byte) []byte {
	w := h.New()
	w.Write(msg)
	return w.Sum(nil)
}

func signWith(key crypto.Signer, h crypto.Hash, msg []byte, opts crypto.SignerOpts) []byte {
	sig, err := key.Sign(rand.Reader, sum(h, msg), opts)
	if err != nil {
		panic(err)
	}
	return sig
}

// hs256 makes a key from a secret of 32 bytes that begins with seed.
func hs256(t *testing.T, tenant, kid, seed string) *keystore.Key {
	t.Helper()
	secret := []byte(seed + strings.Repeat(".", 32))[:32]
	return secretKey(keystore.HS256, secret)(t, keystore.ID{Tenant: tenant, KID: kid})
}

var acme1 = keystore.ID{Tenant: "acme", KID: "1"}

// modulus returns an odd number of that many bits. It is not the product of two primes,
// which matters only for signing.
func modulus(bits uint) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	return n.Add(n, big.NewInt(12345))
}

// coordinates returns the coordinates of a point, read from its uncompressed encoding.
func coordinates(pub *ecdsa.PublicKey) (x, y *big.Int) {
	point, err := pub.Bytes()
	if err != nil {
		panic(err)
	}
	size := (len(point) - 1) / 2
	return new(big.Int).SetBytes(point[1 : 1+size]), new(big.Int).SetBytes(point[1+size:])
}

func signer509(alg keystore.Algorithm) crypto.Signer {
	return map[keystore.Algorithm]crypto.Signer{keystore.ES256: p256Key(), keystore.ES384: p384Key(), keystore.ES512: p521Key()}[alg]
}

func hashOf(alg keystore.Algorithm) crypto.Hash {
	return map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[string(alg)[2:]]
}

// forge reports whether the signature R = identity, s = 0 verifies for some message. It
// does if the hash of R, key and message is a multiple of the order of the key.
func forge(pub ed25519.PublicKey) bool {
	sig := make([]byte, ed25519.SignatureSize)
	sig[0] = 1
	for i := range 300 {
		if ed25519.Verify(pub, fmt.Appendf(nil, "message %d", i), sig) {
			return true
		}
	}
	return false
}

// checkError checks the results of a constructor. want is a part of the text of the
// error, or "" for no error.
func checkError(t *testing.T, k *keystore.Key, err error, want string) {
	t.Helper()
	switch {
	case want == "" && (err != nil || k == nil):
		t.Errorf("got %v, %v, want a key", k, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("error = %v, want one with %q", err, want)
	case want != "" && k != nil:
		t.Errorf("got %v along with an error", k)
	}
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func static(t *testing.T, keys ...*keystore.Key) *keystore.Static {
	t.Helper()
	s, err := keystore.NewStatic(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// found checks that the store answers with exactly these keys, by identity.
func found(t *testing.T, s *keystore.Static, tenant, kid string, want ...*keystore.Key) {
	t.Helper()
	keys, err := s.Lookup(keystore.ID{Tenant: tenant, KID: kid}, keystore.HS256)
	if !slices.Equal(keys, want) {
		t.Errorf("Lookup(%q, %q) = %v, want %v", tenant, kid, keys, want)
	}
	if missing := len(want) == 0; missing != errors.Is(err, keystore.ErrNotFound) || !missing && err != nil {
		t.Errorf("Lookup(%q, %q) error = %v", tenant, kid, err)
	}
}

// usable checks that each of the keys is usable at noon, or that none of them is.
func usable(t *testing.T, want bool, keys ...*keystore.Key) {
	t.Helper()
	for _, k := range keys {
		if got := k.Usable(noon); got != want {
			t.Errorf("Usable of %v = %v, want %v", k, got, want)
		}
	}
}

// public returns n keys of one name and algorithm.
func public(t *testing.T, kid string, alg keystore.Algorithm, n int) (keys []*keystore.Key) {
	t.Helper()
	for range n {
		k, err := keystore.NewPublic(keystore.ID{Tenant: "acme", KID: kid}, alg, freshPublic(t, alg))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys
}

// freshPublic returns a new public key for alg, an EdDSA or ECDSA.
func freshPublic(t *testing.T, alg keystore.Algorithm) crypto.PublicKey {
	t.Helper()
	curve, ok := map[keystore.Algorithm]elliptic.Curve{keystore.ES256: elliptic.P256(), keystore.ES384: elliptic.P384(), keystore.ES512: elliptic.P521()}[alg]
	if !ok {
		pub, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return pub
	}
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

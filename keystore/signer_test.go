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
	"hash"
	"strings"
	"sync"
	"testing"

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

// A signer is a key of the tests, with the means to sign.
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

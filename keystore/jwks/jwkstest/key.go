package jwkstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
)

// A Key is a signing key of an issuer, which publishes its public part. It is safe for concurrent
// use.
type Key struct {
	KID       string
	Algorithm string // ES256, EdDSA or RS256

	signer crypto.Signer
	public string // the members of the public key, as JSON
}

var b64 = base64.RawURLEncoding.EncodeToString

// NewKey makes a key for ES256, EdDSA or RS256 (2048 bits: slow to make). It
// panics for any other algorithm.
func NewKey(kid, alg string) *Key {
	k := &Key{KID: kid, Algorithm: alg}
	switch alg {
	case "ES256":
		key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		point := must(key.PublicKey.Bytes())
		k.signer = key
		k.public = `"kty":"EC","crv":"P-256","x":"` + b64(point[1:33]) + `","y":"` + b64(point[33:]) + `"`
	case "EdDSA":
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		k.signer = must(key, err)
		k.public = `"kty":"OKP","crv":"Ed25519","x":"` + b64(pub) + `"`
	case "RS256":
		key := must(rsa.GenerateKey(rand.Reader, 2048))
		k.signer = key
		k.public = `"kty":"RSA","n":"` + b64(key.N.Bytes()) + `","e":"AQAB"`
	default:
		panic(fmt.Sprintf("jwkstest: no keys for algorithm %q", alg))
	}
	return k
}

// JWK returns the public key as a JWK, with kid, alg and the use "sig".
func (k *Key) JWK() string {
	kid := must(json.Marshal(k.KID))
	return `{"kid":` + string(kid) + `,"alg":"` + k.Algorithm + `","use":"sig",` + k.public + `}`
}

// Sign returns a signature of msg in the form of a JWS (RFC 7515, appendix A).
func (k *Key) Sign(msg []byte) []byte {
	digest := sha256.Sum256(msg)
	switch key := k.signer.(type) {
	case *ecdsa.PrivateKey: // r and s side by side (RFC 7518, section 3.4)
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		must(r, err)
		sig := make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
		return sig
	case ed25519.PrivateKey:
		return ed25519.Sign(key, msg)
	default:
		return must(k.signer.Sign(rand.Reader, digest[:], crypto.SHA256))
	}
}

// Token returns a signed token with these claims. It panics if they cannot be written as JSON.
func (k *Key) Token(claims any) string {
	header := must(json.Marshal(map[string]string{"alg": k.Algorithm, "kid": k.KID, "typ": "JWT"}))
	signed := b64(header) + "." + b64(must(json.Marshal(claims)))
	return signed + "." + b64(k.Sign([]byte(signed)))
}

// Set returns a JWK Set of keys.
func Set(keys ...*Key) string {
	all := make([]string, len(keys))
	for i, k := range keys {
		all[i] = k.JWK()
	}
	return setOf(all...)
}

func setOf(jwks ...string) string {
	set := `{"keys":[`
	for i, k := range jwks {
		if i > 0 {
			set += ","
		}
		set += k
	}
	return set + `]}`
}

// rsaJWK returns an RSA key of that many bits. Its modulus is not a product of two primes, so it
// has no private part.
func rsaJWK(kid string, bits uint, e string) string {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	n.SetBit(n, 0, 1)
	return `{"kid":"` + kid + `","kty":"RSA","n":"` + b64(n.Bytes()) + `","e":"` + e + `"}`
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("jwkstest: %v", err))
	}
	return v
}

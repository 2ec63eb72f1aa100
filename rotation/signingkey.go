package rotation

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"reflect"
	"slices"
	"sync"

	"github.com/keyturn/keyturn/keystore"
)

// A signingKey signs with one algorithm. Material sits in the closure.
type signingKey struct {
	id     keystore.ID
	header []byte // of every token, in base64url
	sign   func(signed []byte) ([]byte, error)
}

func newSigningKey(id keystore.ID, alg keystore.Algorithm, key any, typ string) (*signingKey, error) {
	sign, err := newSign(id, alg, key)
	if err != nil {
		return nil, err
	}
	return &signingKey{id: id, header: tokenHeader(id, alg, typ), sign: sign}, nil
}

// tokenHeader returns the header of every token, in base64url.
func tokenHeader(id keystore.ID, alg keystore.Algorithm, typ string) []byte {
	h := append([]byte(`{"alg":`), quote(nil, string(alg))...)
	if id.KID != "" {
		h = quote(append(h, `,"kid":`...), id.KID)
	}
	h = append(quote(append(h, `,"typ":`...), typ), '}')
	return base64.RawURLEncoding.AppendEncode(nil, h)
}

func newSign(id keystore.ID, alg keystore.Algorithm, key any) (func([]byte) ([]byte, error), error) {
	switch k := key.(type) {
	case crypto.Signer: // before []byte, which an ed25519.PrivateKey also is
		if hollow(k) {
			return nil, &Error{Text: fmt.Sprintf("an empty or cut %T", k)}
		}
		if _, err := keystore.NewPublic(id, alg, k.Public()); err != nil {
			return nil, err
		}
		return signWith(alg, k), nil
	case []byte:
		if alg.Known() && !alg.Symmetric() {
			break
		}
		if _, err := keystore.NewSecret(id, alg, k); err != nil {
			return nil, err
		}
		return signHMAC(alg, slices.Clone(k)), nil
	}
	if alg.Symmetric() {
		return nil, &Error{Text: fmt.Sprintf("%T cannot sign %s: want a []byte", key, alg)}
	}
	return nil, &Error{Text: fmt.Sprintf("%T cannot sign %s: want a crypto.Signer, such as a private key", key, alg)}
}

// hollow reports whether the Public method of a private key would panic.
func hollow(key crypto.Signer) bool {
	if ed, ok := key.(ed25519.PrivateKey); ok {
		return len(ed) != ed25519.PrivateKeySize
	}
	v := reflect.ValueOf(key)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

func hashOf(alg keystore.Algorithm) (crypto.Hash, func() hash.Hash) {
	switch alg {
	case keystore.HS384, keystore.RS384, keystore.PS384, keystore.ES384:
		return crypto.SHA384, sha512.New384
	case keystore.HS512, keystore.RS512, keystore.PS512, keystore.ES512:
		return crypto.SHA512, sha512.New
	}
	return crypto.SHA256, sha256.New
}

func signHMAC(alg keystore.Algorithm, secret []byte) func([]byte) ([]byte, error) {
	_, newHash := hashOf(alg)
	pool := &sync.Pool{New: func() any { return hmac.New(newHash, secret) }}
	return func(signed []byte) ([]byte, error) {
		h := pool.Get().(hash.Hash)
		defer pool.Put(h)
		h.Reset()
		h.Write(signed)
		return h.Sum(nil), nil
	}
}

// signWith returns what signs alg with key, which fits it.
func signWith(alg keystore.Algorithm, key crypto.Signer) func([]byte) ([]byte, error) {
	h, newHash := hashOf(alg)
	digest := func(b []byte) []byte {
		d := newHash()
		d.Write(b)
		return d.Sum(nil)
	}
	switch alg {
	case keystore.RS256, keystore.RS384, keystore.RS512:
		return func(signed []byte) ([]byte, error) {
			return key.Sign(rand.Reader, digest(signed), h)
		}
	case keystore.PS256, keystore.PS384, keystore.PS512:
		// The salt is as long as the hash (RFC 7518, section 3.5).
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}
		return func(signed []byte) ([]byte, error) {
			return key.Sign(rand.Reader, digest(signed), opts)
		}
	case keystore.ES256, keystore.ES384, keystore.ES512:
		return func(signed []byte) ([]byte, error) {
			der, err := key.Sign(rand.Reader, digest(signed), h)
			if err != nil {
				return nil, err
			}
			return rawECDSA(alg, der)
		}
	}
	return func(signed []byte) ([]byte, error) {
		return key.Sign(rand.Reader, signed, crypto.Hash(0))
	}
}

// rawECDSA turns a signature in ASN.1, as a crypto.Signer makes it, into R and
// S, each as long as the order of the curve (RFC 7518, section 3.4).
func rawECDSA(alg keystore.Algorithm, der []byte) ([]byte, error) {
	size := map[keystore.Algorithm]int{keystore.ES256: 32, keystore.ES384: 48, keystore.ES512: 66}[alg]
	var sig struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &sig)
	if err != nil || len(rest) > 0 || sig.R.Sign() <= 0 || sig.S.Sign() <= 0 || sig.R.BitLen() > 8*size || sig.S.BitLen() > 8*size {
		return nil, errors.New("what its Sign returned is not an ECDSA signature in ASN.1")
	}
	raw := make([]byte, 2*size)
	sig.R.FillBytes(raw[:size])
	sig.S.FillBytes(raw[size:])
	return raw, nil
}

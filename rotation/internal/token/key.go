package token

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
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

// An UnfitError says why a key cannot sign. Its text is about types, never about a value.
type UnfitError struct{ Text string }

// Error names package rotation, whose caller gave the key.
func (e *UnfitError) Error() string { return "rotation: " + e.Text }

// A Key signs with one algorithm. Its material is in the closure.
type Key struct {
	ID     keystore.ID
	header []byte // of every token, in base64url
	sign   func(signed []byte) ([]byte, error)
}

// NewKey returns a signing key whose tokens carry id.KID, or no kid if that is empty, and the
// type typ. key is a []byte for HS*, else a [crypto.Signer].
func NewKey(id keystore.ID, alg keystore.Algorithm, key any, typ string) (*Key, error) {
	sign, err := newSign(id, alg, key)
	if err != nil {
		return nil, err
	}
	return &Key{ID: id, header: tokenHeader(id, alg, typ), sign: sign}, nil
}

// Sign returns the signature of signed, as a JWS has it (RFC 7518, section 3).
func (k *Key) Sign(signed []byte) ([]byte, error) { return k.sign(signed) }

// tokenHeader returns the header of every token, in base64url.
func tokenHeader(id keystore.ID, alg keystore.Algorithm, typ string) []byte {
	h := append([]byte(`{"alg":`), quote(nil, string(alg))...)
	if id.KID != "" {
		h = quote(append(h, `,"kid":`...), id.KID)
	}
	h = append(quote(append(h, `,"typ":`...), typ), '}')
	return base64.RawURLEncoding.AppendEncode(nil, h)
}

// newSign returns what signs alg with key, which has to fit.
func newSign(id keystore.ID, alg keystore.Algorithm, key any) (func([]byte) ([]byte, error), error) {
	switch k := key.(type) {
	case crypto.Signer: // before []byte, which an ed25519.PrivateKey also is
		if hollow(k) {
			return nil, &UnfitError{fmt.Sprintf("an empty or cut %T", k)}
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
		return nil, &UnfitError{fmt.Sprintf("%T cannot sign %s: want a []byte", key, alg)}
	}
	return nil, &UnfitError{fmt.Sprintf("%T cannot sign %s: want a crypto.Signer, such as a private key", key, alg)}
}

// hollow reports whether the Public method of a private key would panic.
func hollow(key crypto.Signer) bool {
	if ed, ok := key.(ed25519.PrivateKey); ok {
		return len(ed) != ed25519.PrivateKeySize
	}
	v := reflect.ValueOf(key)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

func signHMAC(alg keystore.Algorithm, secret []byte) func([]byte) ([]byte, error) {
	pool := &sync.Pool{New: func() any { return hmac.New(alg.Hash().New, secret) }}
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
	h := alg.Hash()
	digest := func(b []byte) []byte {
		d := h.New()
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
		return key.Sign(rand.Reader, signed, h)
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

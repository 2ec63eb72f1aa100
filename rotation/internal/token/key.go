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

// An UnfitError says why a key cannot sign. It names types, and quotes no part of the key.
type UnfitError struct{ Text string }

// Error begins with the name of package rotation, whose caller gave the key.
func (e *UnfitError) Error() string { return "rotation: " + e.Text }

// A Key signs tokens with one algorithm. Its material is in a closure, so that nothing prints it.
// It is safe for concurrent use if its crypto.Signer is.
type Key struct {
	ID     keystore.ID
	header []byte // of every token, in base64url
	sign   func(signed []byte) ([]byte, error)
}

// NewKey returns a signing key. key is a []byte for HS*, of which it keeps a copy, otherwise a
// [crypto.Signer]. The header of its tokens has id.KID, unless that is empty, and typ. The error is
// an [*UnfitError], or that of package keystore for a key that is too weak or does not fit alg.
func NewKey(id keystore.ID, alg keystore.Algorithm, key any, typ string) (*Key, error) {
	sign, err := newSign(id, alg, key)
	if err != nil {
		return nil, err
	}
	return &Key{ID: id, header: tokenHeader(id, alg, typ), sign: sign}, nil
}

// Sign returns the signature of signed in the form of a JWS (RFC 7518, section 3). The error is
// that of the crypto.Signer.
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

// newSign returns a function that signs by alg with key, after it has checked that they fit.
func newSign(id keystore.ID, alg keystore.Algorithm, key any) (func([]byte) ([]byte, error), error) {
	switch k := key.(type) {
	case crypto.Signer: // first, since an ed25519.PrivateKey is a slice of bytes too
		if isEmpty(k) {
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

// isEmpty reports whether key is nil or cut short, so that its Public method would panic.
func isEmpty(key crypto.Signer) bool {
	if ed, ok := key.(ed25519.PrivateKey); ok {
		return len(ed) != ed25519.PrivateKeySize
	}
	v := reflect.ValueOf(key)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// signHMAC returns a function that signs by HMAC. Its pool saves the setup of a hash for each
// token.
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

// signWith returns a function that signs by alg with key, which fits it. Each algorithm passes to
// crypto.Signer what that wants of it: Ed25519 the message, all others its hash.
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

// rawECDSA turns a signature in ASN.1, as a crypto.Signer returns it, into R and S, each as long as
// the order of the curve (RFC 7518, section 3.4). It checks the form, since the signer may be an
// HSM.
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

package keystore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"math/big"
	"slices"
)

// NewPublic returns a key that verifies signatures of alg with pub, which must be an
// *rsa.PublicKey, an *ecdsa.PublicKey or an ed25519.PublicKey. It keeps a copy.
//
// NewPublic returns an error for
//
//   - an RSA key of less than 2048 bits (RFC 7518, section 3.3) or more than 8192,
//     with an even modulus, with an exponent other than 65537, or with the fault
//     ROCA (CVE-2017-15361), so that its primes can be found;
//   - an elliptic curve key that is not a point on the curve of alg;
//   - an Ed25519 key of the wrong length, or of small order: anyone can sign for
//     such a key.
func NewPublic(id ID, alg Algorithm, pub crypto.PublicKey) (*Key, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	m, err := newPublic(alg, pub)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, failf("unusable %T for %s", pub, alg)
	}
	sum := sha256.Sum256(der)
	m.fingerprint = func() [32]byte { return sum }
	return newKey(id, alg, m), nil
}

func newPublic(alg Algorithm, pub crypto.PublicKey) (material, error) {
	switch alg {
	case RS256, RS384, RS512, PS256, PS384, PS512:
		if pub, ok := pub.(*rsa.PublicKey); ok && pub != nil {
			return newRSA(alg, pub)
		}
		return material{}, wrongKeyType(alg, pub, "*rsa.PublicKey")
	case ES256, ES384, ES512:
		if pub, ok := pub.(*ecdsa.PublicKey); ok && pub != nil {
			return newECDSA(alg, pub)
		}
		return material{}, wrongKeyType(alg, pub, "*ecdsa.PublicKey")
	case EdDSA, Ed25519:
		if pub, ok := pub.(ed25519.PublicKey); ok {
			return newEd25519(alg, pub)
		}
		return material{}, wrongKeyType(alg, pub, "ed25519.PublicKey")
	case HS256, HS384, HS512:
		return material{}, failf("%s takes a secret, not a public key: use NewSecret", alg)
	}
	return material{}, unknownAlgorithm(alg)
}

func wrongKeyType(alg Algorithm, pub crypto.PublicKey, want string) error {
	if _, private := pub.(crypto.Signer); private {
		return failf("%T is a private key: pass its Public() for %s", pub, alg)
	}
	return failf("%T cannot verify %s: want %s", pub, alg, want)
}

// The bounds of RSA keys (RFC 7518, sections 3.3 and 3.5).
const (
	minRSABits  = 2048
	maxRSABits  = 8192
	cheapBits   = 4096 // beyond, a check counts as slow
	rsaExponent = 65537
)

func newRSA(alg Algorithm, pub *rsa.PublicKey) (material, error) {
	if pub.N == nil {
		return material{}, failf("an RSA key without modulus")
	}
	switch bits := pub.N.BitLen(); {
	case pub.N.Sign() <= 0 || bits < minRSABits:
		return material{}, failf("an RSA key of %d bits: want at least %d (RFC 7518, section 3.3)", bits, minRSABits)
	case bits > maxRSABits:
		return material{}, failf("an RSA key of %d bits: want at most %d", bits, maxRSABits)
	case pub.N.Bit(0) == 0:
		return material{}, failf("an RSA key with an even modulus")
	case pub.E != rsaExponent:
		return material{}, failf("an RSA key with exponent %d: want %d", pub.E, rsaExponent)
	case hasROCA(pub.N):
		return material{}, failf("an RSA key that can be factored, of a generator with the fault ROCA (CVE-2017-15361): make a new one")
	}
	h := alg.Hash()
	own := &rsa.PublicKey{N: new(big.Int).Set(pub.N), E: pub.E}
	m := material{public: func() (crypto.PublicKey, bool) {
		return &rsa.PublicKey{N: new(big.Int).Set(own.N), E: own.E}, true
	}}
	if pub.N.BitLen() > cheapBits {
		m.cost = slowCost
	}
	switch alg {
	case PS256, PS384, PS512:
		// The salt is as long as the hash (RFC 7518, section 3.5).
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}
		m.verify = func(signed, sig []byte) bool {
			return rsa.VerifyPSS(own, h, digest(h, signed), sig, opts) == nil
		}
	default:
		m.verify = func(signed, sig []byte) bool {
			return rsa.VerifyPKCS1v15(own, h, digest(h, signed), sig) == nil
		}
	}
	return m, nil
}

func newECDSA(alg Algorithm, pub *ecdsa.PublicKey) (material, error) {
	var curve elliptic.Curve
	switch alg {
	case ES256:
		curve = elliptic.P256()
	case ES384:
		curve = elliptic.P384()
	case ES512:
		curve = elliptic.P521()
	}
	if pub.Curve != curve {
		return material{}, failf("%s wants a key on %s (RFC 7518, section 3.4)", alg, curve.Params().Name)
	}
	//lint:ignore SA1019 Bytes panics on nil coordinates
	if pub.X == nil || pub.Y == nil {
		return material{}, failf("an elliptic curve key without coordinates")
	}
	point, err := pub.Bytes() // refuses a point that is not on the curve
	if err != nil {
		return material{}, failf("the key is not a point on %s", curve.Params().Name)
	}
	fresh := func() *ecdsa.PublicKey {
		k, err := ecdsa.ParseUncompressedPublicKey(curve, point)
		if err != nil {
			panic("keystore: a point that was valid is not: " + err.Error())
		}
		return k
	}
	own := fresh()
	h := alg.Hash()
	size := (curve.Params().BitSize + 7) / 8
	cost := slowCost
	if alg == ES256 {
		cost = 1
	}
	return material{
		cost: cost,
		verify: func(signed, sig []byte) bool {
			// sig is R and S, each as long as the order of the curve (RFC 7518, section 3.4).
			if len(sig) != 2*size {
				return false
			}
			r, s := new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:])
			return ecdsa.Verify(own, digest(h, signed), r, s) // checks 0 < r, s < n
		},
		public: func() (crypto.PublicKey, bool) { return fresh(), true },
	}, nil
}

func newEd25519(alg Algorithm, pub ed25519.PublicKey) (material, error) {
	// ed25519.Verify panics on a key of another length.
	if len(pub) != ed25519.PublicKeySize {
		return material{}, failf("an Ed25519 key of %d bytes: %s wants %d", len(pub), alg, ed25519.PublicKeySize)
	}
	if smallOrder(pub) {
		return material{}, failf("an Ed25519 key of small order, for which anyone can sign")
	}
	own := slices.Clone(pub)
	return material{
		verify: func(signed, sig []byte) bool {
			return len(sig) == ed25519.SignatureSize && ed25519.Verify(own, signed, sig) // checks s < L
		},
		public: func() (crypto.PublicKey, bool) { return slices.Clone(own), true },
	}, nil
}

// smallOrder reports whether pub encodes a point of order 1, 2, 4 or 8. RFC 8032,
// section 5.1.7, does not demand this check. For such a key, though, a signature whose
// s is zero verifies for a large part of all messages.
func smallOrder(pub ed25519.PublicKey) bool {
	var y [32]byte
	copy(y[:], pub)
	y[31] &= 0x7f // the sign of x
	return slices.Contains(smallOrderY[:], y)
}

// smallOrderY are the y coordinates of the points of small order. They include the
// encodings that are not reduced modulo p = 2^255 - 19.
var smallOrderY = [...][32]byte{
	{},  // 0: order 4
	{1}, // 1: the identity
	{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05}, // order 8
	{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a}, // order 8
	belowTwo255(20), // p - 1: order 2
	belowTwo255(19), // p, that is 0
	belowTwo255(18), // p + 1, that is 1
}

// belowTwo255 returns 2^255 - n in little-endian order.
func belowTwo255(n int) (y [32]byte) {
	for i := range y {
		y[i] = 0xff
	}
	y[0] = byte(256 - n)
	y[31] = 0x7f
	return y
}

// digest returns the hash of b. It allocates less than h.New.
func digest(h crypto.Hash, b []byte) []byte {
	switch h {
	case crypto.SHA384:
		sum := sha512.Sum384(b)
		return sum[:]
	case crypto.SHA512:
		sum := sha512.Sum512(b)
		return sum[:]
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

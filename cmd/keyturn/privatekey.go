package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/keyturn/keyturn/keystore"
)

// A privateKey is a key that signs, as a file has it. The material is behind a function, so that
// formatting the key does not print it.
type privateKey struct {
	material  func() any         // a []byte for HS*, else a crypto.Signer
	kid       string             // that the file names, or ""
	algorithm keystore.Algorithm // that the file names, or that fits the key
}

func newPrivateKey(material any, kid string, alg keystore.Algorithm) *privateKey {
	return &privateKey{material: func() any { return material }, kid: kid, algorithm: alg}
}

// readPrivateKey reads a private key in PEM (PKCS #8, PKCS #1 or SEC 1), or a JWK (RFC 7517). Its error
// quotes nothing of the file.
func readPrivateKey(doc []byte) (*privateKey, error) {
	doc = bytes.TrimSpace(bytes.TrimPrefix(doc, []byte("\ufeff")))
	switch {
	case bytes.Contains(doc, []byte("-----BEGIN ")):
		return readPrivatePEM(doc)
	case bytes.HasPrefix(doc, []byte("{")):
		return readPrivateJWK(doc)
	}
	return nil, errors.New("is neither PEM nor a JWK; a shared secret goes after --secret-file")
}

// errPublicKey is the error for a key that can only verify.
var errPublicKey = errors.New(`has a public key, and a ring signs: give the private key; a key of somebody else, whose tokens are only verified, goes to "keyturn keys accept"`)

func readPrivatePEM(doc []byte) (*privateKey, error) {
	last := errors.New("has no private key in PEM")
	for block, rest := pem.Decode(doc); block != nil; block, rest = pem.Decode(rest) {
		switch t := block.Type; {
		case t == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return nil, errors.New(`has an encrypted private key: decrypt it with "openssl pkey -in FILE -out PLAIN", and remove PLAIN afterwards`)
		case t == "OPENSSH PRIVATE KEY":
			return nil, errors.New("has a private key of SSH: want one in PKCS #8")
		case t == "PRIVATE KEY":
			return parsePrivate(x509.ParsePKCS8PrivateKey(block.Bytes))
		case t == "RSA PRIVATE KEY":
			key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			return parsePrivate(key, err)
		case t == "EC PRIVATE KEY":
			key, err := x509.ParseECPrivateKey(block.Bytes)
			return parsePrivate(key, err)
		case t == "PUBLIC KEY" || t == "RSA PUBLIC KEY" || t == "CERTIFICATE":
			last = errPublicKey
		}
	}
	return nil, last
}

// parsePrivate returns what a parser of package x509 has returned. The error of the parser may quote
// the key.
func parsePrivate(key any, err error) (*privateKey, error) {
	if err != nil {
		return nil, errors.New("has a private key that cannot be read")
	}
	alg, err := algorithmFor(key)
	if err != nil {
		return nil, err
	}
	return newPrivateKey(key, "", alg), nil
}

// algorithmFor returns the usual algorithm for a key.
func algorithmFor(key any) (keystore.Algorithm, error) {
	switch k := key.(type) {
	case []byte:
		return keystore.HS256, nil
	case *rsa.PrivateKey:
		return keystore.RS256, nil
	case ed25519.PrivateKey:
		return keystore.EdDSA, nil
	case *ecdsa.PrivateKey:
		switch k.Curve {
		case elliptic.P256():
			return keystore.ES256, nil
		case elliptic.P384():
			return keystore.ES384, nil
		case elliptic.P521():
			return keystore.ES512, nil
		}
	}
	return "", errors.New("has a key for no algorithm that keyturn knows: want RSA, P-256, P-384, P-521 or Ed25519")
}

// A jwkPrivate has the members of a JWK that make a key that signs (RFC 7518, section 6).
type jwkPrivate struct {
	Type      string             `json:"kty"`
	KID       string             `json:"kid"`
	Algorithm keystore.Algorithm `json:"alg"`
	Use       string             `json:"use"`
	Curve     string             `json:"crv"`
	Keys      []any              `json:"keys"` // it is a set

	K base64url `json:"k"` // of a secret
	N base64url `json:"n"` // and E, P, Q: of RSA
	E base64url `json:"e"`
	D base64url `json:"d"` // the private part of every other key
	P base64url `json:"p"`
	Q base64url `json:"q"`
	X base64url `json:"x"` // and Y: of a point
	Y base64url `json:"y"`
}

// A base64url is a member that holds bytes.
type base64url string

// bytes decodes b. Some programs pad it.
func (b base64url) bytes() []byte {
	decoded, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(string(b), "="))
	if err != nil {
		return nil
	}
	return decoded
}

func (b base64url) number() *big.Int { return new(big.Int).SetBytes(b.bytes()) }

func readPrivateJWK(doc []byte) (*privateKey, error) {
	var j jwkPrivate
	if err := json.Unmarshal(doc, &j); err != nil {
		return nil, errors.New("is no JWK that can be read") // the error quotes the key
	}
	switch {
	case j.Keys != nil:
		return nil, errors.New("is a JWK Set: give one of its keys, as a JWK")
	case j.Use == "enc":
		return nil, errors.New("has a key for encryption (use)")
	case j.Type != "oct" && j.D == "":
		return nil, errPublicKey
	}
	return j.read()
}

// read returns the key of j, and the algorithm that j names or that fits it.
func (j *jwkPrivate) read() (*privateKey, error) {
	key, err := j.key()
	if err != nil {
		return nil, err
	}
	alg, err := algorithmFor(key)
	if err != nil {
		return nil, err
	}
	if j.Algorithm != "" {
		alg = j.Algorithm
	}
	if !alg.Known() {
		return nil, fmt.Errorf("has a key for no algorithm that keyturn knows: want one of %v", keystore.Algorithms())
	}
	return newPrivateKey(key, j.KID, alg), nil
}

// key returns the key of j. Each part has to fit the others.
func (j *jwkPrivate) key() (any, error) {
	broken := errors.New("has a JWK whose parts do not make a private key")
	switch {
	case j.Type == "oct":
		if k := j.K.bytes(); len(k) > 0 {
			return k, nil
		}
	case j.Type == "RSA":
		if j.P == "" || j.Q == "" {
			return nil, errors.New("has an RSA key without its primes, p and q")
		}
		e := j.E.number()
		if !e.IsInt64() || e.Int64() > 1<<31-1 {
			return nil, broken
		}
		key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: j.N.number(), E: int(e.Int64())}, D: j.D.number(), Primes: []*big.Int{j.P.number(), j.Q.number()}}
		if key.Validate() == nil {
			key.Precompute()
			return key, nil
		}
	case j.Type == "EC":
		return j.keyOnCurve(broken)
	case j.Type == "OKP" && j.Curve == "Ed25519":
		if d := j.D.bytes(); len(d) == ed25519.SeedSize {
			if key := ed25519.NewKeyFromSeed(d); j.X == "" || bytes.Equal(key.Public().(ed25519.PublicKey), j.X.bytes()) {
				return key, nil
			}
		}
	default:
		return nil, errors.New("has a JWK of a kty or crv that keyturn does not know")
	}
	return nil, broken
}

func (j *jwkPrivate) keyOnCurve(broken error) (any, error) {
	curve, ok := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[j.Curve]
	if !ok {
		return nil, errors.New("has a JWK of a crv that keyturn does not know")
	}
	size := (curve.Params().BitSize + 7) / 8
	d := j.D.bytes()
	if len(d) > size {
		return nil, broken
	}
	key, err := ecdsa.ParseRawPrivateKey(curve, append(make([]byte, size-len(d)), d...))
	if err != nil {
		return nil, broken
	}
	point, err := key.PublicKey.Bytes() // 4, x and y, of size bytes each
	if err != nil {
		return nil, broken
	}
	for i, coordinate := range []base64url{j.X, j.Y} {
		if coordinate != "" && coordinate.number().Cmp(new(big.Int).SetBytes(point[1+i*size:1+(i+1)*size])) != 0 {
			return nil, broken
		}
	}
	return key, nil
}

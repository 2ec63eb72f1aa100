package providertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"time"
)

// A key signs RS256, ES256 or, with a secret, HS256.
type key struct {
	rsa      *rsa.PrivateKey
	ec       *ecdsa.PrivateKey
	secret   []byte
	cert     []byte // DER, for x5c and x5t
	stranger *key   // another key of the same kind, which the provider does not publish
}

// keys are those of all providers: RSA keys are slow to make.
type keys struct{ rsa, ec *key }

func newKeys() keys {
	newRSA := func() *key { return certified(&key{rsa: must(rsa.GenerateKey(rand.Reader, 2048))}) }
	newEC := func() *key { return certified(&key{ec: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}) }
	k := keys{rsa: newRSA(), ec: newEC()}
	k.rsa.stranger, k.ec.stranger = newRSA(), newEC()
	return k
}

func (k *key) signer() crypto.Signer {
	if k.rsa != nil {
		return k.rsa
	}
	return k.ec
}

// certified gives k a certificate of its own.
func certified(k *key) *key {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signing"}, NotAfter: time.Now().Add(time.Hour)}
	k.cert = must(x509.CreateCertificate(rand.Reader, template, template, k.signer().Public(), k.signer()))
	return k
}

// sign returns a signature in the form of a JWS (RFC 7518, section 3).
func (k *key) sign(input string) string {
	digest := sha256.Sum256([]byte(input))
	switch {
	case k.rsa != nil:
		return string(must(rsa.SignPKCS1v15(nil, k.rsa, crypto.SHA256, digest[:])))
	case k.ec != nil:
		r, s, err := ecdsa.Sign(rand.Reader, k.ec, digest[:])
		if err != nil {
			panic(err)
		}
		return string(r.FillBytes(make([]byte, 32))) + string(s.FillBytes(make([]byte, 32)))
	}
	mac := hmac.New(sha256.New, k.secret)
	mac.Write([]byte(input))
	return string(mac.Sum(nil))
}

// pem returns the public key in PEM.
func (k *key) pem() []byte {
	der := must(x509.MarshalPKIXPublicKey(k.signer().Public()))
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// jwk returns the public key as a JWK with these other members.
func (k *key) jwk(kid string, more object) object {
	b64 := base64.RawURLEncoding.EncodeToString
	if k.rsa != nil {
		return more.with("kty", "RSA").with("kid", kid).with("n", b64(k.rsa.N.Bytes())).with("e", "AQAB")
	}
	point := must(k.ec.PublicKey.Bytes()) // 4, x, y
	return more.with("kty", "EC").with("crv", "P-256").with("kid", kid).with("x", b64(point[1:33])).with("y", b64(point[33:]))
}

// x5 returns the members x5t and x5c of k's certificate (RFC 7517, sections 4.7 and 4.8).
func (k *key) x5() object {
	return object{"x5t": k.x5t(), "x5c": list{base64.StdEncoding.EncodeToString(k.cert)}}
}

func (k *key) x5t() string {
	digest := sha1.Sum(k.cert)
	return base64.RawURLEncoding.EncodeToString(digest[:])
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

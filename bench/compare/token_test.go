package compare

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
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

const (
	tenant   = "acme"
	kid      = "2026-11-a"
	issuer   = "https://auth.acme.example"
	audience = "https://api.acme.example"

	issued  = 1767225600 // 2026-01-01
	expires = 4102444800 // 2100-01-01
)

// payload has the nine claims of the measured token. With HS256 the token has 413 bytes.
var payload = fmt.Sprintf(`{"iss":%q,"sub":"user-31415","aud":%q,"exp":%d,"nbf":%d,"iat":%d,`+
	`"jti":"3f0d8c1e-6b7a-4c52-9e1f-2a8b5d7c9e04","scope":"orders:read orders:write","tid":%q}`, issuer, audience, expires, issued, issued, tenant)

// claims are those of payload, for libraries that sign a map.
func claims() map[string]any {
	return map[string]any{
		"iss": issuer, "sub": "user-31415", "aud": audience, "exp": expires, "nbf": issued, "iat": issued,
		"jti": "3f0d8c1e-6b7a-4c52-9e1f-2a8b5d7c9e04", "scope": "orders:read orders:write", "tid": tenant,
	}
}

// A key is an algorithm with the keys that sign and verify under it.
type key struct {
	alg     string
	private any // []byte or a crypto.Signer
	public  any // []byte or a crypto.PublicKey
}

// algorithms are all algorithms of keyturn.
var algorithms = []string{
	"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
}

// newKey returns the key for alg. There is one of each kind, since making RSA keys takes a while.
func newKey(tb testing.TB, alg string) key {
	tb.Helper()
	switch alg {
	case "HS256", "HS384", "HS512":
		return key{alg, material().secret, material().secret}
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		return key{alg, material().rsa, &material().rsa.PublicKey}
	case "ES256":
		return key{alg, material().p256, &material().p256.PublicKey}
	case "ES384":
		return key{alg, material().p384, &material().p384.PublicKey}
	case "ES512":
		return key{alg, material().p521, &material().p521.PublicKey}
	case "EdDSA", "Ed25519":
		return key{alg, material().ed25519, material().ed25519.Public()}
	}
	tb.Fatalf("no key for %q", alg)
	return key{}
}

type materials struct {
	secret           []byte
	rsa              *rsa.PrivateKey
	p256, p384, p521 *ecdsa.PrivateKey
	ed25519          ed25519.PrivateKey
}

var material = sync.OnceValue(func() materials {
	m := materials{secret: make([]byte, 64)}
	rand.Read(m.secret)
	var errs [5]error
	m.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	m.p256, errs[1] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	m.p384, errs[2] = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	m.p521, errs[3] = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, m.ed25519, errs[4] = ed25519.GenerateKey(rand.Reader)
	for _, err := range errs {
		if err != nil {
			panic(err)
		}
	}
	return m
})

// token returns a token made with the standard library alone, so that no library judges its own
// work.
func (k key) token(tb testing.TB, payload string) string {
	tb.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64(fmt.Appendf(nil, `{"alg":%q,"typ":"JWT","kid":%q}`, k.alg, kid)) + "." + b64([]byte(payload))
	return signed + "." + b64(k.sign(tb, signed))
}

// distinct returns n tokens of equal length that differ in jti.
func (k key) distinct(tb testing.TB, n int) []string {
	tb.Helper()
	const jtiEnd = "2a8b5d7c9e04"
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = k.token(tb, strings.Replace(payload, jtiEnd, fmt.Sprintf("%0*x", len(jtiEnd), i), 1))
	}
	return tokens
}

// sign returns the signature of RFC 7518, section 3.
func (k key) sign(tb testing.TB, signed string) []byte {
	tb.Helper()
	var sig []byte
	var err error
	switch private := k.private.(type) {
	case []byte:
		mac := hmac.New(k.hash().New, private)
		mac.Write([]byte(signed))
		sig = mac.Sum(nil)
	case *rsa.PrivateKey:
		if k.alg[0] == 'P' {
			sig, err = rsa.SignPSS(rand.Reader, private, k.hash(), k.digest(signed), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			sig, err = rsa.SignPKCS1v15(nil, private, k.hash(), k.digest(signed))
		}
	case *ecdsa.PrivateKey:
		var r, s *big.Int
		if r, s, err = ecdsa.Sign(rand.Reader, private, k.digest(signed)); err == nil {
			n := (private.Params().BitSize + 7) / 8
			sig = append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...)
		}
	case ed25519.PrivateKey:
		sig = ed25519.Sign(private, []byte(signed))
	}
	if err != nil {
		tb.Fatal(err)
	}
	return sig
}

func (k key) hash() crypto.Hash {
	switch k.alg[2:] {
	case "256":
		return crypto.SHA256
	case "384":
		return crypto.SHA384
	default:
		return crypto.SHA512
	}
}

func (k key) digest(signed string) []byte {
	switch k.hash() {
	case crypto.SHA256:
		d := sha256.Sum256([]byte(signed))
		return d[:]
	case crypto.SHA384:
		d := sha512.Sum384([]byte(signed))
		return d[:]
	default:
		d := sha512.Sum512([]byte(signed))
		return d[:]
	}
}

// id is keyturn's ID of the key.
var id = keystore.ID{Tenant: tenant, KID: kid}

// keyturn returns our verifier of tokens of k: no cache, so that every call is a full check.
func (k key) keyturn(tb testing.TB) *verifier.Verifier {
	tb.Helper()
	return k.keyturnWith(tb, verifier.Config{CacheTTL: -1})
}

// keyturnWith returns our verifier of tokens of k, with the tenant added to cfg.
func (k key) keyturnWith(tb testing.TB, cfg verifier.Config) *verifier.Verifier {
	tb.Helper()
	var verifying *keystore.Key
	var err error
	if secret, ok := k.public.([]byte); ok {
		verifying, err = keystore.NewSecret(id, keystore.Algorithm(k.alg), secret)
	} else {
		verifying, err = keystore.NewPublic(id, keystore.Algorithm(k.alg), k.public)
	}
	if err != nil {
		tb.Fatal(err)
	}
	keys, err := keystore.NewStatic(verifying)
	if err != nil {
		tb.Fatal(err)
	}
	cfg.Tenants = []verifier.Tenant{{
		ID:         tenant,
		Keys:       keys,
		Algorithms: []keystore.Algorithm{keystore.Algorithm(k.alg)},
		Issuer:     issuer,
		Audiences:  []string{audience},
	}}
	v, err := verifier.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// pem returns the private or public key as PEM, PKCS #8 or SubjectPublicKeyInfo.
func (k key) pem(tb testing.TB, private bool) string {
	tb.Helper()
	kind, der, err := "PUBLIC KEY", []byte(nil), error(nil)
	if private {
		kind = "PRIVATE KEY"
		der, err = x509.MarshalPKCS8PrivateKey(k.private)
	} else {
		der, err = x509.MarshalPKIXPublicKey(k.public)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestTokenIsTheOneMeasured(t *testing.T) {
	k := newKey(t, "HS256")
	tokens := append(k.distinct(t, 3), k.token(t, payload))
	seen := make(map[string]bool)
	for _, token := range tokens {
		if len(token) != 413 || seen[token] {
			t.Errorf("a token has %d bytes, want 413; seen before: %t", len(token), seen[token])
		}
		seen[token] = true
	}
}

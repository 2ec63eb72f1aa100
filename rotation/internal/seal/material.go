package seal

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/jwk"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// rsaBits is the size of new RSA keys. 3072 bits give 128 bits of security, like P-256, Ed25519 and
// HS256 (NIST SP 800-57, part 1, table 2). 2048 bits give 112, which that guide allows until 2030.
// To make a key takes about a second, long before it signs.
const rsaBits = 3072

// A Material is the material of a new key, before it is sealed. The secret part is in a closure, so
// that nothing prints it.
type Material struct {
	Algorithm keystore.Algorithm
	KID       string        // the kid of a generated key: thumbprint, or random for HS*
	public    []byte        // SubjectPublicKeyInfo (RFC 5280) in DER; none for HS*
	secret    func() []byte // the secret of HS*, else PKCS #8 (RFC 5958) in DER
}

// NewMaterial makes the material of a new key for alg: for HS* as many random bytes as the hash
// has, otherwise an RSA key of 3072 bits or a key on the curve of alg.
func NewMaterial(alg keystore.Algorithm) (*Material, error) {
	for {
		key, err := generate(alg)
		if err != nil {
			return nil, err
		}
		m, err := newMaterialOf(alg, key)
		if err != nil {
			return nil, err
		}
		// A kid that begins with a dash would look like a flag on a command line. One in 64 does.
		if !strings.HasPrefix(m.KID, "-") {
			return m, nil
		}
	}
}

// ImportMaterial returns the material of a key that exists: a []byte for HS*, otherwise an
// *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey. kid is that of its tokens. If it is "",
// one is made as for a new key. It refuses what [keystore.NewSecret] and [keystore.NewPublic] refuse.
func ImportMaterial(alg keystore.Algorithm, key any, kid string) (*Material, error) {
	if secret, ok := key.([]byte); ok && !alg.Symmetric() && alg.Known() {
		return nil, &ring.Error{Text: fmt.Sprintf("a secret of %d bytes is not a private key for %s", len(secret), alg)}
	}
	m, err := newMaterialOf(alg, key)
	if err != nil || kid == "" {
		return m, err
	}
	if !isText(kid, 1, keystore.MaxKIDBytes) {
		return nil, &ring.Error{Text: fmt.Sprintf("a kid of %d bytes: want 1 to %d, in UTF-8", len(kid), keystore.MaxKIDBytes)}
	}
	m.KID = kid
	return m, nil
}

// generate makes a key for alg, as newMaterialOf takes it.
func generate(alg keystore.Algorithm) (any, error) {
	switch alg {
	case keystore.HS256, keystore.HS384, keystore.HS512:
		// As long as the hash: a shorter secret is not allowed, and a longer one adds nothing.
		secret := make([]byte, alg.Hash().Size()) // RFC 7518, section 3.2
		rand.Read(secret)                         // never fails
		return secret, nil
	case keystore.RS256, keystore.RS384, keystore.RS512, keystore.PS256, keystore.PS384, keystore.PS512:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	case keystore.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case keystore.ES384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case keystore.ES512:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case keystore.EdDSA, keystore.Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, &ring.Error{Text: fmt.Sprintf("unknown algorithm %q: want one of %v", string(alg), keystore.Algorithms())}
}

// newMaterialOf returns the material of an existing key: a []byte for HS*, otherwise an
// *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey that is not nil. It refuses the keys
// that [keystore.NewSecret] and [keystore.NewPublic] refuse.
func newMaterialOf(alg keystore.Algorithm, key any) (*Material, error) {
	if secret, ok := key.([]byte); ok {
		if _, err := keystore.NewSecret(keystore.ID{}, alg, secret); err != nil {
			return nil, err
		}
		secret = slices.Clone(secret) // the caller may reuse its memory
		return &Material{Algorithm: alg, KID: randomKID(), secret: func() []byte { return secret }}, nil
	}
	signer, ok := key.(crypto.Signer)
	// Public of an Ed25519 key that is cut short panics.
	if ed, is := key.(ed25519.PrivateKey); !ok || is && len(ed) != ed25519.PrivateKeySize {
		return nil, &ring.Error{Text: fmt.Sprintf("a %T is not a private key for %s", key, alg)}
	}
	if _, err := keystore.NewPublic(keystore.ID{}, alg, signer.Public()); err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, &ring.Error{Text: fmt.Sprintf("the private key of a %T cannot be read, so it cannot be sealed", key)}
	}
	pub := signer.Public()
	public, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, &ring.Error{Text: fmt.Sprintf("unusable %T", pub)}
	}
	kid, err := jwk.Thumbprint(pub)
	if err != nil {
		return nil, err
	}
	return &Material{Algorithm: alg, KID: kid, public: public, secret: func() []byte { return private }}, nil
}

// kidSize is the length of a random kid in bytes.
const kidSize = 16

// kidEncoding is how it is written. Each value has one text.
var kidEncoding = base64.RawURLEncoding.Strict()

// errRandomKID refuses a kid that was not made by randomKID.
var errRandomKID = &ring.Error{Kind: ErrMalformed, Text: "its kid is not 128 bits in base64url"}

// randomKID returns the kid of a new secret. It must not be a hash of the secret: with that, an
// attacker could check a guess offline.
func randomKID() string {
	var b [kidSize]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// checkKID refuses the kid of a generated key if it is not the RFC 7638 thumbprint of its public
// part, or 128 bits for HS*, whose pub is nil. An imported or legacy key has the kid of its tokens.
func checkKID(h *header, pub crypto.PublicKey) error {
	if h.Origin != ring.Generated {
		return nil
	}
	if pub == nil {
		var b [2 * kidSize]byte
		// The decoder skips line ends within the text, which only the lengths show.
		if len(h.KID) != kidEncoding.EncodedLen(kidSize) {
			return errRandomKID
		}
		if n, err := kidEncoding.Decode(b[:], []byte(h.KID)); err != nil || n != kidSize {
			return errRandomKID
		}
		return nil
	}
	if thumbprint, err := jwk.Thumbprint(pub); err != nil || thumbprint != h.KID {
		return &ring.Error{Kind: ErrMalformed, Text: "its kid is not the thumbprint of its key (RFC 7638)"}
	}
	return nil
}

// errMaterial hides the error of a parser, which may quote the key.
var errMaterial = &ring.Error{Kind: ErrMalformed, Text: "its key is not one for its algorithm"}

// openMaterial returns the key of a record for verifying, and the one for signing: a []byte for
// HS*, otherwise a [crypto.Signer]. The seal proves only that the writer had the tenant key. So
// openMaterial checks that all parts fit together.
func openMaterial(h header, secret []byte) (key *keystore.Key, private any, err error) {
	id := keystore.ID{Tenant: h.Tenant, KID: h.KID}
	var pub crypto.PublicKey
	private = secret
	if h.Algorithm.Symmetric() {
		if len(h.public) > 0 {
			return nil, nil, errPublicPart
		}
		key, err = keystore.NewSecret(id, h.Algorithm, secret)
	} else {
		if pub, private, err = parsePair(h.public, secret); err != nil {
			return nil, nil, err
		}
		key, err = keystore.NewPublic(id, h.Algorithm, pub)
	}
	if err != nil {
		return nil, nil, errMaterial
	}
	if err := checkKID(&h, pub); err != nil {
		return nil, nil, err
	}
	return key, private, nil
}

// errPublicPart refuses a record for HS* with a public part. A public key as an HMAC secret is the classic
// attack on JWTs.
var errPublicPart = &ring.Error{Kind: ErrMalformed, Text: "a secret with a public part"}

// checkSymmetric returns why a record for HS* is refused whose secret has size bytes and is not decrypted.
// What else openMaterial finds in it, it finds when the key is needed.
func checkSymmetric(h *header, size int) error {
	switch {
	case len(h.public) > 0:
		return errPublicPart
	case size < h.Algorithm.Hash().Size(): // RFC 7518, section 3.2
		return errMaterial
	}
	return checkKID(h, nil)
}

// parsePair reads the two parts of an asymmetric key, and checks that they belong together.
func parsePair(public, pkcs8 []byte) (crypto.PublicKey, crypto.Signer, error) {
	pub, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return nil, nil, errMaterial
	}
	// The parser accepts several encodings of a key. Only one of them is a record's, so that a
	// record has one encoding.
	if again, err := x509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Equal(again, public) {
		return nil, nil, &ring.Error{Kind: ErrMalformed, Text: "its public part is not in the canonical encoding"}
	}
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, nil, errMaterial
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, errMaterial
	}
	// The header is in the open. A writer with the tenant key must not pair one key's public part
	// with another's private part: this instance would sign tokens that it rejects.
	own, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !own.Equal(pub) {
		return nil, nil, &ring.Error{Kind: ErrMalformed, Text: "its public part is another key's"}
	}
	return pub, signer, nil
}

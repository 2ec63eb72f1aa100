package seal

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// An acceptHeader is the part of a sealed accepted key that is in the open, with its place. Both are
// the additional data (AAD) of the sealed part.
type acceptHeader struct {
	ring.AcceptRecord
	tenantKey string // the id of the tenant key, 16 hexadecimal digits
	public    []byte // SubjectPublicKeyInfo in DER (RFC 5280); none for HS*
}

// The flags of an accepted key, one bit each.
const (
	flagAcceptNoKID = 1 << iota
	flagWeak
)

// append appends the encoding of the header:
//
//	start  created until  flags  alg  life  id of the tenant key  public part
//
// Tenant and kid are not in it: they are told by its place, and place has them.
func (h acceptHeader) append(b []byte) []byte {
	b = appendDate(appendDate(appendStart(b, blobAccept), h.Created), h.Until)
	b = append(b, flagAcceptNoKID*boolByte(h.NoKID)|flagWeak*boolByte(h.Weak), algorithmCodes[h.Algorithm])
	b = binary.BigEndian.AppendUint32(b, uint32(h.Life))
	return appendText(appendHex(b, h.tenantKey), string(h.public))
}

// place returns where the accepted key must be found: tenant, kid. The seal covers it.
func (h acceptHeader) place() []byte { return appendText(appendText(nil, h.Tenant), h.KID) }

// readAcceptHeader reads the header of a sealed accepted key, without its place, and returns its
// length.
func readAcceptHeader(blob []byte) (h acceptHeader, n int, err error) {
	r := reader{rest: blob}
	r.start(blobAccept)
	h.Created, h.Until = r.date(), r.date()
	flags := r.number(1, 0, flagAcceptNoKID|flagWeak)
	h.NoKID, h.Weak = flags&flagAcceptNoKID != 0, flags&flagWeak != 0
	h.Algorithm = readCode(&r, algorithms, "algorithm")
	h.Life = int(r.number(4, 0, maxLife))
	h.tenantKey = hex.EncodeToString(r.take(tenantKeyIDSize))
	h.public = r.bytes(0, maxPublic)
	if r.err == nil && !h.Until.After(h.Created) {
		r.fail("a key that is accepted until before it was")
	}
	if r.err != nil {
		return acceptHeader{}, 0, r.err
	}
	return h, len(blob) - len(r.rest), nil
}

// SealAccept returns what to store of an accepted key. key is of its algorithm: a []byte for HS*, else
// a public key.
func SealAccept(tk *TenantKey, a ring.AcceptRecord, key any) ([]byte, error) {
	if err := checkAccept(a); err != nil {
		return nil, err
	}
	h := acceptHeader{AcceptRecord: a, tenantKey: tk.ID}
	secret, isSecret := key.([]byte)
	if !isSecret {
		var err error
		if h.public, err = x509.MarshalPKIXPublicKey(key); err != nil || len(h.public) > maxPublic {
			return nil, &ring.Error{Text: fmt.Sprintf("unusable %T", key)}
		}
	}
	if len(secret) > maxMaterial {
		return nil, &ring.Error{Text: fmt.Sprintf("a key of %d bytes: want at most %d", len(secret), maxMaterial)}
	}
	// An accepted key never changes. So one that could not be opened must not be sealed.
	if _, err := acceptedKey(h, secret); err != nil {
		return nil, err
	}
	box, err := tk.box()
	if err != nil {
		return nil, err
	}
	return box.seal(h.append(nil), h.place(), secret)
}

// checkAccept refuses an accepted key that could not be read.
func checkAccept(a ring.AcceptRecord) error {
	switch {
	case !isText(a.Tenant, 1, ring.MaxTenantBytes):
		return &ring.Error{Text: fmt.Sprintf("a tenant of %d bytes: want 1 to %d, in UTF-8", len(a.Tenant), ring.MaxTenantBytes)}
	case !isText(a.KID, 1, keystore.MaxKIDBytes):
		return &ring.Error{Text: fmt.Sprintf("a kid of %d bytes: want 1 to %d, in UTF-8", len(a.KID), keystore.MaxKIDBytes)}
	case !a.Algorithm.Known():
		return &ring.Error{Text: fmt.Sprintf("an accepted key for the unknown algorithm %q", string(a.Algorithm))}
	case a.Life < 0 || a.Life > maxLife:
		return &ring.Error{Text: fmt.Sprintf("an accepted key of life %d", a.Life)}
	case !a.Until.After(a.Created):
		return &ring.Error{Text: "an accepted key that ends before it begins"}
	case a.Weak && !a.Algorithm.Symmetric():
		return &ring.Error{Text: fmt.Sprintf("a weak key for %s: only a secret can be weak", a.Algorithm)}
	}
	if err := checkDate(a.Created); err != nil {
		return err
	}
	return checkDate(a.Until)
}

// An OpenedAccept is an accepted key that has been authenticated.
type OpenedAccept struct {
	ring.AcceptRecord
	TenantKey string // the id of the tenant key that seals it

	Key *keystore.Key // its ID has the record's kid, even if its tokens have none
}

// OpenAccept opens blob, which the store has for tenant and kid. keys are the tenant's keys by id.
// The error wraps one of ErrTampered, ErrNewer and ErrMalformed.
func OpenAccept(keys map[string]*TenantKey, tenant, kid string, blob []byte) (*OpenedAccept, error) {
	h, n, err := readAcceptHeader(blob)
	if err != nil {
		return nil, err
	}
	if !isText(tenant, 1, ring.MaxTenantBytes) || !isText(kid, 1, keystore.MaxKIDBytes) {
		return nil, &ring.Error{Kind: ErrMalformed, Text: "its name has no kid"}
	}
	h.Tenant, h.KID = tenant, kid
	if size := len(blob) - n - boxOverhead; size < 0 || size > maxMaterial {
		return nil, &ring.Error{Kind: ErrMalformed, Text: fmt.Sprintf("a key of %d bytes", size)}
	}
	tk, ok := keys[h.tenantKey]
	if !ok {
		return nil, &ring.Error{Kind: ErrTampered, Text: fmt.Sprintf("its tenant key %s is missing", h.tenantKey)}
	}
	box, err := tk.box()
	if err != nil {
		return nil, err
	}
	secret, err := box.open(blob[:n], h.place(), blob[n:])
	if err != nil {
		return nil, &ring.Error{Kind: ErrTampered, Text: "the accepted key was changed, moved or forged"}
	}
	defer clear(secret) // the key has its own copy
	key, err := acceptedKey(h, secret)
	if err != nil {
		return nil, errMaterial
	}
	return &OpenedAccept{AcceptRecord: h.AcceptRecord, TenantKey: tk.ID, Key: key}, nil
}

// acceptedKey returns the key of an accepted record, from its public part or its secret. The seal
// proves only that the writer had the tenant key. So it checks that all parts fit together.
func acceptedKey(h acceptHeader, secret []byte) (*keystore.Key, error) {
	id := keystore.ID{Tenant: h.Tenant, KID: h.KID}
	switch {
	case h.Algorithm.Symmetric() != (len(h.public) == 0), h.Weak && !h.Algorithm.Symmetric():
		// A public key as an HMAC secret is the classic attack on JWTs.
		return nil, &ring.Error{Text: fmt.Sprintf("no key for %s", h.Algorithm)}
	case h.Weak:
		return keystore.NewWeakSecret(id, h.Algorithm, secret, h.Created.Add(ring.MaxAcceptWeak))
	case h.Algorithm.Symmetric():
		return keystore.NewSecret(id, h.Algorithm, secret)
	case len(secret) > 0:
		return nil, &ring.Error{Text: "a public key with a secret"}
	}
	pub, err := x509.ParsePKIXPublicKey(h.public)
	if err != nil {
		return nil, errMaterial
	}
	if again, err := x509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Equal(again, h.public) {
		return nil, &ring.Error{Text: "its public part is not in the canonical encoding"}
	}
	return keystore.NewPublic(id, h.Algorithm, pub)
}

// A ForeignKey is a key that is to be accepted, with its material in a closure, so that nothing
// prints it.
type ForeignKey struct {
	KID       string // the one in its tokens, or a random one with NoKID
	NoKID     bool
	Weak      bool
	Algorithm keystore.Algorithm
	material  func() any
}

// NewForeignKey checks a key that is to be accepted, and copies its material. It refuses the keys that
// [keystore.NewSecret], [keystore.NewWeakSecret] and [keystore.NewPublic] refuse.
func NewForeignKey(k ring.ForeignKey) (*ForeignKey, error) {
	f := &ForeignKey{KID: k.KID, NoKID: k.NoKID, Weak: k.Weak, Algorithm: k.Algorithm}
	switch {
	case k.NoKID == (k.KID != ""):
		return nil, &ring.Error{Text: "a key to accept has a KID or NoKID, and not both"}
	case k.NoKID:
		f.KID = randomKID()
	case !isText(k.KID, 1, keystore.MaxKIDBytes):
		return nil, &ring.Error{Text: fmt.Sprintf("a kid of %d bytes: want at most %d, in UTF-8", len(k.KID), keystore.MaxKIDBytes)}
	}
	material := k.Key
	switch key := k.Key.(type) {
	case []byte:
		material = slices.Clone(key) // the caller may reuse its memory
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
	case crypto.Signer:
		return nil, &ring.Error{Text: fmt.Sprintf("a %T is a private key: give its public part", key)}
	default:
		return nil, &ring.Error{Text: fmt.Sprintf("a %T is no key to verify with", key)}
	}
	f.material = func() any { return material }
	_, err := f.key(keystore.ID{KID: f.KID}, f.Algorithm, k.Weak, maxDate)
	return f, err
}

// key returns the key under an ID and a name of its algorithm. A weak one ends at until.
func (f *ForeignKey) key(id keystore.ID, alg keystore.Algorithm, weak bool, until time.Time) (*keystore.Key, error) {
	secret, isSecret := f.material().([]byte)
	switch {
	case !isSecret:
		return keystore.NewPublic(id, alg, f.material())
	case weak:
		return keystore.NewWeakSecret(id, alg, secret, until)
	}
	return keystore.NewSecret(id, alg, secret)
}

// Same reports whether the material and the algorithm are those of key, whatever its kid is. weakSince
// is when key was accepted first if it is a weak one, else zero.
func (f *ForeignKey) Same(key *keystore.Key, weakSince time.Time) bool {
	if !f.Algorithm.Same(key.Algorithm()) {
		return false
	}
	mine, err := f.key(key.ID(), key.Algorithm(), !weakSince.IsZero(), weakSince.Add(ring.MaxAcceptWeak))
	return err == nil && mine.Equal(key)
}

// Cost returns what a check with the key costs: see [keystore.Key.Cost].
func (f *ForeignKey) Cost() int {
	key, err := f.key(keystore.ID{}, f.Algorithm, f.Weak, maxDate)
	if err != nil {
		return 1
	}
	return key.Cost()
}

// Seal returns what to store of the key as the record a.
func (f *ForeignKey) Seal(tk *TenantKey, a ring.AcceptRecord) ([]byte, error) {
	return SealAccept(tk, a, f.material())
}

// Sum returns the digest of a sealed field, by which two fields of one name are told apart.
func Sum(blob []byte) [sha256.Size]byte { return sha256.Sum256(blob) }

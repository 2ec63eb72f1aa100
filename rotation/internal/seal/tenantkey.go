package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"

	"github.com/keyturn/keyturn/rotation/ring"
)

const tenantKeySize = 32

// A TenantKey seals the key material in a tenant's records. It is itself wrapped by a KEK, so a new
// KEK rewraps one small blob for each tenant, and no record changes.
//
// The key is in closures, so that nothing prints it. It is not expanded for AES before it is used,
// since thousands may be in memory. It is safe for concurrent use.
type TenantKey struct {
	ID   string          // 8 random bytes as 16 lower-case hexadecimal digits
	KEK  KEKName         // that wraps it
	Born [checkSize]byte // the check value of the KEK that it was made under; a rewrap keeps it

	box  func() (*box, error)
	wrap func(under *kek, tenant string) ([]byte, error)
	wipe func()
}

// NewTenantKey makes a tenant key under the primary KEK, and returns it with what to store of it.
func NewTenantKey(keks *KEKs, tenant string) (*TenantKey, []byte, error) {
	if !isText(tenant, 1, ring.MaxTenantBytes) {
		return nil, nil, &ring.Error{Text: fmt.Sprintf("a tenant of %d bytes: want 1 to %d, in UTF-8", len(tenant), ring.MaxTenantBytes)}
	}
	primary, err := keks.sealing(keks.Primary())
	if err != nil {
		return nil, nil, err
	}
	var id [tenantKeyIDSize]byte
	key := make([]byte, tenantKeySize)
	rand.Read(id[:]) // never fails
	rand.Read(key)
	tk := makeTenantKey(hex.EncodeToString(id[:]), primary.name, primary.name.Check, key)
	blob, err := tk.wrap(primary, tenant)
	if err != nil {
		return nil, nil, err
	}
	return tk, blob, nil
}

// RewrapTenantKey returns what to store of a tenant key under another KEK. blob is what the store
// has for tenant under the id. The key, and the KEK that it was made under, stay.
func RewrapTenantKey(keks *KEKs, under KEKName, tenant, id string, blob []byte) ([]byte, error) {
	kek, err := keks.sealing(under)
	if err != nil {
		return nil, err
	}
	tk, err := OpenTenantKey(keks, tenant, id, blob)
	if err != nil {
		return nil, err
	}
	defer tk.Wipe()
	return tk.wrap(kek, tenant)
}

// ReadTenantKeyNames returns the names in a wrapped tenant key: the KEK that wraps it, and the
// check value of the one that it was made under. It needs no KEK, so what it returns is not
// authentic.
func ReadTenantKeyNames(blob []byte) (wrapped KEKName, born [checkSize]byte, err error) {
	sealed, _, err := readSealedKey(blob)
	return sealed.kek, sealed.born, err
}

// makeTenantKey returns the tenant key of these bytes, which it keeps.
func makeTenantKey(id string, wrapped KEKName, born [checkSize]byte, key []byte) *TenantKey {
	return makeTenantKeyWith(nil, id, wrapped, born, key)
}

// makeTenantKeyWith is makeTenantKey, of a key that uses t.
func makeTenantKeyWith(t *tools, id string, wrapped KEKName, born [checkSize]byte, key []byte) *TenantKey {
	once := sync.OnceValues(func() (*box, error) {
		return newBoxWith(t, key, func() (cipher.AEAD, error) { return newAEAD(key) }) // an error once it was wiped
	})
	return &TenantKey{
		ID: id, KEK: wrapped, Born: born,
		box: func() (*box, error) {
			if len(key) != tenantKeySize { // it was wiped
				return nil, errUnusable
			}
			return once()
		},
		wrap: func(under *kek, tenant string) ([]byte, error) {
			if len(key) != tenantKeySize { // it was wiped
				return nil, errUnusable
			}
			box, err := under.box()
			if err != nil {
				return nil, err
			}
			sealed := sealedKey{tenant: tenant, id: id, kek: under.name, born: born}
			return box.seal(sealed.append(nil), sealed.place(), key)
		},
		wipe: func() { clear(key); key = nil },
	}
}

// Wipe clears the key in memory. Only then is tk not safe for concurrent use. Afterwards it seals
// and opens nothing.
func (tk *TenantKey) Wipe() { tk.wipe() }

// OpenTenantKey opens blob, which the store has for tenant under the id. The error wraps one of
// ErrWrongKEK, ErrTampered, ErrNewer and ErrMalformed.
func OpenTenantKey(keks *KEKs, tenant, id string, blob []byte) (*TenantKey, error) {
	tk, _, err := openTenantKey(keks, tenant, id, blob)
	return tk, err
}

// openTenantKey is OpenTenantKey with the name of the KEK as it is in blob.
func openTenantKey(keks *KEKs, tenant, id string, blob []byte) (*TenantKey, KEKName, error) {
	if !isText(tenant, 1, ring.MaxTenantBytes) || !isTenantKeyID(id) {
		return nil, KEKName{}, &ring.Error{Kind: ErrMalformed, Text: "it is of no tenant, or its name has no id of a tenant key"}
	}
	sealed, n, err := readSealedKey(blob, keks.all()...)
	if err != nil {
		return nil, KEKName{}, err
	}
	sealed.tenant, sealed.id = tenant, id
	// The header can be read without a KEK, so a wrong KEK is told from a changed key.
	kek, err := keks.find(sealed.kek)
	if err != nil {
		return nil, KEKName{}, err
	}
	box, err := kek.box()
	if err != nil {
		return nil, KEKName{}, err
	}
	key, err := box.open(blob[:n], sealed.place(), blob[n:])
	if err != nil {
		return nil, KEKName{}, &ring.Error{Kind: ErrTampered, Text: "the tenant key was changed, moved or forged"}
	}
	return makeTenantKeyWith(kek.tools, id, kek.name, sealed.born, key), sealed.kek, nil
}

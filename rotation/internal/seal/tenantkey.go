package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/keyturn/keyturn/rotation/ring"
)

const tenantKeySize = 32

// A TenantKey seals the key material in a tenant's records. It is itself wrapped by a KEK, so a new
// KEK rewraps one small blob for each tenant, and no record changes.
//
// The key is in closures, so that nothing prints it. It is not expanded for AES before it is used,
// since thousands may be in memory. It is safe for concurrent use.
type TenantKey struct {
	ID   string // 8 random bytes as 16 lower-case hexadecimal digits
	aead func() (cipher.AEAD, error)
	wrap func(under *kek, tenant string) ([]byte, error)
}

// NewTenantKey makes a tenant key, and returns it with what to store of it.
func NewTenantKey(keks *KEKs, tenant string) (*TenantKey, []byte, error) {
	if !isText(tenant, 1, ring.MaxTenantBytes) {
		return nil, nil, &ring.Error{Text: fmt.Sprintf("a tenant of %d bytes: want 1 to %d, in UTF-8", len(tenant), ring.MaxTenantBytes)}
	}
	var id [tenantKeyIDSize]byte
	var key [tenantKeySize]byte
	rand.Read(id[:]) // never fails
	rand.Read(key[:])
	tk := makeTenantKey(hex.EncodeToString(id[:]), key)
	blob, err := tk.Seal(keks, tenant)
	if err != nil {
		return nil, nil, err
	}
	return tk, blob, nil
}

// Seal returns what to store of the key, wrapped for tenant under the primary KEK. So it also
// rewraps a key that was opened under an older KEK.
func (tk *TenantKey) Seal(keks *KEKs, tenant string) ([]byte, error) {
	primary, err := keks.primary()
	if err != nil {
		return nil, err
	}
	return tk.wrap(primary, tenant)
}

// makeTenantKey returns the tenant key of these bytes.
func makeTenantKey(id string, key [tenantKeySize]byte) *TenantKey {
	return &TenantKey{
		ID:   id,
		aead: func() (cipher.AEAD, error) { return newAEAD(key[:]) },
		wrap: func(under *kek, tenant string) ([]byte, error) {
			aead, err := under.aead()
			if err != nil {
				return nil, err
			}
			// The tenant is in the additional data: the key of one tenant opens for no other.
			header := sealedKey{tenant: tenant, id: id, kek: under.name()}.append(nil)
			return append(header, aead.Seal(nil, nil, key[:], header)...), nil
		},
	}
}

// OpenTenantKey opens blob, which the store has for tenant under the id. The error wraps one of
// ErrWrongKEK, ErrTampered, ErrNewer and ErrMalformed.
func OpenTenantKey(keks *KEKs, tenant, id string, blob []byte) (*TenantKey, error) {
	sealed, n, err := readSealedKey(blob)
	if err != nil {
		return nil, err
	}
	if sealed.tenant != tenant || sealed.id != id {
		return nil, &ring.Error{Kind: ErrTampered, Text: "it is the tenant key of another field or tenant"}
	}
	// The header can be read without a KEK, so a wrong KEK is told from a changed key.
	kek, err := keks.find(sealed.kek)
	if err != nil {
		return nil, err
	}
	aead, err := kek.aead()
	if err != nil {
		return nil, err
	}
	key, err := aead.Open(nil, nil, blob[n:], blob[:n])
	if err != nil || len(key) != tenantKeySize {
		return nil, &ring.Error{Kind: ErrTampered, Text: "the tenant key was changed"}
	}
	return makeTenantKey(id, [tenantKeySize]byte(key)), nil
}

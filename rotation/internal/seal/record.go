package seal

import (
	"fmt"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// SealRecord returns what to store of a record that is being minted. Its Timing must be complete
// and valid. m must be of its algorithm, and of its kid if the record is [ring.Generated].
func SealRecord(tk *TenantKey, r ring.Record, m *Material) ([]byte, error) {
	if err := checkRecord(r); err != nil {
		return nil, err
	}
	// A later version may have other defaults. They must not change a record that exists.
	if r.Timing != r.Timing.WithDefaults() {
		return nil, &ring.Error{Text: "a record whose Timing is not complete"}
	}
	if err := r.Timing.Validate(); err != nil {
		return nil, err
	}
	if m == nil || m.Algorithm != r.Algorithm {
		return nil, &ring.Error{Text: fmt.Sprintf("no material for %s", r.Algorithm)}
	}
	h := header{Record: r, tenantKey: tk.ID, public: m.public}
	secret := m.secret()
	if len(secret) > maxMaterial || len(m.public) > maxPublic {
		return nil, &ring.Error{Text: fmt.Sprintf("a key of %d bytes: want at most %d", len(secret), maxMaterial)}
	}
	// A record never changes. So a record that could not be opened must not be sealed.
	if _, _, err := openMaterial(h, secret); err != nil {
		return nil, err
	}
	box, err := tk.box()
	if err != nil {
		return nil, err
	}
	return box.seal(h.append(nil), h.place(), secret)
}

// An OpenedRecord is a record that has been authenticated, with its key. Key material is only in
// closures, so that nothing prints it.
type OpenedRecord struct {
	ring.Record
	TenantKey string // the id of the tenant key that seals it

	Cost int // of a check with its key: see [keystore.Key.Cost]

	// Key and Private are nil in an [OpenedRing] for HS*: a large keyring opens a hundred thousand records
	// when it starts, and needs the keys of a few.

	Key     *keystore.Key // its ID has the record's kid, even if its tokens have none
	Private func() any    // returns what signs: a []byte for HS*, else a [crypto.Signer]
}

// OpenRecord opens blob, which the store has for tenant and kid. keys are the tenant's keys by id.
// The error wraps one of ErrTampered, ErrNewer and ErrMalformed.
//
// It checks ranges, but not whether the policy is valid: if a rule becomes stricter, the records of
// the older rule must still open.
func OpenRecord(keys map[string]*TenantKey, tenant, kid string, blob []byte) (*OpenedRecord, error) {
	r, err := openRecord(keys, tenant, kid, blob, true)
	if err != nil {
		return nil, err
	}
	return &r, nil
}

// openRecord is OpenRecord. Without needsKey it makes no key of HS*, and decrypts no secret: the commitment
// of the [box] proves that one who had the tenant key sealed all of the record, the header and the secret.
func openRecord(keys map[string]*TenantKey, tenant, kid string, blob []byte, needsKey bool) (r OpenedRecord, err error) {
	h, n, err := readHeader(blob)
	if err != nil {
		return r, err
	}
	if !isText(tenant, 1, ring.MaxTenantBytes) || !isText(kid, 1, keystore.MaxKIDBytes) {
		return r, &ring.Error{Kind: ErrMalformed, Text: "its name has no kid"}
	}
	h.Tenant, h.KID = tenant, kid
	size := len(blob) - n - boxOverhead
	if size < 0 || size > maxMaterial {
		return r, &ring.Error{Kind: ErrMalformed, Text: fmt.Sprintf("a key of %d bytes", size)}
	}
	// A missing tenant key is not a missing record: the caller must not mint in its place.
	tk, ok := keys[h.tenantKey]
	if !ok {
		return r, &ring.Error{Kind: ErrTampered, Text: fmt.Sprintf("its tenant key %s is missing", h.tenantKey)}
	}
	box, err := tk.box()
	if err != nil {
		return r, err
	}
	// An authentic record in another place is refused too: it would bring another tenant's key, or
	// give a revoked key a new name.
	if !needsKey && h.Algorithm.Symmetric() {
		if !box.isAuthentic(blob[:n], h.place(), blob[n:]) {
			return r, errForgedRecord
		}
		return OpenedRecord{Record: h.Record, TenantKey: tk.ID, Cost: 1}, checkSymmetric(&h, size)
	}
	secret, err := box.open(blob[:n], h.place(), blob[n:])
	if err != nil {
		return r, errForgedRecord
	}
	if r, err = openSecret(h, secret); err == nil {
		r.TenantKey = tk.ID
	}
	return r, err
}

// errForgedRecord refuses a record that does not open under its tenant key.
var errForgedRecord = &ring.Error{Kind: ErrTampered, Text: "the record was changed, moved or forged"}

// openSecret returns the record of a header and of what was decrypted for it. It clears secret,
// except for a secret of HS*, which the record returns. The parser of the others makes a copy.
func openSecret(h header, secret []byte) (OpenedRecord, error) {
	key, private, err := openMaterial(h, secret)
	if err != nil || !h.Algorithm.Symmetric() {
		clear(secret)
	}
	if err != nil {
		return OpenedRecord{}, err
	}
	return OpenedRecord{Record: h.Record, Cost: key.Cost(), Key: key, Private: func() any { return private }}, nil
}

// ReadRecord returns the record in a blob that [OpenRecord] has opened before for the same tenant and kid,
// and the id of the tenant key that seals it. It needs no key, so it proves nothing.
func ReadRecord(tenant, kid string, blob []byte) (r *ring.Record, tenantKey string, err error) {
	h, _, err := parseHeader(blob)
	if err != nil {
		return nil, "", err
	}
	h.Tenant, h.KID = tenant, kid
	record := h.Record
	return &record, h.tenantKey, nil
}

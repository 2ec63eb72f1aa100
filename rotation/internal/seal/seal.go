package seal

import (
	"bytes"
	"cmp"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

const tenantKeySize = 32

// A TenantKey seals the material of a tenant's records, and is itself wrapped by
// a KEK: so a new KEK rewraps one small blob a tenant, and no record changes. It is
// in a closure, and not expanded, since thousands may be at rest.
type TenantKey struct {
	ID   string // 16 hexadecimal digits, at random
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

// Seal returns what to store of the key for tenant, under the primary KEK.
func (tk *TenantKey) Seal(keks *KEKs, tenant string) ([]byte, error) {
	primary, err := keks.primary()
	if err != nil {
		return nil, err
	}
	return tk.wrap(primary, tenant)
}

func makeTenantKey(id string, key [tenantKeySize]byte) *TenantKey {
	return &TenantKey{
		ID:   id,
		aead: func() (cipher.AEAD, error) { return newAEAD(key[:]) },
		wrap: func(under *kek, tenant string) ([]byte, error) {
			aead, err := under.aead()
			if err != nil {
				return nil, err
			}
			open := sealedKey{tenant: tenant, id: id, kek: under.name()}.append(nil)
			return append(open, aead.Seal(nil, nil, key[:], open)...), nil
		},
	}
}

// OpenTenantKey opens what the store has under the id for tenant.
func OpenTenantKey(keks *KEKs, tenant, id string, blob []byte) (*TenantKey, error) {
	sealed, n, err := readSealedKey(blob)
	if err != nil {
		return nil, err
	}
	if sealed.tenant != tenant || sealed.id != id {
		return nil, &ring.Error{Kind: ErrTampered, Text: "it is a tenant key from elsewhere"}
	}
	kek, err := keks.named(sealed.kek)
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

// SealRecord returns what to store of a record that is being minted. Its policy
// must be complete and hold, and the material must be that of its algorithm, and
// for a generated key of its kid.
func SealRecord(tk *TenantKey, r ring.Record, m *Material) ([]byte, error) {
	if err := checkRecord(r); err != nil {
		return nil, err
	}
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
	// Whatever could not be opened is not sealed.
	if _, _, err := openMaterial(h, secret); err != nil {
		return nil, err
	}
	aead, err := tk.aead()
	if err != nil {
		return nil, err
	}
	open := h.append(nil)
	return append(open, aead.Seal(nil, nil, secret, open)...), nil
}

// An OpenedRecord is a record that has been authenticated, with its key. It
// holds no material but in closures.
type OpenedRecord struct {
	ring.Record
	TenantKey string // the id of the one that it is sealed under
	Public    []byte

	Key *keystore.Key // its ID has the record's kid, even if its tokens have none
	// Private returns what signs: a []byte for HS*, else a [crypto.Signer].
	Private func() any
}

// OpenRecord opens what the store has for tenant and kid.
func OpenRecord(keys map[string]*TenantKey, tenant, kid string, blob []byte) (*OpenedRecord, error) {
	h, n, err := readHeader(blob)
	if err != nil {
		return nil, err
	}
	if h.Tenant != tenant || h.KID != kid {
		return nil, &ring.Error{Kind: ErrTampered, Text: "it is a record from elsewhere"}
	}
	if size := len(blob) - n - sealOverhead; size < 0 || size > maxMaterial {
		return nil, &ring.Error{Kind: ErrMalformed, Text: fmt.Sprintf("%d bytes of key", size)}
	}
	tk, ok := keys[h.tenantKey]
	if !ok {
		return nil, &ring.Error{Kind: ErrTampered, Text: fmt.Sprintf("its tenant key %s is not there", h.tenantKey)}
	}
	aead, err := tk.aead()
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, nil, blob[n:], blob[:n])
	if err != nil {
		return nil, &ring.Error{Kind: ErrTampered, Text: "the record was changed"}
	}
	r := &OpenedRecord{Record: h.Record, TenantKey: h.tenantKey, Public: bytes.Clone(h.public)}
	key, private, err := openMaterial(h, secret)
	if err != nil {
		return nil, err
	}
	r.Key, r.Private = key, func() any { return private }
	return r, nil
}

// SealFact returns what to store of a fact. That is not secret, and so in the
// open; its MAC is under a key from the KEK, since it has to outlive the tenant
// keys.
func SealFact(keks *KEKs, tenant string, kind ring.FactKind, kid string, at time.Time) ([]byte, error) {
	if err := checkFact(tenant, kind, kid); err != nil {
		return nil, err
	}
	if err := checkDate(at); err != nil {
		return nil, err
	}
	primary, err := keks.primary()
	if err != nil {
		return nil, err
	}
	f := sealedFact{at: at, kek: primary.name()}
	return append(f.append(nil), primary.mac(f.authenticated(tenant, kind, kid))...), nil
}

// openFact returns when what the store has for that fact of tenant says that it
// happened.
func openFact(keks *KEKs, tenant string, kind ring.FactKind, kid string, blob []byte) (time.Time, error) {
	if err := checkFact(tenant, kind, kid); err != nil {
		return time.Time{}, err
	}
	f, mac, err := readSealedFact(blob)
	if err != nil {
		return time.Time{}, err
	}
	kek, err := keks.named(f.kek)
	if err != nil {
		return time.Time{}, err
	}
	if !hmac.Equal(mac, kek.mac(f.authenticated(tenant, kind, kid))) {
		return time.Time{}, &ring.Error{Kind: ErrTampered, Text: "the fact was changed, moved or forged"}
	}
	return f.at, nil
}

func checkFact(tenant string, kind ring.FactKind, kid string) error {
	switch {
	case !isText(tenant, 1, ring.MaxTenantBytes):
		return &ring.Error{Kind: ErrMalformed, Text: fmt.Sprintf("a fact of a tenant of %d bytes", len(tenant))}
	case (kind == ring.FactDestroyed || kind == ring.FactCollected) && kid == "":
		return nil
	case !kind.Known():
		return &ring.Error{Kind: ErrMalformed, Text: "a fact of no known kind"}
	case !isText(kid, 1, keystore.MaxKIDBytes):
		return &ring.Error{Kind: ErrMalformed, Text: fmt.Sprintf("a fact about a kid of %d bytes", len(kid))}
	}
	return nil
}

// Names of fields in the hash of a ring. A fact has its kind for a prefix.
const (
	FieldHead      = "head"
	FieldDead      = "dead"
	FieldGone      = "gone"
	PrefixRecord   = "k:"
	PrefixKey      = "tk:"
	PrefixPublish  = "p:" // when a record was published, in the open: not for us
	prefixOptional = "_"  // what newer ones may add, and older ones may ignore
)

// FactField returns the name of the field that holds a fact.
func FactField(kind ring.FactKind, kid string) string {
	switch kind {
	case ring.FactDestroyed:
		return FieldDead
	case ring.FactCollected:
		return FieldGone
	}
	return string(rune(kind)) + ":" + kid
}

// An OpenedRing is all of a tenant's hash that is authentic.
type OpenedRing struct {
	Head       int            // the newest seq, unauthenticated; 0 if there is none
	Records    []OpenedRecord // by kid
	Facts      ring.Facts
	TenantKeys map[string]*TenantKey // by id
}

// all returns the records without their keys, as [View] takes them.
func (r *OpenedRing) all() []ring.Record {
	records := make([]ring.Record, len(r.Records))
	for i := range r.Records {
		records[i] = r.Records[i].Record
	}
	return records
}

// OpenRing opens the fields of tenant's hash.
//
// If any of them cannot be opened it returns a *RingError beside the ring. The
// ring then holds what is authentic, and that is news: a revocation in it counts,
// and whoever garbles another field cannot hold it back. But it is not the state
// of the store: what could not be opened may be the revocation of a key that
// could. So the caller joins it with the copy that it holds, takes the read for
// no good sync, mints nothing, and finds no key missing.
//
// Missing fields are not noticed here: that takes a copy to compare with.
func OpenRing(keks *KEKs, tenant string, fields map[string][]byte) (*OpenedRing, error) {
	o := ringOpener{
		keks: keks, tenant: tenant, fields: fields,
		opened: &OpenedRing{TenantKeys: make(map[string]*TenantKey)},
		failed: make(map[string]error),
	}
	// What the others depend on comes first.
	turn := func(field string) int {
		switch {
		case field == FieldDead:
			return 0
		case strings.HasPrefix(field, PrefixKey):
			return 1
		}
		return 2
	}
	for _, field := range slices.SortedFunc(maps.Keys(fields), func(a, b string) int {
		return cmp.Or(turn(a)-turn(b), strings.Compare(a, b))
	}) {
		if err := o.open(field); err != nil {
			o.failed[field] = err
		}
	}
	if len(o.failed) == 0 {
		return o.opened, nil
	}
	return o.opened, &ring.UnreadableError{Tenant: tenant, Fields: len(fields), Failed: o.failed}
}

// A ringOpener is an openRing under way.
type ringOpener struct {
	keks   *KEKs
	tenant string
	fields map[string][]byte
	opened *OpenedRing
	failed map[string]error
}

func (o *ringOpener) open(field string) error {
	value := o.fields[field]
	prefix, name, cut := strings.Cut(field, ":")
	switch {
	case strings.HasPrefix(field, prefixOptional), strings.HasPrefix(field, PrefixPublish):
		return nil
	case field == FieldHead:
		return o.openHead(value)
	case field == FieldDead:
		at, err := openFact(o.keks, o.tenant, ring.FactDestroyed, "", value)
		if err == nil {
			o.opened.Facts.Kill(at)
		}
		return err
	case field == FieldGone:
		at, err := openFact(o.keks, o.tenant, ring.FactCollected, "", value)
		if err == nil {
			o.opened.Facts.Collect(at)
		}
		return err
	case !o.opened.Facts.Dead.IsZero() && (prefix+":" == PrefixKey || prefix+":" == PrefixRecord):
		return nil // nothing is left of a ring that was destroyed, but its facts
	case cut && prefix+":" == PrefixKey:
		return o.openTenantKey(name, value)
	case cut && prefix+":" == PrefixRecord:
		return o.openRecord(name, value)
	case cut && len(prefix) == 1 && ring.FactKind(prefix[0]).Known():
		return o.openFact(ring.FactKind(prefix[0]), name, value)
	}
	// It may be a kind of revocation that we do not know.
	return &ring.Error{Kind: ErrNewer, Text: "a field of an unknown kind"}
}

func (o *ringOpener) openHead(value []byte) error {
	head, err := strconv.Atoi(string(value))
	if err != nil || head < 1 || head > maxSeq || strconv.Itoa(head) != string(value) {
		return &ring.Error{Kind: ErrMalformed, Text: "no seq"}
	}
	o.opened.Head = head
	return nil
}

func (o *ringOpener) openTenantKey(id string, value []byte) error {
	if !isTenantKeyID(id) {
		return &ring.Error{Kind: ErrMalformed, Text: "no id of a tenant key"}
	}
	tk, err := OpenTenantKey(o.keks, o.tenant, id, value)
	if err != nil {
		return err
	}
	o.opened.TenantKeys[id] = tk
	return nil
}

func (o *ringOpener) openRecord(kid string, value []byte) error {
	r, err := OpenRecord(o.opened.TenantKeys, o.tenant, kid, value)
	if err == nil {
		o.opened.Records = append(o.opened.Records, *r)
		return nil
	}
	h, _, malformed := readHeader(value)
	if malformed != nil {
		return err
	}
	if cause, ok := o.failed[PrefixKey+h.tenantKey]; ok {
		return fmt.Errorf("its tenant key cannot be opened: %w", cause)
	}
	return err
}

func (o *ringOpener) openFact(kind ring.FactKind, kid string, value []byte) error {
	at, err := openFact(o.keks, o.tenant, kind, kid, value)
	if err == nil {
		o.opened.Facts.Add(kind, kid, at)
	}
	return err
}

// Replaceable returns the fields that whoever holds an authentic one may put back.
// What is under another KEK, or of a newer keyturn, may be somebody's later word, and
// undecryptable is not absent.
func Replaceable(e *ring.UnreadableError) []string {
	var fields []string
	for _, field := range slices.Sorted(maps.Keys(e.Failed)) {
		err := e.Failed[field]
		if errors.Is(err, ErrTampered) || errors.Is(err, ErrMalformed) {
			fields = append(fields, field)
		}
	}
	return fields
}

// SealHead returns what to store of the newest seq: in the open.
func SealHead(seq int) []byte { return strconv.AppendInt(nil, int64(seq), 10) }

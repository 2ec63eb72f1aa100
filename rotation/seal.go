package rotation

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
)

const tenantKeySize = 32

// A tenantKey seals the material of a tenant's records, and is itself wrapped by
// a KEK: so a new KEK rewraps one small blob a tenant, and no record changes. It is
// in a closure, and not expanded, since thousands may be at rest.
type tenantKey struct {
	id   string // 16 hexadecimal digits, at random
	aead func() (cipher.AEAD, error)
	wrap func(under *kek, tenant string) ([]byte, error)
}

// newTenantKey makes a tenant key, and returns it with what to store of it.
func newTenantKey(keks *KEKs, tenant string) (*tenantKey, []byte, error) {
	if !isText(tenant, 1, maxTenant) {
		return nil, nil, &Error{Text: fmt.Sprintf("a tenant of %d bytes: want 1 to %d, in UTF-8", len(tenant), maxTenant)}
	}
	primary, err := keks.primary()
	if err != nil {
		return nil, nil, err
	}
	var id [tenantKeyIDSize]byte
	var key [tenantKeySize]byte
	rand.Read(id[:]) // never fails
	rand.Read(key[:])
	tk := makeTenantKey(hex.EncodeToString(id[:]), key)
	blob, err := tk.wrap(primary, tenant)
	if err != nil {
		return nil, nil, err
	}
	return tk, blob, nil
}

func makeTenantKey(id string, key [tenantKeySize]byte) *tenantKey {
	return &tenantKey{
		id:   id,
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

// openTenantKey opens what the store has under the id for tenant.
func openTenantKey(keks *KEKs, tenant, id string, blob []byte) (*tenantKey, error) {
	sealed, n, err := readSealedKey(blob)
	if err != nil {
		return nil, err
	}
	if sealed.tenant != tenant || sealed.id != id {
		return nil, &Error{Kind: ErrTampered, Text: "it is a tenant key from elsewhere"}
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
		return nil, &Error{Kind: ErrTampered, Text: "the tenant key was changed"}
	}
	return makeTenantKey(id, [tenantKeySize]byte(key)), nil
}

// rewrapTenantKey returns what to store of a tenant key under the primary KEK. It
// is blob itself if that is what it is under.
func rewrapTenantKey(keks *KEKs, tenant, id string, blob []byte) ([]byte, error) {
	tk, err := openTenantKey(keks, tenant, id, blob)
	if err != nil {
		return nil, err
	}
	primary, err := keks.primary()
	if err != nil {
		return nil, err
	}
	if sealed, _, err := readSealedKey(blob); err != nil || sealed.kek == primary.name() {
		return blob, err
	}
	return tk.wrap(primary, tenant)
}

// sealRecord returns what to store of a record that is being minted. Its policy
// must be complete and hold, and the material must be that of its algorithm, and
// for a generated key of its kid.
func sealRecord(tk *tenantKey, r Record, m *material) ([]byte, error) {
	if err := checkRecord(r); err != nil {
		return nil, err
	}
	if r.Timing != r.Timing.WithDefaults() {
		return nil, &Error{Text: "a record whose Timing is not complete"}
	}
	if err := r.Timing.Validate(); err != nil {
		return nil, err
	}
	if m == nil || m.alg != r.Algorithm {
		return nil, &Error{Text: fmt.Sprintf("no material for %s", r.Algorithm)}
	}
	h := header{Record: r, tenantKey: tk.id, public: m.public}
	secret := m.secret()
	if len(secret) > maxMaterial || len(m.public) > maxPublic {
		return nil, &Error{Text: fmt.Sprintf("a key of %d bytes: want at most %d", len(secret), maxMaterial)}
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

// An openedRecord is a record that has been authenticated, with its key. It
// holds no material but in closures.
type openedRecord struct {
	Record
	tenantKey string // the id of the one that it is sealed under
	public    []byte

	key  *keystore.Key // its ID has the record's kid, even if its tokens have none
	sign func(signed []byte) ([]byte, error)
}

// signingKey returns what signs with the record's key, for tokens of type typ.
func (r *openedRecord) signingKey(typ string) *signingKey {
	id := keystore.ID{Tenant: r.Tenant, KID: r.KID}
	if r.NoKID {
		id.KID = ""
	}
	return &signingKey{id: id, header: tokenHeader(id, r.Algorithm, typ), sign: r.sign}
}

// openRecord opens what the store has for tenant and kid.
func openRecord(keys map[string]*tenantKey, tenant, kid string, blob []byte) (*openedRecord, error) {
	h, n, err := readHeader(blob)
	if err != nil {
		return nil, err
	}
	if h.Tenant != tenant || h.KID != kid {
		return nil, &Error{Kind: ErrTampered, Text: "it is a record from elsewhere"}
	}
	if size := len(blob) - n - sealOverhead; size < 0 || size > maxMaterial {
		return nil, &Error{Kind: ErrMalformed, Text: fmt.Sprintf("%d bytes of key", size)}
	}
	tk, ok := keys[h.tenantKey]
	if !ok {
		return nil, &Error{Kind: ErrTampered, Text: fmt.Sprintf("its tenant key %s is not there", h.tenantKey)}
	}
	aead, err := tk.aead()
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, nil, blob[n:], blob[:n])
	if err != nil {
		return nil, &Error{Kind: ErrTampered, Text: "the record was changed"}
	}
	r := &openedRecord{Record: h.Record, tenantKey: h.tenantKey, public: bytes.Clone(h.public)}
	if r.key, r.sign, err = openMaterial(h, secret); err != nil {
		return nil, err
	}
	return r, nil
}

// Facts about a ring, and not about one of its records, have no kid.
const (
	factDead FactKind = 'd' // it was destroyed
	factGone FactKind = 'g' // up to when the records were created that have been collected
)

// sealFact returns what to store of a fact. That is not secret, and so in the
// open; its MAC is under a key from the KEK, since it has to outlive the tenant
// keys.
func sealFact(keks *KEKs, tenant string, kind FactKind, kid string, at time.Time) ([]byte, error) {
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
func openFact(keks *KEKs, tenant string, kind FactKind, kid string, blob []byte) (time.Time, error) {
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
		return time.Time{}, &Error{Kind: ErrTampered, Text: "the fact was changed, moved or forged"}
	}
	return f.at, nil
}

func checkFact(tenant string, kind FactKind, kid string) error {
	switch {
	case !isText(tenant, 1, maxTenant):
		return &Error{Kind: ErrMalformed, Text: fmt.Sprintf("a fact of a tenant of %d bytes", len(tenant))}
	case (kind == factDead || kind == factGone) && kid == "":
		return nil
	case !kind.known():
		return &Error{Kind: ErrMalformed, Text: "a fact of no known kind"}
	case !isText(kid, 1, maxKID):
		return &Error{Kind: ErrMalformed, Text: fmt.Sprintf("a fact about a kid of %d bytes", len(kid))}
	}
	return nil
}

// Names of fields in the hash of a ring. A fact has its kind for a prefix.
const (
	fieldHead      = "head"
	fieldDead      = "dead"
	fieldGone      = "gone"
	prefixRecord   = "k:"
	prefixKey      = "tk:"
	prefixPublish  = "p:" // when a record was published, in the open: not for us
	prefixOptional = "_"  // what newer ones may add, and older ones may ignore
)

// factField returns the name of the field that holds a fact.
func factField(kind FactKind, kid string) string {
	switch kind {
	case factDead:
		return fieldDead
	case factGone:
		return fieldGone
	}
	return string(rune(kind)) + ":" + kid
}

// An openedRing is all of a tenant's hash that is authentic.
type openedRing struct {
	head       int            // the newest seq, unauthenticated; 0 if there is none
	records    []openedRecord // by kid
	facts      Facts
	tenantKeys map[string]*tenantKey // by id
}

// all returns the records without their keys, as [View] takes them.
func (r *openedRing) all() []Record {
	records := make([]Record, len(r.records))
	for i := range r.records {
		records[i] = r.records[i].Record
	}
	return records
}

// openRing opens the fields of tenant's hash.
//
// If any of them cannot be opened it returns a *RingError beside the ring. The
// ring then holds what is authentic, and that is news: a revocation in it counts,
// and whoever garbles another field cannot hold it back. But it is not the state
// of the store: what could not be opened may be the revocation of a key that
// could. So the caller joins it with the copy that it holds, takes the read for
// no good sync, mints nothing, and finds no key missing.
//
// Missing fields are not noticed here: that takes a copy to compare with.
func openRing(keks *KEKs, tenant string, fields map[string][]byte) (*openedRing, error) {
	o := ringOpener{
		keks: keks, tenant: tenant, fields: fields,
		ring:   &openedRing{tenantKeys: make(map[string]*tenantKey)},
		failed: make(map[string]error),
	}
	// What the others depend on comes first.
	turn := func(field string) int {
		switch {
		case field == fieldDead:
			return 0
		case strings.HasPrefix(field, prefixKey):
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
		return o.ring, nil
	}
	return o.ring, &RingError{Tenant: tenant, Fields: len(fields), Failed: o.failed}
}

// A ringOpener is an openRing under way.
type ringOpener struct {
	keks   *KEKs
	tenant string
	fields map[string][]byte
	ring   *openedRing
	failed map[string]error
}

func (o *ringOpener) open(field string) error {
	value := o.fields[field]
	prefix, name, cut := strings.Cut(field, ":")
	switch {
	case strings.HasPrefix(field, prefixOptional), strings.HasPrefix(field, prefixPublish):
		return nil
	case field == fieldHead:
		return o.openHead(value)
	case field == fieldDead:
		at, err := openFact(o.keks, o.tenant, factDead, "", value)
		if err == nil {
			o.ring.facts.Kill(at)
		}
		return err
	case field == fieldGone:
		at, err := openFact(o.keks, o.tenant, factGone, "", value)
		if err == nil {
			o.ring.facts.Collect(at)
		}
		return err
	case !o.ring.facts.Dead.IsZero() && (prefix+":" == prefixKey || prefix+":" == prefixRecord):
		return nil // nothing is left of a ring that was destroyed, but its facts
	case cut && prefix+":" == prefixKey:
		return o.openTenantKey(name, value)
	case cut && prefix+":" == prefixRecord:
		return o.openRecord(name, value)
	case cut && len(prefix) == 1 && FactKind(prefix[0]).known():
		return o.openFact(FactKind(prefix[0]), name, value)
	}
	// It may be a kind of revocation that we do not know.
	return &Error{Kind: ErrNewer, Text: "a field of an unknown kind"}
}

func (o *ringOpener) openHead(value []byte) error {
	head, err := strconv.Atoi(string(value))
	if err != nil || head < 1 || head > maxSeq || strconv.Itoa(head) != string(value) {
		return &Error{Kind: ErrMalformed, Text: "no seq"}
	}
	o.ring.head = head
	return nil
}

func (o *ringOpener) openTenantKey(id string, value []byte) error {
	if !isTenantKeyID(id) {
		return &Error{Kind: ErrMalformed, Text: "no id of a tenant key"}
	}
	tk, err := openTenantKey(o.keks, o.tenant, id, value)
	if err != nil {
		return err
	}
	o.ring.tenantKeys[id] = tk
	return nil
}

func (o *ringOpener) openRecord(kid string, value []byte) error {
	r, err := openRecord(o.ring.tenantKeys, o.tenant, kid, value)
	if err == nil {
		o.ring.records = append(o.ring.records, *r)
		return nil
	}
	h, _, malformed := readHeader(value)
	if malformed != nil {
		return err
	}
	if cause, ok := o.failed[prefixKey+h.tenantKey]; ok {
		return fmt.Errorf("its tenant key cannot be opened: %w", cause)
	}
	return err
}

func (o *ringOpener) openFact(kind FactKind, kid string, value []byte) error {
	at, err := openFact(o.keks, o.tenant, kind, kid, value)
	if err == nil {
		o.ring.facts.Add(kind, kid, at)
	}
	return err
}

// replaceable returns the fields that whoever holds an authentic one may put back.
// What is under another KEK, or of a newer keyturn, may be somebody's later word, and
// undecryptable is not absent.
func (e *RingError) replaceable() []string {
	var fields []string
	for _, field := range slices.Sorted(maps.Keys(e.Failed)) {
		err := e.Failed[field]
		if errors.Is(err, ErrTampered) || errors.Is(err, ErrMalformed) {
			fields = append(fields, field)
		}
	}
	return fields
}

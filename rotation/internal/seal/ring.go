package seal

import (
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// An OpenedRing is the part of a tenant's ring in the store that is authentic.
type OpenedRing struct {
	Head       Head           // zero if the field is missing
	Records    []OpenedRecord // sorted by kid
	Accepts    []OpenedAccept // sorted by kid
	Facts      ring.Facts
	TenantKeys map[string]*TenantKey // by id
	Under      []KEKName             // the KEKs that something of it is sealed under, each once

	// Ended are the records and tenant keys of lives that have ended, by field. They were not opened:
	// their tenant keys may be destroyed, or under a KEK that is gone.
	Ended []string
}

// OpenRing opens the fields of tenant's ring.
//
// If a field cannot be opened, OpenRing returns a [*ring.UnreadableError] beside the ring. The ring
// then has all other fields, and they count as new data: a garbled field must not hold back a
// revocation in another one. But the ring is then not the state of the store, since the field that
// cannot be opened may be the revocation of a key that can be. So the caller joins the ring with
// the copy that it holds. It does not count the read as a sync, mints nothing, and reports no key
// as missing.
//
// Where a life of the ring has ended, only records of a later life count, with the tenant keys that
// they name. An edit that gives a record another life removes it, as its deletion would.
//
// OpenRing does not notice fields that were removed. That takes a copy to compare with.
func OpenRing(keks *KEKs, tenant string, fields map[string][]byte) (*OpenedRing, error) {
	o := ringOpener{
		keks: keks, tenant: tenant, fields: fields,
		opened: &OpenedRing{TenantKeys: make(map[string]*TenantKey)},
	}
	names, records := make([]string, 0, len(fields)), 0
	for field := range fields {
		if names = append(names, field); strings.HasPrefix(field, PrefixRecord) {
			records++
		}
	}
	slices.SortFunc(names, compareFields)
	o.opened.Records = make([]OpenedRecord, 0, min(records, 16)) // anyone who can write to the store can add more
	for _, field := range names {
		if err := o.open(field); err != nil {
			if o.failed == nil {
				o.failed = make(map[string]error)
			}
			o.failed[field] = err
		}
	}
	if len(o.failed) == 0 {
		return o.opened, nil
	}
	return o.opened, &ring.UnreadableError{Tenant: tenant, Fields: len(fields), Failed: o.failed}
}

// foundUnder notes the KEK that a field is under which was opened. The name in a field that was not opened,
// because its life has ended, is not authentic.
func (o *ringOpener) foundUnder(name KEKName) {
	if !slices.Contains(o.opened.Under, name) {
		o.opened.Under = append(o.opened.Under, name)
	}
}

// compareFields sorts fields so that each comes after the fields that its opening depends on:
// "dead" first, then tenant keys, then records, then the others.
func compareFields(a, b string) int {
	stage := func(field string) int {
		switch {
		case field == FieldDead:
			return 0
		case strings.HasPrefix(field, PrefixKey):
			return 1
		case strings.HasPrefix(field, PrefixRecord), strings.HasPrefix(field, PrefixAccept):
			return 2
		}
		return 3
	}
	if d := stage(a) - stage(b); d != 0 {
		return d
	}
	return strings.Compare(a, b)
}

// A ringOpener is the state of one OpenRing.
type ringOpener struct {
	keks   *KEKs
	tenant string
	fields map[string][]byte
	opened *OpenedRing
	failed map[string]error // by field
	later  *laterLives      // see there; nil until it is asked for
}

// open opens one field. Its kind is told by the name alone.
func (o *ringOpener) open(field string) error {
	value := o.fields[field]
	prefix, name, cut := strings.Cut(field, ":")
	switch {
	case strings.HasPrefix(field, prefixOptional), strings.HasPrefix(field, PrefixPublish):
		return nil
	case field == FieldHead:
		return o.openHead(value)
	case field == FieldDead:
		return o.openRingFact(ring.FactDestroyed, value, o.opened.Facts.Kill)
	case field == FieldGone:
		return o.openRingFact(ring.FactCollected, value, o.opened.Facts.Collect)
	case cut && o.hasEnded(prefix+":", name, value):
		o.opened.Ended = append(o.opened.Ended, field)
		return nil
	case cut && prefix+":" == PrefixKey:
		return o.openTenantKey(name, value)
	case cut && prefix+":" == PrefixRecord:
		return o.openRecord(name, value)
	case cut && prefix+":" == PrefixAccept:
		return o.openAccept(name, value)
	case cut && len(prefix) == 1 && ring.FactKind(prefix[0]).Known():
		return o.openFact(ring.FactKind(prefix[0]), name, value)
	}
	// It may be a revocation of a kind that this version does not know.
	return &ring.Error{Kind: ErrNewer, Text: "a field of an unknown kind"}
}

func (o *ringOpener) openHead(value []byte) error {
	s, err := openSealedHead(o.keks, o.tenant, value)
	if err == nil {
		o.opened.Head = s.head
		o.foundUnder(s.kek)
	}
	return err
}

// hasEnded reports whether a field is a record or an accepted key of a life that has ended, or a tenant
// key that none of a later life names. If there is no record or accepted key of a later life, all of them
// have ended, even if they cannot be read.
func (o *ringOpener) hasEnded(prefix, name string, value []byte) bool {
	dead := o.opened.Facts.Dead
	if dead == 0 || prefix != PrefixRecord && prefix != PrefixAccept && prefix != PrefixKey {
		return false
	}
	if o.later == nil {
		o.later = o.livesFrom(dead)
	}
	switch {
	case prefix == PrefixKey:
		return !o.later.uses[name]
	case !o.later.any:
		return true
	}
	life, _, ok := lifeOf(prefix+name, value)
	return ok && life < dead
}

// laterLives are what the records and accepted keys of a ring say that are of no life that has ended. They
// are looked through once for all fields: anyone who can write to the store may add a hundred thousand.
type laterLives struct {
	any  bool            // there is one
	uses map[string]bool // ids of the tenant keys that they name
}

// livesFrom returns what the records and accepted keys say that are of that life, or of a later one.
func (o *ringOpener) livesFrom(dead int) *laterLives {
	l := &laterLives{uses: make(map[string]bool)}
	for field, value := range o.fields {
		if life, tenantKey, ok := lifeOf(field, value); ok && life >= dead {
			l.any, l.uses[tenantKey] = true, true
		}
	}
	return l
}

// lifeOf returns the life of a record or an accepted key, and the id of its tenant key. ok is false if
// the field is no such, or cannot be read.
func lifeOf(field string, value []byte) (life int, tenantKey string, ok bool) {
	switch {
	case strings.HasPrefix(field, PrefixRecord):
		h, _, err := readHeader(value)
		return h.Life, h.tenantKey, err == nil
	case strings.HasPrefix(field, PrefixAccept):
		h, _, err := readAcceptHeader(value)
		return h.Life, h.tenantKey, err == nil
	}
	return 0, "", false
}

// openRingFact opens a fact about the whole ring, and gives its life and time to add.
func (o *ringOpener) openRingFact(kind ring.FactKind, value []byte, add func(int, time.Time)) error {
	f, err := openFact(o.keks, o.tenant, kind, "", value)
	if err == nil {
		add(f.life, f.at)
		o.foundUnder(f.kek)
	}
	return err
}

func (o *ringOpener) openFact(kind ring.FactKind, kid string, value []byte) error {
	f, err := openFact(o.keks, o.tenant, kind, kid, value)
	if err == nil {
		o.opened.Facts.Add(kind, o.shared(kid), f.at)
		o.foundUnder(f.kek)
	}
	return err
}

// shared returns kid in the memory of the record or accepted key that has it, if there is one. kid itself is a part
// of the name of its field, and a large keyring holds tens of thousands of facts.
func (o *ringOpener) shared(kid string) string {
	for _, r := range o.opened.Records {
		if r.KID == kid {
			return r.KID
		}
	}
	for i := range o.opened.Accepts {
		if o.opened.Accepts[i].KID == kid {
			return o.opened.Accepts[i].KID
		}
	}
	return kid
}

func (o *ringOpener) openTenantKey(id string, value []byte) error {
	tk, name, err := openTenantKey(o.keks, o.tenant, id, value)
	if err != nil {
		return err
	}
	o.opened.TenantKeys[id] = tk
	o.foundUnder(name)
	return nil
}

// openRecord opens a record. If its tenant key could not be opened, that is the reason that helps:
// it tells a wrong KEK from a missing tenant key.
func (o *ringOpener) openRecord(kid string, value []byte) error {
	r, err := openRecord(o.opened.TenantKeys, o.tenant, kid, value, false)
	if err == nil {
		o.opened.Records = append(o.opened.Records, r)
		return nil
	}
	h, _, malformed := readHeader(value)
	return o.causeOf(err, h.tenantKey, malformed)
}

// openAccept is openRecord for an accepted key.
func (o *ringOpener) openAccept(kid string, value []byte) error {
	a, err := OpenAccept(o.opened.TenantKeys, o.tenant, kid, value)
	if err == nil {
		o.opened.Accepts = append(o.opened.Accepts, *a)
		return nil
	}
	h, _, malformed := readAcceptHeader(value)
	return o.causeOf(err, h.tenantKey, malformed)
}

// causeOf returns why the tenant key of that id cannot be opened, if that is so, or else err.
// malformed is why the header, which names the tenant key, cannot be read, or nil.
func (o *ringOpener) causeOf(err error, tenantKey string, malformed error) error {
	if cause, ok := o.failed[PrefixKey+tenantKey]; ok && malformed == nil {
		return &ring.Error{Text: "its tenant key cannot be opened", Err: cause}
	}
	return err
}

package seal

import (
	"bytes"
	"crypto/hmac"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/rotation/ring"
)

// UnderKEKs returns the KEK that each field of a ring is under, by the name of the field: tenant
// keys, facts and the head. It needs no KEK, so what it returns is not authentic. Fields that
// cannot be read are missing.
func UnderKEKs(fields map[string][]byte) map[string]KEKName {
	under := make(map[string]KEKName)
	for field, value := range fields {
		if name, err := readName(field, value); err == nil {
			under[field] = name
		}
	}
	return under
}

// readName returns the name of the KEK that a field is under.
func readName(field string, value []byte) (KEKName, error) {
	switch kind, _, isFact := factOf(field); {
	case field == FieldHead:
		s, _, err := readSealedHead(value)
		return s.kek, err
	case strings.HasPrefix(field, PrefixKey):
		s, _, err := readSealedKey(value)
		return s.kek, err
	case isFact:
		s, _, err := readSealedFact(kind, value)
		return s.kek, err
	}
	return KEKName{}, &ring.Error{Kind: ErrMalformed, Text: "not a field under a KEK"}
}

// HeldBytes is what an instance holds of a ring, and the ring as it read it. No sealed fact is in
// it, since a fact can be sealed again.
type HeldBytes struct {
	KEKs   *KEKs
	Stored map[string][]byte // the fields that OpenRing was given

	Record    func(kid string) []byte // the sealed record; nil if the instance holds none
	Accept    func(kid string) []byte // the sealed accepted key; nil if the instance holds none
	TenantKey func(id string) []byte  // the sealed tenant key; nil if the instance holds none
	Facts     ring.Facts
	Head      Head // zero if the instance holds none
}

// Replaceable returns the fields of e over which a holder of the authentic field may write it back,
// sorted. They are:
//
//   - those that were changed, forged or malformed;
//   - records and accepted keys that the instance holds, since these never change;
//   - those that differ from what the instance holds in nothing but the version or the name of the
//     KEK. One flipped bit there makes a field look newer, or under an unknown KEK.
//
// Any other field under an unknown KEK, or of a newer keyturn, may be newer than what the holder
// has. Not to be able to read it does not mean that it is missing.
func Replaceable(e *ring.UnreadableError, held HeldBytes) []string {
	var fields []string
	for _, field := range slices.Sorted(maps.Keys(e.Failed)) {
		err := e.Failed[field]
		kid, isRecord := strings.CutPrefix(field, PrefixRecord)
		accepted, isAccept := strings.CutPrefix(field, PrefixAccept)
		switch {
		case errors.Is(err, ErrTampered), errors.Is(err, ErrMalformed),
			isRecord && look(held.Record, kid) != nil,
			isAccept && look(held.Accept, accepted) != nil,
			held.onlyNameDiffers(e.Tenant, field):
			fields = append(fields, field)
		}
	}
	return fields
}

// look returns what an instance holds under a name. find may be nil.
func look(find func(name string) []byte, name string) []byte {
	if find == nil {
		return nil
	}
	return find(name)
}

// onlyNameDiffers reports whether the field was stored as this instance holds it, except for the
// version and the name of the KEK.
func (h HeldBytes) onlyNameDiffers(tenant, field string) bool {
	stored := bytes.Clone(h.Stored[field])
	if len(stored) <= len(formatMagic) {
		return false
	}
	stored[len(formatMagic)] = formatVersion
	id, isKey := strings.CutPrefix(field, PrefixKey)
	kind, kid, isFact := factOf(field)
	switch {
	case field == FieldHead:
		s, mac, err := readSealedHead(stored)
		return err == nil && s.head == h.Head && h.isMAC(mac, useHead, s.kek.ID, func(name KEKName) []byte {
			return sealedHead{head: h.Head, kek: name}.authenticated(tenant)
		})
	case isKey:
		return sameWrapped(stored, look(h.TenantKey, id))
	case isFact:
		mine, ok := factIn(h.Facts, kind, kid)
		s, mac, err := readSealedFact(kind, stored)
		return err == nil && ok && s.at.Equal(mine.at) && s.life == mine.life && h.isMAC(mac, useFacts, s.kek.ID, func(name KEKName) []byte {
			named := mine
			named.kek = name
			return named.authenticated(tenant, kind, kid)
		})
	}
	return false
}

// isMAC reports whether mac is that of a message under one of the instance's KEKs. message returns
// the message with the name of the KEK. id is the id that the stored field has, since the KEK may
// have had another one when the field was sealed.
func (h HeldBytes) isMAC(mac []byte, use, id string, message func(KEKName) []byte) bool {
	for _, k := range h.KEKs.all() {
		renamed := KEKName{ID: id, Check: k.name.Check, Realm: k.name.Realm}
		if hmac.Equal(mac, k.mac(use, message(k.name))) || hmac.Equal(mac, k.mac(use, message(renamed))) {
			return true
		}
	}
	return false
}

// sameWrapped reports whether two wrapped tenant keys differ at most in the name of the KEK. held
// may be nil.
func sameWrapped(stored, held []byte) bool {
	s, n, err1 := readSealedKey(stored)
	h, m, err2 := readSealedKey(held)
	return err1 == nil && err2 == nil && s.born == h.born && bytes.Equal(stored[n:], held[m:])
}

// factOf returns the fact that a field holds, and whether it holds one.
func factOf(field string) (kind ring.FactKind, kid string, ok bool) {
	prefix, kid, _ := strings.Cut(field, ":")
	switch {
	case field == FieldDead:
		return ring.FactDestroyed, "", true
	case field == FieldGone:
		return ring.FactCollected, "", true
	case len(prefix) == 1 && kid != "" && ring.FactKind(prefix[0]).Known():
		return ring.FactKind(prefix[0]), kid, true
	}
	return 0, "", false
}

// factIn returns a fact as it is sealed, without a KEK, and whether there is one.
func factIn(facts ring.Facts, kind ring.FactKind, kid string) (f sealedFact, ok bool) {
	f.ofRing = isOfRing(kind)
	switch kind {
	case ring.FactDestroyed:
		f.life, f.at = facts.Dead, facts.DeadAt
	case ring.FactCollected:
		f.life, f.at = facts.Dead, facts.CollectedUntil
	default:
		f.at, ok = facts.At(kind, kid)
		return f, ok
	}
	return f, !f.at.IsZero()
}

package seal

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// SealFact returns what to store of a fact: its time and a MAC. A fact is not secret, so it is not
// encrypted. The key of the MAC is derived from the KEK that is named, since a fact must stay
// readable when the tenant keys were destroyed. See [SealRingFact] for facts about a whole ring.
func SealFact(keks *KEKs, under KEKName, tenant string, kind ring.FactKind, kid string, at time.Time) ([]byte, error) {
	if isOfRing(kind) {
		return nil, &ring.Error{Text: "a fact about a whole ring, without a life"}
	}
	return sealFact(keks, under, tenant, kind, kid, sealedFact{at: at})
}

// SealRingFact is SealFact for a fact about a whole ring: that so many lives of it have ended, or
// what was collected of that life.
func SealRingFact(keks *KEKs, under KEKName, tenant string, kind ring.FactKind, life int, at time.Time) ([]byte, error) {
	if !isOfRing(kind) || life < leastLife(kind) || life > maxSeq {
		return nil, &ring.Error{Text: fmt.Sprintf("a fact of kind %q about life %d of a ring", rune(kind), life)}
	}
	return sealFact(keks, under, tenant, kind, "", sealedFact{at: at, ofRing: true, life: life})
}

// sealFact seals f, which has no KEK yet.
func sealFact(keks *KEKs, under KEKName, tenant string, kind ring.FactKind, kid string, f sealedFact) ([]byte, error) {
	if err := checkFact(tenant, kind, kid); err != nil {
		return nil, err
	}
	if err := checkDate(f.at); err != nil {
		return nil, err
	}
	kek, err := keks.sealing(under)
	if err != nil {
		return nil, err
	}
	f.kek = kek.name
	return append(f.append(nil), kek.mac(useFacts, f.authenticated(tenant, kind, kid))...), nil
}

// openFact returns a fact from blob, which the store has for it in the ring of tenant.
func openFact(keks *KEKs, tenant string, kind ring.FactKind, kid string, blob []byte) (sealedFact, error) {
	if err := checkFact(tenant, kind, kid); err != nil {
		return sealedFact{}, err
	}
	f, mac, err := readSealedFact(kind, blob, keks.all()...)
	if err != nil {
		return sealedFact{}, err
	}
	kek, err := keks.find(f.kek)
	if err != nil {
		return sealedFact{}, err
	}
	if !kek.authentic(useFacts, mac, func(b []byte) []byte { return f.appendAuthenticated(b, tenant, kind, kid) }) {
		return sealedFact{}, &ring.Error{Kind: ErrTampered, Text: "the fact was changed, moved or forged"}
	}
	return f, nil
}

// checkFact refuses a fact that has no field of its own in the ring of tenant.
func checkFact(tenant string, kind ring.FactKind, kid string) error {
	most := keystore.MaxKIDBytes
	if kind == ring.FactAccepted {
		most += ring.DateDigits + 1 // see ring.AcceptRecord.DateFact
	}
	switch {
	case !isText(tenant, 1, ring.MaxTenantBytes):
		return &ring.Error{Kind: ErrMalformed, Text: fmt.Sprintf("a fact of a tenant of %d bytes", len(tenant))}
	case isOfRing(kind) && kid == "":
		return nil
	case !kind.Known():
		return &ring.Error{Kind: ErrMalformed, Text: "a fact of an unknown kind"}
	case !isText(kid, 1, most):
		return &ring.Error{Kind: ErrMalformed, Text: fmt.Sprintf("a fact about a kid of %d bytes", len(kid))}
	}
	return nil
}

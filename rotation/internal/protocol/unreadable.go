package protocol

import "github.com/keyturn/keyturn/rotation/ring"

// Unreadable are the parts of a ring in the store that cannot be opened. Such a part counts neither
// as new data nor as missing data. As new data, anyone who can write the store could revoke or
// promote keys. As missing data, an instance with the wrong KEK would overwrite the ring of all
// others.
//
// The value says whether a holder of an authentic part may write over it. A part under another KEK,
// or of a newer keyturn, may be another instance's later word, so it stays. A garbled part is no
// instance's word, and is replaced (I12).
type Unreadable map[Ref]bool

// A Ref names a part of a ring.
type Ref struct {
	part byte
	fact ring.FactKind
	name string
}

// HeadRef names the newest seq.
var HeadRef = Ref{part: 'h'}

// RecordRef names a record.
func RecordRef(kid string) Ref { return Ref{part: 'k', name: kid} }

// AcceptRef names an accepted key.
func AcceptRef(kid string) Ref { return Ref{part: 'v', name: kid} }

// TenantKeyRef names a tenant key.
func TenantKeyRef(id string) Ref { return Ref{part: 't', name: id} }

// FactRef names a fact.
func FactRef(id ring.FactID) Ref { return Ref{part: 'f', fact: id.Kind, name: id.KID} }

// hasForeignTenantKey reports whether there is a tenant key that may not be replaced.
func (u Unreadable) hasForeignTenantKey() bool {
	for ref, replaceable := range u {
		if ref.part == TenantKeyRef("").part && !replaceable {
			return true
		}
	}
	return false
}

// has reports whether r is in the store and cannot be opened.
func (u Unreadable) has(r Ref) bool {
	_, has := u[r]
	return has
}

// writable reports whether a holder may write r: it can be read, or may be replaced.
func (u Unreadable) writable(r Ref) bool {
	replaceable, has := u[r]
	return !has || replaceable
}

package protocol

import "github.com/keyturn/keyturn/rotation/ring"

// Unreadable are the parts of a ring in the store that cannot be opened. Such a part is neither new
// data nor missing data. The value says whether a holder of an authentic one may write over it. A part
// under another KEK, or of a newer keyturn, may be another instance's later word, so it stays.
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

// TenantKeyRef names a tenant key.
func TenantKeyRef(id string) Ref { return Ref{part: 't', name: id} }

// FactRef names a fact.
func FactRef(id ring.FactID) Ref { return Ref{part: 'f', fact: id.Kind, name: id.KID} }

func (u Unreadable) has(r Ref) bool {
	_, has := u[r]
	return has
}

// writable reports whether a holder may write r: it can be read, or may be replaced.
func (u Unreadable) writable(r Ref) bool {
	replaceable, has := u[r]
	return !has || replaceable
}

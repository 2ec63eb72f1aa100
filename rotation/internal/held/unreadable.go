package held

import (
	"strings"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Unreadable returns the parts of a ring that cannot be opened, each with whether this instance may
// replace it: not if it is under another KEK or by a newer keyturn, since it may be newer data.
// fields are those of the ring, c is what this instance holds of it, and may be nil. failed may be
// nil.
func Unreadable(failed *ring.UnreadableError, keks *seal.KEKs, fields map[string][]byte, c *Ring) protocol.Unreadable {
	if failed == nil {
		return nil
	}
	mine := seal.HeldBytes{KEKs: keks, Stored: fields, TenantKey: c.TenantKey, Record: func(kid string) []byte {
		if r := c.Find(kid); r != nil {
			return r.blob
		}
		return nil
	}, Accept: func(kid string) []byte {
		if a := c.Accepted(kid); a != nil {
			return a.blob
		}
		return nil
	}}
	if c != nil {
		mine.Facts, mine.Head = c.Facts, seal.Head{Seq: c.Head, Count: c.Count}
	}
	parts := make(protocol.Unreadable, len(failed.Failed))
	replaceable := make(map[string]bool) // no slice: anyone who can write to the store may add a hundred thousand fields
	for _, field := range seal.Replaceable(failed, mine) {
		replaceable[field] = true
	}
	for field := range failed.Failed {
		part := partOf(field)
		was, several := parts[part] // fields of an unknown kind are one part
		parts[part] = replaceable[field] && (was || !several)
	}
	return parts
}

// partOf returns the part of a ring that a field holds, or the zero Ref for a field of an unknown
// kind.
func partOf(field string) protocol.Ref {
	prefix, name, _ := strings.Cut(field, ":")
	switch {
	case field == seal.FieldHead:
		return protocol.HeadRef
	case field == seal.FieldDead:
		return protocol.FactRef(ring.FactID{Kind: ring.FactDestroyed})
	case field == seal.FieldGone:
		return protocol.FactRef(ring.FactID{Kind: ring.FactCollected})
	case prefix+":" == seal.PrefixRecord:
		return protocol.RecordRef(name)
	case prefix+":" == seal.PrefixAccept:
		return protocol.AcceptRef(name)
	case prefix+":" == seal.PrefixKey:
		return protocol.TenantKeyRef(name)
	case len(prefix) == 1 && name != "" && ring.FactKind(prefix[0]).Known(): // anyone can write a field "d:"
		return protocol.FactRef(ring.FactID{Kind: ring.FactKind(prefix[0]), KID: name})
	}
	return protocol.Ref{}
}

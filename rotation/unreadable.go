package rotation

import (
	"slices"
	"strings"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// unreadable returns which parts of a ring cannot be opened. failed may be nil.
func unreadable(failed *ring.UnreadableError) protocol.Unreadable {
	if failed == nil {
		return nil
	}
	replaceable := seal.Replaceable(failed)
	parts := make(protocol.Unreadable, len(failed.Failed))
	for field := range failed.Failed {
		parts[partOf(field)] = slices.Contains(replaceable, field)
	}
	return parts
}

// partOf returns the part of a ring that a field holds; for a field of an unknown kind, the zero Ref.
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
	case prefix+":" == seal.PrefixKey:
		return protocol.TenantKeyRef(name)
	case len(prefix) == 1 && name != "" && ring.FactKind(prefix[0]).Known(): // anyone can write a field "d:"
		return protocol.FactRef(ring.FactID{Kind: ring.FactKind(prefix[0]), KID: name})
	}
	return protocol.Ref{}
}

package held

import (
	"strconv"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Fields returns the ring of tenant as a store would have it, for a snapshot: records and tenant keys
// byte for byte, facts and head sealed again under the primary KEK. c must not be nil.
func (c *Ring) Fields(keks *seal.KEKs, tenant string) (map[string][]byte, error) {
	under, fields := keks.Primary(), make(map[string][]byte)
	for _, r := range c.sealed {
		fields[seal.PrefixRecord+r.KID] = r.blob
	}
	for _, a := range c.accepts {
		fields[seal.PrefixAccept+a.KID] = a.blob
	}
	for _, tk := range c.tenantKeys {
		fields[seal.PrefixKey+tk.id] = tk.blob
	}
	for _, p := range c.Published {
		fields[seal.PrefixPublish+p.KID] = strconv.AppendInt(nil, p.At.UnixMilli(), 10)
	}
	for id, at := range c.Facts.All {
		blob, err := seal.SealFact(keks, under, tenant, id.Kind, id.KID, at)
		if err != nil {
			return nil, err
		}
		fields[seal.FactField(id.Kind, id.KID)] = blob
	}
	for kind, at := range map[ring.FactKind]time.Time{ring.FactDestroyed: c.Facts.DeadAt, ring.FactCollected: c.Facts.CollectedUntil} {
		if at.IsZero() {
			continue
		}
		blob, err := seal.SealRingFact(keks, under, tenant, kind, c.Facts.Dead, at)
		if err != nil {
			return nil, err
		}
		fields[seal.FactField(kind, "")] = blob
	}
	if c.Head > 0 && c.Count > 0 {
		head, err := seal.SealHead(keks, under, tenant, seal.Head{Seq: c.Head, Count: c.Count})
		if err != nil {
			return nil, err
		}
		fields[seal.FieldHead] = head
	}
	return fields, nil
}

// FromFields returns the ring of tenant that [Ring.Fields] has returned. The error is that of
// [seal.OpenRing]: then nothing is returned, since a field that cannot be opened may be a revocation.
func FromFields(keks *seal.KEKs, tenant string, fields map[string][]byte) (*Ring, error) {
	opened, err := seal.OpenRing(keks, tenant, fields)
	if err != nil {
		return nil, err
	}
	return Open(nil, fields, opened), nil
}

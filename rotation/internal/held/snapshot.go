package held

import (
	"maps"
	"slices"
	"strconv"
	"strings"
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
	for _, tk := range c.tenantKeys {
		fields[seal.PrefixKey+tk.id] = tk.blob
	}
	for _, p := range c.Published {
		fields[seal.PrefixPublish+p.KID] = strconv.AppendInt(nil, p.At.UnixMilli(), 10)
	}
	add := func(kind ring.FactKind, kid string, at time.Time) (err error) {
		if !at.IsZero() {
			fields[seal.FactField(kind, kid)], err = seal.SealFact(keks, under, tenant, kind, kid, at)
		}
		return err
	}
	for id, at := range c.Facts.All {
		if err := add(id.Kind, id.KID, at); err != nil {
			return nil, err
		}
	}
	if err := add(ring.FactDestroyed, "", c.Facts.Dead); err != nil {
		return nil, err
	}
	if err := add(ring.FactCollected, "", c.Facts.CollectedUntil); err != nil {
		return nil, err
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

// FromFields returns the ring of tenant that [Ring.Fields] has returned. endsOnly leaves out everything
// but the facts that end trust. The error is that of [seal.OpenRing]: then nothing is returned, since
// what cannot be opened may be a revocation.
func FromFields(keks *seal.KEKs, tenant string, fields map[string][]byte, endsOnly bool) (*Ring, error) {
	if endsOnly {
		fields = maps.Clone(fields)
		maps.DeleteFunc(fields, func(name string, _ []byte) bool {
			return !slices.Contains([]string{seal.FieldDead, seal.FieldGone}, name) && !strings.HasPrefix(name, seal.FactField(ring.FactRevoked, ""))
		})
	}
	opened, err := seal.OpenRing(keks, tenant, fields)
	if err != nil {
		return nil, err
	}
	return Open(nil, fields, opened), nil
}

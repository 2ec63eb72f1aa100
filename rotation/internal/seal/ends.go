package seal

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A TenantEnd is a fact of a tenant's ring that ends trust.
type TenantEnd struct {
	Tenant string
	EndFact
}

// EndsDigest returns a digest of facts that end trust, in any order. Two instances that hold the
// same ones of a bucket have the same digest. The time of a fact counts only if it is
// [ring.FactCollected]: a revoked key verifies nothing from whatever time on. Of a destroyed ring it
// counts how many lives have ended.
func EndsDigest(ends []TenantEnd) [16]byte {
	h := sha256.Sum256(EndsText(ends))
	return [16]byte(h[:])
}

// EndsText returns the text that [EndsDigest] is the digest of. That of several tenants is the text of each,
// sorted by tenant.
func EndsText(ends []TenantEnd) (b []byte) {
	ends = slices.SortedFunc(slices.Values(ends), func(a, b TenantEnd) int {
		return cmp.Or(strings.Compare(a.Tenant, b.Tenant), compareEnds(a.EndFact, b.EndFact))
	})
	for _, e := range ends {
		b = appendText(append(appendText(b, e.Tenant), byte(e.Kind)), e.KID)
		switch e.Kind {
		case ring.FactCollected:
			b = appendDate(b, e.At)
		case ring.FactDestroyed:
			b = binary.BigEndian.AppendUint32(b, uint32(e.Life))
		}
	}
	return b
}

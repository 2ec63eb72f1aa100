package seal

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// TestSealFactRefuses: a fact that could not be opened is not sealed.
func TestSealFactRefuses(t *testing.T) {
	keks := mustKEKs(t, 1)
	for _, tt := range []struct {
		tenant string
		kind   ring.FactKind
		kid    string
		at     time.Time
	}{
		{"", ring.FactRevoked, "k", sealedAt}, {"\xff", ring.FactRevoked, "k", sealedAt}, {"acme", 0, "k", sealedAt}, {"acme", 'k', "k", sealedAt},
		{"acme", ring.FactRevoked, "", sealedAt}, {"acme", ring.FactDestroyed, "k", sealedAt}, {"acme", ring.FactCollected, "k", sealedAt}, {"acme", ring.FactRevoked, "\xff", sealedAt},
		{"acme", ring.FactRevoked, "k", time.Time{}}, {"acme", ring.FactRevoked, "k", sealedAt.Add(1)}, {"acme", ring.FactRevoked, "k", maxDate},
	} {
		if blob, err := SealFact(keks, keks.Primary(), tt.tenant, tt.kind, tt.kid, tt.at); err == nil || blob != nil {
			t.Errorf("SealFact(%+v): sealed", tt)
		}
	}
}

package seal

import (
	"errors"
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
	for _, tt := range []struct {
		kind ring.FactKind
		life int
		at   time.Time
	}{
		{ring.FactDestroyed, 0, sealedAt}, {ring.FactDestroyed, -1, sealedAt}, {ring.FactDestroyed, maxSeq + 1, sealedAt}, {ring.FactCollected, -1, sealedAt},
		{ring.FactRevoked, 1, sealedAt}, {0, 1, sealedAt}, {ring.FactDestroyed, 1, time.Time{}}, {ring.FactCollected, 0, maxDate},
	} {
		if blob, err := SealRingFact(keks, keks.Primary(), "acme", tt.kind, tt.life, tt.at); err == nil || blob != nil {
			t.Errorf("SealRingFact(%+v): sealed", tt)
		}
	}
	if blob, err := SealFact(keks, keks.Primary(), "acme", ring.FactDestroyed, "", sealedAt); err == nil || blob != nil {
		t.Error("SealFact of a ring that was destroyed: sealed")
	}
}

// TestRingFact: a fact about a whole ring opens with the life that it is about.
func TestRingFact(t *testing.T) {
	keks := mustKEKs(t, 1)
	for kind, lives := range map[ring.FactKind][]int{ring.FactDestroyed: {1, 7, maxSeq}, ring.FactCollected: {0, 1, maxSeq}} {
		for _, life := range lives {
			blob, err := SealRingFact(keks, keks.Primary(), "acme", kind, life, sealedAt)
			if err != nil {
				t.Fatal(err)
			}
			f, err := openFact(keks, "acme", kind, "", blob)
			if err != nil || f.life != life || !f.at.Equal(sealedAt) {
				t.Errorf("%c of life %d: life %d at %v, %v", kind, life, f.life, f.at, err)
			}
			if _, err := openFact(keks, "globex", kind, "", blob); !errors.Is(err, ErrTampered) {
				t.Errorf("%c of life %d, of another tenant: %v", kind, life, err)
			}
			if _, err := openFact(keks, "acme", ring.FactRevoked, "k", blob); !errors.Is(err, ErrMalformed) {
				t.Errorf("%c of life %d as a revocation: %v", kind, life, err)
			}
		}
	}
}

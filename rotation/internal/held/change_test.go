package held

import (
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// TestCollectionLeavesRevocations: with a key goes every fact about it, except its revocation.
func TestCollectionLeavesRevocations(t *testing.T) {
	keks, err := seal.NewKEKs([]byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		t.Fatal(err)
	}
	collected := protocol.ProposedFact{FactID: ring.FactID{Kind: ring.FactCollected}, At: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), From: -time.Hour}
	p := &protocol.Proposal{Op: ring.OpCollect, KID: "k1", Remove: []string{"k1"}, Facts: []protocol.ProposedFact{collected}}
	s := &Sealer{KEKs: keks, Tenant: "acme", Count: 5, Actor: "a", Nonce: "n", Have: &Ring{Copy: protocol.NewCopy(protocol.Copy{})}}
	c, err := s.Change(p, nil)
	want := []string{"a:k1", "f:k1", "k:k1", "p:k1", "r:k1", "w:k1"}
	if slices.Sort(c.Delete); err != nil || !slices.Equal(c.Delete, want) {
		t.Errorf("it deletes %q, want %q: %v", c.Delete, want, err)
	}
	if _, ok := c.Set[seal.FieldGone]; !ok || len(c.Set) != 2 {
		t.Errorf("it sets %d fields, gone among them: %v", len(c.Set), ok)
	}
}

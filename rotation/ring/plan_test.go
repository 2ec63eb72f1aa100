package ring_test

import (
	"testing"

	"github.com/keyturn/keyturn/rotation/ring"
)

// plan returns the plan of records.
func plan(records []ring.Record, facts ring.Facts) *ring.Plan {
	var all []*ring.Record
	for i := range records {
		all = append(all, &records[i])
	}
	return ring.NewPlan(all, facts)
}

// TestPublished: readers of the JWK Set see a key for 2 ClockSkew longer than it verifies, and a
// revoked key not at all.
func TestPublished(t *testing.T) {
	records := []ring.Record{rec("k1", 1, 0), rec("k2", 2, 30)} // k1 is dropped at 180
	p := plan(records, facts())
	for _, tt := range []struct {
		now                float64
		dropped, published bool
	}{{0, false, true}, {179.999, false, true}, {180, true, true}, {181.999, true, true}, {182, true, false}} {
		k := p.Find("k1")
		if k.Dropped(at(tt.now)) != tt.dropped || k.Published(at(tt.now)) != tt.published {
			t.Errorf("at %v: dropped %t, published %t, want %t, %t", tt.now, k.Dropped(at(tt.now)), k.Published(at(tt.now)), tt.dropped, tt.published)
		}
	}
	if plan(records, facts(fact{ring.FactRevoked, "k1", 1})).Find("k1").Published(at(2)) {
		t.Error("a revoked key is published")
	}
}

// TestPlanFind: a plan has the keys in order, and those that were revoked before they took effect.
func TestPlanFind(t *testing.T) {
	p := plan([]ring.Record{rec("k1", 1, 0), rec("k2", 2, 30), rec("k3", 3, 60)}, facts(fact{ring.FactRevoked, "k2", 1}))
	if p.Find("k1") != &p.InOrder[0] || p.Find("k2") != &p.NeverActive[0] || p.Find("k4") != nil {
		t.Errorf("k1 %v, k2 %v, k4 %v", p.Find("k1"), p.Find("k2"), p.Find("k4"))
	}
	if pending := p.Pending(at(1)); len(pending) != 1 || pending[0].KID != "k3" {
		t.Errorf("pending %v", pending)
	}
	// k2 would have been dropped 150 s after k3 takes effect, and is not collected before.
	if k2 := p.Find("k2"); k2.Dropped(at(209.999)) || !k2.Dropped(at(210)) {
		t.Errorf("k2 is dropped at %v", k2.DroppedAt)
	}
}

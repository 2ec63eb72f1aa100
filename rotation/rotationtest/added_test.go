package rotationtest_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Add: an instance that makes rings where there are none has long been in sync, with another tenant. A
// ring is evicted, which no log tells. In the next moment the instance adds its tenant, and finds none.
// It must not make another ring: the holders put theirs back within Freshness.
func TestTimelineAdd(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("one", "two")
		first := l.key(f[0], 1).KID
		adder := l.connect("adder", 0)
		adder.tenants = []string{"other"}
		adder.open()
		l.runUntil(14 * time.Second) // it has made the ring of the other tenant, and the store stood still since
		if st, err := adder.k.Load().Tenant("other"); err != nil || st.Ring.Signer < 0 {
			t.Fatalf("the other tenant: %+v, %v", st, err)
		}
		l.edit(tenant, "edit: evict", func(fields map[string][]byte) { clear(fields) })
		if err := adder.k.Load().Add(l.ctx, tenant); err != nil {
			t.Error(err)
		}
		l.runFor(l.policy.Freshness + pollFor)
		if l.key(adder, 1).KID != first || !l.has("k:"+first) {
			t.Error("the tenant has another ring")
		}
		l.wantSigner(1, append(f, adder)...)
		l.runFor(6 * time.Second)
		adder.k.Load().Remove(tenant)
		if _, err := adder.k.Load().Tenant(tenant); err == nil {
			t.Error("it holds the tenant that it has removed")
		}
		l.runFor(time.Second)
	})
}

// Add, where there is no ring: once the store has stood still since, the ring is made.
func TestTimelineAddMakes(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		adder := l.connect("adder", 0)
		adder.tenants = []string{"other"}
		adder.open()
		adder.opened()
		l.runUntil(10 * time.Second)
		if err := adder.k.Load().Add(l.ctx, tenant); err != nil {
			t.Error(err)
		}
		l.runFor(time.Second)
		if st, _ := adder.k.Load().Tenant(tenant); len(st.Ring.Keys) > 0 {
			t.Error("a ring was made at once")
		}
		l.runFor(l.policy.HeardWithin() + 2*pollFor)
		l.wantState(1, ring.Signing, adder)
	})
}

// Add, beside an edit: a field was removed just before, so the holders have not put it back yet. The
// instance that adds the tenant must not say that the key does not exist.
func TestTimelineAddEdited(t *testing.T) {
	runTimeline(t, seldom(), func(l *timeline) {
		f := l.fleet("one", "two")
		adder := l.connect("adder", 0)
		adder.tenants = []string{"other"}
		adder.open()
		l.runUntil(8 * time.Second)
		second := l.key(f[0], 2).KID
		l.edit(tenant, "edit: remove a key", func(fields map[string][]byte) { delete(fields, "k:"+second) })
		if err := adder.k.Load().Add(l.ctx, tenant); err != nil {
			t.Error(err)
		}
		_, err := adder.k.Load().Lookup(keystore.ID{Tenant: tenant, KID: second}, l.policy.Algorithm)
		if outcomeOf(err) != unavailable {
			t.Errorf("a key that was removed just now: %v", err)
		}
		l.runFor(l.policy.Freshness + pollFor)
		l.wantState(2, ring.Pending, adder)
		_, err = adder.k.Load().Lookup(keystore.ID{Tenant: tenant, KID: "none"}, l.policy.Algorithm)
		if outcomeOf(err) != notFound {
			t.Errorf("a key that there never was: %v", err)
		}
	})
}

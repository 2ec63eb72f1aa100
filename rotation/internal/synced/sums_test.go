package synced

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unique"

	"github.com/keyturn/keyturn/rotation/ring"
)

// TestOutlookTurns: as the clock changes rings of a bucket, and they are looked at again or not yet, the
// outlook says of each whether it is still calm, and few of them have to be looked at.
func TestOutlookTurns(t *testing.T) {
	for seed := range uint64(12) {
		random := rand.New(rand.NewPCG(seed, 1))
		b, now := newTurning(random), time.Unix(1_000_000, 0)
		full := 0
		for step := range 200 {
			now = now.Add(time.Duration(random.IntN(1000)) * time.Millisecond)
			if o := b.Outlook.Load(); b.alike(o, now) {
				checkOutlook(t, b, o, now)
			} else {
				full++
			}
			if step%3 > 0 {
				continue // no poll yet
			}
			var due []*Ring
			for _, r := range b.rings {
				if r.turnsAt() <= now.UnixNano() {
					due = append(due, r)
					r.lookAgain(random, now)
				}
			}
			b.turn(due)
			if o := b.Outlook.Load(); !b.alike(o, now) {
				t.Fatalf("seed %d: all are looked at after a poll", seed)
			}
			checkOutlook(t, b, b.Outlook.Load(), now)
		}
		if full > 20 {
			t.Errorf("seed %d: all were looked at %d times", seed, full)
		}
	}
}

// newTurning returns a bucket with up to 600 rings that are in sync.
func newTurning(random *rand.Rand) *Bucket {
	b := new(Bucket)
	b.Outlook.Store(new(Outlook))
	status := new(Status)
	status.Good, status.Complete, status.Knew = time.Unix(2_000_000, 0), time.Unix(2_000_000, 0), time.Unix(1, 0)
	b.Status.Store(status)
	policy := ring.Policy{Every: time.Hour}.WithDefaults()
	for i := range random.IntN(600) {
		r := &Ring{Tenant: fmt.Sprint("tenant-", i), bucket: b}
		r.state.node.Store(&node{policy: unique.Make(policy)})
		r.lookAgain(random, time.Unix(1_000_000, 0))
		b.rings = append(b.rings, r)
	}
	random.Shuffle(len(b.rings), func(i, j int) { b.rings[i], b.rings[j] = b.rings[j], b.rings[i] })
	b.sums.stale = true
	b.sum()
	return b
}

// lookAgain stands for [Rings.look].
func (r *Ring) lookAgain(random *rand.Rand, now time.Time) {
	r.calm, r.calmUntil = random.IntN(20) > 0, now.Add(time.Duration(1+random.IntN(600_000))*time.Millisecond).UnixNano()
	if random.IntN(10) == 0 && r.calm {
		r.calmUntil = 0
	}
}

// checkOutlook checks at now what the outlook says of each ring against the ring itself.
func checkOutlook(t *testing.T, b *Bucket, o *Outlook, now time.Time) {
	t.Helper()
	calm := make(map[string]*Ring)
	var odd []string
	for _, r := range b.rings {
		if r.calm && r.turnsAt() > now.UnixNano() {
			calm[r.Tenant] = r
		} else {
			odd = append(odd, r.Tenant)
		}
	}
	first, n, looked := o.still(now, slices.Clone(o.Odd))
	names := make([]string, len(looked))
	for i, r := range looked {
		names[i] = r.Tenant
	}
	slices.Sort(names)
	slices.Sort(odd)
	if !slices.Equal(names, odd) || n != len(calm) {
		t.Fatalf("it looks at %q, and %d others are calm; want %q and %d", names, n, odd, len(calm))
	}
	if len(calm) > 0 && first != calm[slices.MinFunc(slices.Collect(maps.Keys(calm)), strings.Compare)] {
		t.Fatalf("the first that is calm is %q", first.Tenant)
	}
}

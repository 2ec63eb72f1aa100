package rotation

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

func TestTrust(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w := waits{fresh: 6 * time.Second, doubt: 4 * time.Second}
	type sync struct {
		at              float64
		resync, trusted bool
		doubt           bool    // afterwards
		good            float64 // afterwards; -1 for never
	}
	for _, tt := range []struct {
		name  string
		syncs []sync
	}{
		{"a cold start is in doubt for 2W", []sync{{0, true, false, true, -1}, {2, false, false, true, -1}, {3.9, false, false, true, -1}, {4, false, false, false, 4}, {5, false, false, false, 5}}},
		{"this process has made the store", []sync{{0, true, true, false, 0}, {2, false, false, false, 2}}},
		{"a place that is gone", []sync{{0, true, true, false, 0}, {2, true, false, true, 0}, {4, false, false, true, 0}, {6, false, false, false, 6}}},
		{"a peer's word does not help against that", []sync{{0, true, true, false, 0}, {2, true, true, true, 0}}},
		{"gone again, in doubt: from the beginning", []sync{{0, true, false, true, -1}, {3, true, false, true, -1}, {6, false, false, true, -1}, {7, false, false, false, 7}}},
		{"away for F and no more", []sync{{0, true, true, false, 0}, {6, false, false, false, 6}}},
		{"away for longer", []sync{{0, true, true, false, 0}, {6.1, false, false, true, 0}, {10, false, false, true, 0}, {10.1, false, false, false, 10.1}}},
		{"syncs in doubt keep it from beginning again", []sync{{0, true, false, true, -1}, {3, false, false, true, -1}, {9, false, false, false, 9}}},
	} {
		var got trust
		for i, s := range tt.syncs {
			got = got.after(reading{sent: at(start, s.at), resync: s.resync, trusted: s.trusted}, w)
			good := at(start, s.good)
			if s.good < 0 {
				good = time.Time{}
			}
			if got.doubt != s.doubt || !got.good.Equal(good) {
				t.Errorf("%s: after sync %d: doubt %v, good %v, want %v, %v", tt.name, i, got.doubt, got.good, s.doubt, good)
			}
		}
	}
}

func TestAVouchedReadIsNotCertainOfAbsence(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w := waits{fresh: 6 * time.Second, doubt: 4 * time.Second}
	if got := (trust{}).after(reading{sent: start, resync: true, vouched: true}, w); got.doubt || !got.good.Equal(start) || !got.certain.Equal(start.Add(w.fresh)) {
		t.Errorf("vouched: %+v", got)
	}
	if got := (trust{}).after(reading{sent: start, resync: true, trusted: true}, w); got.doubt || !got.certain.IsZero() {
		t.Errorf("trusted: %+v", got)
	}
}

func at(start time.Time, s float64) time.Time {
	return start.Add(time.Duration(s * float64(time.Second)))
}

func TestAgeTakesTheClockThatSaysMore(t *testing.T) {
	then := time.Now()
	if got := age(then.Add(time.Hour), then); got != time.Hour {
		t.Errorf("both clocks: %v", got)
	}
	// The wall clock was set back; then the monotonic one stood still.
	if got := age(then.Add(time.Minute), then.Add(time.Hour).Add(-time.Hour)); got != time.Minute {
		t.Errorf("%v", got)
	}
	if got := age(then.Round(0).Add(time.Hour), then); got != time.Hour {
		t.Errorf("the wall clock alone: %v", got)
	}
}

func TestTheBudgetOfUnknownKids(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	var s spent
	for i := range 3 {
		if !s.take(now) {
			t.Fatalf("take %d", i)
		}
	}
	if s.take(now) || s.take(now.Add(999*time.Millisecond)) || !s.take(now.Add(1000*time.Millisecond)) || s.take(now.Add(1500*time.Millisecond)) {
		t.Error("not one a second")
	}
	if s.take(now.Add(-time.Hour)) {
		t.Error("a clock that is set back gives more")
	}
	for range 3 {
		if !s.take(now.Add(time.Hour)) {
			t.Error("the burst is not saved up")
		}
	}
}

// Anyone can think of kids: those that are remembered are no more than there is room for,
// the newest.
func TestTheMemoryOfUnknownKids(t *testing.T) {
	var k Keyring
	k.asking.init()
	now, id := time.Now(), func(n int) keystore.ID { return keystore.ID{Tenant: "acme", KID: fmt.Sprint("unknown-", n)} }
	const many = 100_000
	for n := range many {
		k.asking.remember(&k, id(n), now)
		k.asking.remember(&k, id(n), now) // all who waited do
		if known, order := len(k.asking.unknown), len(k.asking.order); known != min(n+1, 1000) || order != known || cap(k.asking.order) > 4000 {
			t.Fatalf("of %d kids %d are remembered, in the order of %d, with room for %d", n+1, known, order, cap(k.asking.order))
		}
	}
	for _, n := range []int{many - 1, many - 1000} {
		if k.asking.join(&k, nil, id(n), now) != nil {
			t.Errorf("kid %d is forgotten", n)
		}
	}
}

package rotation

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

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

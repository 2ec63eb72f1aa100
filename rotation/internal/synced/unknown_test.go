package synced

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

// Anyone can think of kids: those that are remembered are no more than there is room for,
// the newest.
func TestMemoryOfUnknownKids(t *testing.T) {
	var k Rings
	k.unknown.init()
	now, id := time.Now(), func(n int) keystore.ID { return keystore.ID{Tenant: "acme", KID: fmt.Sprint("unknown-", n)} }
	const many = 100_000
	for n := range many {
		k.unknown.remember(&k, id(n), now)
		k.unknown.remember(&k, id(n), now) // all who waited do
		if known := k.unknown.memory.Len(0); known != min(n+1, 1000) {
			t.Fatalf("of %d kids %d are remembered", n+1, known)
		}
	}
	for _, n := range []int{many - 1, many - 1000} {
		if k.unknown.join(&k, nil, id(n), now) != nil {
			t.Errorf("kid %d is forgotten", n)
		}
	}
}

package held

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// TestFloodedRingOpensInTime: a person who can write to the store, and has no KEK, fills a ring with garbage
// up to the size that is still read. To open it takes time in proportion, also where a life of the ring
// has ended. Otherwise the sync of all tenants would wait for one.
func TestFloodedRingOpensInTime(t *testing.T) {
	keks := seal.InsecurePlaintext()
	dead, err := seal.SealRingFact(keks, keks.Primary(), "acme", ring.FactDestroyed, 1, time.UnixMilli(1764421380000).UTC())
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{seal.PrefixRecord, seal.PrefixAccept, seal.PrefixKey} {
		for name, fields := range map[string]map[string][]byte{"live": {}, "dead": {seal.FieldDead: dead}} {
			for i := range 50_000 { // a ring of 1 MiB has room for twice as many
				fields[fmt.Sprintf("%s%x", prefix, i)] = []byte("k")
			}
			begin := time.Now()
			opened, err := seal.OpenRing(keks, "acme", fields)
			var failed *ring.UnreadableError
			errors.As(err, &failed)
			Unreadable(failed, keks, fields, Open(nil, fields, opened))
			if took := time.Since(begin); took > time.Minute { // in proportion it is one second, or ten on a busy machine
				t.Errorf("%s, %s: %v", prefix, name, took)
			}
		}
	}
}

package held

import (
	"testing"

	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// Anyone can write a field of any name. One that is no part of a ring must not stand for a part: else
// it would keep a holder from writing that part back.
func TestUnreadableParts(t *testing.T) {
	fact := func(kind ring.FactKind, kid string) protocol.Ref {
		return protocol.FactRef(ring.FactID{Kind: kind, KID: kid})
	}
	for field, want := range map[string]protocol.Ref{
		"head": protocol.HeadRef, "dead": fact(ring.FactDestroyed, ""), "gone": fact(ring.FactCollected, ""),
		"k:a": protocol.RecordRef("a"), "tk:a": protocol.TenantKeyRef("a"), "x:a": fact(ring.FactRevoked, "a"),
		"w:a:b": fact(ring.FactAnnounced, "a:b"),
		"d:":    {}, "g:": {}, "d:a": {}, "x:": {}, "z:a": {}, "x": {}, "d": {}, "": {}, "deadx": {}, "head:": {},
	} {
		failed := &ring.UnreadableError{Tenant: "acme", Fields: 1, Failed: map[string]error{field: seal.ErrNewer}}
		for got := range Unreadable(failed, nil, nil, nil) {
			if got != want {
				t.Errorf("field %q stands for %+v, want %+v", field, got, want)
			}
		}
	}
}

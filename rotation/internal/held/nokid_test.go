package held

import (
	"bytes"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// acceptingRing returns the copy of a ring with one accepted key, as it was just opened. change changes
// its fields.
func acceptingRing(t *testing.T, a ring.AcceptRecord, change func(keks *seal.KEKs, fields map[string][]byte)) *Ring {
	t.Helper()
	keks := seal.InsecurePlaintext()
	tk, wrapped, err := seal.NewTenantKey(keks, a.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := seal.SealAccept(tk, a, bytes.Repeat([]byte("0123456789abcdef"), 2))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string][]byte{seal.PrefixKey + tk.ID: wrapped, seal.PrefixAccept + a.KID: blob}
	change(keks, fields)
	opened, err := seal.OpenRing(keks, a.Tenant, fields)
	if err != nil {
		t.Fatal(err)
	}
	return Open(nil, fields, opened)
}

// TestWithoutKIDBeforeEnds: a copy is in use a moment before its keys are told their ends. A key that was
// revoked, or whose date is past, is no candidate for a token without kid in that moment either.
func TestWithoutKIDBeforeEnds(t *testing.T) {
	made := time.UnixMilli(1764421380000).UTC()
	a := ring.AcceptRecord{Tenant: "acme", KID: "v", NoKID: true, Algorithm: keystore.HS256, Created: made, Until: made.Add(time.Hour)}
	revoke := func(keks *seal.KEKs, fields map[string][]byte) {
		blob, err := seal.SealFact(keks, keks.Primary(), "acme", ring.FactRevoked, "v", made)
		if err != nil {
			t.Fatal(err)
		}
		fields[seal.FactField(ring.FactRevoked, "v")] = blob
	}
	none := func(*seal.KEKs, map[string][]byte) {}
	for _, tt := range []struct {
		name   string
		change func(*seal.KEKs, map[string][]byte)
		after  time.Duration
		want   int
	}{{"live", none, time.Minute, 1}, {"revoked", revoke, time.Minute, 0}, {"ended", none, 2 * time.Hour, 0}} {
		keys, err := acceptingRing(t, a, tt.change).WithoutKID(seal.InsecurePlaintext(), keystore.ID{Tenant: "acme"}, keystore.HS256, made.Add(tt.after))
		if err != nil || len(keys) != tt.want {
			t.Errorf("%s: %d keys, %v", tt.name, len(keys), err)
		}
	}
}

// TestBuriedOthersKID: a kid that others have chosen may be that of a key of the next life of the ring, which
// an instance that is cut off has not heard of. So it cannot tell about its tokens.
func TestBuriedOthersKID(t *testing.T) {
	made := time.UnixMilli(1764421380000).UTC()
	before := acceptingRing(t, ring.AcceptRecord{Tenant: "acme", KID: "v", Algorithm: keystore.HS256, Created: made, Until: made.Add(time.Hour)},
		func(*seal.KEKs, map[string][]byte) {})
	shred := ring.Facts{}
	shred.Kill(1, made)
	if after := Assemble(before.Learn(shred), before); !after.Plan.Dead || after.Buried("v") {
		t.Errorf("dead: %v; a token of the kid is refused for ever: %v", after.Plan.Dead, after.Buried("v"))
	}
}

package keystore

import (
	"bytes"
	"testing"
	"time"
)

// A Replace that is given the very keys of the store moves no end: it has read one that a SetUntil
// may have moved by the time of its commit. This test stops a Replace between the two.
func TestReplaceDoesNotMoveEndOfHeldKey(t *testing.T) {
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	k, err := NewSecret(ID{Tenant: "acme", KID: "1"}, HS256, bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewStatic(k)
	if err != nil {
		t.Fatal(err)
	}
	r := s.newReplacement()
	if err := r.add(k); err != nil {
		t.Fatal(err)
	}
	k.SetUntil(noon)
	r.commit()
	if k.Usable(noon) {
		t.Error("the key lives again: Replace wrote back the end that it had before SetUntil")
	}
}

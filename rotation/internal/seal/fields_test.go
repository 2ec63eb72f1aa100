package seal

import (
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// TestFactField: each fact has a field of its own, as docs/formats.md names it.
func TestFactField(t *testing.T) {
	for want, fact := range map[string]ring.FactID{
		"x:a": {Kind: ring.FactRevoked, KID: "a"}, "a:x": {Kind: ring.FactPromoted, KID: "x"}, "f:a:b": {Kind: ring.FactForced, KID: "a:b"},
		"r:": {Kind: ring.FactRepublished}, "w:dead": {Kind: ring.FactAnnounced, KID: "dead"},
		"dead": {Kind: ring.FactDestroyed}, "gone": {Kind: ring.FactCollected},
	} {
		if got := FactField(fact.Kind, fact.KID); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestPublications: dates in range count, and everything else is ignored.
func TestPublications(t *testing.T) {
	fields := map[string][]byte{
		"p:b": []byte("1800000000123"), "p:a": []byte("1"), "p:": []byte("2"),
		"p:zero": []byte("0"), "p:negative": []byte("-1"), "p:late": []byte("7258118400000"), "p:text": []byte("soon"), "p:none": nil,
		"k:a": []byte("3"), "head": []byte("4"),
	}
	want := []Publication{{"", time.UnixMilli(2)}, {"a", time.UnixMilli(1)}, {"b", time.UnixMilli(1_800_000_000_123)}}
	same := func(a, b Publication) bool { return a.KID == b.KID && a.At.Equal(b.At) }
	if got := Publications(fields); !slices.EqualFunc(got, want, same) {
		t.Errorf("%v, want %v", got, want)
	}
}

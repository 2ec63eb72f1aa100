package seal

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestSecret: a small secret opens with its KEK, in its realm, for its purpose and at its place, and says
// whether its KEK is the first.
func TestSecret(t *testing.T) {
	old, secret := mustIn(t, mustKEKs(t, 1), "prod"), []byte("a secret")
	sealed, err := SealSecret(old, "lists", "k:1", secret)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, secret) {
		t.Error("the secret is in clear")
	}
	got, other, err := OpenSecret(old, "lists", "k:1", sealed)
	if err != nil || other != "" || !bytes.Equal(got, secret) {
		t.Errorf("%q, under %q, %v", got, other, err)
	}
	got, other, err = OpenSecret(mustIn(t, mustKEKs(t, 2, 1), "prod"), "lists", "k:1", sealed)
	if err != nil || !strings.HasPrefix(other, old.IDs()[0]) || !bytes.Equal(got, secret) {
		t.Errorf("with a newer KEK: %q, under %q, %v", got, other, err)
	}
	for what, tt := range map[string]struct {
		keks           *KEKs
		purpose, place string
		want           error
	}{
		"another KEK":     {mustIn(t, mustKEKs(t, 2), "prod"), "lists", "k:1", ErrWrongKEK},
		"another realm":   {mustIn(t, mustKEKs(t, 1), "test"), "lists", "k:1", ErrWrongRealm},
		"another purpose": {old, "other", "k:1", ErrTampered},
		"another place":   {old, "lists", "k:2", ErrTampered},
	} {
		if got, _, err := OpenSecret(tt.keks, tt.purpose, tt.place, sealed); !errors.Is(err, tt.want) || got != nil {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	for bit := range 8 * len(sealed) {
		changed := slices.Clone(sealed)
		changed[bit/8] ^= 1 << (bit % 8)
		if got, _, err := OpenSecret(old, "lists", "k:1", changed); err == nil {
			t.Errorf("bit %d changed: %q", bit, got)
		}
	}
	for n := range sealed {
		if _, _, err := OpenSecret(old, "lists", "k:1", sealed[:n]); err == nil {
			t.Errorf("%d bytes of %d open", n, len(sealed))
		}
	}
	for _, bad := range []struct {
		purpose, place string
		secret         []byte
	}{{"", "p", secret}, {"p", "", secret}, {"p", "p", nil}, {"p", "p", make([]byte, maxSecret+1)}} {
		if _, err := SealSecret(old, bad.purpose, bad.place, bad.secret); err == nil {
			t.Errorf("sealed: %+v", bad)
		}
	}
}

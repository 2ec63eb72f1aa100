package protocol

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A revocation can be added to a ring of which something cannot be opened: that alone, and by force
// where the key may be the signing one.
func TestRevokeUnwhole(t *testing.T) {
	k1, k2, k3 := key("k1", 1, -100, 0), key("k2", 2, 1, 40), key("k3", 3, 41, 140)
	for _, tt := range []struct {
		name   string
		of     *Copy
		kid    string
		exists bool
		force  bool
		want   string // "revoke", "nothing", "refused" or "missing"
	}{
		{"a retired key", ringOf(nil, k1, k2, k3), "k1", true, false, "revoke"},
		{"a pending key", ringOf(nil, k1, k2, k3), "k3", true, false, "revoke"},
		{"the signing key", ringOf(nil, k1, k2, k3), "k2", true, false, "refused"},
		{"the signing key, by force", ringOf(nil, k1, k2, k3), "k2", true, true, "revoke"},
		{"a record that cannot be opened", ringOf(nil, k1), "k9", true, false, "refused"},
		{"by force", ringOf(nil), "k9", true, true, "revoke"},
		{"no record", ringOf(nil, k1), "k9", false, true, "missing"},
		{"revoked before", ringOf([]factAt{{ring.FactRevoked, "k9", 3}}, k1), "k9", true, false, "nothing"},
	} {
		p, err := baseOf(tt.of, 50).RevokeUnwhole(tt.kid, tt.exists, tt.force)
		got := "revoke"
		switch missing := (*ring.MissingError)(nil); {
		case errors.As(err, &missing):
			got = "missing"
		case errors.Is(err, ring.ErrRefused):
			got = "refused"
		case p == nil:
			got = "nothing"
		case len(p.Facts) != 1 || p.Facts[0].FactID != ring.FactID{Kind: ring.FactRevoked, KID: tt.kid} || !p.Facts[0].At.Equal(sec(50)) || !p.LeaveHead:
			t.Errorf("%s: %+v", tt.name, p)
		case p.Facts[0].From > -time.Second || p.Facts[0].To != 0:
			t.Errorf("%s: bounds from %v to %v", tt.name, p.Facts[0].From, p.Facts[0].To)
		}
		if got != tt.want {
			t.Errorf("%s: %s (%v), want %s", tt.name, got, err, tt.want)
		}
	}
}

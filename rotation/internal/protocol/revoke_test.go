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
		p, err := baseOf(tt.of, 50).RevokeUnwhole(tt.kid, tt.exists, false, tt.force)
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

// A key that no other can follow at once is revoked by force alone, whether it signs or is the next to
// sign. Then a key is minted that signs once it is known, F + D + S, 16s, later.
func TestRevocationSaysWhoFollows(t *testing.T) {
	k1, k2, k3 := key("k1", 1, -100, 0), key("k2", 2, 40, 66), key("k3", 3, 20, 140)
	headless := []factAt{{ring.FactRevoked, "k1", 45}}
	for _, tt := range []struct {
		name     string
		of       *Copy
		now      float64
		kid      string
		refused  float64 // the From of a refusal; -1 for zero, 0 for none
		promoted string
	}{
		{"it signs, and the next is known", ringOf(nil, k1, k3), 50, "k1", 0, "k3"},
		{"it signs, and the next is not", ringOf(nil, k1, k2), 50, "k1", 56, ""},
		{"it signs, and there is none", ringOf(nil, k1), 50, "k1", -1, ""},
		{"it is pending", ringOf(nil, k1, k2), 50, "k2", 0, ""},
		{"it is the next, and the one after is known", ringOf(headless, k1, k2, k3), 50, "k2", 0, "k3"},
		{"and the one after is not", ringOf(headless, k1, k2, key("k3", 3, 41, 140)), 50, "k2", 57, ""},
		{"and there is none", ringOf(headless, k1, k2), 50, "k2", -1, ""},
		{"it is the one after", ringOf(headless, k1, k2, k3), 50, "k3", 0, ""},
	} {
		p, err := baseOf(tt.of, tt.now).Revoke(tt.kid, false)
		var refused *ring.RefusedError
		switch {
		case errors.As(err, &refused) != (tt.refused != 0):
			t.Errorf("%s: %v", tt.name, err)
		case tt.refused > 0 && !refused.From.Equal(sec(tt.refused)) || tt.refused < 0 && !refused.From.IsZero():
			t.Errorf("%s: from %v on", tt.name, refused.From)
		case tt.refused == 0 && (promotedBy(p) != tt.promoted || len(p.Mint) > 0):
			t.Errorf("%s: promotes %q, mints %d", tt.name, promotedBy(p), len(p.Mint))
		}
		if tt.refused == 0 {
			continue
		}
		if p, err = baseOf(tt.of, tt.now).Revoke(tt.kid, true); err != nil || len(p.Mint) != 1 || !p.Mint[0].ActivateAt.Equal(sec(tt.now+16)) || !p.NoSignerUntil.Equal(sec(tt.now+16)) {
			t.Errorf("%s, by force: %+v, %v", tt.name, p, err)
		}
	}
}

// promotedBy returns the kid that p promotes, or "".
func promotedBy(p *Proposal) string {
	for _, f := range p.Facts {
		if f.Kind == ring.FactPromoted {
			return f.KID
		}
	}
	return ""
}

// A forced rotation that finds no pending key mints one, however soon after the last mint.
func TestForcedRotationMintsAtOnce(t *testing.T) {
	k1 := key("k1", 1, 40, 40)
	for _, tt := range []struct {
		name  string
		of    *Copy
		force bool
		signs float64 // when it is to sign; 0 for refused
	}{
		{"by force", ringOf(nil, k1), true, 140},
		{"without", ringOf(nil, k1), false, 0},
		{"by force, and no key signs", ringOf([]factAt{{ring.FactRevoked, "k1", 45}}, k1), true, 66},
	} {
		p, err := baseOf(tt.of, 50).Rotate(tt.force)
		if errors.Is(err, ring.ErrRefused) != (tt.signs == 0) {
			t.Errorf("%s: %v", tt.name, err)
		} else if tt.signs > 0 && (len(p.Mint) != 1 || !p.Mint[0].ActivateAt.Equal(sec(tt.signs)) || p.NoSignerUntil.IsZero() != (tt.signs == 140)) {
			t.Errorf("%s: %+v", tt.name, p)
		}
	}
}

// A pending key is revoked shortly before it takes effect, or long before. D + 2(S + deadline) is 8s.
// Until then the key before it does not sign where this one would.
func TestRevocationOfPendingKeySaysItsCost(t *testing.T) {
	k1, k2, k3 := key("k1", 1, -100, 0), key("k2", 2, 0, 100), key("k3", 3, 1, 105)
	for _, tt := range []struct {
		name string
		of   *Copy
		now  float64
		want float64 // 0 for none
	}{
		{"long before", ringOf(nil, k1, k2), 92, 0},
		{"shortly before", ringOf(nil, k1, k2), 92.001, 100.001},
		{"and the next one takes effect sooner", ringOf(nil, k1, k2, k3), 99, 105},
		{"and the next one later", ringOf(nil, k1, k2, k3), 96, 104},
	} {
		p, err := baseOf(tt.of, tt.now).Revoke("k2", false)
		if err != nil || p.NoSignerUntil.IsZero() != (tt.want == 0) || tt.want > 0 && !p.NoSignerUntil.Equal(sec(tt.want)) {
			t.Errorf("%s: %v, %v", tt.name, p.NoSignerUntil, err)
			continue
		}
		if tt.want == 0 {
			continue
		}
		revoked := tt.of.Learn(factsOf(p)) // by an instance that syncs all the time
		for at, signs := range map[float64]bool{100: false, tt.want + 0.001: true} {
			if _, err := revoked.Signing(sec(at), sec(at), roundDeadline); (err == nil) != signs {
				t.Errorf("%s: at %v: %v", tt.name, at, err)
			}
		}
	}
}

// factsOf returns the facts of p.
func factsOf(p *Proposal) (facts ring.Facts) {
	for _, f := range p.Facts {
		facts.Add(f.Kind, f.KID, f.At)
	}
	return facts
}

package protocol

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

func TestSigning(t *testing.T) {
	scheduled := ringOf(nil, key("k1", 1, 0, 0), key("k2", 2, 0, 100))
	promoted := ringOf([]factAt{{ring.FactPromoted, "k2", 50}}, key("k1", 1, 0, 0), key("k2", 2, 48, 100))
	revoked := ringOf([]factAt{{ring.FactRevoked, "k2", 95}}, key("k1", 1, 0, 0), key("k2", 2, 0, 100), key("k3", 3, 10, 110))
	for _, tt := range []struct {
		name    string
		of      *Copy
		t, good float64 // good is the last good sync; -1 for none
		want    string  // "" for ErrFenced
	}{
		{"SignFor after the last good sync", scheduled, 80, 50, "k1"},
		{"longer", scheduled, 80.001, 50, ""},
		{"before any good sync", scheduled, 1, -1, ""},
		{"the first signs before it is confirmed", scheduled, 1, 0, "k1"},
		{"the scheduled switch needs no sync", scheduled, 101, 80, "k2"},

		{"a promoted key, D after it was created: the one before", promoted, 54, 53, "k1"},
		{"and after the next good sync", promoted, 54, 53.001, "k2"},

		// Others may not have heard of the revocation, if the store has lost it: to
		// them the second signs from 100 on. D + 2(S + deadline) is 8s.
		{"a pending key was revoked: until it would sign, the one before does", revoked, 99.999, 95, "k1"},
		{"then not before a good sync has confirmed that", revoked, 100, 95, ""},
		{"at the bound", revoked, 105, 103, ""},
		{"beyond it", revoked, 105, 103.001, "k1"},
		{"until the one after it signs for all", revoked, 110, 95, "k3"},
	} {
		good := sec(tt.good)
		if tt.good < 0 {
			good = time.Time{}
		}
		got, err := tt.of.Signing(sec(tt.t), good, roundDeadline)
		switch {
		case tt.want == "" && !errors.Is(err, ErrFenced):
			t.Errorf("%s: %v, %v, want ErrFenced", tt.name, got, err)
		case tt.want != "" && (err != nil || got.KID != tt.want):
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// While a forced key is unconfirmed, the last confirmed one before it signs, for SignFor after the
// promotion of each key that is skipped. SignFor is 30 s and D is 5 s.
func TestSigningInPlaceOfForcedKeys(t *testing.T) {
	k1 := key("k1", 1, -100, -50)
	promoted := func(kid string, at float64) factAt { return factAt{ring.FactPromoted, kid, at} }
	one := ringOf([]factAt{promoted("k2", 50), {ring.FactAnnounced, "k2", 55}}, k1, key("k2", 2, 48, 100))
	two := ringOf([]factAt{promoted("k2", 50), promoted("k3", 52)}, k1, key("k2", 2, 48, 100), key("k3", 3, 50, 150))
	early := ringOf([]factAt{promoted("k2", 48), promoted("k3", 78.5)}, k1, key("k2", 2, 47, 100), key("k3", 3, 78, 150))
	gone := ringOf([]factAt{promoted("k2", 50), {ring.FactRevoked, "k1", 51}}, k1, key("k2", 2, 48, 100))
	between := ringOf([]factAt{promoted("k2", 48), promoted("k3", 52), {ring.FactRevoked, "k2", 53}}, k1, key("k2", 2, 1, 100), key("k3", 3, 50, 150))
	heir := ringOf(nil, k1, key("k2", 2, 48, 50))
	short := key("k1", 1, -100, -50)
	short.Timing.SignFor = 10 * time.Second
	brief := ringOf([]factAt{promoted("k2", 50)}, short, key("k2", 2, 48, 100))
	left := ringOf([]factAt{{ring.FactRevoked, "k2", 59}, promoted("k3", 61)}, k1, key("k2", 2, 0, 60), key("k3", 3, 59, 150))
	for _, tt := range []struct {
		name    string
		of      *Copy
		t, good float64
		want    string // "" for ErrFenced
	}{
		{"one, at once", one, 50, 50, "k1"},
		{"SignFor after the promotion", one, 80, 53, "k1"},
		{"later, though it was announced later", one, 80.001, 53, ""},
		{"two in a row", two, 53, 53, "k1"},
		{"the first of them is confirmed", two, 54, 53.001, "k2"},
		{"and both", two, 56, 55.001, "k3"},
		{"the older promotion counts for the older key", early, 78.6, 52, ""},
		{"the one before was revoked", gone, 51.5, 51.5, ""},
		{"one in between was revoked", between, 54, 54, ""},
		{"a key that was not promoted", heir, 51, 51, ""},
		{"the SignFor of the one before", brief, 60.001, 52, ""},
		{"the last good sync is older than that", brief, 60, 49.999, ""},
		{"a pending key was revoked, which others would sign with by now", left, 63, 63, ""},
		{"and that is confirmed", left, 68, 67.001, "k3"},
	} {
		got, err := tt.of.Signing(sec(tt.t), sec(tt.good), roundDeadline)
		switch {
		case tt.want == "" && !errors.Is(err, ErrFenced):
			t.Errorf("%s: %v, %v, want ErrFenced", tt.name, got, err)
		case tt.want != "" && (err != nil || got.KID != tt.want):
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// A receipt says from when the forced key signs, and until when no key does, if none before it may.
func TestForcedPromotionSaysItsCost(t *testing.T) {
	k1, pending := key("k1", 1, -100, -50), key("k2", 2, 48, 100)
	slow := pending
	slow.Timing.Dwell = 50 * time.Second // longer than SignFor
	first := key("k1", 1, 47, 47)
	for _, tt := range []struct {
		name              string
		of                *Copy
		confirmed, silent float64 // 0 for none
	}{
		{"the one before signs on", ringOf(nil, k1, pending), 53, 0},
		{"it is the first, and younger", ringOf(nil, first, pending), 53, 0},
		{"it was revoked", ringOf([]factAt{{ring.FactRevoked, "k1", 49}}, k1, pending), 53, 53},
		{"SignFor ends before Dwell", ringOf(nil, k1, slow), 98, 98},
		{"a key was revoked that was about to sign", ringOf([]factAt{{ring.FactRevoked, "k3", 47}}, k1, pending, key("k3", 3, 1, 49.5)), 53, 53},
		{"it is old enough", ringOf(nil, k1, key("k2", 2, 1, 100)), 0, 0},
	} {
		p, err := baseOf(tt.of, 50).Promote("k2", true)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if !isSec(p.ConfirmedAt, tt.confirmed) || !isSec(p.NoSignerUntil, tt.silent) {
			t.Errorf("%s: confirmed %v, no signer until %v", tt.name, p.ConfirmedAt, p.NoSignerUntil)
		}
	}
}

// isSec reports whether a time is that of these tests, or zero for 0.
func isSec(got time.Time, want float64) bool {
	return want == 0 && got.IsZero() || want != 0 && got.Equal(sec(want))
}

// The key that signs in place of a forced one is revoked by force alone, and the receipt says until when
// no key signs then. Before, and once the forced key is confirmed, it costs nothing.
func TestRevocationOfStandIn(t *testing.T) {
	k1, k2, k3 := key("k1", 1, -100, -50), key("k2", 2, 48, 100), key("k3", 3, 50, 150)
	forced := []factAt{{ring.FactPromoted, "k2", 50}}
	twice := append(forced, factAt{ring.FactPromoted, "k3", 51})
	for _, tt := range []struct {
		name         string
		of           *Copy
		now          float64
		kid          string
		from, silent float64 // 0: it is not refused
	}{
		{"it signs in place of the forced key", ringOf(forced, k1, k2, k3), 51, "k1", 53, 53},
		{"the forced key may be confirmed", ringOf(forced, k1, k2, k3), 53, "k1", 0, 0},
		{"of two, the first is confirmed first", ringOf(twice, k1, k2, k3), 51.5, "k1", 55, 53},
		{"and signs before the second", ringOf(twice, k1, k2, k3), 51.5, "k2", 55, 55},
		{"no key signs anyway", ringOf(append(twice, factAt{ring.FactRevoked, "k2", 51.2}), k1, k2, k3), 51.5, "k1", 0, 0},
		{"it retired before", ringOf(forced, key("k0", 0, -300, -200), k1, k2), 51, "k0", 0, 0},
	} {
		p, err := baseOf(tt.of, tt.now).Revoke(tt.kid, false)
		refused := new(ring.RefusedError)
		if errors.As(err, &refused) != (tt.from != 0) || !isSec(refused.From, tt.from) {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if err != nil {
			p, err = baseOf(tt.of, tt.now).Revoke(tt.kid, true)
		}
		if err != nil || !isSec(p.NoSignerUntil, tt.silent) {
			t.Errorf("%s: no signer until %v, %v", tt.name, p.NoSignerUntil, err)
		}
		if unwhole, err := baseOf(tt.of, tt.now).RevokeUnwhole(tt.kid, true, false, false); (err != nil) != (tt.from != 0) {
			t.Errorf("%s, not whole: %+v, %v", tt.name, unwhole, err)
		}
	}
}

// A revoked key is accepted for D + SignFor + L + leeway, 60s, where an old primary keeps an instance
// in sync. Our own readers keep a set for a minute, whatever the policy says.
func TestWorstCase(t *testing.T) {
	short, long := round, round
	short.Algorithm, short.ReaderStaleness = keystore.ES256, 10*time.Second
	long.Algorithm, long.ReaderStaleness = keystore.ES256, time.Hour
	for _, tt := range []struct {
		policy  ring.Policy
		readers time.Time
	}{{round, time.Time{}}, {short, sec(160)}, {long, sec(3700)}} {
		r := ring.Record{Algorithm: tt.policy.Algorithm, Timing: tt.policy}
		if instances, readers := WorstCase(&r, sec(100)); !instances.Equal(sec(160)) || !readers.Equal(tt.readers) {
			t.Errorf("ReaderStaleness %v: %v, readers %v", tt.policy.ReaderStaleness, instances, readers)
		}
	}
}

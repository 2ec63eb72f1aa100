package rotation

import (
	"testing"
	"time"
)

// merging returns a merger at a moment whose last good sync was at good; -1 is never.
func merging(mine, theirs *held, now, good float64) *merger {
	m := &merger{tenant: "acme", mine: mine, theirs: theirs, now: sec(now), local: sec(now), good: sec(good), deadline: roundDeadline}
	if good < 0 {
		m.good = time.Time{}
	}
	return m
}

// Whoever cannot have been signing with a key that the store has lost publishes it anew, if
// the store has others sign: it was away for longer than SignFor, or has never had a good
// sync later than D, 5s, after the key was created. Then its promotion binds nobody either.
func TestWhoPublishesALostKeyAnew(t *testing.T) {
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 40, 130)
	promotion := factAt{FactPromoted, "k2", 42}
	for _, tt := range []struct {
		name      string
		theirs    *held
		facts     []factAt // of mine
		now, good float64
		anew      bool
	}{
		{"confirmed", ringOf(nil, k1), []factAt{promotion}, 50, 45.001, false},
		{"not confirmed beyond D", ringOf(nil, k1), []factAt{promotion}, 50, 45, true},
		{"never in step", ringOf(nil, k1), []factAt{promotion}, 50, -1, true},
		{"away for SignFor", ringOf(nil, k1), []factAt{promotion}, 80, 50, false},
		{"away for longer", ringOf(nil, k1), []factAt{promotion}, 80.001, 50, true},
		{"a switch by schedule", ringOf(nil, k1), nil, 160, 130, false},
		{"away for longer than SignFor at that", ringOf(nil, k1), nil, 160.001, 130, true},
		{"the store has nobody sign", ringOf(nil), []factAt{promotion}, 50, 45, false},
		{"the store has a later key sign", ringOf([]factAt{{FactPromoted, "k3", 46}}, k1, key("k3", 3, 44, 230)), []factAt{promotion}, 50, 45, false},
		{"it is pending: whoever puts it back", ringOf(nil, k1), nil, 50, 49, true},
		{"it is revoked", ringOf(nil, k1), []factAt{promotion, {FactRevoked, "k2", 43}}, 50, 45, false},
	} {
		m := merging(ringOf(tt.facts, k1, k2), tt.theirs, tt.now, tt.good)
		healed := m.merge().healed
		again, anew := healed.facts.At(FactRepublished, "k2")
		_, promoted := healed.facts.At(FactPromoted, "k2")
		if anew != tt.anew || anew && (promoted || !again.Equal(m.soon())) || !anew && promoted != (len(tt.facts) > 0) {
			t.Errorf("%s: published anew %v, at %v; promoted %v", tt.name, anew, again, promoted)
		}
		if _, announced := healed.facts.At(FactAnnounced, "k2"); !announced {
			t.Errorf("%s: its return is not announced", tt.name)
		}
	}
}

// A promotion that the store knows, too, others go by: it stays.
func TestAPromotionThatTheStoreKnowsIsNotForgotten(t *testing.T) {
	k1, k2, fact := key("k1", 1, -100, 0), key("k2", 2, 40, 130), []factAt{{FactPromoted, "k2", 42}}
	healed := merging(ringOf(fact, k1, k2), ringOf(fact, k1), 80.001, 50).merge().healed
	if at, ok := healed.facts.At(FactPromoted, "k2"); !ok || !at.Equal(sec(42)) {
		t.Error("it is forgotten")
	}
}

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

		{"a promoted key, D after it was created", promoted, 54, 53, ""},
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

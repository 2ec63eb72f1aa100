package protocol

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// What is decided on a ring at one moment, held to its bounds. No store is asked.

// round is a policy of round numbers: 2(S + deadline) is 3s.
var round = ring.Policy{Algorithm: keystore.HS256, Every: 100 * time.Second, Propagation: 60 * time.Second, MaxTokenTTL: 20 * time.Second,
	Leeway: 5 * time.Second, ClockSkew: time.Second, Freshness: 10 * time.Second, Dwell: 5 * time.Second, SignFor: 30 * time.Second}

const roundDeadline = 500 * time.Millisecond

// sec is a moment of these tests.
func sec(s float64) time.Time { return at(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), s) }

// key returns a record of the policy round.
func key(kid string, seq int, created, activate float64) ring.Record {
	return ring.Record{Tenant: "acme", KID: kid, Seq: seq, Algorithm: round.Algorithm, Created: sec(created), ActivateAt: sec(activate),
		SignUntil: sec(activate + 1e6), Origin: ring.Generated, Timing: round}
}

type factAt struct {
	kind ring.FactKind
	kid  string
	at   float64
}

// ringOf returns a copy of a ring.
func ringOf(facts []factAt, records ...ring.Record) *Copy {
	var c Copy
	for _, f := range facts {
		c.Facts.Add(f.kind, f.kid, sec(f.at))
	}
	for _, r := range records {
		c.Records = append(c.Records, Record{Record: &r})
	}
	return NewCopy(c)
}

func TestWhatSigns(t *testing.T) {
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

// baseOf is a ring as the store has it at one moment.
func baseOf(c *Copy, now float64) *Base {
	mint := func(ring.Policy) (string, error) { return "minted", nil }
	return &Base{Tenant: "acme", Now: sec(now), Deadline: roundDeadline, Copy: c, MakeKey: mint}
}

// No key is minted sooner than F + S, 11s, after the last: they become known one by one.
func TestMintIsNotTooEarly(t *testing.T) {
	alone := ringOf(nil, key("k1", 1, 0, 0))
	for _, now := range []float64{10.999, 11} {
		early := now < 11
		if p, err := baseOf(alone, now).MintDue(); err != nil || (p == nil) != early {
			t.Errorf("by itself at %v: minted %v, %v", now, p != nil, err)
		}
		_, err := baseOf(alone, now).Rotate(false)
		var refused *ring.RefusedError
		if errors.As(err, &refused) != early || !early && err != nil || early && !refused.From.Equal(sec(11)) {
			t.Errorf("by hand at %v: %v", now, err)
		}
	}
}

func TestWhatIsCollected(t *testing.T) {
	const x, a, w = ring.FactRevoked, ring.FactPromoted, ring.FactAnnounced
	three := []ring.Record{key("k1", 1, -100, 0), key("k2", 2, -99, 100), key("k3", 3, 100, 200)}
	// The third was made to sign before the second.
	passed := []ring.Record{three[0], three[1], key("k3", 3, 40, 200)}
	// The second was created before the first, as by another lineage.
	crossed := []ring.Record{key("k1", 1, 10, 0), key("k2", 2, 5, 100), key("k3", 3, 100, 200)}
	for _, tt := range []struct {
		name    string
		records []ring.Record
		facts   []factAt
		revived []string
		now     float64
		want    string  // kids
		gone    float64 // the last that is gone was created then; 0 for none
	}{
		// The first is kept until 125, for L and leeway, and F + S is 11s.
		{"F + S after it was dropped, and not before", three, nil, nil, 135.999, "", 0},
		{"then", three, nil, nil, 136, "k1", -100},
		{"all that are over", three, nil, nil, 236, "k1 k2", -99},
		{"the last never is", three, nil, nil, 1e6, "k1 k2", -99},
		{"kept for longer, since it was announced", three, []factAt{{w, "k1", 200}}, nil, 266.999, "", 0},
		{"a prefix of the order alone", three, []factAt{{w, "k1", 200}}, nil, 250, "", 0},
		{"so also if the next was created before", crossed, []factAt{{w, "k1", 200}}, nil, 250, "", 0},
		{"and then both", three, []factAt{{w, "k1", 200}}, nil, 267, "k1 k2", -99},

		{"promoted past another: no sooner than that", passed, []factAt{{a, "k3", 50}}, nil, 1e6, "k1", -100},
		{"revoked before it signed: it goes when it would have, and the rest stays", three, []factAt{{x, "k2", 50}, {w, "k1", 400}}, nil, 300, "k2", 0},
		{"but not before", three, []factAt{{x, "k2", 50}, {w, "k1", 400}}, nil, 235.999, "", 0},
		{"revoked while it signed: as any other", three, []factAt{{x, "k1", 50}}, nil, 136, "k1", -100},

		{"what was collected and put back, at once", three, nil, []string{"old"}, 0, "old", 0},
		{"and beside others", three, nil, []string{"old"}, 136, "old k1", -100},
	} {
		h := ringOf(tt.facts, tt.records...)
		h.Revived = tt.revived
		p := baseOf(h, tt.now).Collect()
		if p == nil {
			p = &Proposal{}
		}
		if got := strings.Join(p.Remove, " "); got != tt.want {
			t.Errorf("%s: collected %q, want %q", tt.name, got, tt.want)
			continue
		}
		var gone []string
		for _, f := range p.Facts {
			gone = append(gone, fmt.Sprintf("%c%s from %v to %v: %v", f.Kind, f.KID, f.From, f.To, f.At))
		}
		var want []string
		if tt.gone != 0 {
			want = append(want, fmt.Sprintf("%c from %v to %v: %v", ring.FactCollected, -forever, time.Duration(0), sec(tt.gone)))
		}
		if !slices.Equal(gone, want) {
			t.Errorf("%s: the facts are %q, want %q", tt.name, gone, want)
		}
	}
}

// A key that was passed over is revoked while it is pending, and one that passed it is
// over. To collect that would make the revoked one gone, too, and with it the reason not to
// sign before its revocation is confirmed.
func TestARevocationStaysUntilItIsConfirmed(t *testing.T) {
	facts := []factAt{{ring.FactPromoted, "k3", 50}, {ring.FactAnnounced, "k3", 50}, {ring.FactPromoted, "k4", 100}, {ring.FactAnnounced, "k4", 100}, {ring.FactRevoked, "k2", 240}}
	records := []ring.Record{key("k1", 1, -100, 0), key("k2", 2, -99, 250), key("k3", 3, 20, 350), key("k4", 4, 55, 450), key("k5", 5, 150, 550)}
	h := ringOf(facts, records...)
	if p := baseOf(h, 241).Collect(); p != nil {
		for _, f := range p.Facts {
			h.Facts.Collect(f.At)
		}
		h.replan()
	}
	if r, err := h.Signing(sec(255), sec(245), roundDeadline); err == nil {
		t.Errorf("it signs with %s; %d keys have left the order", r.KID, len(h.Plan.NeverActive))
	}
}

package protocol

import (
	"slices"
	"testing"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A holdCase is a decision about a ring with keys that wait.
type holdCase struct {
	name   string
	of     *Copy
	now    float64
	decide func(b *Base) (*Proposal, error)

	promoted string   // the kid that signs from now on
	revoked  []string // the kids that end
	minted   string   // "waits", "dated" or ""
	nothing  bool     // there is nothing to do
}

func runHoldCases(t *testing.T, cases []holdCase) {
	t.Helper()
	for _, tt := range cases {
		p, err := tt.decide(baseOf(tt.of, tt.now))
		if err != nil || (p == nil) != tt.nothing {
			t.Errorf("%s: %+v, %v", tt.name, p, err)
		}
		if err != nil || p == nil {
			continue
		}
		promoted, minted := "", ""
		var revoked []string
		for _, f := range p.Facts {
			switch f.Kind {
			case ring.FactPromoted:
				promoted = f.KID
			case ring.FactRevoked:
				revoked = append(revoked, f.KID)
			}
		}
		for _, r := range p.Mint {
			if minted = "dated"; r.Waits {
				minted = "waits"
			}
			if r.Hold || r.Longest != 0 || r.Timing != round {
				t.Errorf("%s: mints %+v", tt.name, r)
			}
		}
		if promoted != tt.promoted || !slices.Equal(revoked, tt.revoked) || minted != tt.minted {
			t.Errorf("%s: promotes %q, revokes %q, mints %q; want %q, %q, %q", tt.name, promoted, revoked, minted, tt.promoted, tt.revoked, tt.minted)
		}
	}
}

func rotate(b *Base) (*Proposal, error) { return b.Rotate(false) }

// While the key that signs has Hold, the one behind it waits: it is replaced by a policy and by a
// revocation, and only an operator makes it sign. With that the hold ends.
func TestHold(t *testing.T) {
	gone := []factAt{{ring.FactRevoked, "k2", 30}}
	setPolicy := func(b *Base) (*Proposal, error) { return b.SetPolicy(round) }
	runHoldCases(t, []holdCase{
		{name: "one waits, long after its date", of: held(nil), now: 1e6, decide: (*Base).MintDue, nothing: true},
		{name: "the one that waits was revoked", of: held(gone), now: 60, decide: (*Base).MintDue, minted: "waits"},
		{name: "a policy", of: held(nil), now: 60, decide: setPolicy, revoked: []string{"k2"}, minted: "waits"},
		{name: "a policy after a split", of: held(nil, waits("k3", 3, 20), waits("k4", 3, 21)), now: 60, decide: setPolicy, revoked: []string{"k2", "k3", "k4"}, minted: "waits"},
		{name: "rotate", of: held(nil), now: 60, decide: rotate, promoted: "k2", minted: "dated"},
		{name: "rotate after a split", of: held(nil, waits("k3", 2, 20)), now: 60, decide: rotate, promoted: "k2", revoked: []string{"k3"}, minted: "dated"},
		{name: "rotate, and one with a date is pending", of: held(nil, key("k3", 3, 20, 1e6)), now: 60, decide: rotate, promoted: "k3", revoked: []string{"k2"}, minted: "dated"},
		{name: "promote", of: held(nil), now: 60, decide: func(b *Base) (*Proposal, error) { return b.Promote("k2", false) }, promoted: "k2", minted: "dated"},
		{name: "promote another one", of: held(nil, waits("k3", 2, 20)), now: 60,
			decide: func(b *Base) (*Proposal, error) { return b.Promote("k3", false) }, promoted: "k3", revoked: []string{"k2"}, minted: "dated"},
		{name: "revoke the one that waits", of: held(nil), now: 60, decide: func(b *Base) (*Proposal, error) { return b.Revoke("k2", false) }, revoked: []string{"k2"}},
		{name: "revoke the key with Hold", of: held(nil), now: 60,
			decide: func(b *Base) (*Proposal, error) { return b.Revoke("old", false) }, promoted: "k2", revoked: []string{"old"}},
		{name: "revoke it after a split", of: held(nil, waits("k3", 2, 20)), now: 60,
			decide: func(b *Base) (*Proposal, error) { return b.Revoke("old", false) }, promoted: "k2", revoked: []string{"old", "k3"}},
		{name: "revoke it by force before another is known", of: held(nil), now: 5,
			decide: func(b *Base) (*Proposal, error) { return b.Revoke("old", true) }, revoked: []string{"old"}, minted: "dated"},
	})
}

// A key that waits where none has Hold any longer is no heir: the rotator mints one with a date, and
// revokes it. Where no key signs, it takes over.
func TestStrayKey(t *testing.T) {
	stray := []factAt{{ring.FactPromoted, "k2", 30}}
	leaked := []factAt{{ring.FactRevoked, "old", 50}}
	revoke := func(b *Base) (*Proposal, error) { return b.RevokeStray(), nil }
	runHoldCases(t, []holdCase{
		{name: "mint beside a stray key", of: held(stray, waits("k3", 3, 20)), now: 60, decide: (*Base).MintDue, minted: "dated"},
		{name: "revoke the stray key", of: held(stray, waits("k3", 3, 20)), now: 60, decide: revoke, revoked: []string{"k3"}},
		{name: "it is no stray key", of: held(nil), now: 60, decide: revoke, nothing: true},
		{name: "no key signs", of: held(leaked), now: 60, decide: revoke, nothing: true},
		{name: "take over", of: held(leaked), now: 60, decide: (*Base).TakeOver, promoted: "k2", minted: "dated"},
		{name: "take over after a split", of: held(leaked, waits("k3", 2, 20)), now: 60, decide: (*Base).TakeOver, promoted: "k2", revoked: []string{"k3"}, minted: "dated"},
		{name: "take over before it is known", of: held(leaked), now: 15, decide: (*Base).TakeOver, nothing: true},
		{name: "mint where it is to take over", of: held(leaked), now: 60, decide: (*Base).MintDue, nothing: true},
		{name: "mint where none is left to take over", of: held(append(leaked, factAt{ring.FactRevoked, "k2", 51})), now: 60, decide: (*Base).MintDue, minted: "dated"},
	})
}

// The period of the key behind a hold begins when it is promoted, however late that is.
func TestPeriodBeginsAfterHold(t *testing.T) {
	p, err := baseOf(held(nil), 5000).Rotate(false)
	if err != nil {
		t.Fatal(err)
	}
	if at := p.Mint[0].ActivateAt; !at.Equal(sec(5100)) {
		t.Errorf("the next key signs at %v, want a period, 100s, after the promotion", at)
	}
}

// A key that waited and was revoked has no successor in the order. It must not keep the records that
// come after it from being collected: every instance has heard of the revocation F + D + S, 16s,
// later.
func TestCollectBesideRevokedWaitingKey(t *testing.T) {
	facts := []factAt{{ring.FactRevoked, "k2", 300}, {ring.FactPromoted, "k3", 350}, {ring.FactPromoted, "k4", 450}}
	of := held(facts, waits("k3", 3, 301), key("k4", 4, 351, 1e6), key("k5", 5, 451, 2e6))
	for _, tt := range []struct {
		now  float64
		want []string
	}{{315.9, nil}, {316, []string{"k2"}}, {550, []string{"old", "k3", "k2"}}} {
		p := baseOf(of, tt.now).Collect()
		if p == nil {
			p = new(Proposal)
		}
		if !slices.Equal(p.Remove, tt.want) {
			t.Errorf("at %v: removes %q, want %q", tt.now, p.Remove, tt.want)
		}
	}
}

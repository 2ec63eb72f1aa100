package protocol

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// ofLife returns r as of another life.
func ofLife(r ring.Record, life int) ring.Record {
	r.Life = life
	return r
}

// deadRing returns the copy of a ring of which so many lives have ended, the last one at that second.
func deadRing(lives int, at float64, facts []factAt, records ...ring.Record) *Copy {
	c := *ringOf(facts)
	c.Facts.Kill(lives, sec(at))
	for _, r := range records {
		c.Records = append(c.Records, Record{Record: &r})
	}
	return NewCopy(c)
}

// A shred states that one more life has ended, and removes all but revocations. Of a ring that was
// destroyed it removes what has come back.
func TestDestroy(t *testing.T) {
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 1, 100)
	revoked := []factAt{{ring.FactRevoked, "k1", 5}}
	lost := NewCopy(Copy{TenantKeys: []TenantKey{{ID: "t"}}})
	back := *deadRing(1, 40, revoked)
	back.TenantKeys = []TenantKey{{ID: "t"}}
	for _, tt := range []struct {
		name  string
		c     *Copy
		lives int // that have ended with it; 0: it states nothing, -1: there is nothing to do, -2: no ring
	}{
		{"a ring", ringOf(revoked, k1, k2), 1},
		{"one that was made again", deadRing(1, 0, revoked, ofLife(k1, 1), ofLife(k2, 1)), 2},
		{"one that lost its records", lost, 1},
		{"revocations alone", ringOf(revoked), 1},
		{"destroyed", deadRing(1, 40, revoked), -1},
		{"destroyed, and a record came back", deadRing(1, 40, revoked, k1), 0},
		{"destroyed, and a tenant key came back", NewCopy(back), 0},
		{"destroyed, and a promotion came back", deadRing(1, 40, []factAt{{ring.FactPromoted, "k1", 5}}), 0},
		{"nothing", ringOf(nil), -2},
	} {
		p, err := baseOf(tt.c, 50).Destroy()
		switch missing := (*ring.MissingError)(nil); {
		case tt.lives == -2:
			if !errors.As(err, &missing) {
				t.Errorf("%s: %+v, %v", tt.name, p, err)
			}
		case err != nil || (p == nil) != (tt.lives == -1):
			t.Errorf("%s: %+v, %v", tt.name, p, err)
		case p != nil && (!p.Sweep || p.Op != ring.OpDestroy || len(p.Facts) != min(tt.lives, 1)):
			t.Errorf("%s: %+v", tt.name, p)
		case tt.lives > 0 && (p.Facts[0].Life != tt.lives || p.Facts[0].Kind != ring.FactDestroyed || !p.Facts[0].At.Equal(sec(50)) || p.Facts[0].From >= 0 || p.Facts[0].To != 0):
			t.Errorf("%s: %+v", tt.name, p.Facts)
		}
	}
}

// A ring that was destroyed takes no change, and its name stays taken. Only a ring that is made again
// on purpose begins the next life.
func TestDestroyedTakesNoChange(t *testing.T) {
	dead := deadRing(2, 40, []factAt{{ring.FactRevoked, "k1", 5}})
	b := baseOf(dead, 50)
	_, err1 := b.Rotate(true)
	_, err2 := b.Promote("k1", true)
	_, err3 := b.Revoke("k1", true)
	_, err4 := b.RevokeUnwhole("k1", true, false, true)
	_, err5 := b.SetPolicy(round)
	_, err6 := b.Create(round, false)
	for i, err := range []error{err1, err2, err3, err4, err5, err6} {
		if !errors.Is(err, ring.ErrRefused) || !strings.Contains(err.Error(), "was destroyed") {
			t.Fatalf("%d: %v", i+1, err)
		}
	}
	if !strings.Contains(err6.Error(), "--again") {
		t.Errorf("create does not say how: %v", err6)
	}
	if p, err := b.TakeOver(); p != nil || err != nil || b.IsMintDue() {
		t.Errorf("a rotator changes it: %+v, %v", p, err)
	}
	p, err := b.Create(round, true)
	if err != nil || len(p.Mint) != 2 || p.Mint[0].Life != 2 || p.Mint[1].Life != 2 || p.Mint[0].Seq != 1 || p.Head != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	for name, c := range map[string]*Copy{
		"a ring":                  ringOf(nil, key("k1", 1, -100, 0)),
		"a ring of the next life": deadRing(1, 10, nil, ofLife(key("k1", 1, -100, 0), 1)),
		"parts of a lost ring":    deadRing(1, 10, []factAt{{ring.FactAnnounced, "k9", 20}}),
	} {
		if p, err := baseOf(c, 50).Create(round, true); !errors.Is(err, ring.ErrRefused) {
			t.Errorf("over %s: %+v, %v", name, p, err)
		}
	}
	if p, err := baseOf(ringOf(nil), 50).Create(round, true); err != nil || p.Mint[0].Life != 0 {
		t.Errorf("a first ring, again: %+v, %v", p, err)
	}
}

// A shred wins over everything that another copy has of that life: records that were minted after it,
// by a side of a split, and what that side collected. Of the next life it ends nothing.
func TestShredWins(t *testing.T) {
	k1, k2, late := key("k1", 1, -100, 0), key("k2", 2, 1, 100), key("k3", 3, 150, 210)
	n1, n2 := ofLife(key("n1", 1, 60, 60), 1), ofLife(key("n2", 2, 61, 160), 1)
	split := ringOf([]factAt{{ring.FactRevoked, "k2", 5}, {ring.FactAnnounced, "k3", 150}}, k1, late)
	split.Facts.Collect(0, sec(90)) // later than the records of the next life
	split = NewCopy(*split)
	for _, tt := range []struct {
		name         string
		held, stored *Copy
		kids         []string
		restores     bool // something that ends trust
	}{
		{"the store has the shred", split, deadRing(1, 40, nil), nil, true},
		{"the holder has the shred", deadRing(1, 40, nil), split, nil, true},
		{"the store has the next life", split, deadRing(1, 40, nil, n1, n2), []string{"n1", "n2"}, true},
		{"the holder has the next life", deadRing(1, 40, nil, n1, n2), split, []string{"n1", "n2"}, true},
		{"a record of the next life is all the proof there is", split, ringOf(nil, n1, n2, k1), []string{"n1", "n2"}, true},
		{"both know", deadRing(1, 40, nil), deadRing(1, 40, nil), nil, false},
		{"an older dump of the same life", deadRing(1, 40, nil, n1, n2), ringOf(nil, k1, k2), []string{"n1", "n2"}, true},
	} {
		result, err := checkedMerge(merging(tt.held, tt.stored, 170, 169))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		var kids []string
		for _, r := range result.Healed.Records {
			kids = append(kids, r.KID)
		}
		if !slices.Equal(kids, tt.kids) || result.Healed.Facts.Dead != 1 || result.Healed.Plan.Dead != (len(tt.kids) == 0) || (result.Change != nil) != tt.restores {
			t.Errorf("%s: %q, %d lives ended, dead %v, change %+v", tt.name, kids, result.Healed.Facts.Dead, result.Healed.Plan.Dead, result.Change)
		}
		if tt.restores {
			if err := restoresOnly(result.Change, tt.stored, result.Healed); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if knew := tt.held.Facts.Dead > tt.stored.Facts.Dead; knew && !result.Undone {
			t.Errorf("%s: no alarm", tt.name)
		}
	}
	if k2.Life != 0 {
		t.Error("the keys changed")
	}
}

// restoresOnly reports an error if p writes a record of a life that has ended.
func restoresOnly(p *Proposal, stored, healed *Copy) error {
	for _, kid := range p.Restore {
		if healed.Find(kid) == nil || stored.Find(kid) != nil {
			return errors.New("it restores " + kid)
		}
	}
	for _, f := range p.Facts {
		if f.Kind == ring.FactDestroyed && f.Life != healed.Facts.Dead || f.Kind == ring.FactCollected && f.Life != healed.Facts.Dead {
			return errors.New("it states another life")
		}
	}
	return nil
}

// A holder that was out of touch for longer than every token lives puts back what ends trust, and
// nothing else. Its tenant may have been destroyed, and the store replaced since.
func TestHolderThatWasAwayForMonths(t *testing.T) {
	const day = 24 * 3600
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 1, 100)
	long := k2
	long.Longest = 60 * 24 * time.Hour
	facts := []factAt{{ring.FactRevoked, "k9", 5}, {ring.FactPromoted, "k2", 6}}
	for _, tt := range []struct {
		name     string
		held     *Copy
		days     float64
		complete float64 // the time of the last complete sync, in seconds; -1 for none
		off      bool
		restores []string
	}{
		{"thirty days", ringOf(facts, k1, k2), 30, 0, false, []string{"k2"}},
		{"more than thirty days", ringOf(facts, k1, k2), 30.001, 0, false, nil},
		{"a year", ringOf(facts, k1, k2), 365, 0, false, nil},
		{"thirty days, and tokens that live for sixty", ringOf(facts, k1, long), 60, 0, false, []string{"k2"}},
		{"longer than those", ringOf(facts, k1, long), 60.001, 0, false, nil},
		{"never in sync, and read a moment ago", ringOf(facts, k1, k2), 365, -1, false, []string{"k2"}},
		{"a clock that is a year ahead", ringOf(facts, k1, k2), 365, 0, true, nil},
	} {
		in := merging(tt.held, ringOf(nil), tt.days*day, -1)
		if tt.complete >= 0 {
			in.Complete = sec(tt.complete)
		}
		in.ClockOff = tt.off
		result, err := checkedMerge(in)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.off {
			if result.Change != nil || len(result.Union.Records) != 2 {
				t.Errorf("%s: it writes %+v, and keeps %d records", tt.name, result.Change, len(result.Union.Records))
			}
			continue
		}
		if _, revoked := result.Healed.Facts.At(ring.FactRevoked, "k9"); result.Change == nil || !revoked || !slices.Equal(result.Change.Restore, tt.restores) || len(result.Union.Records) != len(tt.restores) {
			t.Errorf("%s: %+v", tt.name, result.Change)
		}
	}
}

// What was collected is put back by a holder that was away, unless the store was rolled back to before
// it: others may have signed with those keys since.
func TestHolderThatWasAwayForMonthsGivesIn(t *testing.T) {
	const month = 31 * 24 * 3600
	old, k2 := key("k1", 1, -100, 0), key("k2", 2, 1, 100)
	held := *ringOf(nil, k2)
	held.Facts.Collect(0, old.Created)
	for name, stored := range map[string]*Copy{"emptied": ringOf(nil), "rolled back": ringOf(nil, old)} {
		in := merging(NewCopy(held), stored, month, -1)
		in.Complete = sec(0)
		result, err := checkedMerge(in)
		if err != nil {
			t.Error(err)
		}
		collected := !result.Healed.Facts.CollectedUntil.IsZero()
		if emptied := name == "emptied"; collected != emptied || (len(result.Union.Records) == 0) != emptied {
			t.Errorf("%s: collected %v, %d records", name, collected, len(result.Union.Records))
		}
	}
}

// An instance acknowledges a shred once it knows that the life has ended, whatever else of the ring it
// cannot read.
func TestShredIsApplied(t *testing.T) {
	e := Entry{Op: ring.OpDestroy, Nonce: "n", Lives: 2}
	for _, tt := range []struct {
		c       *Copy
		applied bool
	}{
		{nil, false}, {ringOf(nil, key("k1", 1, 0, 0)), false}, {deadRing(1, 40, nil), false}, {deadRing(2, 40, nil), true},
		{deadRing(2, 40, nil, ofLife(key("n1", 1, 60, 60), 2)), true},
	} {
		for _, whole := range []bool{true, false} {
			if applied, waiting := Applied(tt.c, []Entry{e}, whole); (len(applied) == 1) != tt.applied || len(applied)+len(waiting) != 1 {
				t.Errorf("%+v, whole %v: %d applied", tt.c, whole, len(applied))
			}
		}
	}
	var changes []Entry
	changes = Remember(changes, e, 4)
	for _, nonce := range []string{"a", "b", "c", "d", "e", "f"} {
		changes = Remember(changes, Entry{Op: ring.OpMint, Nonce: nonce}, 4)
	}
	if changes[0].Nonce != "n" {
		t.Error("mints push a shred out")
	}
}

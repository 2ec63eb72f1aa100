package protocol

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// backUp keeps what the store has now.
var backUp = step{"a backup is made", func(w *world) (bool, error) {
	w.backup, w.backupAt = w.top().c, w.now
	return true, nil
}}

// restore restores the backup.
var restore = step{"the backup is restored", func(w *world) (bool, error) {
	if w.backup == nil {
		return false, nil
	}
	in := RestoreInput{MergeInput: MergeInput{Held: w.backup, Stored: w.top().c, Now: w.now, LocalNow: w.now, Deadline: roundDeadline}, Taken: w.backupAt}
	result, err := checkedRestore(in)
	if err != nil || result.Change == nil {
		return true, err
	}
	raw, err := apply(w.top().raw, result.Change, result.Union, w.now)
	if err == nil {
		w.push(raw)
	}
	return true, err
}}

// checkedRestore is Restore, held to the rules of every restore: it changes nothing that it is given,
// the store accepts its proposal, to restore again changes nothing, and
//   - what ended trust in the store or in the backup does so afterwards;
//   - the store keeps its records, and their place in the order.
func checkedRestore(in RestoreInput) (RestoreResult, error) {
	in.Held, in.Stored = spread(in.Held), spread(in.Stored)
	held, stored := whole(in.Held), whole(in.Stored)
	result := Restore(in)
	if err := unchanged("Restore", held, in.Held); err != nil {
		return result, err
	}
	if err := unchanged("Restore", stored, in.Stored); err != nil {
		return result, err
	}
	after := in.Stored
	if result.Change != nil {
		raw, err := apply(*in.Stored, result.Change, result.Union, in.Now)
		if err != nil {
			return result, err
		}
		after = NewCopy(raw)
	}
	again := in
	again.Stored = after
	if second := Restore(again); second.Change != nil {
		return result, fmt.Errorf("restoring again proposes %+v after %+v", second.Change, result.Change)
	}
	for _, c := range []*Copy{in.Stored, in.Held} {
		for id := range c.Facts.All {
			if _, there := after.Facts.At(id.Kind, id.KID); id.Kind == ring.FactRevoked && !there && !after.Plan.Dead {
				return result, fmt.Errorf("the revocation of %s is lost", id.KID)
			}
		}
	}
	return result, keepsOrder(in, after)
}

// keepsOrder reports an error if a restore has removed a record that the store has, or given it another
// place in the order than a merge of a lost record would. A record is removed only by a collection or
// destruction that the backup knows.
func keepsOrder(in RestoreInput, after *Copy) error {
	if after.Plan.Dead {
		return nil
	}
	for _, r := range in.Stored.Records {
		switch {
		case after.Facts.Collected(r.Record) && in.Held.Facts.Collected(r.Record):
			continue
		case after.Find(r.KID) == nil:
			return fmt.Errorf("%s is gone", r.KID)
		}
		for _, kind := range []ring.FactKind{ring.FactPromoted, ring.FactForced, ring.FactRepublished, ring.FactAnnounced} {
			was, had := in.Stored.Facts.At(kind, r.KID)
			if is, has := after.Facts.At(kind, r.KID); had != has || !was.Equal(is) {
				return fmt.Errorf("%c:%s of the store was %v, and is %v", kind, r.KID, was, is)
			}
		}
	}
	return nil
}

func restoring(saved, stored *Copy, now, taken float64) RestoreInput {
	return RestoreInput{MergeInput: merging(saved, stored, now, -1), Taken: sec(taken)}
}

// A backup is of a side of a split that was lost. There k2 was promoted. In the store k2 is pending, and
// stays so: its promotion counts nowhere.
func TestRestoreLeavesOrderOfStore(t *testing.T) {
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 40, 130)
	for _, kind := range []ring.FactKind{ring.FactPromoted, ring.FactForced, ring.FactRepublished, ring.FactAnnounced} {
		in := restoring(ringOf([]factAt{{kind, "k2", 45}}, k1, k2), ringOf(nil, k1, k2), 60, 50)
		if result, err := checkedRestore(in); err != nil || result.Change != nil {
			t.Errorf("%c: %+v, %v", kind, result.Change, err)
		}
	}
}

// A key that the store lacks comes back with its place in the order, and as from a holder that was away:
// a promotion that the store does not know is forgotten where the store has a signer.
func TestRestoreOfLostKey(t *testing.T) {
	k1, k2, k3 := key("k1", 1, -100, 0), key("k2", 2, 40, 130), key("k3", 3, 50, 400)
	promotion := factAt{ring.FactPromoted, "k2", 45}
	for _, tt := range []struct {
		name    string
		stored  *Copy
		signer  string
		forgets bool
	}{
		{"an emptied store", ringOf(nil), "k2", false},
		{"a store with an older signer", ringOf(nil, k1), "k1", true},
		{"a store with a later signer", ringOf([]factAt{{ring.FactPromoted, "k3", 55}}, k1, k3), "k3", false},
	} {
		result, err := checkedRestore(restoring(ringOf([]factAt{promotion}, k1, k2), tt.stored, 60, 50))
		if err != nil || result.Change == nil {
			t.Errorf("%s: %v, %v", tt.name, result.Change, err)
			continue
		}
		_, promoted := result.Healed.Facts.At(ring.FactPromoted, "k2")
		if s := result.Healed.Plan.Signer(sec(60)); s.KID != tt.signer || promoted == tt.forgets || result.Healed.Find("k2") == nil {
			t.Errorf("%s: %v signs, promoted %v", tt.name, s, promoted)
		}
		if _, announced := result.Healed.Facts.At(ring.FactAnnounced, "k2"); !announced {
			t.Errorf("%s: its return is not announced", tt.name)
		}
	}
}

// What the store knows of the end of a key is better than what the backup does not know.
func TestRestoreKeepsEnds(t *testing.T) {
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 40, 130)
	saved := ringOf(nil, k1, k2)
	revoked := ringOf([]factAt{{ring.FactRevoked, "k2", 70}}, k1)
	collected, dead := *ringOf(nil, k2), *ringOf(nil)
	collected.Facts.Collect(0, sec(-50))
	dead.Facts.Kill(1, sec(80))
	for _, tt := range []struct {
		name         string
		stored       *Copy
		better, left string
		writes       bool
	}{
		{"revoked", revoked, "x:k2 ", "[]", true},
		{"collected", NewCopy(collected), "g: ", "[k1]", false},
		{"destroyed", NewCopy(dead), "d: ", "[k1 k2]", false},
	} {
		result, err := checkedRestore(restoring(saved, tt.stored, 140, 50))
		better := ""
		for _, id := range result.Better {
			better += fmt.Sprintf("%c:%s ", id.Kind, id.KID)
		}
		if err != nil || better != tt.better || fmt.Sprint(result.Left) != tt.left || (result.Change != nil) != tt.writes {
			t.Errorf("%s: better %s, left %v, %+v, %v", tt.name, better, result.Left, result.Change, err)
		}
	}
	destroyed, err := checkedRestore(restoring(NewCopy(dead), saved, 140, 100))
	if err != nil || destroyed.Change == nil || !destroyed.Healed.Plan.Dead {
		t.Errorf("a backup of a destroyed ring: %+v, %v", destroyed.Change, err)
	}
}

// Of a backup that is older than Away, or than the tokens of its keys may live, only what ends trust is
// taken.
func TestRestoreOfOldBackup(t *testing.T) {
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 40, 130)
	k1.SignUntil, k2.SignUntil = sec(1e9), sec(1e9)
	legacy := k1
	legacy.Longest = 90 * 24 * time.Hour
	facts := []factAt{{ring.FactRevoked, "k2", 45}, {ring.FactAnnounced, "k1", 44}}
	days := func(n float64) float64 { return n * 24 * 3600 }
	for _, tt := range []struct {
		name  string
		first ring.Record
		age   float64
		older bool
		ends  bool
	}{
		{"young", k1, days(30), false, false},
		{"old", k1, days(30) + 1, false, true},
		{"old, and asked for", k1, days(30) + 1, true, false},
		{"long tokens", legacy, days(90), false, false},
		{"longer than those", legacy, days(90) + 31, false, true},
	} {
		saved := ringOf(facts, tt.first, k2)
		saved.Facts.Collect(0, sec(-200))
		in := restoring(saved, ringOf(nil), 50+tt.age, 50)
		in.Older = tt.older
		result, err := checkedRestore(in)
		if err != nil || result.EndsOnly != tt.ends || result.Change == nil {
			t.Fatalf("%s: ends only %v, %+v, %v", tt.name, result.EndsOnly, result.Change, err)
		}
		_, revoked := result.Healed.Facts.At(ring.FactRevoked, "k2")
		if keys := len(result.Healed.Records); (keys == 0) != tt.ends || !revoked || result.Healed.Facts.CollectedUntil != sec(-200) {
			t.Errorf("%s: %d keys, revoked %v, %+v", tt.name, keys, revoked, result.Healed.Facts)
		}
		if tt.ends && (len(result.Change.TenantKeys) > 0 || !slices.Equal(result.Left, []string{"k1", "k2"})) {
			t.Errorf("%s: %+v, left %v", tt.name, result.Change, result.Left)
		}
	}
}

// The store goes by an older ring than the backup, whose keys have signed since. A collection that only
// the backup knows must not end them, also where its own keys are not taken.
func TestRestoreIntoRolledBackStore(t *testing.T) {
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 40, 130)
	saved := *ringOf(nil, k2)
	saved.Facts.Collect(0, sec(-100))
	for _, age := range []float64{100, 40 * 24 * 3600} {
		signs := k1
		signs.SignUntil = sec(1e9)
		result, err := checkedRestore(restoring(NewCopy(saved), ringOf(nil, signs), 200+age, 200))
		if err != nil || result.Healed.Find("k1") == nil {
			t.Errorf("after %v: %+v, %v", age, result.Change, err)
		}
	}
}

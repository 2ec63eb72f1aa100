package protocol

import (
	"testing"
)

// TestEndedAcceptStaysEnded: a kid is accepted again with other material, after its first key has ended and
// was collected. Whoever puts the first one back, a person with a dump, an old backup or an instance that
// was cut off: the date of the second one is not its own. It does not verify again, and takes no place.
func TestEndedAcceptStaysEnded(t *testing.T) {
	k1 := key("k1", 1, -100, 0)
	accept := func(at, until float64, sum byte) *Copy {
		p, err := baseOf(ringOf(nil, k1), at).Accept(request("v"), sec(until))
		if err != nil {
			t.Fatal(err)
		}
		c := accepting(ringOf(nil, k1), Accept{AcceptRecord: &p.Accept[0], Sum: [32]byte{sum}})
		return c.Learn(p.Stated())
	}
	first, again := accept(0, 100, 1), accept(200, 1000, 2)
	replayed := *again
	replayed.Accepts = first.Accepts
	back := NewCopy(replayed)
	if a := back.Facts.Accepted(back.FindAccept("v").AcceptRecord); a.Verifies(sec(250)) {
		t.Errorf("put back beside the date of another key of its kid, it is accepted until %v", a.Until)
	}
	for name, in := range map[string]MergeInput{
		"a holder of the second one reads the first": merging(again, back, 250, 249),
		"an instance that was cut off":               merging(first, again, 250, -1),
	} {
		result, err := checkedMerge(in)
		if err != nil {
			t.Fatal(name, err)
		}
		if a := result.Healed.FindAccept("v"); a == nil || a.Sum != again.Accepts[0].Sum {
			t.Errorf("%s: the first key counts again", name)
		}
	}
	old := Restore(RestoreInput{MergeInput: MergeInput{Held: first, Stored: again, Now: sec(250), LocalNow: sec(250), Deadline: roundDeadline}, Taken: sec(50)})
	if a := old.Healed.FindAccept("v"); a == nil || a.Sum != again.Accepts[0].Sum {
		t.Error("a backup of its time brings the first key back")
	}
	later, err := baseOf(again, 250).Accept(request("v"), sec(2000))
	if err != nil {
		t.Fatal(err)
	}
	if a := again.Learn(later.Stated()); !a.Facts.Accepted(a.FindAccept("v").AcceptRecord).Until.Equal(sec(2000)) || later.KID != "v" {
		t.Errorf("a later date does not count: %+v", later)
	}
}

package protocol

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// accepting adds accepted keys to a ring.
func accepting(c *Copy, accepts ...Accept) *Copy {
	next := *c
	next.Accepts = append(slices.Clone(c.Accepts), accepts...)
	return NewCopy(next)
}

// accepted returns an accepted key.
func accepted(kid string, created, until float64) Accept {
	return Accept{AcceptRecord: &ring.AcceptRecord{Tenant: "acme", KID: kid, Algorithm: round.Algorithm, Created: sec(created), Until: sec(until)}, Sum: [32]byte{byte(len(kid))}}
}

// dateOf returns what a FactAccepted names: the key of that kid, as it was recorded then.
func dateOf(kid string, created float64) string { return accepted(kid, created, 0).DateFact().KID }

// noKID returns a as one of a key whose tokens have no kid, and of that cost.
func (a Accept) noKID(cost int) Accept {
	record := *a.AcceptRecord
	record.NoKID = true
	a.AcceptRecord, a.Cost = &record, cost
	return a
}

const day = 24 * time.Hour

// TestAcceptIsRefused: what may not be accepted, and until when.
func TestAcceptIsRefused(t *testing.T) {
	k1 := key("k1", 1, -100, 0)
	revoked := accepting(ringOf([]factAt{{ring.FactRevoked, "v", 20}}, k1), accepted("v", 0, 1e6))
	weak := accepted("w", 0, 1e6)
	weak.Weak = true
	var many []Accept
	for n := range ring.MaxAccepted {
		many = append(many, accepted(strings.Repeat("m", n+1), 0, 1e6))
	}
	four := accepting(ringOf(nil, k1), accepted("a", 0, 1e6).noKID(1), accepted("b", 0, 1e6).noKID(1), accepted("c", 0, 1e6).noKID(1), accepted("d", 0, 1e6).noKID(1))
	slow := accepting(ringOf(nil, k1), accepted("a", 0, 1e6).noKID(4), accepted("b", 0, 1e6).noKID(4))
	plain := accepting(ringOf(nil, k1), accepted("v", 0, 1e6), weak)
	without := func(cost int) AcceptRequest {
		return AcceptRequest{AcceptRecord: ring.AcceptRecord{KID: "new", NoKID: true, Algorithm: round.Algorithm}, Cost: cost}
	}
	clash := request("k1")
	clash[0].Clash = true
	for _, tt := range []struct {
		name  string
		of    *Copy
		asks  []AcceptRequest
		until time.Time
		want  string // a part of the reason; "" if it is accepted
	}{
		{"until now", plain, request("new"), sec(50), "is past"},
		{"until the next moment", plain, request("new"), sec(50).Add(time.Millisecond), ""},
		{"400 days", plain, request("new"), sec(50).Add(400 * day), ""},
		{"longer than 400 days", plain, request("new"), sec(50).Add(400*day + time.Millisecond), "at most 400 days"},
		{"of a ring that was destroyed", deadRing(1, 40, nil), request("new"), sec(100), "was destroyed"},
		{"a revoked kid", revoked, request("v"), sec(2e6), "never accepted again"},
		{"another key's kid", plain, clash, sec(100), "another key has that kid"},
		{"a kid twice", plain, append(request("new"), request("new")...), sec(100), "another key has that kid"},
		{"a kid whose tokens have a kid, without one", plain, []AcceptRequest{{AcceptRecord: ring.AcceptRecord{KID: "v", NoKID: true}}}, sec(2e6), "another key has that kid"},
		{"earlier than before", plain, request("v"), sec(1e6).Add(-time.Millisecond), "never made earlier"},
		{"later than before", plain, request("v"), sec(1e6).Add(time.Millisecond), ""},
		{"weak, 90 days after it was accepted first", plain, request("w"), sec(0).Add(90 * day), ""},
		{"weak, later", plain, request("w"), sec(0).Add(90*day + time.Millisecond), "at most 90 days"},
		{"one too many", accepting(ringOf(nil, k1), many...), request("new"), sec(100), "65 accepted keys"},
		{"as many, and a later date", accepting(ringOf(nil, k1), many...), request("m"), sec(2e6), ""},
		{"a fifth without kid", four, []AcceptRequest{without(1)}, sec(100), "5 keys may have signed"},
		{"a third slow one", slow, []AcceptRequest{without(4)}, sec(100), "costs 12 checks"},
		{"a fast one beside two slow ones", slow, []AcceptRequest{without(1)}, sec(100), "costs 9 checks"},
	} {
		p, err := baseOf(tt.of, 50).Accept(tt.asks, tt.until)
		if tt.want == "" {
			if err != nil || p == nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if p != nil && err == nil || !errors.Is(err, ring.ErrRefused) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in the error", tt.name, err, tt.want)
		}
	}
}

// TestAcceptProposes: a new key is recorded, and its date is a fact too, within the bounds that the store
// checks. The same date again is nothing to do.
func TestAcceptProposes(t *testing.T) {
	c := ringOf(nil, key("k1", 1, -100, 0))
	p, err := baseOf(c, 50).Accept(request("v"), sec(100))
	if err != nil || p.Op != ring.OpAccept || p.KID != "v" || len(p.Mint) > 0 || len(p.Accept) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	want := ring.AcceptRecord{Tenant: "acme", KID: "v", Algorithm: round.Algorithm, Created: sec(50), Until: sec(100)}
	fact := ProposedFact{FactID: want.DateFact(), At: sec(100), To: ring.MaxAccept}
	window := round.Window(roundDeadline)
	if p.Accept[0] != want || !slices.Equal(p.Facts, []ProposedFact{fact}) || !slices.Equal(p.Bounds, []ring.Bound{{At: sec(50), From: -window, To: window}}) {
		t.Errorf("%+v", p)
	}
	weak := request("w")
	weak[0].Weak = true
	if p, err := baseOf(c, 50).Accept(weak, sec(100)); err != nil || p.Facts[0].To != ring.MaxAcceptWeak {
		t.Errorf("a weak one: %+v, %v", p, err)
	}
	of := accepting(c, accepted("v", 0, 100))
	if p, err := baseOf(of, 50).Accept(request("v"), sec(100)); p != nil || err != nil {
		t.Errorf("the same date: %+v, %v", p, err)
	}
	if p, err := baseOf(of, 50).Accept(request("v"), sec(200)); err != nil || len(p.Accept) > 0 || len(p.Facts) != 1 || p.KID != "v" {
		t.Errorf("a later date: %+v, %v", p, err)
	}
}

// TestAcceptedKeysAloneAreNoRing: where no key was ever minted, a person may make a ring, and no rotator
// does by itself. A ring that has lost its records is another thing.
func TestAcceptedKeysAloneAreNoRing(t *testing.T) {
	alone := accepting(NewCopy(Copy{Count: 3, TenantKeys: []TenantKey{{ID: "t"}}}), accepted("v", 0, 100))
	left := ringOf([]factAt{{ring.FactRevoked, "v", 20}})
	left.Count = 4
	lost := *alone
	lost.Head = 7
	for _, tt := range []struct {
		name       string
		of         *Copy
		create, by bool // a person may make it, and a rotator
		seq        int  // of the head
	}{
		{"accepted keys alone", alone, true, false, 0},
		{"what is left of them", left, true, false, 0},
		{"nothing", NewCopy(Copy{}), true, true, 0},
		{"a ring that has lost its records", NewCopy(lost), false, false, 7},
		{"a ring without head", NewCopy(Copy{TenantKeys: []TenantKey{{ID: "t"}}}), false, false, 1},
	} {
		b := baseOf(tt.of, 50)
		_, err1 := b.Create(round, false)
		_, err2 := b.Bootstrap(round)
		if (err1 == nil) != tt.create || (err2 == nil) != tt.by || tt.of.HeadSeq() != tt.seq || b.Ring() == nil {
			t.Errorf("%s: created %v, by a rotator %v, head %d, ring %v", tt.name, err1, err2, tt.of.HeadSeq(), b.Ring())
		}
	}
}

// TestAcceptedKeyEnds: at its date, and earlier at an instance that no longer reads the store. Then it is
// collected, once no instance in sync can be behind.
func TestAcceptedKeyEnds(t *testing.T) {
	c := accepting(ringOf([]factAt{{ring.FactAccepted, dateOf("v", 0), 1000}}, key("k1", 1, -100, 0)), accepted("v", 0, 100))
	a := c.FindAccept("v").AcceptRecord
	capped := sec(50 + 30 + 20 + 5) // SignFor, MaxTokenTTL, Leeway
	for good, want := range map[float64]time.Time{50: capped, 1e6: sec(1000)} {
		if got := c.AcceptEnd(a, sec(good)); !got.Equal(want) {
			t.Errorf("read at %v it ends at %v, want %v", good, got, want)
		}
	}
	if instances, readers := c.WorstCaseOf("v", sec(50)); !instances.Equal(capped.Add(round.Dwell)) || !readers.IsZero() {
		t.Errorf("the worst case is %v, %v", instances, readers)
	}
	over := 1000 + 5 + (10 + 5 + 1) + 1. // Leeway, F + D + S, S
	for now, want := range map[float64][]string{999: nil, over: nil, over + 0.001: {"v"}} {
		var got []string
		if p := baseOf(c, now).Collect(); p != nil {
			got = p.RemoveAccepts
		}
		if !slices.Equal(got, want) {
			t.Errorf("at %v %q is collected, want %q", now, got, want)
		}
	}
}

// TestRevokedWithoutKIDIsNotCollected: a key whose tokens have no kid is known again by its material alone, so
// that of a revoked one is kept. Of others the revocation names the kid, and is kept for ever.
func TestRevokedWithoutKIDIsNotCollected(t *testing.T) {
	for _, noKID := range []bool{false, true} {
		a := accepted("v", 0, 100)
		a.NoKID = noKID
		c := accepting(ringOf([]factAt{{ring.FactRevoked, "v", 50}}, key("k1", 1, -100, 0)), a)
		p := baseOf(c, 10000).Collect()
		if collected := p != nil && slices.Contains(p.RemoveAccepts, "v"); collected == noKID {
			t.Errorf("without kid %t: collected %t", noKID, collected)
		}
	}
}

// TestEndedAcceptIsNotPutBack: an accepted key that the store lacks is put back until its date, by the
// clock that is behind. One that has ended does not count against another one of its kid.
func TestEndedAcceptIsNotPutBack(t *testing.T) {
	k1 := key("k1", 1, -100, 0)
	held, empty := accepting(ringOf(nil, k1), accepted("v", 0, 100)), ringOf(nil, k1)
	for _, tt := range []struct {
		now, local float64
		back       bool
	}{{99, 99, true}, {100, 100, false}, {100.5, 99.5, true}, {99.5, 100.5, true}, {1000, 1000, false}} {
		in := merging(held, empty, tt.now, tt.now-1)
		in.LocalNow = sec(tt.local)
		result := Merge(in)
		if back := result.Change != nil && slices.Contains(result.Change.RestoreAccepts, "v"); back != tt.back || (result.Union.FindAccept("v") != nil) != tt.back {
			t.Errorf("at %v, here %v: put back %v", tt.now, tt.local, back)
		}
	}
	again := accepted("v", 150, 300)
	again.Sum = [32]byte{9}
	for _, in := range []MergeInput{merging(held, accepting(empty, again), 200, 199), merging(accepting(empty, again), held, 200, 199)} {
		if got := Merge(in).Union.FindAccept("v"); got == nil || got.Sum != again.Sum {
			t.Errorf("one that has ended counts: %+v", got)
		}
	}
}

// TestOneKeyForAKid: of two keys of a kid, records or accepted ones, the one that was created earlier
// counts at all instances, and of two in the same millisecond the one with the smaller digest. The merge
// writes it over the other.
func TestOneKeyForAKid(t *testing.T) {
	copyOf := func(created float64, sum byte) *Copy {
		r, a := key("k", 1, created, 0), accepted("v", created, 1e6)
		a.Sum = [32]byte{sum}
		return NewCopy(Copy{Records: []Record{{Record: &r, Sum: [32]byte{sum}}}, Accepts: []Accept{a}})
	}
	for _, tt := range []struct {
		name         string
		mine, theirs *Copy
		wins         byte
		clash        bool
	}{
		{"mine is earlier", copyOf(-100, 9), copyOf(-99, 1), 9, true},
		{"theirs is earlier", copyOf(-99, 1), copyOf(-100, 9), 9, true},
		{"mine has the smaller digest", copyOf(-100, 1), copyOf(-100, 9), 1, true},
		{"theirs has the smaller digest", copyOf(-100, 9), copyOf(-100, 1), 1, true},
		{"the same", copyOf(-100, 9), copyOf(-100, 9), 9, false},
	} {
		in := merging(tt.mine, tt.theirs, 50, 49)
		result := Merge(in)
		for what, c := range map[string]*Copy{"union": result.Union, "healed": result.Healed} {
			if c.Records[0].Sum[0] != tt.wins || c.Accepts[0].Sum[0] != tt.wins || len(c.Records)+len(c.Accepts) != 2 {
				t.Errorf("%s: the %s has %v and %v", tt.name, what, c.Records, c.Accepts)
			}
		}
		writes := tt.mine.Records[0].Sum[0] == tt.wins && tt.clash
		p := result.Change
		if written := p != nil && slices.Equal(p.Restore, []string{"k"}) && slices.Equal(p.RestoreAccepts, []string{"v"}); written != writes {
			t.Errorf("%s: the change is %+v", tt.name, p)
		}
		if clash := slices.Equal(result.Clashes, []string{"k", "v"}); clash != tt.clash {
			t.Errorf("%s: clashes %q", tt.name, result.Clashes)
		}
		if _, err := checkedMerge(in); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestRevokeOfAcceptedKey: it needs no other key and no ring. In a ring that is not whole it needs no
// force, since an accepted key never signs.
func TestRevokeOfAcceptedKey(t *testing.T) {
	alone := accepting(NewCopy(Copy{Count: 3}), accepted("v", 0, 100))
	p, err := baseOf(alone, 50).Revoke("v", false)
	if err != nil || p.Op != ring.OpRevoke || p.KID != "v" || len(p.Facts) != 1 || p.Facts[0].FactID != (ring.FactID{Kind: ring.FactRevoked, KID: "v"}) || len(p.Mint) > 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := baseOf(alone.Learn(ringOf([]factAt{{ring.FactRevoked, "v", 20}}).Facts), 50).Revoke("v", false); p != nil || err != nil {
		t.Errorf("again: %+v, %v", p, err)
	}
	for _, tt := range []struct {
		name           string
		of             *Copy
		record, accept bool
		force, refused bool
	}{
		{"one that can be opened", alone, false, true, false, false},
		{"one that cannot be opened", NewCopy(Copy{}), false, true, false, false},
		{"a record that cannot be opened", NewCopy(Copy{}), true, false, false, true},
		{"both", alone, true, true, false, true},
		{"both, by force", alone, true, true, true, false},
	} {
		p, err := baseOf(tt.of, 50).RevokeUnwhole("v", tt.record, tt.accept, tt.force)
		if refused := errors.Is(err, ring.ErrRefused); refused != tt.refused || !refused && (err != nil || p.KID != "v" || !p.LeaveHead) {
			t.Errorf("%s: %+v, %v", tt.name, p, err)
		}
	}
	if _, err := baseOf(alone, 50).RevokeUnwhole("other", false, false, false); !errors.As(err, new(*ring.MissingError)) {
		t.Errorf("a kid that is unknown: %v", err)
	}
}

// TestAcceptedPartsOfUnwholeRing: an accepted key that cannot be opened is neither new nor missing. It is
// replaced only where it may be.
func TestAcceptedPartsOfUnwholeRing(t *testing.T) {
	k1 := key("k1", 1, -100, 0)
	held := accepting(ringOf([]factAt{{ring.FactAccepted, dateOf("v", 0), 200}}, k1), accepted("v", 0, 100))
	for replaceable, want := range map[bool][]string{true: {"v"}, false: nil} {
		in := merging(held, ringOf([]factAt{{ring.FactAccepted, dateOf("v", 0), 200}}, k1), 50, 49)
		in.Unreadable = Unreadable{AcceptRef("v"): replaceable}
		result, err := checkedMerge(in)
		var got []string
		if result.Change != nil {
			got = result.Change.RestoreAccepts
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("replaceable %v: %q is written, %v", replaceable, got, err)
		}
	}
	alone := accepting(NewCopy(Copy{Count: 3, TenantKeys: []TenantKey{{ID: "t"}}}), accepted("v", 0, 100))
	stored := *alone
	stored.Count = 0
	in := merging(alone, NewCopy(stored), 50, 49)
	in.Unreadable = Unreadable{HeadRef: true}
	if p := Merge(in).Change; p == nil || p.LeaveHead {
		t.Errorf("a garbled head of accepted keys alone is not written again: %+v", p)
	}
}

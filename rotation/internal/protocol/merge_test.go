package protocol

import (
	"testing"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A holder publishes a key that the store has lost again if the store has another signer, and this
// holder cannot have been signing with the key: it was away for longer than SignFor, or has never had
// a good sync later than D, 5s, after the key was created. Then its promotion is forgotten too.
func TestWhoRepublishesLostKey(t *testing.T) {
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 40, 130)
	promotion := factAt{ring.FactPromoted, "k2", 42}
	for _, tt := range []struct {
		name      string
		theirs    *Copy
		facts     []factAt // of mine
		now, good float64
		again     bool
	}{
		{"confirmed", ringOf(nil, k1), []factAt{promotion}, 50, 45.001, false},
		{"not confirmed beyond D", ringOf(nil, k1), []factAt{promotion}, 50, 45, true},
		{"never in sync", ringOf(nil, k1), []factAt{promotion}, 50, -1, true},
		{"away for SignFor", ringOf(nil, k1), []factAt{promotion}, 80, 50, false},
		{"away for longer", ringOf(nil, k1), []factAt{promotion}, 80.001, 50, true},
		{"a switch by schedule", ringOf(nil, k1), nil, 160, 130, false},
		{"away for longer than SignFor at that", ringOf(nil, k1), nil, 160.001, 130, true},
		{"the store has no signer", ringOf(nil), []factAt{promotion}, 50, 45, false},
		{"the store has a later key sign", ringOf([]factAt{{ring.FactPromoted, "k3", 46}}, k1, key("k3", 3, 44, 230)), []factAt{promotion}, 50, 45, false},
		{"it is pending", ringOf(nil, k1), nil, 50, 49, true},
		{"it is revoked", ringOf(nil, k1), []factAt{promotion, {ring.FactRevoked, "k2", 43}}, 50, 45, false},
	} {
		in := merging(ringOf(tt.facts, k1, k2), tt.theirs, tt.now, tt.good)
		healed := Merge(in).Healed
		at, again := healed.Facts.At(ring.FactRepublished, "k2")
		_, promoted := healed.Facts.At(ring.FactPromoted, "k2")
		if again != tt.again || again && (promoted || !at.Equal(announced(in))) || !again && promoted != (len(tt.facts) > 0) {
			t.Errorf("%s: published again %v, at %v; promoted %v", tt.name, again, at, promoted)
		}
		if _, announced := healed.Facts.At(ring.FactAnnounced, "k2"); !announced {
			t.Errorf("%s: its return is not announced", tt.name)
		}
	}
}

// A promotion that the store knows, too, others go by: it stays.
func TestPromotionThatStoreKnowsIsKept(t *testing.T) {
	k1, k2, fact := key("k1", 1, -100, 0), key("k2", 2, 40, 130), []factAt{{ring.FactPromoted, "k2", 42}}
	healed := Merge(merging(ringOf(fact, k1, k2), ringOf(fact, k1), 80.001, 50)).Healed
	if at, ok := healed.Facts.At(ring.FactPromoted, "k2"); !ok || !at.Equal(sec(42)) {
		t.Error("it is forgotten")
	}
}

// A key is active in the store, and an instance in sync has never heard of it, although it must have
// been published for longer than that. So it was lost and put back, and waits again.
func TestStrangeKeyWaits(t *testing.T) {
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 0, 100)
	for _, tt := range []struct {
		name      string
		k3        ring.Record
		facts     []factAt // of the store
		known     bool
		mine      []factAt
		good      float64
		postponed bool
	}{
		{name: "published P before it took effect", k3: key("k3", 3, 100, 160), good: 199, postponed: true},
		{name: "just now", k3: key("k3", 3, 140, 200), good: 199, postponed: true},
		{name: "published again P before", k3: key("k3", 3, 0, 110), facts: []factAt{{ring.FactRepublished, "k3", 140}}, good: 199, postponed: true},
		{name: "known to the instance", k3: key("k3", 3, 100, 160), known: true, good: 199},
		{name: "pending", k3: key("k3", 3, 100, 200.001), good: 199},
		{name: "minted to sign sooner, when another was revoked", k3: key("k3", 3, 189, 200), good: 189},
		{name: "promoted", k3: key("k3", 3, 180, 280), facts: []factAt{{ring.FactPromoted, "k3", 199}}, good: 180},
		{name: "revoked", k3: key("k3", 3, 100, 160), facts: []factAt{{ring.FactRevoked, "k3", 170}}, good: 199},
		{name: "before what signs", k3: key("k3", 3, 0, 90), good: 199},
		{name: "in sync until SignFor ago", k3: key("k3", 3, 100, 160), good: 170, postponed: true},
		{name: "away for longer", k3: key("k3", 3, 100, 160), good: 169.999},
		{name: "no other key signs", k3: key("k3", 3, 100, 160), mine: []factAt{{ring.FactRevoked, "k2", 150}}, good: 199},
	} {
		have := []ring.Record{k1, k2}
		if tt.known {
			have = append(have, tt.k3)
		}
		in := merging(ringOf(tt.mine, have...), ringOf(tt.facts, k1, k2, tt.k3), 200, tt.good)
		result := Merge(in)
		before, _ := in.Stored.Facts.At(ring.FactRepublished, "k3")
		for what, h := range map[string]*Copy{"union": result.Union, "healed": result.Healed} {
			again, _ := h.Facts.At(ring.FactRepublished, "k3")
			if postponed := again.After(before); postponed != tt.postponed || postponed && !again.Equal(announced(in)) {
				t.Errorf("%s: postponed %v, to P after %v, in the %s", tt.name, postponed, again, what)
			}
		}
		if tt.postponed && (result.Change == nil || result.Healed.Plan.Signer(in.Now).KID != "k2") {
			t.Errorf("%s: the store is not told, or %v signs", tt.name, result.Healed.Plan.Signer(in.Now))
		}
	}
}

// The store has counted fewer changes than an instance: it says so, and a merge makes up for it even
// if nothing else is missing. Once it is written, nothing is left to do.
func TestMergeOutcountsOlderStore(t *testing.T) {
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 1, 100)
	for _, tt := range []struct {
		name         string
		mine, theirs uint64
		head         Unreadable
		lost         bool // the store lacks a record too
		older        bool
		count        uint64 // afterwards, in the store; 0 if nothing is written
	}{
		{"the same", 7, 7, nil, false, false, 0},
		{"the store is ahead", 7, 9, nil, false, false, 0},
		{"behind", 9, 7, nil, false, true, 10},
		{"behind, and lacks a record", 9, 7, nil, true, true, 10},
		{"ahead, and lacks a record", 7, 9, nil, true, false, 10},
		{"a garbled head is written again", 9, 0, Unreadable{HeadRef: true}, false, false, 10},
		{"that of another KEK stays", 9, 0, Unreadable{HeadRef: false}, false, false, 0},
		{"also beside what is written", 9, 0, Unreadable{HeadRef: false}, true, false, 9},
	} {
		mine, theirs := *ringOf(nil, k1, k2), *ringOf(nil, k1, k2)
		if tt.lost {
			theirs = *ringOf(nil, k1)
		}
		mine.Count, theirs.Count = tt.mine, tt.theirs
		in := merging(&mine, &theirs, 50, 49)
		in.Unreadable = tt.head
		result, err := checkedMerge(in)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if result.Older != tt.older || (result.Change != nil) != (tt.count > 0) || tt.count > 0 && result.Healed.Count != tt.count {
			t.Errorf("%s: older %v, change %+v, count %d", tt.name, result.Older, result.Change, result.Healed.Count)
		}
	}
}

// A revocation that only the log tells of is put back, even by an instance that holds nothing, and so
// is the destruction. Nothing else is learned from the log.
func TestMergeLearnsEnds(t *testing.T) {
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 1, 100)
	var learned ring.Facts
	learned.Add(ring.FactRevoked, "k2", sec(40))
	learned.Add(ring.FactPromoted, "k2", sec(30))
	learned.Collect(0, sec(10))
	for _, held := range []*Copy{nil, ringOf(nil, k1, k2)} {
		in := merging(held, ringOf(nil, k1, k2), 50, 49)
		in.Learned = learned
		result, err := checkedMerge(in)
		if err != nil {
			t.Error(err)
		}
		_, promoted := result.Union.Facts.At(ring.FactPromoted, "k2")
		at, revoked := result.Healed.Facts.At(ring.FactRevoked, "k2")
		if p := result.Change; p == nil || len(p.Facts) != 1 || !revoked || !at.Equal(sec(40)) || promoted || len(result.Union.Records) != 2 || !result.Undone {
			t.Errorf("held %v: %+v; revoked %v, promoted %v, undone %v", held != nil, p, revoked, promoted, result.Undone)
		}
		in.Stored = ringOf([]factAt{{ring.FactRevoked, "k2", 45}}, k1, k2)
		if result := Merge(in); result.Undone {
			t.Error("a revocation that the store has is undone")
		}
		in.Learned = ring.Facts{Dead: 1, DeadAt: sec(41)}
		result, err = checkedMerge(in)
		if err != nil {
			t.Error(err)
		}
		if p := result.Change; p == nil || len(p.Facts) != 1 || p.Facts[0].Kind != ring.FactDestroyed || !result.Union.Plan.Dead || !result.Undone {
			t.Errorf("held %v, destroyed: %+v", held != nil, p)
		}
	}
}

// What ends trust and is lacking in the store was undone; what only its schedule lacks was not.
func TestMergeSaysWhatWasUndone(t *testing.T) {
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 1, 100)
	for _, tt := range []struct {
		name  string
		fact  factAt
		parts Unreadable
		want  bool
	}{
		{"a revocation", factAt{ring.FactRevoked, "k2", 40}, nil, true},
		{"a collection", factAt{ring.FactCollected, "", -200}, nil, true},
		{"a promotion", factAt{ring.FactPromoted, "k2", 40}, nil, false},
		{"a garbled revocation", factAt{ring.FactRevoked, "k2", 40}, Unreadable{FactRef(ring.FactID{Kind: ring.FactRevoked, KID: "k2"}): true}, true},
		{"one that another KEK seals", factAt{ring.FactRevoked, "k2", 40}, Unreadable{FactRef(ring.FactID{Kind: ring.FactRevoked, KID: "k2"}): false}, false},
	} {
		held := *ringOf(nil, k1, k2)
		if tt.fact.kind == ring.FactCollected {
			held.Facts.Collect(0, sec(tt.fact.at))
		} else {
			held.Facts.Add(tt.fact.kind, tt.fact.kid, sec(tt.fact.at))
		}
		in := merging(NewCopy(held), ringOf(nil, k1, k2), 50, 49)
		in.Unreadable = tt.parts
		if got := Merge(in).Undone; got != tt.want {
			t.Errorf("%s: undone %v", tt.name, got)
		}
	}
}

// An instance that drops a key which the store lacks marks it as collected, so no holder makes it
// sign again. It does so only if it is in sync, knows the whole ring, all clocks have passed the drop,
// and every record that stays is younger.
func TestDroppedKeyIsMarked(t *testing.T) {
	k1, k2, k3 := key("k1", 1, -100, 0), key("k2", 2, -99, 100), key("k3", 3, 100, 200) // the first is dropped at 125
	older := key("k9", 9, -101, 150)
	for _, tt := range []struct {
		name      string
		stored    *Copy
		now, good float64
		parts     Unreadable
		edit      func(*MergeInput)
		want      bool
		dropped   bool
	}{
		{"it is", ringOf(nil, k2, k3), 126, 116, nil, nil, true, true},
		{"it is not dropped yet", ringOf(nil, k2, k3), 124.999, 120, nil, nil, false, false},
		{"by a clock that is behind it is not", ringOf(nil, k2, k3), 125.999, 120, nil, nil, false, true},
		{"nor by its own", ringOf(nil, k2, k3), 126.5, 120, nil, func(in *MergeInput) { in.LocalNow = sec(125.999) }, false, true},
		{"the instance is not in sync", ringOf(nil, k2, k3), 126, 115.999, nil, nil, false, true},
		{"it never was", ringOf(nil, k2, k3), 126, -1, nil, nil, false, true},
		{"something cannot be opened", ringOf(nil, k2, k3), 126, 120, Unreadable{RecordRef("k8"): false}, nil, false, true},
		{"an older record stays", ringOf(nil, k2, k3, older), 126, 120, nil, nil, false, true},
		{"the store has it", ringOf(nil, k1, k2, k3), 126, 120, nil, nil, false, false},
	} {
		in := merging(ringOf(nil, k1, k2, k3), tt.stored, tt.now, tt.good)
		in.Unreadable = tt.parts
		if tt.edit != nil {
			tt.edit(&in)
		}
		result, err := checkedMerge(in)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		marked := result.Healed.Facts.CollectedUntil.Equal(sec(-100))
		if dropped := result.Union.Find("k1") == nil; marked != tt.want || dropped != tt.dropped || marked != (result.Change != nil) && tt.dropped {
			t.Errorf("%s: marked %v, dropped %v, change %+v", tt.name, marked, dropped, result.Change)
		}
		if result.Undone {
			t.Errorf("%s: the store has undone it", tt.name)
		}
	}
}

package protocol

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/rotation/ring"
)

// sealedRing returns a ring with the tenant keys, each of the records under the one of its number.
func sealedRing(keys []TenantKey, facts []factAt, records ...ring.Record) *Copy {
	c := *ringOf(facts, records...)
	c.TenantKeys = keys
	for i := range c.Records {
		c.Records[i].TenantKey = keys[i%len(keys)].ID
	}
	return NewCopy(c)
}

// A mint makes a tenant key where there is none, and where the last was made under another KEK than
// the primary that all live instances agree on. A rewrap does not make a tenant key young again.
func TestMintMakesTenantKey(t *testing.T) {
	for _, tt := range []struct {
		name    string
		key     TenantKey
		primary string
		agreed  bool
		want    bool
	}{
		{"made under the primary", TenantKey{"t", "b", "b"}, "b", true, false},
		{"made under another one", TenantKey{"t", "a", "a"}, "b", true, true},
		{"and wrapped again", TenantKey{"t", "b", "a"}, "b", true, true},
		{"while instances differ", TenantKey{"t", "a", "a"}, "b", false, false},
		{"wrapped again, and one differs now", TenantKey{"t", "b", "a"}, "b", false, true},
		{"wrapped again, at the one that differs", TenantKey{"t", "b", "a"}, "a", false, false},
		{"the last record's is gone", TenantKey{"other", "b", "b"}, "b", false, true},
	} {
		c := sealedRing([]TenantKey{tt.key}, nil, key("k1", 1, -100, 0))
		if tt.key.ID == "other" {
			c.Records[0].TenantKey = "t"
		}
		b := baseOf(c, 50)
		b.Primary, b.Origin, b.Agreed = tt.primary, tt.primary, tt.agreed
		if p, err := b.MintDue(); err != nil || p == nil || p.NewTenantKey != tt.want {
			t.Errorf("%s: %+v, %v", tt.name, p, err)
		}
	}
	b := baseOf(sealedRing([]TenantKey{{"t", "b in realm 1", "b"}}, nil, key("k1", 1, -100, 0)), 50)
	b.Primary, b.Origin, b.Agreed = "b in realm 2", "b", true
	if p, err := b.MintDue(); err != nil || p == nil || p.NewTenantKey {
		t.Errorf("made under the primary, and wrapped in another realm: %+v, %v", p, err)
	}
	if p, err := baseOf(ringOf(nil), 0).Create(round, false); err != nil || !p.NewTenantKey {
		t.Errorf("the first of a ring: %+v, %v", p, err)
	}
}

// While a KEK is rolled out, instances with either one first mint in turns. None of them makes a
// tenant key. Once all have the new one first, the next mint makes one, and no other does.
func TestRolloutMakesOneTenantKey(t *testing.T) {
	c := sealedRing([]TenantKey{{"t", "a", "a"}}, nil, key("k1", 1, -100, 0))
	made, acks := 0, []AckView{{Instance: "one", KEKs: []string{"a", "b"}}, {Instance: "two", KEKs: []string{"a", "b"}}}
	for n, first := range []string{"", "one", "", "two", "", ""} { // who has the new KEK first from then on
		for i := range acks {
			if acks[i].Instance == first {
				acks[i].KEKs = []string{"b", "a"}
			}
		}
		for i := range acks {
			b := baseOf(c, float64(50+100*(2*n+i)))
			b.MakeKey = func(ring.Policy) (string, error) { return fmt.Sprintf("m%d.%d", n, i), nil }
			b.Primary, b.Origin = acks[i].KEKs[0], acks[i].KEKs[0]
			b.Agreed = AgreeOn(b.Primary, acks)
			p, err := b.SetPolicy(round)
			if err != nil {
				t.Fatal(err)
			}
			next, under := *c, c.newest().TenantKey
			if p.NewTenantKey {
				made++
				under = fmt.Sprintf("t%d", made)
				next.TenantKeys = append(slices.Clone(c.TenantKeys), TenantKey{under, b.Primary, b.Primary})
			}
			next.Records = append(slices.Clone(c.Records), Record{Record: &p.Mint[0], TenantKey: under})
			c = NewCopy(next)
		}
		if want := map[bool]int{true: 1}[n >= 3]; made != want {
			t.Errorf("after step %d: %d tenant keys were made, want %d", n, made, want)
		}
	}
}

// The newest record decides under which KEK a ring is sealed.
func TestSealingKEK(t *testing.T) {
	two := []ring.Record{key("k1", 1, -100, 0), key("k2", 2, 1, 100)}
	for _, tt := range []struct {
		name string
		of   *Copy
		want string
	}{
		{"nothing", nil, ""},
		{"no records", sealedRing([]TenantKey{{"t", "a", "a"}}, nil), ""},
		{"one tenant key", sealedRing([]TenantKey{{"t", "a", "a"}}, nil, two...), "a"},
		{"two", sealedRing([]TenantKey{{"t", "a", "a"}, {"u", "b", "b"}}, nil, two...), "b"},
		{"that of the newest is gone", NewCopy(Copy{TenantKeys: []TenantKey{{"t", "a", "a"}}, Records: []Record{{Record: &two[0], TenantKey: "t"}, {Record: &two[1], TenantKey: "u"}}}), ""},
	} {
		if got := tt.of.SealingKEK(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// A tenant key goes with its last record, and alone where it is left over.
func TestCollectTenantKeys(t *testing.T) {
	keys := []TenantKey{{"t1", "a", "a"}, {"t2", "b", "b"}}
	records := []ring.Record{key("k1", 1, -100, 0), key("k2", 2, -99, 100), key("k3", 3, 100, 200)}
	c := sealedRing(keys, nil, records[0], records[1])
	for _, tt := range []struct {
		name         string
		c            *Copy
		now          float64
		records, ids []string
	}{
		{"with its last record", c, 200, []string{"k1"}, []string{"t1"}},
		{"another record has it", sealedRing(keys, nil, records...), 200, []string{"k1"}, nil},
		{"left over", sealedRing(keys, nil, records[0]), 0, nil, []string{"t2"}},
		{"all are in use", c, 0, nil, nil},
	} {
		p := baseOf(tt.c, tt.now).Collect()
		if p == nil {
			p = new(Proposal)
		}
		if !slices.Equal(p.Remove, tt.records) || !slices.Equal(p.RemoveKeys, tt.ids) {
			t.Errorf("%s: it removes %q and %q", tt.name, p.Remove, p.RemoveKeys)
		}
	}
}

func TestRekey(t *testing.T) {
	keys := []TenantKey{{"t1", "a", "a"}, {"t2", "b", "b"}}
	records := []ring.Record{key("k1", 1, -100, 0), key("k2", 2, -99, 100)}
	dead := ringOf(nil)
	dead.Facts.Kill(1, sec(1))
	dead = NewCopy(*dead)
	for _, tt := range []struct {
		name   string
		c      *Copy
		under  []string
		agreed bool
		rewrap []string
		want   string // "rekey", "nothing", "refused" or "missing"
	}{
		{"a tenant key and facts under another", sealedRing(keys, nil, records...), []string{"a", "b"}, true, []string{"t1"}, "rekey"},
		{"facts alone", sealedRing(keys[1:], nil, records...), []string{"b", "a"}, true, nil, "rekey"},
		{"nothing", sealedRing(keys[1:], nil, records...), []string{"b"}, false, nil, "nothing"},
		{"instances differ", sealedRing(keys, nil, records...), nil, false, nil, "refused"},
		{"that the ring was destroyed", dead, []string{"a"}, true, nil, "rekey"},
		{"no ring", ringOf(nil), nil, true, nil, "missing"},
	} {
		b := baseOf(tt.c, 0)
		b.Primary, b.Agreed, b.SealedUnder = "b", tt.agreed, tt.under
		p, err := b.Rekey()
		got := "rekey"
		switch missing := (*ring.MissingError)(nil); {
		case errors.As(err, &missing):
			got = "missing"
		case errors.Is(err, ring.ErrRefused):
			got = "refused"
		case err == nil && p == nil:
			got = "nothing"
		case err != nil:
			t.Error(err)
		case !p.Reseal || p.Op != ring.OpRekey || !slices.Equal(p.Rewrap, tt.rewrap):
			t.Errorf("%s: %+v", tt.name, p)
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// The wrap of a tenant key that the store has counts. A holder of another one does not write it back,
// so two holders do not overwrite each other's for ever.
func TestStoredWrapWins(t *testing.T) {
	k1 := key("k1", 1, -100, 0)
	mine, theirs := sealedRing([]TenantKey{{"t", "a", "a"}}, nil, k1), sealedRing([]TenantKey{{"t", "b", "a"}}, nil, k1)
	result := Merge(merging(mine, theirs, 50, 49))
	if result.Change != nil || result.Union.SealingKEK() != "b" {
		t.Errorf("change %+v, sealed under %q", result.Change, result.Union.SealingKEK())
	}
	result = Merge(merging(mine, ringOf(nil), 50, 49))
	if result.Change == nil || !slices.Equal(result.Change.TenantKeys, []string{"t"}) || result.Healed.SealingKEK() != "a" {
		t.Errorf("of an emptied store: %+v, sealed under %q", result.Change, result.Healed.SealingKEK())
	}
}

// An instance that cannot open any tenant key of the store writes nothing, unless it was in sync until
// now: the ring has moved to another KEK, and those who have dropped the old one could not open what
// is sealed under it.
func TestWhoLacksKEKWritesNothing(t *testing.T) {
	k1, k2 := key("k1", 1, -100, 0), key("k2", 2, 1, 100)
	held := sealedRing([]TenantKey{{"t", "a", "a"}}, []factAt{{ring.FactRevoked, "k2", 40}}, k1, k2)
	for _, tt := range []struct {
		name   string
		stored *Copy
		parts  Unreadable
		good   float64
		writes bool
	}{
		{"all was moved", ringOf(nil), Unreadable{TenantKeyRef("t"): false}, 39.999, false},
		{"never in sync", ringOf(nil), Unreadable{TenantKeyRef("t"): false}, -1, false},
		{"in sync until now", ringOf(nil), Unreadable{TenantKeyRef("t"): false}, 40, true},
		{"one that is made up, beside ours", sealedRing([]TenantKey{{"t", "a", "a"}}, nil, k1, k2), Unreadable{TenantKeyRef("z"): false}, 0, true},
		{"garbled", ringOf(nil), Unreadable{TenantKeyRef("t"): true}, 0, true},
		{"a record of another KEK", ringOf(nil), Unreadable{RecordRef("k9"): false}, 0, true},
	} {
		in := merging(held, tt.stored, 50, tt.good)
		in.Unreadable = tt.parts
		result := Merge(in)
		if writes := result.Change != nil; writes != tt.writes || !result.Undone {
			t.Errorf("%s: writes %+v, undone %v", tt.name, result.Change, result.Undone)
		}
		if _, revoked := result.Union.Facts.At(ring.FactRevoked, "k2"); !revoked {
			t.Errorf("%s: it has forgotten the revocation", tt.name)
		}
	}
}

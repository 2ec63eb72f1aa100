package protocol

import (
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"github.com/keyturn/keyturn/rotation/ring"
)

func TestCanVerify(t *testing.T) {
	last := ringOf(nil, key("k1", 1, 0, 0), key("k2", 2, 0, 100))                         // a third key may sign from 200 on
	unsure := ringOf(nil, key("k1", 1, 0, 0), key("k2", 2, 0, 20), key("k3", 3, 96, 120)) // D is 5s
	alone := ringOf(nil, key("k1", 1, 0, 0))
	held := alone.Records[0]
	keeps := *held.Record
	keeps.Hold = true
	in := func(complete, knew float64, doubt bool) SyncState {
		s := SyncState{Complete: sec(complete), Recovering: doubt}
		if knew >= 0 {
			s.Knew = sec(knew)
		}
		return s
	}
	for _, tt := range []struct {
		name   string
		of     *Copy
		s      SyncState
		now    float64
		inSync bool
		want   bool
	}{
		// SignFor + L + leeway is 55s.
		{"SignFor, L and leeway after the last complete read", last, in(100, 100, false), 154.999, false, true},
		{"then its keys have ended", last, in(100, 100, false), 155, false, false},
		{"the period of the last known key, less 2S", last, in(190, 190, false), 197.999, false, true},
		{"then a key may sign that is unknown here", last, in(190, 190, false), 198, false, false},
		{"a failover may have lost the last key, and another be minted", unsure, in(101, 101, false), 117.999, false, true},
		{"then that one may sign", unsure, in(101, 101, false), 118, false, false},
		{"a read has confirmed the last key", unsure, in(101.001, 101.001, false), 118, false, true},
		{"but not in sync: a key is known long before it signs", last, in(195, 195, false), 198, true, true},
		{"a key that signs until an operator rotates has no next one", ringOf(nil, keeps), in(1000, 1000, false), 1054, false, true},
		{"it has never been in sync, and recovers", last, in(100, -1, true), 101, false, false},
		{"it was in sync, and recovers", last, in(150, 100, true), 160, false, true},
		{"it knows no ring", ringOf(nil), in(100, 100, false), 101, true, false},
		{"it holds nothing", nil, in(100, 100, false), 101, true, false},
		{"a ring that was destroyed has no token", dead(), in(100, 100, false), 1e6, false, true},
		{"of a dropped key no token is alive", ringOf(nil, key("k1", 1, 0, 0), key("k2", 2, 0, 20)), in(0, 0, false), 54.999, false, true},
		{"of a revoked key none is good", ringOf([]factAt{{ring.FactRevoked, "k2", 110}}, key("k1", 1, 0, 0), key("k2", 2, 0, 100)), in(110, 110, false), 190, false, true},
	} {
		if got := tt.of.CanVerify(tt.s, sec(tt.now), tt.inSync, true); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		if tt.of.CanVerify(tt.s, sec(tt.now), tt.inSync, false) {
			t.Errorf("%s: although its clock cannot be trusted", tt.name)
		}
	}
}

func dead() *Copy {
	var c Copy
	c.Facts.Kill(1, sec(50))
	return NewCopy(c)
}

// As long as an instance verifies, each of its keys does that another instance may sign with. And no
// key that a rotator mints meanwhile, without being told, signs anywhere.
func TestVerifyingEndsBeforeAnUnknownKeySigns(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	checked := 0
	for range 20_000 {
		var facts []factAt
		var keys []ring.Record
		effect := 0.0
		for n := range 1 + random.IntN(4) {
			kid := string(rune('a' + n))
			k := key(kid, n+1, effect-70, effect)
			if n == 0 {
				k.Created = sec(0)
			}
			switch random.IntN(8) {
			case 0:
				facts = append(facts, factAt{ring.FactPromoted, kid, effect - float64(random.IntN(40))})
			case 1:
				facts = append(facts, factAt{ring.FactRevoked, kid, effect + float64(random.IntN(120)) - 20})
			case 2:
				facts = append(facts, factAt{ring.FactRepublished, kid, effect - float64(random.IntN(60))})
			}
			keys, effect = append(keys, k), effect+60+float64(random.IntN(60))
		}
		c := ringOf(facts, keys...)
		complete := float64(random.IntN(int(effect) + 200))
		if len(c.Plan.InOrder) == 0 {
			continue
		}
		until := c.VerifiesUntil(sec(complete))
		checked += checkVerifying(t, c, complete, until)
	}
	if checked < 1000 {
		t.Errorf("only %d cases", checked)
	}
}

// checkVerifying checks a ring that an instance has read at complete, and verifies until then. It
// returns how many keys of others it has seen.
func checkVerifying(t *testing.T, c *Copy, complete float64, until time.Time) (minted int) {
	t.Helper()
	for i := range c.Plan.InOrder {
		k := &c.Plan.InOrder[i]
		dropped := !k.DroppedAt.IsZero() && !until.Before(k.DroppedAt)
		if end := c.KeyEnd(k.Record, sec(complete)); k.RevokedAt.IsZero() && !dropped && end.Before(until) {
			t.Errorf("key %s ends %v before", k.KID, until.Sub(end))
		}
	}
	for now := complete; now < complete+120; now += 7 {
		b := baseOf(c, now)
		if p, err := b.MintDue(); err == nil && p != nil {
			minted++
			if from := p.Mint[0].ActivateAt.Add(-2 * round.ClockSkew); from.Before(until) {
				t.Errorf("a key that is minted at %v signs from %v, and it verifies until %v", now, p.Mint[0].ActivateAt, until)
			}
		}
	}
	return minted
}

func TestSteady(t *testing.T) {
	agreed := time.Now()
	set := func(mono time.Duration) time.Time { // an hour later, with the monotonic clock off by that
		now := agreed.Add(time.Hour)
		*(*int64)(unsafe.Add(unsafe.Pointer(&now), 8)) += int64(mono) // the field ext of a time.Time
		if now.Sub(agreed) != time.Hour+mono || !now.Round(0).Equal(agreed.Add(time.Hour).Round(0)) {
			t.Fatal("a time.Time is not what it was")
		}
		return now
	}
	for _, tt := range []struct {
		name string
		mono time.Duration
		want bool
	}{
		{"both clocks run on", 0, true},
		{"by ClockSkew", time.Second, true},
		{"the wall clock was set back", time.Second + 1, false},
		{"the wall clock was set forward, or the machine slept", -time.Second - 1, false},
	} {
		if Steady(set(tt.mono), agreed, time.Second) != tt.want {
			t.Errorf("%s: %v", tt.name, !tt.want)
		}
	}
	v := ClockView{Now: set(time.Minute), Store: sec(0), Agreed: agreed, Skew: time.Second, Gap: time.Second, Jumped: true}
	if v.StoreJumped("a", nil) {
		t.Error("its own clock was set")
	}
}

func TestStoreJumped(t *testing.T) {
	const gap = 20 * time.Second
	ack := func(instance string, at float64) AckView { return AckView{Instance: instance, At: sec(at)} }
	for _, tt := range []struct {
		name  string
		now   float64
		store float64
		acks  []AckView
		was   bool
		want  bool
	}{
		{"a peer's clock is ours", 1000, 4600, []AckView{ack("b", 990)}, false, true},
		{"the store is behind", 4600, 1000, []AckView{ack("b", 4590)}, false, true},
		{"alone", 1000, 4600, nil, false, false},
		{"our own word", 1000, 4600, []AckView{ack("a", 1000)}, false, false},
		{"without a KEK it says nothing", 1000, 4600, []AckView{{Instance: "b", At: sec(990), Unreadable: true}}, false, false},
		{"we were paused: the others have the store's clock", 1000, 4600, []AckView{ack("b", 4590)}, false, false},
		{"one more was paused with us", 1000, 4600, []AckView{ack("b", 990), ack("c", 4595)}, false, false},
		{"an old acknowledgement proves nothing", 1000, 4600, []AckView{ack("b", 970)}, false, false},
		{"it may be of either clock", 1000, 1010, []AckView{ack("b", 999)}, false, false},
		{"what was seen holds until it is contradicted", 1000, 1010, []AckView{ack("b", 999)}, true, true},
		{"paused later: a peer is ahead of us", 1000, 9000, []AckView{ack("b", 4600)}, true, false},
	} {
		v := ClockView{Now: sec(tt.now), Store: sec(tt.store), Agreed: sec(0), Skew: time.Second, Gap: gap, Jumped: tt.was}
		if v.StoreJumped("a", tt.acks) != tt.want {
			t.Errorf("%s: %v", tt.name, !tt.want)
		}
		if v.Agreed = (time.Time{}); v.StoreJumped("a", tt.acks) {
			t.Errorf("%s: the clocks have never agreed", tt.name)
		}
	}
}

// Whatever the clocks of the others say within ClockSkew, and whenever they said it, an instance whose
// clock stood still never takes that for a jump of the store's. One whose clock is right never loses
// to the store.
func TestPausedInstanceIsNeverRight(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const gap, skew = 20.0, 1.0
	saw := 0
	for range 20_000 {
		truth := 10_000.0
		off := func() float64 { return (random.Float64() - 0.5) * skew }
		var acks []AckView
		for i := range 1 + random.IntN(4) {
			acks = append(acks, AckView{Instance: string(rune('b' + i)), At: sec(truth + off() - random.Float64()*gap)})
		}
		jump := 3 + random.ExpFloat64()*100
		paused := ClockView{Now: sec(truth - jump), Store: sec(truth + off()), Agreed: sec(1), Skew: time.Second, Gap: 20 * time.Second}
		if paused.StoreJumped("a", acks) {
			t.Fatalf("paused for %vs, it believes itself: %v", jump, acks)
		}
		if random.IntN(2) == 0 {
			jump = -jump
		}
		right := ClockView{Now: sec(truth + off()), Store: sec(truth + jump), Agreed: sec(1), Skew: time.Second, Gap: 20 * time.Second}
		if right.StoreJumped("a", acks) {
			saw++
		}
		if right.Jumped = true; !right.StoreJumped("a", acks) {
			t.Fatalf("the store jumped by %vs, and it gives in: %v", jump, acks)
		}
	}
	if saw < 10_000 {
		t.Errorf("only %d of 20000 jumps were seen at once", saw)
	}
}

package protocol

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// adopt returns the copy of a ring that begins with an adopted key at a moment, without the records
// that lost names.
func adopt(t *testing.T, a Adopted, now float64, facts []factAt, lost ...int) *Copy {
	t.Helper()
	p, err := baseOf(ringOf(nil), now).Adopt(a, round)
	if err != nil {
		t.Fatal(err)
	}
	kept := p.Mint
	for _, seq := range lost {
		kept = append(kept[:seq-1:seq-1], kept[seq:]...)
	}
	return ringOf(facts, kept...)
}

// An adopted key signs at once, and the second one takes its place after a period, on a date, or when
// an operator says so.
func TestAdopt(t *testing.T) {
	onDate := adopted(false)
	onDate.RotateAt = sec(500)
	soon := adopted(false)
	soon.RotateAt = sec(63) // P + 2S
	named := adopted(false)
	named.NoKID = false
	for _, tt := range []struct {
		name  string
		key   Adopted
		next  float64 // -1: it waits
		ends  time.Time
		first ring.Origin
	}{
		{"after a period", adopted(false), 100, sec(165), ring.Legacy},
		{"with a kid", named, 100, sec(165), ring.Imported},
		{"on a date", onDate, 500, sec(565), ring.Legacy},
		{"on the first date", soon, 63, sec(128), ring.Legacy},
		{"held", adopted(true), -1, time.Time{}, ring.Legacy},
	} {
		b := baseOf(ringOf(nil), 1)
		b.Now = sec(0)
		if tt.name == "on the first date" {
			b.Now = sec(1)
		}
		p, err := b.Adopt(tt.key, round)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		first, second := p.Mint[0], p.Mint[1]
		if first.KID != "old" || first.NoKID != tt.key.NoKID || first.Origin != tt.first || first.TokenTTL() != time.Minute || first.Timing.MaxTokenTTL != round.MaxTokenTTL ||
			first.Hold != tt.key.Hold || second.Waits != tt.key.Hold || second.Longest != 0 || second.Timing != round || p.Op != ring.OpAdopt || p.KID != "old" {
			t.Errorf("%s: %+v", tt.name, p)
		}
		if tt.next >= 0 && !second.ActivateAt.Equal(sec(tt.next)) {
			t.Errorf("%s: the second key signs at %v, want %v", tt.name, second.ActivateAt, sec(tt.next))
		}
		if ends := b.TokensUntil(p); !ends.Equal(tt.ends) { // L, 60s, and leeway, 5s, after the second signs
			t.Errorf("%s: its tokens end at %v, want %v", tt.name, ends, tt.ends)
		}
	}
}

// Instances sign with the adopted key too, under the policy: its tokens live for no less than that.
func TestAdoptedTokensLiveAsPolicySays(t *testing.T) {
	short := adopted(false)
	short.Longest = time.Second
	if c := adopt(t, short, 0, nil); c.Find("old").TokenTTL() != round.MaxTokenTTL {
		t.Errorf("%+v", c.Find("old"))
	}
}

// A key is not adopted where a ring is, after it was revoked, on a date before which its successor is
// not known, or where readers would have to take too many keys.
func TestAdoptIsRefused(t *testing.T) {
	soon := adopted(false)
	soon.RotateAt = sec(61.999) // P + 2S is 62s
	es := round
	es.Algorithm, es.Every, es.MaxTokenTTL = keystore.ES256, 60*time.Second, 473*time.Second // ten keys at once
	public := adopted(false)
	public.Algorithm = keystore.ES256
	revoked := ringOf([]factAt{{ring.FactRevoked, "old", 3}})
	revoked.Facts.Collect(0, sec(4))
	for _, tt := range []struct {
		name   string
		of     *Copy
		key    Adopted
		policy ring.Policy
		want   string
	}{
		{"a ring", ringOf(nil, key("k1", 1, -9, -9)), adopted(false), round, "it has a ring already"},
		{"a held ring", held(nil), adopted(true), round, "it has a ring already"},
		{"revoked", revoked, adopted(false), round, "it was revoked"},
		{"too soon", ringOf(nil), soon, round, "is too soon"},
		{"eleven keys", ringOf(nil), public, es, "it would publish 11 keys at once"},
		{"a secret beside ten keys", ringOf(nil), adopted(false), es, ""},
	} {
		_, err := baseOf(tt.of, 0).Adopt(tt.key, tt.policy)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestAdoptedCheck(t *testing.T) {
	both, brief, long, odd := adopted(true), adopted(false), adopted(false), adopted(false)
	both.RotateAt, brief.Longest, long.Longest, odd.Longest = sec(1), time.Second-1, MostLongest+1, time.Minute+1
	for _, a := range []Adopted{both, brief, long, odd} {
		if a.Check() == nil {
			t.Errorf("%+v is fine", a)
		}
	}
	long.Longest = MostLongest
	if err := long.Check(); err != nil {
		t.Error(err)
	}
}

// A rotation on a date stays on that date if the second key is lost or revoked. The third is minted
// under the policy, and not under the long life of the first one's tokens.
func TestRotateAtStays(t *testing.T) {
	for _, at := range []float64{300, 5000} { // sooner than the policy says twice, and later
		onDate := adopted(false)
		onDate.RotateAt = sec(at)
		for name, of := range map[string]*Copy{
			"lost":    adopt(t, onDate, 0, nil, 2),
			"revoked": adopt(t, onDate, 0, []factAt{{ring.FactRevoked, "minted", 20}}),
		} {
			b := baseOf(of, 60)
			b.MakeKey = func(ring.Policy) (string, error) { return "k3", nil }
			p, err := b.MintDue()
			if err != nil || p == nil {
				t.Fatalf("%s: %+v, %v", name, p, err)
			}
			k3 := p.Mint[0]
			if !k3.ActivateAt.Equal(sec(at)) || k3.Waits || k3.TokenTTL() != round.MaxTokenTTL || k3.Timing.MaxTokenTTL != round.MaxTokenTTL {
				t.Errorf("%s: %+v, want it to sign at %v", name, k3, sec(at))
			}
			if name == "revoked" && k3.Timing != round {
				t.Errorf("the third key is minted under %+v", k3.Timing)
			}
			if k := of.Plan.Find("old"); !k.SignsUntil.Equal(sec(at)) {
				t.Errorf("%s: the first key signs until %v", name, k.SignsUntil)
			}
		}
	}
}

// After its date the first key signs on only because another one is pending. If that one is revoked,
// the same step mints another, so there is no moment without a signer.
func TestRevokedSuccessorAfterRotateAt(t *testing.T) {
	onDate := adopted(false)
	onDate.RotateAt = sec(300)
	c := adopt(t, onDate, 0, nil)
	late := ringOf([]factAt{{ring.FactRevoked, "minted", 280}}, *c.Records[0].Record, *c.Records[1].Record, key("k3", 3, 290, 352))
	for _, now := range []float64{295, 300, 310} {
		b := baseOf(late, now)
		b.MakeKey = func(ring.Policy) (string, error) { return "k4", nil }
		p, err := b.Revoke("k3", false)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Mint) != 1 || p.KID != "k3" {
			t.Fatalf("at %v: %+v", now, p)
		}
		after := ringOf(append([]factAt{{ring.FactRevoked, "minted", 280}}, factAt{ring.FactRevoked, "k3", now}), *c.Records[0].Record, *c.Records[1].Record, key("k3", 3, 290, 352), p.Mint[0])
		for at := now; at < now+100; at++ {
			if after.Plan.Signer(sec(at)) == nil {
				t.Fatalf("no key signs at %v, after k3 was revoked at %v", at, now)
			}
		}
	}
	// While the first key's own time lasts, the rotator mints later, as always.
	if p, err := baseOf(ringOf(nil, *c.Records[0].Record, *c.Records[1].Record), 60).Revoke("minted", false); err != nil || len(p.Mint) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

// An instance that is cut off accepts tokens of an imported key for as long as they live, but without
// the store for at most SignFor and a day. Then it cannot tell whether the key was revoked.
func TestLongTokensEndWithoutStore(t *testing.T) {
	const day = 24 * 3600.0
	for _, tt := range []struct {
		longest, want float64
	}{{60, 95}, {day, 35 + day}, {400 * day, 35 + day}} {
		a := adopted(true)
		a.Longest = time.Duration(tt.longest) * time.Second
		c := adopt(t, a, 0, nil)
		if end := c.KeyEnd(c.Find("old"), sec(0)); !end.Equal(sec(tt.want)) {
			t.Errorf("longest %v: it ends at %v, want %v", a.Longest, end, sec(tt.want))
		}
		if cut, _ := WorstCase(c.Find("old"), sec(-5)); !cut.Equal(sec(tt.want)) { // D is 5s
			t.Errorf("longest %v: the worst case is %v, want %v", a.Longest, cut, sec(tt.want))
		}
	}
}

// The tokens of an imported key are kept for as long as they live: L, 60s, and not that of the policy.
func TestImportedTokensAreKept(t *testing.T) {
	b := baseOf(held(nil), 1000)
	p, err := b.Rotate(false)
	if err != nil {
		t.Fatal(err)
	}
	// The announcement is 1.5s after the promotion; then SignFor + D + S, 36s, and L + leeway, 65s.
	if ends := b.TokensUntil(p); !ends.Equal(sec(1102.5)) {
		t.Errorf("its tokens end at %v", ends)
	}
	var refused *ring.RefusedError
	if _, err := baseOf(held(nil), 10).Rotate(false); !errors.As(err, &refused) {
		t.Errorf("rotated before the next key is known: %v", err)
	}
}

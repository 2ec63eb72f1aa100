package protocol

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/ring"
)

// replaced replaces kids, and returns the steps with their times. Each wait lasts as long as it says.
func replaced(b *Base, kids []string, now bool) (steps string, err error) {
	made, sim := 0, *b
	sim.MakeKey = func(ring.Policy) (string, error) { made++; return fmt.Sprint("new", made), nil }
	for range 50 {
		p, from, err := sim.Replace(kids, now)
		switch {
		case err != nil:
			return steps, err
		case p == nil && from.IsZero():
			return strings.TrimSpace(steps), nil
		case p == nil && !from.After(sim.Now):
			return steps, fmt.Errorf("it waits until %v, which has passed", from)
		case p == nil:
			sim.Now = from
		default:
			steps += fmt.Sprintf(" %s@%v", p.Op, sim.Now.Sub(sec(0)).Seconds())
			if p.Op == ring.OpRevoke {
				steps += ":" + p.KID
			}
			sim.foresee(&ring.Replacement{}, kids, p)
			sim.Now = sim.Now.Add(time.Millisecond)
		}
	}
	return steps, errors.New("it never ends")
}

// Each step is the first that costs nothing, or, with now, that can be made. F + D + S is 16s.
func TestReplace(t *testing.T) {
	k1, old, young := key("k1", 1, -100, 0), key("k2", 2, 1, 100), key("k2", 2, 48, 148)
	for _, tt := range []struct {
		name      string
		of        *Copy
		kids      string
		safe, now string
	}{
		{"the key that signs, and the next is known", ringOf(nil, k1, old), "k1", "rotate@50 revoke@50.001:k1", "rotate@50 revoke@50.001:k1"},
		{"and the next is not", ringOf(nil, k1, young), "k1", "rotate@64 revoke@64.001:k1", "rotate@50 revoke@50.001:k1"},
		{"and none is pending", ringOf(nil, k1), "k1", "mint@50 rotate@66 revoke@66.001:k1", "mint@50 rotate@50.001 revoke@50.002:k1"},
		{"a pending key", ringOf(nil, k1, old), "k2", "revoke@50:k2", "revoke@50:k2"},
		{"a pending key that is about to sign", ringOf(nil, k1, key("k2", 2, 1, 51)), "k2", "mint@51 rotate@67 revoke@67.001:k2", "revoke@50:k2"},
		{"both", ringOf(nil, k1, old), "k1 k2", "revoke@50:k2 mint@50.001 rotate@66.001 revoke@66.002:k1",
			"revoke@50:k2 mint@50.001 rotate@50.002 revoke@50.003:k1"},
		{"a retired key", ringOf(nil, k1, key("k2", 2, 1, 40)), "k1", "revoke@50:k1", "revoke@50:k1"},
		{"one that signs in place of a forced key", ringOf([]factAt{{ring.FactPromoted, "k2", 49}}, k1, young), "k1", "revoke@53.001:k1", "revoke@50:k1"},
		{"the heir of a revoked one", ringOf([]factAt{{ring.FactRevoked, "k1", 49}}, k1, young), "k2", "revoke@50:k2", "revoke@50:k2"},
		{"and another is pending", ringOf([]factAt{{ring.FactRevoked, "k1", 49}}, k1, young, key("k3", 3, 49, 160)), "k2", "revoke@65:k2", "promote@50 revoke@50.001:k2"},
		{"revoked before", ringOf([]factAt{{ring.FactRevoked, "k1", 49}}, k1, old), "k1", "", ""},
	} {
		for _, now := range []bool{false, true} {
			want := tt.safe
			if now {
				want = tt.now
			}
			got, err := replaced(baseOf(tt.of, 50), strings.Fields(tt.kids), now)
			if err != nil || got != want {
				t.Errorf("%s, now %v: %q, %v, want %q", tt.name, now, got, err, want)
			}
		}
	}
	missing := (*ring.MissingError)(nil)
	if _, _, err := baseOf(ringOf(nil, k1), 50).Replace([]string{"k1", "k9"}, false); !errors.As(err, &missing) || missing.KID != "k9" {
		t.Errorf("a key that does not exist: %v", err)
	}
}

// The outlook says what it costs to wait, and not to.
func TestOutlook(t *testing.T) {
	k1, young := key("k1", 1, -100, 0), key("k2", 2, 48, 148)
	for _, tt := range []struct {
		now                    bool
		signs, revoked, silent float64
		next                   ring.Op
		from                   float64
	}{{false, 64, 64.001, 0, "", 64}, {true, 53, 50.001, 53, ring.OpRotate, 0}} {
		o, err := baseOf(ringOf(nil, k1, young), 50).Outlook([]string{"k1"}, tt.now)
		if err != nil || !isSec(o.SignsFrom, tt.signs) || !isSec(o.RevokedAt, tt.revoked) || !isSec(o.NoSignerUntil, tt.silent) ||
			o.Next != tt.next || !isSec(o.From, tt.from) || !slices.Equal(o.Left, []string{"k1"}) || !o.WorstCase.Equal(o.RevokedAt.Add(60*time.Second)) {
			t.Errorf("now %v: %+v, %v", tt.now, o, err)
		}
	}
}

// TestReplaceInAnyRing: in any ring that short histories come to, a replacement of any of its keys ends
// with all of them revoked. Without now, each step leaves a signer, if there was one, and what an
// interrupted one has done is not done again.
func TestReplaceInAnyRing(t *testing.T) {
	all := steps(2)
	replacements := 0
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := follow(t, newWorld(), "0 creates", "3s pass", "0 syncs", "1 syncs")
		for range 25 {
			next, ok, err := w.after(all[rng.IntN(len(all))])
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if ok {
				w = next
			}
		}
		c := w.top().c
		if c == nil || c.Plan.Dead || c.Newest() == nil {
			continue
		}
		b, kids := &Base{Tenant: "acme", Now: later(w.now, c.Plan.Past), Deadline: roundDeadline, Copy: c}, []string(nil)
		for _, k := range c.Plan.At(w.now).Keys {
			if rng.IntN(2) == 0 {
				kids = append(kids, k.KID)
			}
		}
		if err := b.replaceAll(kids, rng.IntN(3) == 0); err != nil {
			t.Errorf("seed %d, %s: %v", seed, strings.Join(w.path, "; "), err)
		}
		replacements += min(1, len(kids))
	}
	if replacements < 50 {
		t.Errorf("only %d replacements", replacements)
	}
}

// replaceAll replaces kids, and checks each step.
func (b *Base) replaceAll(kids []string, now bool) error {
	sim, made := *b, 0
	sim.MakeKey = func(ring.Policy) (string, error) { made++; return fmt.Sprint("new", made), nil }
	for range 50 {
		p, from, err := sim.Replace(kids, now)
		if err != nil {
			return err
		}
		if p == nil && from.IsZero() {
			break
		}
		if p == nil {
			if !from.After(sim.Now) {
				return fmt.Errorf("it waits until %v, and it is %v", from, sim.Now)
			}
			sim.Now = from
			continue
		}
		_, before := sim.Copy.Signing(sim.Now, sim.Now, roundDeadline)
		sim.foresee(&ring.Replacement{}, kids, p)
		if _, after := sim.Copy.Signing(sim.Now, sim.Now, roundDeadline); !now && before == nil && after != nil {
			return fmt.Errorf("%s %s leaves no signer: %w", p.Op, p.KID, after)
		}
		if !now && p.Op != ring.OpRevoke && len(p.Mint) == 0 && len(p.Facts) == 0 {
			return fmt.Errorf("%s does nothing", p.Op)
		}
		sim.Now = sim.Now.Add(time.Millisecond)
	}
	if left, err := sim.left(kids); err != nil || len(left) > 0 {
		return fmt.Errorf("%v are left: %v", left, err)
	}
	again, from, err := sim.Replace(kids, now)
	if err != nil || again != nil || !from.IsZero() {
		return fmt.Errorf("done, it has another step: %+v, %v, %v", again, from, err)
	}
	return nil
}

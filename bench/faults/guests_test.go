package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// TestBrokenPromiseToGuestIsSeen breaks each promise about what operators do, on purpose. It must be
// counted, under its own name.
func TestBrokenPromiseToGuestIsSeen(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	o := testOptions()
	s, err := startSingle(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	f, err := newFleet(t.Context(), s, o, t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer f.stop()
	for _, tt := range []struct {
		name  string
		count func(*ops) int
		do    func(*testing.T, *fleet, *guest)
	}{
		{"the imported key is revoked in secret", func(o *ops) int { return o.Refused[ofOld] }, revokeOld},
		{"the accepted key is revoked in secret", func(o *ops) int { return o.Refused[ofPartner] }, revokePartner},
		{"the accepted key is accepted for longer", func(o *ops) int { return o.Beyond }, acceptForLonger},
		{"the algorithm of the new policy is not accepted", func(o *ops) int { return o.Refused[ofRing] }, forgetAlgorithm},
		{"the tenant is not removed", func(o *ops) int { return o.AfterRemove }, keepRemoved},
		{"the tenant is not added", func(o *ops) int { return o.Refused[ofOld] }, removeInSecret},
		{"the ring is not destroyed, at an instance that has shown it", func(o *ops) int { return o.Back }, keepShown},
		{"the ring is not destroyed, at an instance in sync", func(o *ops) int { return o.Back }, keepInSync},
		{"a destroyed key is left in the store", func(o *ops) int { return o.Back }, keepInStore},
		{"an instance signs before its first sync", func(o *ops) int { return o.SignedOfSnapshots }, signAway},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := f.newGuest()
			g.old.KID, g.old.NoKID, g.kids["old"] = "old", false, keystore.HS256
			if err := f.adopt(t.Context(), g, true); err != nil {
				t.Fatal(err)
			}
			before, _ := f.tally.result()
			tt.do(t, f, g)
			if c, notes := f.tally.result(); tt.count(&c.Ops) <= tt.count(&before.Ops) {
				t.Errorf("not counted: %v: %q", &c.Ops, notes)
			}
		})
	}
}

// signed returns a token that lives long enough for a busy machine.
func (g *guest) signed(t *testing.T, f *fleet, of origin) token {
	t.Helper()
	signed, err := g.sign(f, of, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// change makes a change of a guest's ring behind the back of the bench, until every instance has it.
func (f *fleet) secretly(t *testing.T, g *guest, change func(*rotation.Rotator) error, done func(rotation.TenantStatus) bool) {
	t.Helper()
	if err := f.insist(t.Context(), "a change in secret", change); err != nil {
		t.Fatal(err)
	}
	err := f.allHave(t.Context(), g, "the change in secret", func(m *instance) bool {
		s, err := m.keys.Tenant(g.tenant.name)
		return err == nil && done(s)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func revokeOld(t *testing.T, f *fleet, g *guest) {
	f.secretly(t, g, func(r *rotation.Rotator) error {
		_, err := r.Revoke(t.Context(), g.tenant.name, "old", rotation.Force)
		return err
	}, func(s rotation.TenantStatus) bool { return !s.Ring.Keys[0].RevokedAt.IsZero() })
	f.verify(f.instances()[0], g.signed(t, f, ofOld))
}

func revokePartner(t *testing.T, f *fleet, g *guest) {
	if err := f.accept(t.Context(), g, time.Hour); err != nil {
		t.Fatal(err)
	}
	f.secretly(t, g, func(r *rotation.Rotator) error {
		_, err := r.Revoke(t.Context(), g.tenant.name, g.accepted)
		return err
	}, func(s rotation.TenantStatus) bool { return !s.Accepted[0].RevokedAt.IsZero() })
	f.verify(f.instances()[0], g.signed(t, f, ofPartner))
}

func acceptForLonger(t *testing.T, f *fleet, g *guest) {
	if err := f.accept(t.Context(), g, time.Hour); err != nil {
		t.Fatal(err)
	}
	g.until, g.latest = time.Now().Add(-time.Second), time.Now().Add(-time.Second)
	f.verify(f.instances()[0], g.signed(t, f, ofPartner))
}

// forgetAlgorithm changes the algorithm of the guest's keys, and does not tell a verifier.
func forgetAlgorithm(t *testing.T, f *fleet, g *guest) {
	if err := f.changePolicy(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if err := f.endHold(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	m := f.instances()[0]
	rules := g.rules(m)
	rules.Algorithms = []keystore.Algorithm{keystore.HS256}
	for _, v := range m.verifiers {
		if err := v.Put(rules); err != nil {
			t.Fatal(err)
		}
	}
	err := await(t.Context(), "a token of the new algorithm to be rejected", func() bool { // an instance may be out of sync, and not sign
		if signed, ok := f.signAt(f.random(1)[0], g); ok {
			f.verify(m, signed)
		}
		c, _ := f.tally.result()
		return c.Ops.Refused[ofRing] > 0
	})
	if err != nil {
		t.Error(err)
	}
}

func keepRemoved(t *testing.T, f *fleet, g *guest) {
	f.checkAway(t.Context(), f.instances()[0], g.signed(t, f, ofOld))
}

func removeInSecret(t *testing.T, f *fleet, g *guest) {
	m := f.instances()[0]
	m.keys.Remove(g.tenant.name)
	f.verify(m, g.signed(t, f, ofOld))
}

// keepShown pretends that an instance has shown that the ring was destroyed. It was not.
func keepShown(t *testing.T, f *fleet, g *guest) {
	m := f.instances()[0]
	d := g.dies(f.tally.livesBegun())
	d.knowing[m] = time.Now()
	f.verify(m, g.signed(t, f, ofOld))
}

// keepInSync pretends that the ring was destroyed before the last sync of an instance.
func keepInSync(t *testing.T, f *fleet, g *guest) {
	g.dies(f.tally.livesBegun()).done = time.Now().Add(-time.Hour)
	before, _ := f.tally.result()
	err := await(t.Context(), "a key of the ring to be found", func() bool { // an instance may be out of sync
		f.lookForDead(f.instances()[0], g)
		c, _ := f.tally.result()
		return c.Ops.Back > before.Ops.Back
	})
	if err != nil {
		t.Error(err)
	}
}

func keepInStore(t *testing.T, f *fleet, g *guest) {
	g.note(f.instances()[0], rotation.TenantStatus{Ring: ring.Ring{Keys: []ring.Key{{Record: ring.Record{KID: "old"}}}}})
	g.dies(f.tally.livesBegun()).known = time.Now()
	if err := f.checkBuried(t.Context(), 2*time.Second); err != nil {
		t.Error(err)
	}
}

// signAway pretends that an instance has not read the store since its start.
func signAway(t *testing.T, f *fleet, g *guest) {
	m := f.instances()[0]
	m.away.Store(true)
	defer m.away.Store(false)
	err := await(t.Context(), "an instance to sign", func() bool {
		_, ok := f.signAt(m, g)
		return ok
	})
	if err != nil {
		t.Error(err)
	}
}

// wrongInOps returns the mistakes in the page's tables of what operators do.
func wrongInOps(page string) (wrong []string) {
	_, page, _ = strings.Cut(page, "## What operators do meanwhile")
	page, _, _ = strings.Cut(page, "\n## ")
	did, broke, _ := strings.Cut(page, "| fault | refused, ring's |")
	for _, s := range scenarios {
		if s.byItself {
			continue
		}
		for part, text := range []string{did, broke} {
			_, row, found := strings.Cut(text, "\n| "+s.title+" | ")
			row, _, _ = strings.Cut(row, " |\n")
			cells := strings.Split(row, " | ")
			if want := []int{14, 7}[part]; !found || len(cells) != want {
				wrong = append(wrong, fmt.Sprintf("%s: %d cells of what operators do, want %d", s.title, len(cells), want))
				continue
			}
			if part == 0 { // imported to removed, except the operations that chance chooses
				cells = []string{cells[0], cells[2], cells[3], cells[4], cells[6], cells[7], cells[12]}
			}
			for i, cell := range cells {
				if n, err := strconv.Atoi(cell); err != nil || (part == 0) != (n > 0) {
					wrong = append(wrong, fmt.Sprintf("%s: count %d of part %d of what operators do is %s", s.title, i, part, cell))
				}
			}
		}
	}
	return wrong
}

// TestWrongInOps gives wrongInOps pages with one mistake each.
func TestWrongInOps(t *testing.T) {
	for name, change := range map[string]func(o *ops){
		"":                         func(*ops) {},
		"count 0 of part 0":        func(o *ops) { o.Imported = 0 },
		"count 3 of part 0":        func(o *ops) { o.Shredded = 0 },
		"count 6 of part 0":        func(o *ops) { o.Verified = 0 },
		"count 0 of part 1":        func(o *ops) { o.Refused[ofRing] = 1 },
		"count 1 of part 1":        func(o *ops) { o.Refused[ofOld] = 1 },
		"count 2 of part 1":        func(o *ops) { o.Refused[ofPartner] = 1 },
		"count 3 of part 1":        func(o *ops) { o.Beyond = 1 },
		"count 4 of part 1":        func(o *ops) { o.Back = 1 },
		"count 5 of part 1":        func(o *ops) { o.AfterRemove = 1 },
		"count 6 of part 1 of wha": func(o *ops) { o.SignedOfSnapshots = 1 },
	} {
		var r report
		for i := range scenarios {
			r.rows = append(r.rows, row{scenario: &scenarios[i], count: count{Ops: ops{Imported: 3, Accepted: 3, Policies: 3, Shredded: 3, Added: 3, Removed: 3, Verified: 3}}})
		}
		change(&r.rows[1].count.Ops)
		var b strings.Builder
		r.write(&b)
		got := wrongInOps(b.String())
		if (name == "") != (len(got) == 0) || len(got) > 1 || !strings.Contains(strings.Join(got, "; "), name) {
			t.Errorf("%q: %q", name, got)
		}
		if bad := r.rows[1].count.bad(); bad != strings.Contains(name, "part 1") {
			t.Errorf("%q: a broken promise: %v", name, bad)
		}
	}
}

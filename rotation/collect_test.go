package rotation_test

import (
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// seldom is the default policy but for that it lets instances poll every ten minutes: weeks
// go by in these tests.
var seldom = ring.Policy{Freshness: time.Hour, MaxTokenTTL: 2 * time.Hour}

func seldomPolls(c *rotation.Config) {
	c.TrustFirstRead, c.Poll, c.Deadline = true, 10*time.Minute, time.Second
}

// settled is when all have polled, and been in doubt, and polled again.
const settled = 90 * time.Minute

// warm opens two instances, of which the first turns the keys.
func warm(t *testing.T) (f *fleet, other *member, leave func()) {
	f = &fleet{t: t, cluster: rotationtest.NewCluster(rotationtest.ClusterConfig{})}
	create(t, f.cluster, "acme", seldom)
	f.member = join(t, f.cluster, "a", seldomPolls)
	other = join(t, f.cluster, "b", seldomPolls)
	stop := f.run()
	return f, other, func() {
		stop()
		other.leave()
		f.leave()
	}
}

// rotated turns the keys by hand, n times, ten days apart.
func (f *fleet) rotated(n int) {
	f.t.Helper()
	for range n {
		time.Sleep(10 * day)
		if _, err := f.rotator.Rotate(f.t.Context(), "acme"); err != nil {
			f.t.Fatal(err)
		}
	}
}

// Whoever can write the store puts the record of a key back that was collected, without
// the promotion by which it had its place in the order. Its own date has passed: in the
// order it would come after the key that signs, and sign in its place.
func TestCollectedKeyStaysCollected(t *testing.T) {
	for _, tt := range []struct {
		name string
		wait time.Duration // after the second rotation by hand
	}{{"before its date", 4 * day}, {"after its date", 15 * day}} {
		for _, how := range []string{"one record", "an old dump"} {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				virtual(t, func(t *testing.T) {
					f, other, leave := warm(t)
					defer leave()
					two, old, dump := f.kid(2), f.cluster.Ring("acme"), f.cluster.Dump()
					f.rotated(2)
					time.Sleep(tt.wait)
					signer := f.signer3(t)
					if f.finds(two) != "not found" {
						t.Fatalf("the key has not been collected: %s", f.ring())
					}
					if how == "one record" {
						f.cluster.EditRing("acme", func(fields map[string][]byte) { fields["k:"+two] = old["k:"+two] })
					} else {
						f.cluster.Restore(dump)
					}
					for range 90 {
						time.Sleep(settled / 90)
						for _, m := range []*member{f.member, other} {
							if m.finds(signer) != "found" || m.finds(two) == "found" {
								t.Fatalf("the key that signs is %s, the collected one %s: %s", m.finds(signer), m.finds(two), m.ring())
							}
						}
					}
					if _, there := f.cluster.Ring("acme")["k:"+two]; there {
						t.Error("its record stays in the store")
					}
				})
			})
		}
	}
}

// signer3 returns the kid of the third key, which has to sign.
func (f *fleet) signer3(t *testing.T) string {
	t.Helper()
	token, err := f.signer.Sign(t.Context(), "acme", nil)
	if err != nil || kidOf(t, token) != f.kid(3) {
		t.Fatalf("%v: %s", err, f.ring())
	}
	return f.kid(3)
}

// Keys that turn by schedule alone. The key that signs is taken away, too: whoever puts it
// back announces it anew, by which its predecessor would be kept again.
func TestCollectedKeyIsNotKeptAgain(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f, other, leave := warm(t)
		defer leave()
		one, two, old := f.kid(1), f.kid(2), f.cluster.Ring("acme")
		time.Sleep(45 * day)
		for range 3 {
			f.cluster.EditRing("acme", func(fields map[string][]byte) {
				fields["k:"+one] = old["k:"+one]
				delete(fields, "k:"+two)
			})
			time.Sleep(settled)
			for _, m := range []*member{f.member, other} {
				if m.finds(one) != "not found" || m.finds(two) != "found" {
					t.Errorf("the collected key is %s, the one that signs %s: %s", m.finds(one), m.finds(two), m.ring())
				}
			}
			time.Sleep(20 * time.Hour)
		}
	})
}

// Keys that are promoted past another are collected no sooner than that one: up to when
// keys were created that are gone is one moment.
func TestCollectedKeysWereCreatedBeforeOthers(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		defer f.run()()
		time.Sleep(4 * time.Second)
		if _, err := f.rotator.SetPolicy(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		two, three := f.kid(2), f.kid(3)
		if _, err := f.rotator.Promote(t.Context(), "acme", three, rotation.Force); err != nil {
			t.Fatal(err)
		}
		// The second takes effect as scheduled, after the third, and signs.
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			ring := f.cluster.Ring("acme")
			_, has2 := ring["k:"+two]
			_, has3 := ring["k:"+three]
			if has2 && !has3 {
				t.Fatalf("the third is collected before the second: %s", f.ring())
			}
		}
		if _, has := f.cluster.Ring("acme")["k:"+three]; has {
			t.Errorf("the third is never collected: %s", f.ring())
		}
	})
}

// A fact about what is gone that was forged is as if it were not there, and an authentic
// one is put back.
func TestCollectionIsAuthenticated(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f, _, leave := warm(t)
		defer leave()
		time.Sleep(45 * day)
		gone := f.cluster.Ring("acme")["gone"]
		if gone == nil {
			t.Fatal("nothing is gone")
		}
		two := f.kid(2)
		f.cluster.EditRing("acme", func(fields map[string][]byte) {
			fields["gone"] = slices.Clone(gone)
			fields["gone"][11]++ // the last byte of its time
		})
		time.Sleep(settled)
		if got := f.finds(two); got != "found" {
			t.Errorf("a forged one: the key that signs is %s", got)
		}
		if !slices.Equal(f.cluster.Ring("acme")["gone"], gone) {
			t.Error("it was not put back")
		}
		f.cluster.EditRing("acme", func(fields map[string][]byte) { delete(fields, "gone") })
		time.Sleep(settled)
		if !slices.Equal(f.cluster.Ring("acme")["gone"], gone) {
			t.Error("one that was deleted was not put back")
		}
	})
}

// The records of one ring differ in when they were created, those of the first pair, too.
func TestCreatedDiffers(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		st, err := f.Tenant("acme")
		if err != nil || len(st.Ring.Keys) != 2 || !st.Ring.Keys[1].Created.After(st.Ring.Keys[0].Created) {
			t.Errorf("%+v, %v", st.Ring.Keys, err)
		}
		if _, err := f.Lookup(keystore.ID{Tenant: "acme", KID: f.kid(2)}, keystore.HS256); err != nil {
			t.Error(err)
		}
	})
}

// The fleet had to take an old dump for the truth while all were away, and has signed with
// what is gone to everybody. One that comes back later still, when the fleet has just gone
// on to its next key, gives in as well: the key before has live tokens.
func TestInstanceThatReturnsLastGivesIn(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f, other, leave := warm(t)
		defer leave()
		last := join(t, f.cluster, "last", seldomPolls)
		defer last.leave()
		dump := f.cluster.Dump()
		f.rotated(2)
		time.Sleep(40 * day)
		for _, m := range []*member{f.member, other, last} {
			m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		}
		time.Sleep(25 * time.Hour)
		f.cluster.Restore(dump)
		f.conn.SetFaults(rotationtest.Faults{})
		other.conn.SetFaults(rotationtest.Faults{})
		time.Sleep(15*day - time.Minute)
		before := f.signer1(t)
		for n := 0; f.signer1(t) == before; n++ {
			if time.Sleep(10 * time.Second); n > 1000 {
				t.Fatalf("it never goes on: %s", f.ring())
			}
		}
		last.conn.SetFaults(rotationtest.Faults{})
		time.Sleep(settled)
		if got := other.finds(before); got != "found" {
			t.Errorf("the key that signed less than two hours ago is %s: %s", got, other.ring())
		}
	})
}

// Then somebody puts back what said that the key is gone which the fleet has come to sign
// with. That key is lost; the tenant does not wait for its next one's schedule.
func TestKeyCollectedAgainHasSuccessor(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f, other, leave := warm(t)
		defer leave()
		dump := f.cluster.Dump()
		f.rotated(2)
		time.Sleep(40 * day)
		gone := f.cluster.Ring("acme")["gone"]
		for _, m := range []*member{f.member, other} {
			m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		}
		time.Sleep(25 * time.Hour)
		f.cluster.Restore(dump)
		for _, m := range []*member{f.member, other} {
			m.conn.SetFaults(rotationtest.Faults{})
		}
		time.Sleep(settled)
		if err := f.signs(); err != nil {
			t.Fatal(err)
		}
		f.cluster.EditRing("acme", func(fields map[string][]byte) { fields["gone"] = gone })
		time.Sleep(settled)
		if err := f.signs(); err != nil {
			t.Errorf("%v: %s", err, f.ring())
		}
	})
}

// Another store's, under the same KEK: no key of this one is left. A ring can be made anew.
func TestCreateWhereAllIsCollected(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f, _, leave := warm(t)
		defer leave()
		elsewhere := &fleet{t: t, cluster: rotationtest.NewCluster(rotationtest.ClusterConfig{})}
		elsewhere.member = join(t, elsewhere.cluster, "s", derived)
		time.Sleep(time.Minute)
		if _, err := elsewhere.rotator.Create(t.Context(), "acme", ring.Policy{Every: time.Minute, MaxTokenTTL: time.Minute}); err != nil {
			t.Fatal(err)
		}
		stop := elsewhere.run()
		time.Sleep(time.Hour)
		stop()
		gone := elsewhere.cluster.Ring("acme")["gone"]
		elsewhere.leave()
		f.cluster.EditRing("acme", func(fields map[string][]byte) { fields["gone"] = gone })
		time.Sleep(settled)
		if f.signs() == nil {
			t.Fatal("it signs on")
		}
		if _, err := f.rotator.Create(t.Context(), "acme", seldom); err != nil {
			t.Fatal(err)
		}
		if err := f.signs(); err != nil {
			t.Errorf("%v: %s", err, f.ring())
		}
	})
}

package rotation_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// The key that an instance signs with goes on signing, though others who did not know
// have published it anew, and though the word cannot be given at the first try.
func TestHolderAssertsItsSigningKey(t *testing.T) {
	for _, tt := range []struct {
		name string
		back func(f *fleet, b *member, store *faultyStore, conn *rotationtest.Conn)
	}{
		{"at once", func(_ *fleet, _ *member, _ *faultyStore, conn *rotationtest.Conn) {
			conn.SetFaults(rotationtest.Faults{})
		}},
		{"after a write that failed", func(_ *fleet, _ *member, _ *faultyStore, conn *rotationtest.Conn) {
			conn.SetFaults(rotationtest.Faults{ReadOnly: true})
			time.Sleep(400 * time.Millisecond)
			conn.SetFaults(rotationtest.Faults{})
		}},
		{"after somebody came before", func(f *fleet, b *member, store *faultyStore, conn *rotationtest.Conn) {
			store.write = func() {
				store.write = nil
				if _, err := b.rotator.SetPolicy(f.t.Context(), "acme", fast); err != nil {
					f.t.Error(err)
				}
			}
			conn.SetFaults(rotationtest.Faults{})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				b := join(t, f.cluster, "b", trusting)
				defer b.leave()
				conn := f.cluster.Connect("x")
				store := &faultyStore{Store: conn}
				x := &member{t: t, Keyring: openStore(t, store, trusting), conn: conn}
				defer x.leave()
				f.leave()
				time.Sleep(4 * time.Second)
				conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
				time.Sleep(600 * time.Millisecond)
				f.cluster.Wipe() // b puts the second back as pending, due later than at 6
				time.Sleep(1900 * time.Millisecond)
				wantRing(t, x, "1=retired 2=signing*") // within SignFor
				wantRing(t, b, "1=signing* 2=pending")
				tt.back(f, b, store, conn)
				time.Sleep(time.Second)
				for _, m := range []*member{x, b} {
					if !strings.HasPrefix(m.ring(), "1=retired 2=signing*") {
						t.Errorf("then: %s", m.ring())
					}
				}
			})
		})
	}
}

// What was dated by a store whose clock was ahead can be merged into one whose clock is
// behind, if both are within ClockSkew.
func TestFailoverAcrossWholeClockSkew(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newDerivedFleet(t, ring.Policy{MaxTokenTTL: time.Minute})
		defer f.leave()
		f.cluster.Advance(4900 * time.Millisecond) // of 5 s
		time.Sleep(100 * time.Second)
		receipt, err := f.rotator.Rotate(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		f.cluster.Failover(500 * time.Millisecond)
		f.cluster.Advance(-9800 * time.Millisecond)
		if err := f.Reload(t.Context(), "acme"); err != nil {
			t.Errorf("it cannot be merged: %v", err)
		}
		if _, ok := f.cluster.Ring("acme")["a:"+receipt.Promoted]; !ok {
			t.Errorf("the promotion is not put back: %v", slices.Sorted(maps.Keys(f.cluster.Ring("acme"))))
		}
	})
}

// Undecryptable is not absent: who lacks a KEK takes nothing for lost, and writes
// nothing over it.
func TestInstanceWithoutKEKWritesNothing(t *testing.T) {
	newer, err := rotation.NewKEKs([]byte("another KEK, another KEK, anothe"), []byte("0123456789abcdef0123456789ABCDEF"))
	if err != nil {
		t.Fatal(err)
	}
	shredded := time.Date(2000, 1, 1, 0, 0, 3, 0, time.UTC)
	for _, tt := range []struct {
		name string
		edit func(fields map[string][]byte)
		want string
	}{
		{"the tenant keys are rewrapped", func(fields map[string][]byte) { rotation.Rewrap(newer, "acme", fields) }, "1=retired 2=signing*"},
		{"the ring is destroyed, again", func(fields map[string][]byte) {
			fields["dead"] = rotation.SealDead(newer, "acme", shredded)
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				b := join(t, f.cluster, "b", trusting, func(c *rotation.Config) { c.KEKs = newer })
				defer b.leave()
				time.Sleep(time.Second)
				if tt.want == "" {
					f.cluster.EditRing("acme", func(fields map[string][]byte) {
						clear(fields)
						fields["dead"] = rotation.SealDead(testKEK, "acme", shredded)
					})
					time.Sleep(fast.Freshness)
				}
				before := f.ops()
				f.cluster.EditRing("acme", tt.edit)
				time.Sleep(5 * time.Second)
				wantRing(t, b, tt.want)
				if after := f.ops(); after != before {
					t.Errorf("it wrote %d times", strings.Count(after, " ")-strings.Count(before, " "))
				}
			})
		})
	}
}

// With records their numbers come back: no seq is given twice. A higher one that the store
// has stays.
func TestHeadIsRestoredWithRecords(t *testing.T) {
	lose := func(f *fleet, head []byte) {
		third := f.kid(3)
		f.cluster.EditRing("acme", func(fields map[string][]byte) {
			delete(fields, "k:"+third)
			fields["head"] = head
		})
	}
	for _, tt := range []struct {
		name  string
		lose  func(f *fleet)
		seq   int
		count uint64 // of changes: created, rotated, restored
	}{
		{"all is lost", func(f *fleet) { f.cluster.Wipe() }, 3, 3},
		{"the newest is lost", func(f *fleet) { lose(f, rotation.SealHead(testKEK, "acme", 2, 1)) }, 3, 3},
		{"others have given more", func(f *fleet) { lose(f, rotation.SealHead(testKEK, "acme", 7, 9)) }, 7, 10},
		{"it is garbled", func(f *fleet) {
			f.cluster.EditRing("acme", func(fields map[string][]byte) { fields["head"] = []byte("x") })
		}, 3, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				time.Sleep(4 * time.Second)
				if _, err := f.rotator.Rotate(t.Context(), "acme"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				tt.lose(f)
				time.Sleep(fast.Freshness)
				head := f.cluster.Ring("acme")["head"]
				if want := rotation.SealHead(testKEK, "acme", tt.seq, tt.count); !bytes.Equal(head, want) {
					t.Errorf("head is %x, want %x", head, want)
				}
			})
		})
	}
}

// A destruction that the store has lost is put back like any other fact.
func TestDestructionIsNotForgotten(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		one, old := f.kid(1), f.cluster.Dump()
		f.cluster.EditRing("acme", func(fields map[string][]byte) {
			clear(fields)
			fields["dead"] = rotation.SealDead(testKEK, "acme", time.Now())
		})
		time.Sleep(fast.Freshness)
		f.cluster.Restore(old)
		time.Sleep(fast.Freshness)
		later := join(t, f.cluster, "later", func(c *rotation.Config) { c.OneShot = true })
		defer later.leave()
		for _, m := range []*member{f.member, later} {
			if got := m.finds(one); got != "not found" || m.ring() != "" {
				t.Errorf("its key is %s, the ring %q", got, m.ring())
			}
		}
	})
}

// A ring that cannot be read is bad, and its neighbours in the bucket are not.
func TestMalformedRingHarmsNoNeighbour(t *testing.T) {
	neighbour := ""
	for i := 0; rotation.BucketOf(neighbour) != rotation.BucketOf("acme"); i++ {
		neighbour = fmt.Sprint("tenant-", i)
	}
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", trusting, of("acme", neighbour))
		defer m.leave()
		for _, tenant := range []string{"acme", neighbour} {
			if _, err := m.rotator.Create(t.Context(), tenant, fast); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		cluster.SetWrongType(neighbour, true)
		time.Sleep(2 * fast.SignFor)
		if s, _ := m.Tenant("acme"); !s.Fresh || m.signs() != nil {
			t.Errorf("the neighbour: %v, %v", s.Err, m.signs())
		}
		if s, _ := m.Tenant(neighbour); s.Ready || s.Fresh || s.Err == nil || !s.Unreadable {
			t.Errorf("the ring itself: %+v", s)
		}
		if s := m.Status(); !s.Ready || !s.CanVerify || !s.CanSign || s.Fresh || s.Err == nil || !strings.Contains(s.Err.Error(), neighbour) {
			t.Errorf("both: %+v", s)
		}
		cluster.SetWrongType(neighbour, false)
		time.Sleep(fast.Freshness)
		if s, _ := m.Tenant(neighbour); !s.Fresh {
			t.Errorf("afterwards: %v", s.Err)
		}
	})
}

// Whoever can write mixes what fields have been, and drops some: holders keep what they
// know, and the store comes to the same.
func TestOldAndNewFieldsAreMixed(t *testing.T) {
	for seed := range uint64(12) {
		virtual(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			f := newFleet(t, fast)
			defer f.leave()
			defer f.run()()
			b := join(t, f.cluster, "b", trusting)
			defer b.leave()
			var history []map[string][]byte
			for range 8 {
				time.Sleep(time.Duration(500+rng.IntN(3000)) * time.Millisecond)
				s, _ := f.Tenant("acme")
				switch rng.IntN(4) { // refused or not
				case 0:
					f.rotator.Rotate(t.Context(), "acme")
				case 1:
					f.rotator.Revoke(t.Context(), "acme", s.Ring.Keys[rng.IntN(len(s.Ring.Keys))].KID)
				}
				history = append(history, f.cluster.Ring("acme"))
			}
			before, _ := f.Tenant("acme")
			f.cluster.EditRing("acme", func(fields map[string][]byte) { mix(rng, fields, history) })
			time.Sleep(fast.Freshness)
			once := join(t, f.cluster, "once", func(c *rotation.Config) { c.OneShot = true })
			defer once.leave()
			if !f.Status().Fresh || !b.Status().Fresh || f.ring() != b.ring() || f.ring() != once.ring() {
				t.Errorf("seed %d: %s (%v), %s (%v); the store has %s", seed, f.ring(), f.Status().Err, b.ring(), b.Status().Err, once.ring())
			}
			for _, k := range before.Ring.Keys {
				for _, m := range []*member{f.member, b, once} {
					got := m.finds(k.KID)
					if k.State == ring.Revoked && got != "not found" || k.State == ring.Signing && got != "found" {
						t.Errorf("seed %d: key %d was %s, and is %s", seed, k.Seq, k.State, got)
					}
				}
			}
		})
	}
}

// mix puts a third of what fields have been into them, and takes a third of them away.
func mix(rng *rand.Rand, fields map[string][]byte, history []map[string][]byte) {
	for _, old := range history {
		for _, name := range slices.Sorted(maps.Keys(old)) {
			if rng.IntN(3) == 0 {
				fields[name] = bytes.Clone(old[name])
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if rng.IntN(3) == 0 {
			delete(fields, name)
		}
	}
}

// When was a key published? Anyone can write that: it is believed within what is
// authentic, so that it costs nobody a change, and buys nobody one.
func TestPublicationTimesAreBoundedByAuthenticOnes(t *testing.T) {
	for _, tt := range []struct {
		name string
		said string
	}{
		{"far in the future", "7000000000000"},
		{"beyond all dates", "99999999999999999999"},
		{"in the past", "1"},
		{"negative", "-1"},
		{"no date", "soon"},
		{"nothing", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				f.cluster.EditRing("acme", func(fields map[string][]byte) {
					for name := range fields {
						if strings.HasPrefix(name, "p:") {
							fields[name] = []byte(tt.said)
						}
					}
				})
				least := fast.HeardWithin()
				time.Sleep(least - time.Millisecond)
				refused := wantRefused(t, errorOf(f.rotator.Rotate(t.Context(), "acme")))
				if late := time.Until(refused.From); late > 2*(fast.ClockSkew+fastDeadline) {
					t.Fatalf("it may be %v too late", late)
				}
				time.Sleep(time.Until(refused.From))
				if err := errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(1))); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What is put back was held to that clock before, which may have been ahead; what is news
// with it, as anything new.
func TestMergeIsHeldToStoreClock(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(4 * time.Second)
		if _, err := f.rotator.Rotate(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		if _, err := f.rotator.Revoke(t.Context(), "acme", f.kid(1)); err != nil {
			t.Fatal(err)
		}
		changed := time.Now()
		f.cluster.Wipe()
		time.Sleep(fastPoll * 6 / 5)
		ago := changed.Sub(f.last().Result.Now)
		news, merged := "700ms(0s..1.4s)", ago.String()+"(ever..1.9s)" // and 2S
		// Three are announced, and the pending one is published anew; the second was
		// promoted, and the first revoked.
		want := []string{news, news, news, news, merged, merged}
		slices.Sort(want)
		if got := f.bounds(); got != "merge: "+strings.Join(want, " ") {
			t.Errorf("%s\nwant %q", got, want)
		}
	})
}

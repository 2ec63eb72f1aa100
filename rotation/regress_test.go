package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// trusting takes the first read for the truth.
func trusting(c *rotation.Config) { c.TrustFirstRead = true }

// derived is trusting, with times that follow from the policies of the rings.
func derived(c *rotation.Config) { c.TrustFirstRead, c.Poll, c.Deadline = true, 0, 0 }

// of returns a change of a Config to hold tenants; none means all.
func of(tenants ...string) func(*rotation.Config) {
	return func(c *rotation.Config) { c.Tenants = tenants }
}

// newDerivedFleet is newFleet with times that follow from the policy.
func newDerivedFleet(t *testing.T, policy ring.Policy, change ...func(*rotation.Config)) *fleet {
	t.Helper()
	f := &fleet{t: t, cluster: rotationtest.NewCluster(rotationtest.ClusterConfig{})}
	f.member = join(t, f.cluster, "a", append([]func(*rotation.Config){derived}, change...)...)
	if err := f.rotator.Create(t.Context(), "acme", policy); err != nil {
		t.Fatal(err)
	}
	return f
}

// signs reports why a member cannot sign for acme, or nil.
func (m *member) signs() error {
	_, err := m.signer.Sign(m.t.Context(), "acme", nil)
	return err
}

// Dates that are proposed by a deadline are whole milliseconds, whatever it is.
func TestADeadlineNeedNotBeWholeMilliseconds(t *testing.T) {
	uneven := ring.Policy{Every: 30 * time.Second, MaxTokenTTL: time.Minute} // F/30 is 187.5 ms
	for _, tt := range []struct {
		name   string
		policy ring.Policy
		times  func(*rotation.Config)
	}{
		{"derived", uneven, derived},
		{"given", fast, func(c *rotation.Config) { c.TrustFirstRead, c.Deadline = true, fastDeadline-time.Microsecond }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fleet{t: t, cluster: rotationtest.NewCluster(rotationtest.ClusterConfig{})}
				f.member = join(t, f.cluster, "a", tt.times)
				defer f.leave()
				if err := f.rotator.Create(t.Context(), "acme", tt.policy); err != nil {
					t.Fatal(err)
				}
				policy := tt.policy.WithDefaults()
				time.Sleep(policy.Freshness + policy.ClockSkew + time.Second)
				if _, err := f.rotator.Rotate(t.Context(), "acme"); err != nil {
					t.Errorf("Rotate: %v", err)
				}
				want := f.ring()
				f.cluster.Wipe()
				time.Sleep(policy.Freshness)
				if now := f.cluster.Ring("acme"); len(now) == 0 || f.ring() != want {
					t.Errorf("what the store lost is not put back: %s, %v", f.ring(), f.Status().Err)
				}
			})
		})
	}
}

// The poll follows the ring that is in the greatest hurry, from the pass that learns
// of it on; the gap before it is judged by what held then.
func TestTheShortestFreshnessCountsFromItsRingOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newDerivedFleet(t, ring.Policy{}, of("acme", "short"))
		defer f.leave()
		other := join(t, f.cluster, "b", derived, of("acme", "short"))
		defer other.leave()
		time.Sleep(42 * time.Second) // some seconds after a poll
		if err := f.rotator.Create(t.Context(), "short", fast); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the nudge has arrived
		for i := range 100 {
			for _, m := range []*member{f.member, other} {
				acme, _ := m.Tenant("acme")
				short, _ := m.Tenant("short")
				polled := i > 10
				if acme.InDoubt || polled && !acme.Fresh || m.signs() != nil {
					t.Fatalf("at %v the other is out of step: %v; Sign: %v", time.Now().Format("05.000"), acme.Err, m.signs())
				}
				if _, err := m.signer.Sign(t.Context(), "short", nil); !short.Fresh || err != nil {
					t.Fatalf("at %v it is out of step: %v; Sign: %v", time.Now().Format("05.000"), short.Err, err)
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// What a Config's own times cannot keep is not written: it would freeze the ring at
// every instance.
func TestAPolicyIsHeldToTheTimesOfTheConfig(t *testing.T) {
	brisk, slow := fast, ring.Policy{MaxTokenTTL: time.Minute}
	brisk.Freshness = 3 * (fastPoll*6/5 + fastDeadline)
	hasty := brisk
	hasty.Freshness -= time.Millisecond
	for _, tt := range []struct {
		name           string
		poll, deadline time.Duration
		policy         ring.Policy
		refused        bool
	}{
		{"none of its own", 0, 0, fast, false},
		{"at the bound", fastPoll, fastDeadline, brisk, false},
		{"below the bound", fastPoll, fastDeadline, hasty, true},
		{"a poll alone, and the deadline follows from the policy", fastPoll, 0, fast, false},
		{"a poll alone that is too slow", time.Second, 0, fast, true},
		{"a deadline alone, and the poll follows from the policy", 0, 180 * time.Millisecond, fast, true},
		{"both for a slower one", 5 * time.Second, time.Second, fast, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
				m := join(t, cluster, "a", of("acme", "old"), func(c *rotation.Config) {
					c.TrustFirstRead, c.Poll, c.Deadline = true, tt.poll, tt.deadline
				})
				defer m.leave()
				if err := m.rotator.Create(t.Context(), "old", slow); err != nil {
					t.Fatal(err)
				}
				created := m.rotator.Create(t.Context(), "acme", tt.policy)
				time.Sleep(2 * time.Minute)
				set := m.rotator.SetPolicy(t.Context(), "old", tt.policy)
				time.Sleep(30 * time.Second)
				if tt.refused != (created != nil) || tt.refused != (set != nil) {
					t.Errorf("Create: %v; SetPolicy: %v", created, set)
				}
				if s, _ := m.Tenant("old"); !s.Fresh {
					t.Errorf("then: %v", s.Err)
				}
			})
		})
	}
}

// A Freshness that no network can keep is refused: one ring sets the pace of all.
func TestAFreshnessHasAFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newDerivedFleet(t, ring.Policy{}, of("acme", "tiny"))
		defer f.leave()
		f.conn.SetFaults(rotationtest.Faults{Before: 5 * time.Millisecond, After: 5 * time.Millisecond})
		least := fast
		least.Freshness = time.Second
		for _, tiny := range []ring.Policy{{Every: 200 * time.Millisecond, MaxTokenTTL: time.Second}, least} {
			err := f.rotator.Create(t.Context(), "tiny", tiny)
			if refused := tiny.Freshness < time.Second; refused != (err != nil && strings.Contains(err.Error(), "Freshness is")) {
				t.Errorf("Freshness %v: %v", tiny.WithDefaults().Freshness, err)
			}
			time.Sleep(2 * time.Minute)
			if s, _ := f.Tenant("acme"); !s.Fresh {
				t.Errorf("then: %v", s.Err)
			}
		}
	})
}

// What is not known to be absent is unavailable, whoever is asked and however.
func TestWhatCannotBeToldIsUnavailable(t *testing.T) {
	ask := map[string]func(*member, string) error{
		"Lookup": func(m *member, kid string) error {
			_, err := m.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.HS256)
			return err
		},
		"Refresh": func(m *member, kid string) error {
			return m.Refresh(m.t.Context(), keystore.ID{Tenant: "acme", KID: kid})
		},
	}
	want := func(t *testing.T, m *member, want error) {
		t.Helper()
		for how, ask := range ask {
			for _, kid := range []string{"", "nobody"} {
				err := ask(m, kid)
				if !errors.Is(err, want) || errors.Is(err, keystore.ErrNotFound) != (want == keystore.ErrNotFound) {
					t.Errorf("%s of kid %q: %v, want %v", how, kid, err, want)
				}
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", trusting)
		defer m.leave()
		want(t, m, keystore.ErrUnavailable) // there is no ring
		if err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		want(t, m, keystore.ErrNotFound)
		m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(time.Minute)
		want(t, m, keystore.ErrUnavailable)
		m.conn.SetFaults(rotationtest.Faults{})
	})
}

// A Refresh waits for a sync that begins after it: one that is under way may not have
// the key.
func TestARefreshJoinsNoSyncThatHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		other := join(t, f.cluster, "b", trusting)
		defer other.leave()
		time.Sleep(4*time.Second + 10*time.Millisecond)
		other.conn.SetFaults(rotationtest.Faults{LoseNudge: 1, After: 200 * time.Millisecond})
		go other.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "nobody"})
		time.Sleep(50 * time.Millisecond)
		receipt, err := f.rotator.Rotate(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: receipt.Minted}); err != nil {
			t.Errorf("the key was committed before: %v", err)
		}
	})
}

// Whoever may have missed something changes nothing before it has caught up.
func TestNobodyOutOfStepChangesARing(t *testing.T) {
	for _, tt := range []struct {
		name string
		away func(f *fleet, store *faultyStore, conn *rotationtest.Conn) *rotation.Keyring
	}{
		{"cut off for longer than SignFor", func(f *fleet, store *faultyStore, conn *rotationtest.Conn) *rotation.Keyring {
			k := openStore(f.t, store, trusting)
			conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
			time.Sleep(fast.SignFor + time.Second)
			conn.SetFaults(rotationtest.Faults{LoseNudge: 1})
			return k
		}},
		{"the ring could not be read at the start", func(f *fleet, store *faultyStore, _ *rotationtest.Conn) *rotation.Keyring {
			store.load = func(tenant string) error {
				if tenant == "acme" {
					return errors.New("NOPERM")
				}
				return nil
			}
			k := openStore(f.t, store, of("acme", "globex"))
			store.load = nil
			return k
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, fast)
				time.Sleep(4 * time.Second)
				conn := f.cluster.Connect("x")
				f.leave() // nobody is left to vouch
				k := tt.away(f, &faultyStore{Store: conn}, conn)
				defer k.Close(t.Context())
				r, err := rotation.NewRotator(k)
				if err != nil {
					t.Fatal(err)
				}
				receipt, err := r.Rotate(t.Context(), "acme")
				if s, _ := k.Tenant("acme"); !errors.Is(err, keystore.ErrUnavailable) || !s.InDoubt {
					t.Errorf("it has promoted %q, minted %q: %v (in doubt: %v)", receipt.Promoted, receipt.Minted, err, s.InDoubt)
				}
			})
		})
	}
}

// What is heard and asked of one tenant does not keep the others from being polled.
func TestThePollComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		m := join(t, f.cluster, "b", trusting, of("acme", "globex"))
		defer m.leave()
		m.conn.SetFaults(rotationtest.Faults{Before: 200 * time.Millisecond, After: 200 * time.Millisecond})
		defer m.conn.SetFaults(rotationtest.Faults{})
		ctx, cancel := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		defer asking.Wait()
		defer cancel()
		for range 3 {
			asking.Go(func() {
				for ctx.Err() == nil {
					m.Reload(ctx, "globex")
				}
			})
		}
		for range 3000 {
			time.Sleep(20 * time.Millisecond)
			m.conn.Forge(rotation.BucketOf("globex"))
			if s, _ := m.Tenant("acme"); !s.Fresh {
				t.Fatalf("at %v acme is out of step: %v", time.Now().Format("05.000"), s.Err)
			}
		}
	})
}

// What is asked for does not wait until the next nudge may be followed, and one poll
// puts back the rings of as many tenants as there are.
func TestManyTenants(t *testing.T) {
	const n = 300 // more than are loaded at once
	synctest.Test(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", trusting, of())
		defer m.leave()
		began := time.Now()
		for i := range n {
			if err := m.rotator.Create(t.Context(), fmt.Sprint("tenant-", i), fast); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("%d tenants were created in %v, on a store that takes no time", n, took)
		}
		cluster.Wipe()
		time.Sleep(fastPoll*6/5 + fastDeadline)
		if rings := cluster.Tenants(); len(rings) != n {
			t.Errorf("within W %d rings of %d are put back", len(rings), n)
		}
	})
}

// A keyring of all tenants answers for all that the store has.
func TestAKeyringOfAllTenantsIsReadyOnlyWhenAllAre(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ruin  func(*rotationtest.Cluster)
		trust bool
		wait  time.Duration // cut off
		says  string
	}{
		{"one ring cannot be opened", func(c *rotationtest.Cluster) {
			c.EditRing("acme", func(fields map[string][]byte) {
				for name := range fields {
					if name != "head" && !strings.HasPrefix(name, "p:") {
						fields[name][8] ^= 1
					}
				}
			})
		}, true, 0, `"acme"`},
		{"an empty store, in doubt", func(c *rotationtest.Cluster) { c.Wipe() }, false, 0, ""},
		{"an empty store, out of reach before doubt ends", func(c *rotationtest.Cluster) { c.Wipe() }, false, 10 * time.Second, "refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
				m := join(t, cluster, "a", trusting, of("acme", "globex"))
				for _, tenant := range []string{"acme", "globex"} {
					if err := m.rotator.Create(t.Context(), tenant, fast); err != nil {
						t.Fatal(err)
					}
				}
				m.leave()
				tt.ruin(cluster)
				all := join(t, cluster, "all", of(), func(c *rotation.Config) { c.TrustFirstRead = tt.trust })
				defer all.leave()
				if tt.wait > 0 {
					all.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
					time.Sleep(tt.wait)
					all.conn.SetFaults(rotationtest.Faults{})
				}
				if s := all.Status(); s.Ready || s.Fresh || s.Err == nil || !strings.Contains(s.Err.Error(), tt.says) {
					t.Errorf("ready %v, fresh %v: %v", s.Ready, s.Fresh, s.Err)
				}
			})
		})
	}
}

// Anyone can write names. One without a ring is let go of, and one whose ring cannot
// be read is not.
func TestAKeyringOfAllTenantsHoldsNoNamesWithoutARing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		stranger := f.cluster.Connect("stranger")
		name := func(tenants ...string) {
			for _, tenant := range tenants {
				junk := rotation.Change{Tenant: tenant, Set: map[string][]byte{"k:x": []byte("junk")}}
				if result, err := stranger.Write(t.Context(), junk); err != nil || result.Code != rotation.Committed {
					t.Fatal(result, err)
				}
			}
		}
		name("ghost-1", "junk")
		f.cluster.DeleteRing("ghost-1")
		all := join(t, f.cluster, "all", trusting, of())
		defer all.leave()
		holds := func(want string) {
			t.Helper()
			if got := fmt.Sprint(all.Keyring); got != "keyring of "+want+" tenants" || all.Serves("ghost-1") {
				t.Errorf("it is a %s, want %s", got, want)
			}
		}
		holds("2") // acme, and what may be a ring
		all.conn.SetFaults(rotationtest.Faults{LoseNudge: 1})
		name("ghost-2", "ghost-3")
		f.cluster.DeleteRing("ghost-2") // the log has the name still
		time.Sleep(2 * fastPoll)
		holds("3")
		f.cluster.DeleteRing("ghost-3")
		f.cluster.DeleteRing("junk")
		time.Sleep(2 * fast.Freshness)
		holds("1")
	})
}

// Open is the first complete read of something: not of nothing.
func TestOpenNeedsAReadOfOneRing(t *testing.T) {
	for _, tt := range []struct {
		name    string
		tenants []string
		opens   bool
	}{
		{"the only ring cannot be read", []string{"acme"}, false},
		{"one of two can", []string{"acme", "globex"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				store := &faultyStore{Store: f.cluster.Connect("x"), load: func(tenant string) error {
					if tenant == "acme" {
						return errors.New("NOPERM")
					}
					return nil
				}}
				k, err := rotation.Open(t.Context(), store, rotation.Config{KEKs: testKEK, Tenants: tt.tenants, Instance: "x"})
				if opens := err == nil; opens != tt.opens || !opens && !errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("Open: %v", err)
				}
				if k == nil {
					return
				}
				defer k.Close(t.Context())
				if s := k.Status(); s.Ready {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// Close waits for all that Open has started, whatever the store does; what waits for
// the keyring ends with it.
func TestCloseLeavesNothingRunning(t *testing.T) {
	for _, cut := range []rotationtest.Cut{rotationtest.Connected, rotationtest.Refused, rotationtest.BlackHole} {
		t.Run(fmt.Sprint("cut ", int(cut)), func(t *testing.T) {
			running := goleak.IgnoreCurrent()
			cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
			m := join(t, cluster, "a", derived)
			if err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
				t.Fatal(err)
			}
			run, ready := make(chan error, 1), make(chan error, 1)
			go func() { run <- m.rotator.Run(context.Background()) }()
			empty := join(t, cluster, "b", of("globex"))
			go func() { ready <- empty.WaitReady(context.Background()) }()
			m.conn.SetFaults(rotationtest.Faults{Cut: cut})
			if err := m.Close(t.Context()); (err == nil) != (cut == rotationtest.Connected) {
				t.Errorf("Close: %v", err)
			}
			if err := within(t, run); err != nil {
				t.Errorf("Run: %v", err)
			}
			empty.leave()
			if err := within(t, ready); err == nil {
				t.Error("WaitReady of a closed keyring: ready")
			}
			goleak.VerifyNone(t, running)
		})
	}
}

// A poll that Close calls off says nothing of the store, and is not logged as an outage.
func TestClosingIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		m := join(t, rotationtest.NewCluster(rotationtest.ClusterConfig{}), "a", func(c *rotation.Config) {
			c.TrustFirstRead, c.Logger = true, slog.New(slog.NewTextHandler(&out, nil))
		})
		if err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.BlackHole})
		time.Sleep(310 * time.Millisecond) // a poll has begun, and has some of its deadline left
		if err := m.Close(t.Context()); err == nil {
			t.Error("Close: the acknowledgements cannot have been removed")
		}
		if strings.Contains(out.String(), "cannot be reached") {
			t.Errorf("logged: %s", out.String())
		}
	})
}

// within returns what comes from ends.
func within(t *testing.T, ends <-chan error) error {
	t.Helper()
	select {
	case err := <-ends:
		return err
	case <-time.After(5 * time.Second):
		t.Fatal("it does not end with the keyring")
		return nil
	}
}

// When was a key published? Anyone can write that: it is believed within what is
// authentic, so that it costs nobody a change, and buys nobody one.
func TestPublicationDatesAreBelievedWithinWhatIsAuthentic(t *testing.T) {
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
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				f.cluster.EditRing("acme", func(fields map[string][]byte) {
					for name := range fields {
						if strings.HasPrefix(name, "p:") {
							fields[name] = []byte(tt.said)
						}
					}
				})
				least := fast.Freshness + fast.ClockSkew
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

// When the key that signed was revoked, the next does not wait for its schedule: a
// rotator lets it take over once all know it, and not before.
func TestTheNextTakesOverFromARevokedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		defer f.run()()
		scheduled, known := time.Now().Add(fast.Every), time.Now().Add(fast.Freshness+fast.ClockSkew)
		time.Sleep(time.Second)
		one, two := f.kid(1), f.kid(2)
		receipt, err := f.rotator.Revoke(t.Context(), "acme", one, rotation.Force)
		if err != nil {
			t.Fatal(err)
		}
		if err := errorOf(f.rotator.Revoke(t.Context(), "acme", receipt.Minted)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(known) - time.Millisecond)
		if err := f.signs(); !errors.Is(err, rotation.ErrNoSigner) {
			t.Errorf("before all know the next: %v, %s", err, f.ring())
		}
		time.Sleep(2 * fastPoll)
		token, err := f.signer.Sign(t.Context(), "acme", nil)
		if err != nil || kidOf(t, token) != two {
			t.Errorf("once they do: %v, %s", err, f.ring())
		}
		time.Sleep(time.Until(scheduled))
		if got := f.ops(); !strings.HasPrefix(got, "create revoke revoke promote mint") || strings.Count(got, "promote") > 1 {
			t.Errorf("it did: %s", got)
		}
	})
}

// The key that a forced revocation minted may be lost, and be published anew: then it
// signs when all know it, and not when its schedule would have it.
func TestTheKeyOfAForcedRevocationIsNotLateWhenItWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newDerivedFleet(t, ring.Policy{})
		defer f.leave()
		defer f.run()()
		other := join(t, f.cluster, "b", derived)
		defer other.leave()
		time.Sleep(10 * time.Second)
		receipt, err := f.rotator.Revoke(t.Context(), "acme", f.kid(1), rotation.Force)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(400 * time.Millisecond)
		f.cluster.Failover(500 * time.Millisecond)
		slow := ring.Policy{}.WithDefaults()
		time.Sleep(time.Until(receipt.NoSignerUntil) + slow.Freshness + slow.ClockSkew)
		if err := f.signs(); err != nil {
			t.Errorf("F + S after the promise: %v, %s", err, f.ring())
		}
	})
}

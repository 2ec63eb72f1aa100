package rotation_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A clock that is set wrong later, long before SignFor has passed.
func TestClockThatGoesWrong(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				var offset atomic.Int64
				cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
				m := join(t, cluster, "a", derived, func(c *rotation.Config) {
					c.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
				})
				defer m.leave()
				if _, err := m.rotator.Create(t.Context(), "acme", ring.Policy{}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Minute)
				if s := m.Status(); !s.Ready {
					t.Fatal(s.Err)
				}
				offset.Store(int64(off))
				time.Sleep(time.Minute)
				s, err := m.Tenant("acme")
				if m.Status().Ready || s.Ready || err != nil || s.Err == nil || !strings.Contains(s.Err.Error(), "differ by more than ClockSkew") {
					t.Errorf("wrong: %+v, %v", s, err)
				}
				m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
				time.Sleep(time.Minute)
				if m.Status().Ready {
					t.Errorf("wrong, and the store is away: %+v", m.Status())
				}
				m.conn.SetFaults(rotationtest.Faults{})
				offset.Store(0)
				time.Sleep(2 * time.Minute)
				if s := m.Status(); !s.Ready || !s.Fresh {
					t.Errorf("right again: %+v", s)
				}
			})
		})
	}
}

// A ring that is created by a clock which is wrong would not sign when it should, and
// could not be created again.
func TestCreateHoldsClocksToItsPolicy(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		cluster.Advance(365 * 24 * time.Hour)
		m := join(t, cluster, "a", func(c *rotation.Config) { c.OneShot = true })
		defer m.leave()
		_, err := m.rotator.Create(t.Context(), "acme", fast)
		if !errors.Is(err, keystore.ErrUnavailable) || len(cluster.Ring("acme")) > 0 {
			t.Errorf("Create: %v, %d fields", err, len(cluster.Ring("acme")))
		}
	})
}

func TestClockThatIsOff(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, -2500 * time.Millisecond, -200 * time.Millisecond, 200 * time.Millisecond, 2500 * time.Millisecond, time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				m := join(t, f.cluster, "b", func(c *rotation.Config) {
					c.TrustFirstRead = true
					c.Now = func() time.Time { return time.Now().Add(off) }
				})
				defer m.leave()
				time.Sleep(time.Second)
				s := m.Status()
				_, err := m.signer.Sign(t.Context(), "acme", nil)
				if within := off.Abs() < fast.ClockSkew; within != s.Ready || within != (err == nil) {
					t.Errorf("ready %v (%v), Sign: %v", s.Ready, s.Err, err)
				}
			})
		})
	}
}

// By a clock that is off nothing is dropped, nothing is written, and nothing takes
// effect or ceases to.
func TestStoreWhoseClockIsOffDecidesNothing(t *testing.T) {
	for _, tt := range []struct {
		name string
		off  time.Duration
		at   time.Duration // of the wipe, after Create
		keep bool          // within ClockSkew: it does decide
	}{
		{"an hour ahead", time.Hour, 7 * time.Second, false},
		{"two seconds behind", -2 * time.Second, 7 * time.Second, false},
		{"ahead by less than ClockSkew", 200 * time.Millisecond, 9850 * time.Millisecond, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				defer f.leave()
				time.Sleep(tt.at)
				one, two, before := f.kid(1), f.kid(2), f.ops()
				wantRing(t, f.member, "1=retired 2=signing*")
				f.cluster.Advance(tt.off)
				f.cluster.Wipe()
				f.Reload(t.Context(), "acme") // by such a clock it is not good
				if f.finds(one) != "found" || f.finds(two) != "found" {
					t.Errorf("the retired key is %s, the signing one %s: %s", f.finds(one), f.finds(two), f.ring())
				}
				if err := f.signs(); err != nil {
					t.Error(err)
				}
				if wrote := f.ops() != before; wrote != tt.keep {
					t.Errorf("it did: %s", f.ops())
				}
				f.cluster.Advance(-tt.off)
				f.cluster.Wipe()
				time.Sleep(fastPoll*6/5 + fastDeadline)
				if token, err := f.signer.Sign(t.Context(), "acme", nil); err != nil || kidOf(t, token) != two {
					t.Errorf("once it is right again: %v, %s", err, f.ring())
				}
			})
		})
	}
}

// Each change proposes times, and the store checks them by its own clock. A fact must lie within
// 1.4s of it. The time at which a new key signs must be neither too soon nor too late.
func TestEveryChangeIsHeldToStoreClock(t *testing.T) {
	const announced, happened = "700ms(0s..1.4s)", "0s(-1.4s..0s)"
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		want := func(want string) {
			t.Helper()
			if got := f.bounds(); got != want {
				t.Errorf("%s\nwant %s", got, want)
			}
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		want("create: 0s(-1.4s..1.4s) " + announced + " " + announced)
		time.Sleep(4 * time.Second)
		// P, and T and P and the window after the one before, which is to sign in 2s.
		must(errorOf(f.rotator.SetPolicy(t.Context(), "acme", fast)))
		want("mint: " + announced + " 8s(4.5s..13.9s)")
		must(errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(2))))
		want("promote: " + happened + " " + announced)
		time.Sleep(4 * time.Second)
		must(errorOf(f.rotator.Rotate(t.Context(), "acme")))
		want("rotate: " + happened + " 6s(4.5s..11.9s) " + announced + " " + announced)
		must(errorOf(f.rotator.Promote(t.Context(), "acme", f.kid(4), rotation.Force)))
		want("promote: " + happened + " " + happened + " " + announced)
		must(errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(1))))
		want("revoke: " + happened)
		must(errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(4), rotation.Force)))
		want("revoke: " + happened + " " + announced) // the one that is minted signs in F + D + S
	})
}

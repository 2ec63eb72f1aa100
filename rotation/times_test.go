package rotation_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// Who has not heard of a new policy calls itself fresh, and reads the JWK Set, by the old
// one: by that a manual change waits.
func TestShorterFreshnessCountsWhenAllKnowIt(t *testing.T) {
	virtual(t, func(t *testing.T) {
		slow := ring.Policy{MaxTokenTTL: time.Minute} // F is 45s, D 30s, S 5s
		f := newDerivedFleet(t, slow)
		defer f.leave()
		time.Sleep(10 * time.Minute)
		quick := slow
		quick.Freshness, quick.ClockSkew, quick.Dwell = time.Second, 10*time.Millisecond, time.Second
		if _, err := f.rotator.SetPolicy(t.Context(), "acme", quick); err != nil {
			t.Fatal(err)
		}
		minted := time.Now()
		if _, err := f.rotator.Rotate(t.Context(), "acme"); err != nil { // the one that was pending before
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		_, err := f.rotator.Rotate(t.Context(), "acme")
		if from := wantRefused(t, err).From.Sub(minted); from < 80*time.Second || from > 85*time.Second {
			t.Errorf("refused until %v after it was minted, want F + D + S of before, 80s", from)
		}
	})
}

// Freshness moves to when a sync was asked for: what is written while the reply is under
// way is not in it.
func TestFreshnessIsThatOfRequest(t *testing.T) {
	const slow = fastDeadline - time.Millisecond
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(time.Second)
		f.conn.SetFaults(rotationtest.Faults{After: slow})
		for n := f.conn.Calls(); f.conn.Calls() == n; {
			time.Sleep(time.Millisecond)
		}
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused}) // from the next call on
		defer f.conn.SetFaults(rotationtest.Faults{})
		asked := time.Now()
		time.Sleep(slow)
		s, _ := f.Tenant("acme")
		if before := asked.Sub(s.LastGood); before < 0 || before > time.Millisecond {
			t.Errorf("the last good sync was %v ago, asked for %v ago", time.Since(s.LastGood), time.Since(asked))
		}
		for _, tt := range []struct {
			after        time.Duration
			fresh, signs bool
		}{{fast.Freshness, true, true}, {fast.Freshness + 1, false, true}, {fast.SignFor, false, true}, {fast.SignFor + 1, false, false}} {
			time.Sleep(time.Until(s.LastGood.Add(tt.after)))
			now, _ := f.Tenant("acme")
			if err := f.signs(); now.Fresh != tt.fresh || (err == nil) != tt.signs || !tt.signs && !errors.Is(err, rotation.ErrFenced) {
				t.Errorf("%v later: fresh %v; Sign: %v", tt.after, now.Fresh, err)
			}
		}
	})
}

// Dates that are proposed by a deadline are whole milliseconds, whatever it is.
func TestDeadlineNeedNotBeWholeMilliseconds(t *testing.T) {
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
			virtual(t, func(t *testing.T) {
				f := &fleet{t: t, cluster: rotationtest.NewCluster(rotationtest.ClusterConfig{})}
				f.member = join(t, f.cluster, "a", tt.times)
				defer f.leave()
				if _, err := f.rotator.Create(t.Context(), "acme", tt.policy); err != nil {
					t.Fatal(err)
				}
				policy := tt.policy.WithDefaults()
				time.Sleep(policy.HeardWithin() + time.Second)
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
func TestShortestFreshnessCountsFromItsRingOn(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newDerivedFleet(t, ring.Policy{}, of("acme", "short"))
		defer f.leave()
		other := join(t, f.cluster, "b", derived, of("acme", "short"))
		defer other.leave()
		time.Sleep(42 * time.Second) // some seconds after a poll
		if _, err := f.rotator.Create(t.Context(), "short", fast); err != nil {
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
func TestPolicyIsHeldToTimesOfConfig(t *testing.T) {
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
			virtual(t, func(t *testing.T) {
				cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
				m := join(t, cluster, "a", of("acme", "old"), func(c *rotation.Config) {
					c.TrustFirstRead, c.Poll, c.Deadline = true, tt.poll, tt.deadline
				})
				defer m.leave()
				if _, err := m.rotator.Create(t.Context(), "old", slow); err != nil {
					t.Fatal(err)
				}
				_, created := m.rotator.Create(t.Context(), "acme", tt.policy)
				time.Sleep(2 * time.Minute)
				_, set := m.rotator.SetPolicy(t.Context(), "old", tt.policy)
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
func TestFreshnessHasFloor(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newDerivedFleet(t, ring.Policy{}, of("acme", "tiny"))
		defer f.leave()
		f.conn.SetFaults(rotationtest.Faults{Before: 5 * time.Millisecond, After: 5 * time.Millisecond})
		least := fast
		least.Freshness = time.Second
		for _, tiny := range []ring.Policy{{Every: 200 * time.Millisecond, MaxTokenTTL: time.Second}, least} {
			_, err := f.rotator.Create(t.Context(), "tiny", tiny)
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

// What is heard and asked of one tenant does not keep the others from being polled.
func TestPollComesFirst(t *testing.T) {
	virtual(t, func(t *testing.T) {
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

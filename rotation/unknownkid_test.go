package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

func TestUnknownKidsCostLittle(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(10 * time.Second)
		before := f.conn.Calls()
		var wg sync.WaitGroup
		for i := range 10_000 {
			wg.Go(func() {
				err := f.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: fmt.Sprint("unknown-", i%5000)})
				if !errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrUnavailable) {
					t.Errorf("%v", err)
				}
			})
			if i%100 == 99 {
				time.Sleep(40 * time.Millisecond) // 4 s in all
			}
		}
		wg.Wait()
		polls := 4 * 5 // at most
		if calls := f.conn.Calls() - before; calls > polls+3+5 {
			t.Errorf("%d calls for 10 000 unknown kids in 4 s, want at most 3 and one a second beside the polls", calls)
		}
		for _, kid := range []string{strings.Repeat("k", 1<<20), "{}", "\x00", ""} {
			if err := f.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: kid}); !errors.Is(err, keystore.ErrNotFound) {
				t.Errorf("%.10q: %v", kid, err)
			}
		}
	})
}

// Once the budget is spent nobody asks for a kid, and what that means depends on whether
// this instance can tell.
func TestUnknownKidBeyondBudget(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*rotation.Config)
		want   error
	}{{"in step", trusting, keystore.ErrNotFound}, {"in doubt", func(*rotation.Config) {}, keystore.ErrUnavailable}} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				f.leave()
				m := join(t, f.cluster, "b", tt.change)
				defer m.leave()
				for n := range 10 {
					err := m.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: fmt.Sprint("unknown-", n)})
					if !errors.Is(err, tt.want) || errors.Is(err, keystore.ErrNotFound) != (tt.want == keystore.ErrNotFound) {
						t.Errorf("%d: %v, want %v", n, err, tt.want)
					}
				}
				if n := m.Status().Counts.Refreshes; n != 3 {
					t.Errorf("%d of 10 were asked for, want 3", n)
				}
			})
		})
	}
}

// That a kid was not there says nothing of another life of the store.
func TestUnknownKidIsAskedForAgainAfterLoss(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		ask := func(want uint64) {
			t.Helper()
			f.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "unknown"})
			if n := f.Status().Counts.Refreshes; n != want {
				t.Errorf("it was asked for %d times, want %d", n, want)
			}
		}
		time.Sleep(time.Second)
		ask(1)
		ask(1)
		time.Sleep(2 * fastPoll)
		ask(1)
		f.cluster.Wipe()
		time.Sleep(2 * fastPoll)
		ask(2)
		ask(2)
	})
}

func TestUnknownKidIsLearned(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		other := join(t, f.cluster, "b", func(c *rotation.Config) { c.TrustFirstRead = true })
		defer other.leave()
		other.conn.SetFaults(rotationtest.Faults{LoseNudge: 1})
		time.Sleep(4 * time.Second)
		receipt, err := f.rotator.Rotate(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		if got := other.finds(receipt.Minted); got != "not found" {
			t.Fatalf("before it is asked for: %s", got)
		}
		if err := other.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: receipt.Minted}); err != nil || other.finds(receipt.Minted) != "found" {
			t.Errorf("%v, then %s", err, other.finds(receipt.Minted))
		}
	})
}

func TestRefreshWaitsNoLongerThanItMay(t *testing.T) {
	virtual(t, func(t *testing.T) {
		slow := ring.Policy{}.WithDefaults()
		f := newFleet(t, slow)
		long := join(t, f.cluster, "b", func(c *rotation.Config) { c.TrustFirstRead, c.Poll, c.Deadline = true, 0, 0 })
		defer f.leave()
		long.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.BlackHole})
		began := time.Now()
		if err := long.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "x"}); !errors.Is(err, keystore.ErrUnavailable) {
			t.Error(err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		began = time.Now()
		if err := long.Refresh(ctx, keystore.ID{Tenant: "acme", KID: "y"}); !errors.Is(err, keystore.ErrUnavailable) {
			t.Error(err)
		}
		if took := time.Since(began); took > 10*time.Millisecond {
			t.Errorf("it took %v beyond its context", took)
		}
		long.conn.SetFaults(rotationtest.Faults{})
		long.leave()
	})
}

// A Refresh waits for a sync that begins after it: one that is under way may not have
// the key.
func TestRefreshJoinsNoSyncThatHasBegun(t *testing.T) {
	virtual(t, func(t *testing.T) {
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

package rotation_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// silentFleet is newDerivedFleet on a store that does not tell its run, so that nothing but the
// snapshot speaks for it after a restart.
func silentFleet(t *testing.T, change ...func(*rotation.Config)) *fleet {
	return newDerivedFleetOn(t, rotationtest.NewCluster(rotationtest.ClusterConfig{NoRun: true}), ring.Policy{}, change...)
}

// doubts reports whether m recovers.
func (m *member) doubts() bool {
	s, err := m.Tenant("acme")
	return err != nil || s.InDoubt
}

// A process is killed at any moment, and started again 20 s later: its snapshot is young enough, as it
// is written every half of Freshness.
func TestPauseAfterAKill(t *testing.T) {
	for at := 2 * time.Minute; at < 2*time.Minute+40*time.Second; at += 4 * time.Second {
		virtual(t, func(t *testing.T) {
			path := snapshotFile(t)
			f := silentFleet(t, keeping(path))
			time.Sleep(at)
			killed := mustRead(t, path)
			f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
			f.abandon()
			if err := os.WriteFile(path, killed, 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Second)
			m := join(t, f.cluster, "again", derived, cold, keeping(path))
			defer m.leave()
			if m.doubts() || m.signs() != nil {
				t.Errorf("killed after %v, it recovers", at)
			}
		})
	}
}

// While a ring cannot be read, the snapshot has no place: what the log says of the ring is not in it.
func TestNoPauseForARingThatIsNotWhole(t *testing.T) {
	for _, broken := range []bool{false, true} {
		virtual(t, func(t *testing.T) {
			path := snapshotFile(t)
			f := silentFleet(t, keeping(path))
			time.Sleep(2 * time.Minute)
			f.cluster.SetWrongType("acme", broken)
			time.Sleep(30 * time.Second)
			f.leave()
			f.cluster.SetWrongType("acme", false)
			m := join(t, f.cluster, "again", derived, cold, keeping(path))
			defer m.leave()
			if m.doubts() != broken {
				t.Errorf("the ring could not be read: %v; it recovers: %v", broken, m.doubts())
			}
		})
	}
}

// The clocks differ at the first sync, and agree at the next: by then the place of the snapshot is no
// evidence any more.
func TestNoPauseAfterAWrongClock(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path := snapshotFile(t)
		f := silentFleet(t, keeping(path))
		time.Sleep(2 * time.Minute)
		f.leave()
		f.cluster.Advance(-time.Hour)
		m := join(t, f.cluster, "again", derived, cold, keeping(path))
		defer m.leave()
		f.cluster.Advance(time.Hour)
		time.Sleep(4 * time.Second)
		if s, err := m.Tenant("acme"); err != nil || errors.Is(s.Err, ring.ErrClock) || !s.InDoubt || m.signs() == nil {
			t.Errorf("%+v, %v; it signs: %v", s, err, m.signs() == nil)
		}
	})
}

// A clock that was set back makes the times of a snapshot come after the moment at which it was written.
// The snapshot is from the future all the same.
func TestSnapshotOfAClockThatWasSetBack(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path, log := snapshotFile(t), new(logbook)
		var back atomic.Int64
		f := silentFleet(t, keeping(path), func(c *rotation.Config) {
			c.Now = func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }
		})
		time.Sleep(2*time.Minute + time.Second)
		f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		back.Store(int64(time.Minute))
		f.abandon()
		m := join(t, f.cluster, "again", derived, cold, keeping(path), logging(log), func(c *rotation.Config) {
			c.Now = func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }
		})
		defer m.abandon()
		if len(log.with("the snapshot is from the future")) != 1 {
			t.Errorf("it is used: %q", log.with("snapshot"))
		}
	})
}

// An instance that holds all tenants asks for them when it starts, though the store proves its place: the
// snapshot leaves out a tenant whose ring was away when it was written.
func TestPauseListsTenants(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path, away := snapshotFile(t), true
		f := silentFleet(t)
		defer f.leave()
		time.Sleep(2 * time.Minute)
		start := func() *rotation.Keyring {
			s := &deceivedStore{Store: f.cluster.Connect("x"), load: func(_ string, s *rotation.Snapshot) {
				if away {
					maps.DeleteFunc(s.Fields, func(string, []byte) bool { return true })
				}
			}}
			s.sync = func(q []rotation.SyncRequest, replies []rotation.SyncReply) {
				for i := range replies {
					replies[i].Acks = nil // so that no instance vouches
				}
			}
			return openStore(t, s, derived, cold, keeping(path), of())
		}
		k := start()
		time.Sleep(2 * time.Minute)
		if k.Serves("acme") {
			t.Fatal("the ring is not away")
		}
		if err := k.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		away = false
		k = start()
		defer k.Close(context.Background())
		s, err := k.Tenant("acme")
		if _, found := k.Lookup(keystore.ID{Tenant: "acme", KID: f.kid(1)}, keystore.HS256); err != nil || found != nil || s.InDoubt {
			t.Errorf("%+v, %v, %v", s, err, found)
		}
	})
}

// An instance that begins with a snapshot acknowledges nothing by it: with its first sync it says nothing,
// and with the next what it has read itself.
func TestNoAcknowledgementFromASnapshot(t *testing.T) {
	virtual(t, func(t *testing.T) {
		path := snapshotFile(t)
		f := silentFleet(t, keeping(path))
		time.Sleep(2 * time.Minute)
		f.leave()
		var acks []int // how many each sync has
		s := &deceivedStore{Store: f.cluster.Connect("x")}
		s.sync = func(q []rotation.SyncRequest, _ []rotation.SyncReply) {
			n := 0
			for i := range q {
				if q[i].Ack != nil {
					n++
				}
			}
			acks = append(acks, n)
		}
		k := openStore(t, s, derived, cold, keeping(path))
		time.Sleep(30 * time.Second)
		if err := k.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if len(acks) < 3 || acks[0] != 0 || acks[1] != 1 {
			t.Errorf("acknowledgements with each sync: %v", acks)
		}
	})
}

package rotation_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A deceivedStore is a Store whose answers a person in between changes.
type deceivedStore struct {
	rotation.Store
	sync func(requests []rotation.SyncRequest, replies []rotation.SyncReply)
	load func(tenant string, s *rotation.Snapshot)
	acks func([]rotation.RawAck) []rotation.RawAck
}

func (s *deceivedStore) Sync(ctx context.Context, instance string, q []rotation.SyncRequest) []rotation.SyncReply {
	replies := s.Store.Sync(ctx, instance, q)
	if s.sync != nil {
		s.sync(q, replies)
	}
	return replies
}

func (s *deceivedStore) Load(ctx context.Context, tenants []string) []rotation.Snapshot {
	all := s.Store.Load(ctx, tenants)
	for i := range all {
		if s.load != nil {
			s.load(tenants[i], &all[i])
		}
	}
	return all
}

func (s *deceivedStore) Acks(ctx context.Context, bucket int) ([]rotation.RawAck, time.Time, error) {
	all, now, err := s.Store.Acks(ctx, bucket)
	if s.acks != nil && err == nil {
		all = s.acks(all)
	}
	return all, now, err
}

// An instance that has read the entry of a change, and an older ring, has not applied the change.
func TestEntryWithoutItsRingIsNotApplied(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(5 * time.Second)
		two, old := f.kid(2), f.cluster.Ring("acme")
		k := openStore(t, &deceivedStore{
			Store: f.cluster.Connect("x"),
			load:  func(_ string, s *rotation.Snapshot) { s.Fields, s.Digest = maps.Clone(old), "old" },
		}, trusting)
		defer k.Close(context.Background())
		receipt, err := f.rotator.Rotate(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(700 * time.Millisecond)
		s, _ := k.Tenant("acme")
		knows := false
		for _, key := range s.Ring.Keys {
			knows = knows || key.KID == two && key.State == ring.Signing
		}
		acks, err := f.rotator.Acks(t.Context(), receipt)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range acks {
			if a.Instance == "x" && a.Applied && !knows {
				t.Error("x has acknowledged a promotion that it does not know")
			}
		}
	})
}

// What is lost again while a repair is written is put back by the next sync.
func TestLostAgainDuringRepair(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		time.Sleep(5 * time.Second)
		one := f.kid(1)
		if err := errorOf(f.rotator.Revoke(t.Context(), "acme", one)); err != nil {
			t.Fatal(err)
		}
		var armed, struck atomic.Bool
		quiet := &deceivedStore{Store: f.cluster.Connect("x")}
		quiet.sync = func(_ []rotation.SyncRequest, replies []rotation.SyncReply) { replies[0].Changed = nil }
		store := &faultyStore{Store: quiet, wrote: func() {
			if armed.Load() && !struck.Swap(true) {
				f.cluster.EditRing("acme", func(fields map[string][]byte) {
					delete(fields, "x:"+one)
					delete(fields, "x:forged")
				})
			}
		}}
		k := openStore(t, store, trusting)
		defer k.Close(context.Background())
		f.leave()
		foreign := f.cluster.Ring("acme")["x:"+one]
		armed.Store(true)
		f.cluster.EditRing("acme", func(fields map[string][]byte) {
			delete(fields, "head")
			forged := append([]byte(nil), foreign...)
			forged[14] ^= 1 // the name of the KEK
			fields["x:forged"] = forged
		})
		time.Sleep(4 * fast.Freshness)
		if !struck.Load() {
			t.Fatal("nothing was repaired")
		}
		if f.cluster.Ring("acme")["x:"+one] == nil {
			t.Errorf("the revocation is not put back; fresh: %v", k.Status().Fresh)
		}
	})
}

func twoKEKs(t *testing.T) (old, both, swapped, alone *rotation.KEKs) {
	t.Helper()
	a, b := []byte("0123456789abcdef0123456789ABCDEF"), []byte("another KEK, another KEK, anothe")
	make := func(keys ...[]byte) *rotation.KEKs {
		keks, err := rotation.NewKEKs(keys...)
		if err != nil {
			t.Fatal(err)
		}
		return keks
	}
	return make(a), make(a, b), make(b, a), make(b)
}

// Who has an old KEK and can write the store opens no key that is minted after the change of KEKs.
func TestForgedAckKeepsNoOldTenantKey(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		old, both, swapped, alone := twoKEKs(t)
		// An acknowledgement under a KEK that nobody has any longer, as any person can make up.
		_ = old
		if err := f.SetKEKs(both); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := f.SetKEKs(swapped); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if _, _, err := f.rotator.Rekey(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
		if err := f.SetKEKs(alone); err != nil {
			t.Fatal(err)
		}
		var sealed []byte
		spy := &deceivedStore{Store: f.cluster.Connect("spy")}
		spy.sync = func(q []rotation.SyncRequest, _ []rotation.SyncReply) {
			if len(q[0].Ack) > 0 {
				sealed = q[0].Ack
			}
		}
		k := openStore(t, spy, trusting, func(c *rotation.Config) { c.KEKs = alone })
		time.Sleep(time.Second)
		k.Close(context.Background())
		forger := f.cluster.Connect("forger")
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			reply := forger.Sync(t.Context(), "", []rotation.SyncRequest{{Bucket: rotation.BucketOf("acme")}})[0]
			for {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
					b := append([]byte(nil), sealed...)
					ms := uint64(time.Now().UnixMilli())
					for i := range 8 {
						b[4+i] = byte(ms >> (56 - 8*i))
					}
					i := strings.Index(string(b), alone.IDs()[0])
					b[i+len(alone.IDs()[0])] ^= 1 // the check value of the KEK
					r := forger.Sync(t.Context(), "forged", []rotation.SyncRequest{{Bucket: rotation.BucketOf("acme"), Place: reply.Place, Ack: b}})[0]
					reply.Place = r.Place
				}
			}
		}()
		time.Sleep(2 * time.Second)
		if _, err := f.rotator.SetPolicy(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		keys := 0
		for name := range f.cluster.Ring("acme") {
			if strings.HasPrefix(name, "tk:") {
				keys++
			}
		}
		if keys != 2 {
			t.Errorf("there are %d tenant keys, want 2: the new key is under one that the old KEK opens", keys)
		}
		close(stop)
		<-done
	})
}

// SetKEKs refuses KEKs without one that a fact of a ring is under.
func TestSetKEKsKeepsWhatFactsNeed(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		defer f.run()()
		_, both, swapped, alone := twoKEKs(t)
		time.Sleep(5 * time.Second)
		if err := errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(1))); err != nil {
			t.Fatal(err)
		}
		for _, keks := range []*rotation.KEKs{both, swapped} {
			if err := f.SetKEKs(keks); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		time.Sleep(time.Minute) // all keys under the old KEK are collected
		if err := f.SetKEKs(alone); err == nil {
			time.Sleep(10 * time.Second)
			t.Errorf("SetKEKs took away a KEK that the ring needs; then: %v", f.Status().Err)
		}
	})
}

// A change that another instance has put back was undone all the same.
func TestAwaitTellsWhatOthersPutBack(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		b := join(t, f.cluster, "b", trusting)
		defer b.leave()
		time.Sleep(5 * time.Second)
		one := f.kid(1)
		receipt, err := f.rotator.Revoke(t.Context(), "acme", one)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		f.conn.SetFaults(rotationtest.Faults{Before: 200 * time.Millisecond})
		f.cluster.EditRing("acme", func(fields map[string][]byte) { delete(fields, "x:"+one) })
		for f.cluster.Ring("acme")["x:"+one] == nil {
			if err := b.Reload(t.Context(), "acme"); err != nil {
				t.Fatal(err)
			}
		}
		f.conn.SetFaults(rotationtest.Faults{})
		if _, err := f.rotator.Await(t.Context(), receipt); !errors.Is(err, ring.ErrUndone) {
			t.Errorf("Await: %v, want ErrUndone", err)
		}
	})
}

// Who removes all acknowledgements does not end the watch of a command early.
func TestAwaitWithoutAcks(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		time.Sleep(5 * time.Second)
		one := f.kid(1)
		store := &deceivedStore{Store: f.cluster.Connect("command")}
		hidden := time.Now().Add(500 * time.Millisecond)
		store.acks = func(all []rotation.RawAck) []rotation.RawAck {
			if time.Now().Before(hidden) {
				return nil
			}
			return all
		}
		k := openStore(t, store, func(c *rotation.Config) { c.OneShot, c.Instance = true, "command" })
		defer k.Close(context.Background())
		r, err := rotation.NewRotator(k)
		if err != nil {
			t.Fatal(err)
		}
		receipt, err := r.Revoke(t.Context(), "acme", one)
		if err != nil {
			t.Fatal(err)
		}
		acks, err := r.Await(t.Context(), receipt)
		if err == nil && len(acks) == 0 {
			t.Error("Await returned with no acknowledgement although an instance is live")
		}
	})
}

// An entry of the log that is in the wrong bucket does not concern the ring.
func TestEntryInAnotherBucket(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		store := &deceivedStore{Store: f.cluster.Connect("x")}
		other := "globex"
		if rotation.BucketOf(other) == rotation.BucketOf("acme") {
			t.Fatal("the same bucket")
		}
		store.sync = func(q []rotation.SyncRequest, replies []rotation.SyncReply) {
			for i := range q {
				if q[i].Bucket == rotation.BucketOf(other) {
					replies[i].Changed = append(replies[i].Changed, rotation.LogEntry{Op: "list", Tenant: "acme"})
				}
			}
		}
		k := openStore(t, store, trusting, of("acme", other))
		defer k.Close(context.Background())
		var late time.Duration
		for range 100 {
			time.Sleep(50 * time.Millisecond)
			s, _ := k.Tenant("acme")
			late = max(late, time.Since(s.LastGood))
		}
		if late > 400*time.Millisecond {
			t.Errorf("the last good sync was up to %v ago", late)
		}
	})
}

// A tenant's name that the store lists again was lost, and only a fault of the store or a person who
// writes to it loses one. That is an alarm; the list of a bucket that is read afresh is none.
func TestListedAgainIsAnAlarm(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		store := &deceivedStore{Store: f.cluster.Connect("x")}
		var once atomic.Bool
		store.sync = func(q []rotation.SyncRequest, replies []rotation.SyncReply) {
			for i := range q {
				if q[i].Bucket == rotation.BucketOf("acme") && once.CompareAndSwap(true, false) {
					replies[i].Changed = append(replies[i].Changed, rotation.LogEntry{Op: "list", Tenant: "acme", Actor: "another"})
				}
			}
		}
		k := openStore(t, store, trusting, func(c *rotation.Config) { c.Tenants = nil })
		defer k.Close(context.Background())
		time.Sleep(time.Second)
		if got := k.Status().Counts.Older; got != 0 {
			t.Errorf("before: %d alarms", got)
		}
		once.Store(true)
		time.Sleep(time.Second)
		if got := k.Status().Counts.Older; got != 1 {
			t.Errorf("after a name was listed again: %d alarms, want 1", got)
		}
	})
}

// A ring that was removed and made again, as docs/operations.md says, raises no alarm.
func TestRingIsMadeAgain(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		time.Sleep(5 * time.Second)
		if err := errorOf(f.rotator.Revoke(t.Context(), "acme", f.kid(1))); err != nil {
			t.Fatal(err)
		}
		f.leave()
		f.cluster.DeleteRing("acme")
		create(t, f.cluster, "acme", fast)
		a := join(t, f.cluster, "a")
		defer a.leave()
		time.Sleep(10 * time.Second)
		if n := a.Status().Counts.Undone; n != 0 {
			t.Errorf("%d alarms of a revocation of the ring that was removed", n)
		}
	})
}

// A ring that is not made, because a live instance lacks the KEK, is not passed over in silence.
func TestBootstrapSaysWhyNot(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		_, _, _, alone := twoKEKs(t)
		other := join(t, cluster, "other", trusting, func(c *rotation.Config) { c.KEKs = alone })
		defer other.leave()
		var log strings.Builder
		m := join(t, cluster, "m", trusting, func(c *rotation.Config) {
			c.AllowBootstrap, c.Policy = true, fast
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		stop := m.run()
		time.Sleep(time.Minute)
		stop()
		m.leave()
		if len(cluster.Tenants()) != 0 {
			t.Fatal("a ring was made")
		}
		if !strings.Contains(log.String(), "acme") {
			t.Errorf("nothing says why no ring was made: %s", &log)
		}
	})
}

package rotationtest_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A scene is a Cluster with one connection.
type scene struct {
	t *testing.T
	*rotationtest.Cluster
	conn *rotationtest.Conn
}

func inBubble(t *testing.T, play func(s scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := rotationtest.NewCluster(rotationtest.ClusterConfig{Seed: 1})
		play(scene{t, c, c.Connect("i")})
	})
}

// set writes one field of the tenant's ring.
func (s scene) set(conn *rotationtest.Conn, value string) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	digest := conn.Load(s.t.Context(), []string{tenant})[0].Digest
	_, err := conn.Write(ctx, rotation.Change{Tenant: tenant, If: digest, Nonce: rand.Text(), Set: map[string][]byte{"f": []byte(value)}})
	return err
}

func (s scene) want(conn *rotationtest.Conn, value string) {
	s.t.Helper()
	if got := string(conn.Ring(tenant)["f"]); got != value {
		s.t.Errorf("the ring has %q, want %q", got, value)
	}
}

func (s scene) sync(place rotation.Place) rotation.SyncReply {
	ack := binary.BigEndian.AppendUint64([]byte("kt\x01A"), uint64(time.Now().UnixMilli()))
	return s.conn.Sync(s.t.Context(), "i", []rotation.SyncRequest{{Bucket: rotation.BucketOf(tenant), Place: place, Ack: ack}})[0]
}

func TestFailoverLosesNewWrites(t *testing.T) {
	inBubble(t, func(s scene) {
		s.set(s.conn, "old")
		time.Sleep(time.Second)
		old := s.sync(rotation.Place{}).Place
		s.sync(old)
		time.Sleep(time.Second)
		s.set(s.conn, "new")
		newest := s.sync(old).Place
		s.sync(newest)
		s.Failover(500 * time.Millisecond)
		s.want(s.conn, "old")
		if r := s.sync(newest); !r.Resync || r.Place != old {
			t.Errorf("after the failover: %+v, want Resync, and the old place", r)
		}
		acks, _, _ := s.conn.Acks(s.t.Context(), rotation.BucketOf(tenant))
		if len(acks) != 1 || binary.BigEndian.Uint64(acks[0].Sealed[4:]) != uint64(time.Now().Add(-time.Second).UnixMilli()) {
			t.Errorf("after the failover: %q, want the old acknowledgement", acks)
		}
		s.set(s.conn, "other")
		if again := s.sync(old); again.Place == newest || again.Place.Nonce == newest.Nonce {
			t.Error("the same place in two lives")
		}
	})
}

func TestWipeAndDump(t *testing.T) {
	inBubble(t, func(s scene) {
		s.set(s.conn, "old")
		dump := s.Dump()
		s.set(s.conn, "new")
		s.Wipe()
		s.want(s.conn, "")
		if acks, _, _ := s.conn.Acks(s.t.Context(), rotation.BucketOf(tenant)); len(acks) > 0 {
			t.Errorf("after the wipe: %+v", acks)
		}
		s.Restore(dump)
		s.want(s.conn, "old")
	})
}

func TestSplit(t *testing.T) {
	for _, minReplicas := range []bool{true, false} {
		inBubble(t, func(s scene) {
			other := s.Connect("other")
			s.set(s.conn, "before")
			time.Sleep(time.Second)
			s.Split(0, minReplicas, s.conn)
			if err := s.set(s.conn, "minority"); (err != nil) != minReplicas {
				t.Errorf("min-replicas %v: writing to the old primary: %v", minReplicas, err)
			}
			if r := s.sync(s.sync(rotation.Place{}).Place); (r.Err != nil) != minReplicas {
				t.Errorf("min-replicas %v: acknowledging to the old primary: %v", minReplicas, r.Err)
			}
			s.SetReadOnlyAt(s.conn, true)
			if err := s.set(s.conn, "later"); err == nil {
				t.Errorf("min-replicas %v: the old primary still takes writes", minReplicas)
			}
			s.set(other, "majority")
			s.want(other, "majority")
			s.Heal()
			s.want(s.conn, "majority")
		})
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name    string
		faults  rotationtest.Faults
		took    time.Duration
		made    string // after the call
		later   string // a second later
		succeed bool
	}{
		{name: "none", made: "new", later: "new", succeed: true},
		{name: "refused", faults: rotationtest.Faults{Cut: rotationtest.Refused}},
		{name: "black hole", faults: rotationtest.Faults{Cut: rotationtest.BlackHole}, took: time.Second},
		{name: "no writes", faults: rotationtest.Faults{ReadOnly: true}},
		{name: "lost request", faults: rotationtest.Faults{LoseRequest: 1}},
		{name: "lost reply", faults: rotationtest.Faults{LoseReply: 1}, made: "new", later: "new"},
		{name: "slow", faults: rotationtest.Faults{Before: 300 * time.Millisecond, After: 300 * time.Millisecond}, took: 600 * time.Millisecond, made: "new", later: "new", succeed: true},
		{name: "too slow a reply", faults: rotationtest.Faults{Before: 600 * time.Millisecond, After: 600 * time.Millisecond}, took: time.Second, made: "new", later: "new"},
		{name: "too slow a request", faults: rotationtest.Faults{Before: 1500 * time.Millisecond}, took: time.Second, later: "new"},
		{name: "its server is away", faults: rotationtest.Faults{LostBuckets: func(int) bool { return true }}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(s scene) {
				s.conn.SetFaults(tt.faults)
				ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				_, err := s.conn.Write(ctx, rotation.Change{Tenant: tenant, Nonce: "n", Set: map[string][]byte{"f": []byte("new")}})
				if took := time.Since(start); (err == nil) != tt.succeed || took != tt.took {
					t.Errorf("it ended with %v after %v", err, took)
				}
				s.want(s.conn, tt.made)
				time.Sleep(time.Second)
				s.want(s.conn, tt.later)
			})
		})
	}
}

// The store's clock stands still while the server's clock goes back.
func TestAdvance(t *testing.T) {
	inBubble(t, func(s scene) {
		s.Advance(time.Hour)
		s.set(s.conn, "1")
		ahead := s.sync(rotation.Place{}).Now
		s.Advance(-2 * time.Hour)
		s.set(s.conn, "2")
		if r := s.sync(rotation.Place{}); r.Now.Before(ahead) || time.Until(ahead) != time.Hour {
			t.Errorf("the clock says %v, then %v", ahead, r.Now)
		}
	})
}

// A bound includes both of its ends.
func TestBoundsIncludeTheirEnds(t *testing.T) {
	inBubble(t, func(s scene) {
		now := time.Now()
		for _, tt := range []struct {
			at   time.Duration
			want rotation.Code
		}{{-1001, rotation.OutOfBounds}, {-1000, rotation.Committed}, {2000, rotation.Committed}, {2001, rotation.OutOfBounds}} {
			bound := ring.Bound{At: now.Add(tt.at * time.Millisecond), From: -time.Second, To: 2 * time.Second}
			digest := s.conn.Load(s.t.Context(), []string{tenant})[0].Digest
			r, err := s.conn.Write(s.t.Context(), rotation.Change{Tenant: tenant, If: digest, Bounds: []ring.Bound{bound}, Nonce: rand.Text(), Set: map[string][]byte{"f": nil}})
			if err != nil || r.Code != tt.want {
				t.Errorf("%dms: the code is %d, want %d (%v)", tt.at, r.Code, tt.want, err)
			}
		}
	})
}

func TestNudges(t *testing.T) {
	for _, tt := range []struct {
		name   string
		faults rotationtest.Faults
		forge  bool
		want   int
	}{
		{"one for each change", rotationtest.Faults{}, false, 3},
		{"lost", rotationtest.Faults{LoseNudge: 1}, false, 0},
		{"doubled", rotationtest.Faults{DoubleNudge: 1}, false, 6},
		{"late", rotationtest.Faults{DelayNudge: time.Second}, false, 3},
		{"forged", rotationtest.Faults{LoseNudge: 1}, true, 1},
		{"cut off", rotationtest.Faults{Cut: rotationtest.BlackHole}, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(s scene) {
				ctx, cancel := context.WithCancel(s.t.Context())
				heard := 0
				done := make(chan struct{})
				go func() {
					defer close(done)
					s.conn.Listen(ctx, func(int) { heard++ })
				}()
				synctest.Wait()
				s.conn.SetFaults(tt.faults)
				writer := s.Connect("writer")
				for _, value := range []string{"1", "2", "3"} {
					s.set(writer, value)
					time.Sleep(10 * time.Millisecond)
				}
				if tt.forge {
					s.conn.Forge(1)
				}
				time.Sleep(2 * time.Second)
				cancel()
				<-done
				if heard != tt.want {
					t.Errorf("heard of %d changes, want %d", heard, tt.want)
				}
			})
		})
	}
}

package rediskeys_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
)

func TestOldAcksAreRemoved(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	at := begin(t, s)
	now := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Place: at}).Now
	ack := func(age time.Duration) string {
		ms := now.Add(-age).UnixMilli()
		return fmt.Sprintf("%s %s %d %d", at.ID, at.Nonce, ms, ms)
	}
	plant := func() {
		do(t, server, "HSET", key("ack"), "old", ack(24*time.Hour+time.Minute), "younger", ack(24*time.Hour-time.Minute), "garbage", "x")
	}
	names := func() []string {
		names := server.Client().HKeys(t.Context(), key("ack")).Val()
		slices.Sort(names)
		return names
	}
	want := []string{"me", "younger"}
	plant()
	if r := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Place: at, VouchWithin: 48 * time.Hour, VouchFor: time.Hour}); !r.Vouched || !slices.Equal(names(), want) {
		t.Errorf("after Sync: vouched %v, acknowledgements of %q, want %q", r.Vouched, names(), want)
	}
	plant()
	if acks, err := s.Acks(t.Context(), bucket, at); err != nil || len(acks) != 2 || !slices.Equal(names(), want) {
		t.Errorf("after Acks: %+v, error %v, acknowledgements of %q, want %q", acks, err, names(), want)
	}
}

// If Redis loses only the log, the acknowledgements of the lost log go with it.
func TestLostLogClearsAcks(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	at := begin(t, s)
	sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Place: at})
	do(t, server, "DEL", key("log"))
	r := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Place: at})
	if !r.Resync || r.Place == at {
		t.Errorf("Sync: %+v", r)
	}
	if acks, err := s.Acks(t.Context(), bucket, r.Place); err != nil || len(acks) != 0 {
		t.Errorf("Acks: %+v, error %v", acks, err)
	}
}

// An acknowledgement ahead of Redis' clock was forged, or stored while the clock was wrong. It
// does not vouch, and Acks does not return it.
func TestAcksAheadOfClock(t *testing.T) {
	server, s := running(t)
	place := begin(t, s)
	ahead := time.Now().Add(time.Hour).UnixMilli()
	forge := func() {
		for name, at := range map[string]int64{"hour": ahead, "ever": 1<<63 - 1} {
			value := fmt.Sprintf("%s %s 1 %d", place.ID, place.Nonce, at)
			if err := server.Client().HSet(t.Context(), key("ack"), name, value).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	forge()
	r := sync1(t, s, "", rotation.SyncRequest{Bucket: bucket, VouchWithin: 2 * time.Hour, VouchFor: time.Second})
	if r.Vouched {
		t.Error("it vouches")
	}
	acks, err := s.Acks(deadline(t, 10*time.Second), bucket, place)
	if err != nil || len(acks) > 0 {
		t.Errorf("%+v, %v", acks, err)
	}
	forge()
	sync1(t, s, "i", rotation.SyncRequest{Bucket: bucket, Place: place, VouchWithin: time.Second})
	if n, err := server.Client().HLen(t.Context(), key("ack")).Result(); n != 1 || err != nil {
		t.Errorf("%d acknowledgements are left, %v", n, err)
	}
}

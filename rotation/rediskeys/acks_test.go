package rediskeys_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// acksOf returns the instances whose acknowledgements Acks returns.
func acksOf(t *testing.T, s *rediskeys.Store) []string {
	t.Helper()
	acks, _, err := s.Acks(deadline(t, 10*time.Second), bucket)
	if err != nil {
		t.Fatal(err)
	}
	return instances(acks)
}

func instances(acks []rotation.RawAck) []string {
	var names []string
	for _, a := range acks {
		names = append(names, a.Instance)
	}
	return names
}

// stored returns the instances whose acknowledgements Redis has.
func stored(t *testing.T, server *redistest.Server) []string {
	t.Helper()
	names, err := server.Client().HKeys(t.Context(), key("ack")).Result()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// What is old, ahead of the clock or malformed is not returned, and is removed by whoever reads the
// acknowledgements. What a newer version sealed stays.
func TestUselessAcksAreRemoved(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	at := begin(t, s)
	plant := func() {
		do(t, server, "HSET", key("ack"), "old", ack("", 24*time.Hour+time.Minute), "younger", ack("", 24*time.Hour-time.Minute),
			"a little ahead", ack("", -59*time.Minute), "ahead", ack("", -61*time.Minute), "ever", "kt\x01A\xff\xff\xff\xff\xff\xff\xff\xff",
			"never", "kt\x01A\x00\x00\x00\x00\x00\x00\x00\x00", "short", "kt\x01A\x00", "empty", "", "magic", "k", "version 0", "kt\x00A12345678",
			"another kind", strings.Replace(string(ack("", 0)), "A", "F", 1), "text", "1-0 n 0 1", "newer", "kt\x02", "newest", "kt\xffwhat",
			"large", ack(strings.Repeat("x", 8192-11), 0), "largest", ack(strings.Repeat("x", 8192-12), 0),
			strings.Repeat("n", 257), ack("", 0))
	}
	want := []string{"a little ahead", "largest", "me", "newer", "newest", "younger"}
	plant()
	r := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Place: at, Ack: ack("", 0), Acks: true})
	if got := instances(r.Acks); !slices.Equal(got, want) || !slices.Equal(stored(t, server), want) {
		t.Errorf("Sync: %.100q, and %.100q are stored; want %q", got, stored(t, server), want)
	}
	plant()
	if got := acksOf(t, s); !slices.Equal(got, want) || !slices.Equal(stored(t, server), want) {
		t.Errorf("Acks: %.100q, and %.100q are stored; want %q", got, stored(t, server), want)
	}
	plant()
	if r := sync1(t, s, "", rotation.SyncRequest{Bucket: bucket, Acks: true}); !slices.Equal(instances(r.Acks), want) || len(stored(t, server)) < 10 {
		t.Errorf("Sync without an instance: %.100q; it must remove nothing", instances(r.Acks))
	}
}

// Acknowledgements that a person has dated ahead take the place of none that an instance has just made.
func TestAcksDatedAheadHideNone(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	at := begin(t, s)
	args := []any{"HSET", key("ack"), "other", ack("", 30*time.Second)}
	for i := range 5000 {
		args = append(args, fmt.Sprintf("ahead %04d", i), ack("", -50*time.Minute))
	}
	do(t, server, args...)
	r := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Place: at, Ack: ack("", 0), Acks: true})
	if got := instances(r.Acks); len(got) != 64 || !slices.Contains(got, "me") || !slices.Contains(got, "other") {
		t.Errorf("Sync: %q", got)
	}
	if got := acksOf(t, s); len(got) != 4096 || !slices.Contains(got, "me") || !slices.Contains(got, "other") {
		t.Errorf("Acks: %d", len(got))
	}
}

// A bucket keeps the 4096 acknowledgements whose dates are nearest, and at most a thousand are removed by one
// call.
func TestBucketKeepsSoManyAcks(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	begin(t, s)
	const n = 6000
	args := []any{"HSET", key("ack")}
	for i := range n {
		args = append(args, fmt.Sprintf("%04d", i), ack("", time.Duration(n-i)*time.Second))
	}
	do(t, server, args...)
	if r := sync1(t, s, "", rotation.SyncRequest{Bucket: bucket, Acks: true}); len(r.Acks) != 64 {
		t.Errorf("Sync: %d acknowledgements, want 64", len(r.Acks))
	}
	for _, want := range []int{5000, 4096, 4096} {
		names := acksOf(t, s)
		if len(names) != 4096 || names[0] != "1904" || len(stored(t, server)) != want {
			t.Errorf("Acks: %d from %s on, and %d are stored; want 4096 from 1904 on, and %d", len(names), names[0], len(stored(t, server)), want)
		}
	}
}

// If Redis loses only the log, the acknowledgements of the lost log go with it.
func TestLostLogClearsAcks(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	at := begin(t, s)
	q := rotation.SyncRequest{Bucket: bucket, Place: at, Ack: ack("", 0), Acks: true}
	sync1(t, s, "me", q)
	do(t, server, "DEL", key("log"))
	r := sync1(t, s, "me", q)
	if !r.Resync || r.Place == at || len(r.Acks) > 0 {
		t.Errorf("Sync: %+v", r)
	}
	if acks := acksOf(t, s); len(acks) != 0 {
		t.Errorf("Acks: %q", acks)
	}
}

// What the scripts would not return again is refused before it is written.
func TestOversizedAcksAreRefused(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	_, s := running(t)
	at := begin(t, s)
	for _, tt := range []struct {
		instance string
		ack      []byte
		ok       bool
	}{
		{strings.Repeat("n", 256), ack(strings.Repeat("x", 8192-12), 0), true},
		{strings.Repeat("n", 257), ack("", 0), false},
		{"me", ack(strings.Repeat("x", 8192-11), 0), false},
	} {
		r := s.Sync(t.Context(), tt.instance, []rotation.SyncRequest{{Bucket: bucket, Place: at, Ack: tt.ack, Acks: true}})[0]
		if (r.Err == nil) != tt.ok || tt.ok && len(r.Acks) != 1 {
			t.Errorf("a name of %d bytes, an acknowledgement of %d: error %v", len(tt.instance), len(tt.ack), r.Err)
		}
	}
}

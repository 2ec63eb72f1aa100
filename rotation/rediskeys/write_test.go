package rediskeys_test

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
)

// The newest log entry lies in the future, so the store's clock stands still, and both ends of a
// bound can be tested to the millisecond.
func TestBoundsToMillisecond(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	now := time.UnixMilli(time.Now().Add(time.Hour).UnixMilli())
	do(t, server, "XADD", key("log"), fmt.Sprintf("%d-0", now.UnixMilli()), "nonce", "n")
	const ms = time.Millisecond
	for _, tt := range []struct {
		at       time.Time
		from, to time.Duration
		want     rotation.Code
	}{
		{now, 0, 0, rotation.Committed},
		{now.Add(ms), ms, ms, rotation.Committed},
		{now.Add(ms), 0, 0, rotation.OutOfBounds},
		{now.Add(-ms), 0, time.Hour, rotation.OutOfBounds},
		{now.Add(-ms), -ms, -ms, rotation.Committed},
		{now.Add(5 * ms), 5*ms + 1, time.Hour, rotation.OutOfBounds},
		{now.Add(5 * ms), 0, 5*ms - 1, rotation.OutOfBounds},
		{now.Add(-5 * ms), -5*ms - 1, 0, rotation.Committed},
		{time.Time{}, -1 << 63, 0, rotation.OutOfBounds},
		{now, -1 << 63, 1<<63 - 1, rotation.Committed},
	} {
		hash := s.Load(t.Context(), []string{tenant})[0]
		r := write(t, s, rotation.Change{Tenant: tenant, If: hash.Digest, Bounds: []ring.Bound{{At: tt.at, From: tt.from, To: tt.to}}})
		if r.Code != tt.want || !r.Now.Equal(now) {
			t.Errorf("%v after now, from %v to %v: %+v, want code %d", tt.at.Sub(now), tt.from, tt.to, r, tt.want)
		}
	}
}

// A change may have more fields than Lua can pass to one command.
func TestLargeChange(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	fields := make(map[string][]byte)
	var names []string
	for i := range 9000 {
		name := "f" + strconv.Itoa(i)
		names = append(names, name)
		fields[name] = []byte(name)
	}
	r := write(t, s, rotation.Change{Tenant: tenant, Set: fields})
	if got := s.Load(t.Context(), []string{tenant})[0]; got.Err != nil || len(got.Fields) != len(fields) || got.Digest != r.Digest {
		t.Fatalf("%d fields, digest %s, error %v; want %d, %s", len(got.Fields), got.Digest, got.Err, len(fields), r.Digest)
	}
	r = write(t, s, rotation.Change{Tenant: tenant, If: r.Digest, Delete: names})
	if n := server.Client().Exists(t.Context(), key("ring:"+tenant)).Val(); n != 0 || r.Digest != "" {
		t.Errorf("the ring is there, with digest %q", r.Digest)
	}
	if n := server.Client().SCard(t.Context(), key("tenants")).Val(); n != 0 {
		t.Error("a tenant without a ring is among the tenants")
	}
}

// A field that a change both sets (or publishes) and deletes is set.
func TestSetAndDelete(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	_, s := running(t)
	set(t, s, tenant, "only", "1")
	now := s.Load(t.Context(), []string{tenant})[0]
	r := write(t, s, rotation.Change{
		Tenant: tenant, If: now.Digest, Delete: []string{"only", "p:a"}, Set: map[string][]byte{"only": []byte("2")}, Publish: []string{"a"},
	})
	got := s.Load(t.Context(), []string{tenant})[0].Fields
	if len(got) != 2 || string(got["only"]) != "2" || string(got["p:a"]) != strconv.FormatInt(r.Now.UnixMilli(), 10) {
		t.Errorf("fields %q", got)
	}
}

// 64 writers race on one ring. For each state of the ring exactly one of them commits.
func TestOneCommitForEachDigest(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	stores := make([]*rediskeys.Store, 8)
	for i := range stores {
		stores[i] = open(t, "redis://"+server.Addr())
	}
	digest := ""
	for round := range 20 {
		var won atomic.Int64
		var next atomic.Value
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				r, err := stores[i%len(stores)].Write(t.Context(), rotation.Change{
					Tenant: tenant, Nonce: rand.Text(), If: digest, Set: map[string][]byte{"by": []byte(fmt.Sprint(round, i))},
				})
				switch {
				case err != nil:
					t.Error(err)
				case r.Code == rotation.Committed:
					won.Add(1)
					next.Store(r.Digest)
				case r.Code != rotation.Conflict:
					t.Errorf("code %d", r.Code)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("round %d: %d commits, want 1", round, won.Load())
		}
		digest = next.Load().(string)
	}
	if n := server.Client().XLen(t.Context(), key("log")).Val(); n != 20 {
		t.Errorf("%d entries in the log, want 20", n)
	}
}

// If the client sent a change again after the connection broke, the answer would be a conflict,
// although the change was made.
func TestWriteIsSentOnce(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	proxy := redistest.RunProxy(t, server.Addr())
	lossy := open(t, "redis://"+proxy.Addr())
	hash := set(t, lossy, tenant, "f", "1")
	proxy.HoldReplies()
	done := make(chan error, 1)
	go func() {
		r, err := lossy.Write(t.Context(), rotation.Change{Tenant: tenant, Nonce: rand.Text(), If: hash.Digest, Set: map[string][]byte{"f": []byte("2")}})
		if err == nil {
			err = fmt.Errorf("code %d", r.Code)
		}
		done <- err
	}()
	for s.Load(t.Context(), []string{tenant})[0].Digest == hash.Digest { // waits for another process
		time.Sleep(time.Millisecond)
	}
	proxy.Cut()
	proxy.Heal()
	wantErr(t, "Write", <-done, rediskeys.ErrUnreachable)
	if n := server.Client().XLen(t.Context(), key("log")).Val(); n != 2 {
		t.Errorf("%d entries in the log, want 2", n)
	}
	if got := lossy.Load(t.Context(), []string{tenant})[0]; got.Err != nil || string(got.Fields["f"]) != "2" {
		t.Errorf("a load does not show the change: %+v", got)
	}
}

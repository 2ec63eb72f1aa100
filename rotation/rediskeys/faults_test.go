package rediskeys_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// calls returns one of each method. at is a place that the store has, or not.
func calls(ctx context.Context, s *rediskeys.Store, at rotation.Place) map[string]func() error {
	return map[string]func() error{
		"Sync": func() error {
			return s.Sync(ctx, "me", []rotation.SyncRequest{{Bucket: bucket, Place: at}})[0].Err
		},
		"Sync without an instance": func() error {
			return s.Sync(ctx, "", []rotation.SyncRequest{{Bucket: bucket, Place: at}})[0].Err
		},
		"Load":    func() error { return s.Load(ctx, []string{tenant})[0].Err },
		"Tenants": func() error { _, err := s.Tenants(ctx, []int{bucket}); return err },
		"Write": func() error {
			_, err := s.Write(ctx, rotation.Change{Tenant: tenant, Set: map[string][]byte{"f": nil}})
			return err
		},
		"Acks":   func() error { _, err := s.Acks(ctx, bucket, at); return err },
		"Forget": func() error { return s.Forget(ctx, "me", []int{bucket}) },
	}
}

// wantErr checks that an error is of a kind, and one sentence that says so.
func wantErr(t *testing.T, what string, err, kind error) {
	t.Helper()
	switch {
	case !errors.Is(err, kind):
		t.Errorf("%s: error %v, want %v", what, err, kind)
	case !strings.HasPrefix(err.Error(), "rediskeys: ") || !strings.Contains(err.Error(), kind.Error()) || strings.Contains(err.Error(), "\n"):
		t.Errorf("%s: the error is not one line that says what is wrong: %q", what, err)
	}
}

// An old connection, or a wrong address, leads to a replica.
func TestReplicaIsRefused(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	p := redistest.RunPair(t, redistest.Options{})
	primary, replica := open(t, "redis://"+p.Primary.Addr()), open(t, "redis://"+p.Replica.Addr())
	at := begin(t, primary)
	set(t, primary, tenant, "f", "1")
	if err := p.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls(t.Context(), replica, at) {
		wantErr(t, name, call(), rediskeys.ErrReplica)
	}
}

func TestMinReplicas(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	p := redistest.RunPair(t, redistest.Options{Args: []string{"--min-replicas-to-write", "1", "--min-replicas-max-lag", "10"}})
	s := open(t, "redis://"+p.Primary.Addr())
	at := begin(t, s)
	ring := set(t, s, tenant, "f", "1")
	p.Replica.Kill()
	for { // for another process: the primary has to notice
		if info := p.Primary.Client().Info(t.Context(), "replication").Val(); strings.Contains(info, "connected_slaves:0") {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	refused := calls(t.Context(), s, at)
	delete(refused, "Write")
	refused["Write"] = func() error {
		_, err := s.Write(t.Context(), rotation.Change{Tenant: tenant, If: ring.Digest, Set: map[string][]byte{"f": nil}, Delete: []string{"g"}})
		return err
	}
	for name, call := range refused {
		switch name {
		case "Sync", "Write", "Forget":
			wantErr(t, name, call(), rediskeys.ErrNoReplicas)
		default:
			if err := call(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if n := p.Primary.Client().XLen(t.Context(), key("log")).Val(); n != 2 {
		t.Errorf("%d entries in the log, want 2: a change that was refused left one", n)
	}
	if got := s.Load(t.Context(), []string{tenant})[0]; got.Err != nil || got.Digest != ring.Digest {
		t.Errorf("a change that was refused left something: %+v", got)
	}
}

func TestWrongType(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	all := []string{"Sync", "Sync without an instance", "Load", "Tenants", "Write", "Acks", "Forget"}
	for k, want := range map[string][]string{
		"ring:" + tenant: {"Load", "Write"},
		"log":            {"Sync", "Sync without an instance", "Load", "Write", "Acks"},
		"tenants":        {"Tenants", "Write"},
		"ack":            {"Sync", "Acks", "Forget"},
	} {
		flush(t, server)
		at := begin(t, s)
		do(t, server, "DEL", key(k))
		do(t, server, "SET", key(k), "text")
		methods := calls(t.Context(), s, at)
		for _, name := range all {
			err, wrong := methods[name](), false
			for _, w := range want {
				wrong = wrong || w == name
			}
			switch {
			case wrong:
				wantErr(t, k+": "+name, err, rediskeys.ErrWrongType)
			case err != nil:
				t.Errorf("%s: %s: %v", k, name, err)
			}
		}
		if n := server.Client().Exists(t.Context(), key("ring:"+tenant)).Val(); k == "tenants" && n != 0 {
			t.Errorf("%s: Write failed and made a ring", k)
		}
	}
}

// One ring that cannot be read says nothing about the others.
func TestWrongTypeIsOfOneTenant(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	var same string // of the same bucket
	for i := 0; rotation.BucketOf(same) != bucket; i++ {
		same = fmt.Sprint("other", i)
	}
	digest := set(t, s, same, "f", "1").Digest
	do(t, server, "SET", key("ring:"+tenant), "text")
	got := s.Load(t.Context(), []string{same, tenant, "elsewhere"})
	wantErr(t, "Load", got[1].Err, rediskeys.ErrWrongType)
	if got[0].Err != nil || got[0].Digest != digest || got[2].Err != nil {
		t.Errorf("Load: %+v", got)
	}
	r := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Digests: []string{same, tenant}})
	if r.Digests[0] != digest || r.Digests[1] == "" || len(r.Digests[1]) == len(digest) {
		t.Errorf("Sync: digests %q: that of a key of another type must equal none, and not be absent", r.Digests)
	}
}

func TestFull(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	at := begin(t, s)
	ring := set(t, s, tenant, "f", "1")
	do(t, server, "CONFIG", "SET", "maxmemory", "1")
	_, err := s.Write(t.Context(), rotation.Change{Tenant: tenant, If: ring.Digest, Set: map[string][]byte{"f": nil}, Delete: []string{"g"}})
	wantErr(t, "Write", err, rediskeys.ErrFull)
	wantErr(t, "Sync", s.Sync(t.Context(), "me", []rotation.SyncRequest{{Bucket: bucket, Place: at}})[0].Err, rediskeys.ErrFull)
	if got := s.Load(t.Context(), []string{tenant})[0]; got.Err != nil || got.Digest != ring.Digest {
		t.Errorf("a change that was refused left something: %+v", got)
	}
}

func TestBusy(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t, "--busy-reply-threshold", "20")
	at := begin(t, s)
	ended := make(chan error, 1)
	busy := connect(t, "redis://"+server.Addr())
	go func() { ended <- busy.Eval(t.Context(), "while true do end", nil).Err() }()
	for server.Client().Ping(t.Context()).Err() == nil { // for another process
		time.Sleep(5 * time.Millisecond)
	}
	for name, call := range calls(t.Context(), s, at) {
		wantErr(t, name, call(), rediskeys.ErrBusy)
	}
	do(t, server, "SCRIPT", "KILL")
	if err := <-ended; err == nil {
		t.Error("the script has not been killed")
	}
}

// What the servers of tests do not say at will.
func TestErrorsOfTheServer(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	s := open(t, "redis://"+m.Addr())
	for text, kind := range map[string]error{
		"LOADING Redis is loading the dataset in memory":                                                                                 rediskeys.ErrLoading,
		"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.":                                               rediskeys.ErrReplica,
		"ERR Error running script (call to f_0): @user_script:3: @user_script: 3: -READONLY You can't write against a read only replica": rediskeys.ErrReplica,
		"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.":                               rediskeys.ErrNotSaved,
		"CLUSTERDOWN Hash slot not served":                                                                                               rediskeys.ErrClusterDown,
		"MOVED 1 127.0.0.1:1":                                                                                                            rediskeys.ErrClusterDown,
		"CROSSSLOT Keys in request don't hash":                                                                                           rediskeys.ErrClusterDown,
		"NOAUTH Authentication required.":                                                                                                rediskeys.ErrNoAuth,
		"ERR unknown command `EVALSHA`, with args":                                                                                       rediskeys.ErrUnsupported,
		"NOPERM this user has no permissions to run the":                                                                                 rediskeys.ErrNoPermission,
	} {
		m.SetError(text)
		for name, call := range calls(deadline(t, 5*time.Second), s, rotation.Place{}) {
			wantErr(t, name, call(), kind)
		}
	}
	m.SetError("TASK BUSYKEY is nothing that we know")
	if err := s.Load(t.Context(), []string{tenant})[0].Err; err == nil || errors.Is(err, rediskeys.ErrClusterDown) || errors.Is(err, rediskeys.ErrBusy) {
		t.Errorf("error %v", err)
	}
}

func TestPassword(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	do(t, server, "ACL", "SETUSER", "default", "on", ">right", "allkeys", "allchannels", "allcommands")
	for _, url := range []string{"redis://", "redis://:s3cr3t@", "redis://nobody:s3cr3t@"} {
		for name, call := range calls(t.Context(), open(t, url+server.Addr()), rotation.Place{}) {
			err := call()
			wantErr(t, url+": "+name, err, rediskeys.ErrNoAuth)
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error shows the password: %v", err)
			}
		}
	}
	begin(t, open(t, "redis://:right@"+server.Addr()))
}

// documented are the rights that the package's documentation names.
var documented = []any{
	"~kt:*", "&kt:*", "+eval", "+evalsha", "+time", "+hgetall", "+hset", "+hdel", "+sadd", "+srem", "+sismember", "+smembers", "+del",
	"+xadd", "+xrange", "+xrevrange", "+publish", "+subscribe", "+ping",
}

func TestDocumentedRightsAreEnough(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	do(t, server, append([]any{"ACL", "SETUSER", "keyturn", "on", ">right"}, documented...)...)
	rotationtest.TestStore(t, func(t *testing.T) rotation.Store {
		flush(t, server)
		return open(t, "redis://keyturn:right@"+server.Addr())
	})
}

// A script is not undone: whoever may do half of it does nothing.
func TestMissingRights(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, admin := running(t)
	ring := set(t, admin, tenant, "f", "1")
	for _, missing := range []string{"xadd", "hset", "hdel", "sadd", "srem", "hgetall", "time", "evalsha"} {
		args := append([]any{"ACL", "SETUSER", "keyturn", "reset", "on", ">right"}, documented...)
		do(t, server, append(args, "-"+missing)...)
		s := open(t, "redis://keyturn:right@"+server.Addr())
		_, err := s.Write(t.Context(), rotation.Change{Tenant: tenant, If: ring.Digest, Set: map[string][]byte{"g": nil}, Delete: []string{"f"}})
		wantErr(t, "Write without "+missing, err, rediskeys.ErrNoPermission)
		if got := admin.Load(t.Context(), []string{tenant})[0]; got.Err != nil || got.Digest != ring.Digest {
			t.Fatalf("without %s: half of a change was made: %+v", missing, got)
		}
	}
	args := append([]any{"ACL", "SETUSER", "keyturn", "reset", "on", ">right"}, documented...)
	do(t, server, append(args, "-publish")...)
	set(t, open(t, "redis://keyturn:right@"+server.Addr()), tenant, "f", "without a nudge")
}

// Hangs, and then each method has its context's deadline.
func TestBlackhole(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	proxy := redistest.RunProxy(t, server.Addr())
	s := open(t, "redis://"+proxy.Addr())
	at := begin(t, s)
	proxy.Blackhole()
	for name := range calls(t.Context(), s, at) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		start := time.Now()
		err := calls(ctx, s, at)[name]()
		cancel()
		wantErr(t, name, err, rediskeys.ErrTimeout)
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
	proxy.Heal()
	begin(t, s)
}

func TestUnreachable(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	proxy := redistest.RunProxy(t, server.Addr())
	cut := open(t, "redis://"+proxy.Addr())
	begin(t, s)
	begin(t, cut)
	server.Kill()
	for name, call := range calls(deadline(t, 5*time.Second), s, rotation.Place{}) {
		wantErr(t, "killed: "+name, call(), rediskeys.ErrUnreachable)
	}
	proxy.Cut()
	for name, call := range calls(deadline(t, 5*time.Second), cut, rotation.Place{}) {
		wantErr(t, "cut: "+name, call(), rediskeys.ErrUnreachable)
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	begin(t, s)
}

// Had it been sent again, the change would be made and the answer a conflict.
func TestWriteIsSentOnce(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	proxy := redistest.RunProxy(t, server.Addr())
	lossy := open(t, "redis://"+proxy.Addr())
	ring := set(t, lossy, tenant, "f", "1")
	proxy.HoldReplies()
	done := make(chan error, 1)
	go func() {
		r, err := lossy.Write(t.Context(), rotation.Change{Tenant: tenant, If: ring.Digest, Set: map[string][]byte{"f": []byte("2")}})
		if err == nil {
			err = fmt.Errorf("code %d", r.Code)
		}
		done <- err
	}()
	for s.Load(t.Context(), []string{tenant})[0].Digest == ring.Digest { // for another process
		time.Sleep(time.Millisecond)
	}
	proxy.Cut()
	proxy.Heal()
	wantErr(t, "Write", <-done, rediskeys.ErrUnreachable)
	if n := server.Client().XLen(t.Context(), key("log")).Val(); n != 2 {
		t.Errorf("%d entries in the log, want 2", n)
	}
	if got := lossy.Load(t.Context(), []string{tenant})[0]; got.Err != nil || string(got.Fields["f"]) != "2" {
		t.Errorf("whoever loads the ring sees what became of it: %+v", got)
	}
}

func TestListenIgnoresForgeries(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	heard, ended := make(chan int, 100), make(chan error, 1)
	go func() { ended <- s.Listen(ctx, func(b int) { heard <- b }) }()
	for server.Client().Publish(t.Context(), "kt:changed", "0").Val() == 0 { // for another process
		time.Sleep(time.Millisecond)
	}
	for _, forged := range []string{"", "-1", "256", "1.0", "01", "+1", " 1", "1e1", "x", "99999999999999999999", strings.Repeat("1", 1<<20), "255", "7"} {
		do(t, server, "PUBLISH", "kt:changed", forged)
	}
	set(t, s, tenant, "f", "1")
	for _, want := range []int{0, 255, 7, bucket} {
		if got := <-heard; got != want {
			t.Errorf("heard %d, want %d", got, want)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestListenEndsWithTheServer(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	ended, heard := make(chan error, 1), make(chan int, 100)
	go func() { ended <- s.Listen(deadline(t, 10*time.Second), func(b int) { heard <- b }) }()
	for server.Client().Publish(t.Context(), "kt:changed", "0").Val() == 0 { // for another process
		time.Sleep(time.Millisecond)
	}
	<-heard
	server.Kill()
	wantErr(t, "Listen", <-ended, rediskeys.ErrUnreachable)
	wantErr(t, "Listen", s.Listen(deadline(t, 10*time.Second), func(int) {}), rediskeys.ErrUnreachable)
}

// An address that nothing answers at is no error of New's or Open's.
func TestNothingConnectsBeforeItHasTo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s := open(t, "redis://"+l.Addr().String())
	wantErr(t, "Load", s.Load(deadline(t, 5*time.Second), []string{tenant})[0].Err, rediskeys.ErrUnreachable)
}

// A ring that is not among the tenants any more, whoever starts later does not find:
// whoever knows it lists it again.
func TestALostTenantIsListedAgain(t *testing.T) {
	server, s := running(t)
	place := begin(t, s)
	write(t, s, rotation.Change{Tenant: tenant, Set: map[string][]byte{"f": []byte("1")}, Op: rotation.OpMint})
	q := rotation.SyncRequest{Bucket: bucket, Place: place, Digests: []string{tenant}}
	q.Place = sync1(t, s, "i", q).Place
	if err := server.Client().SRem(t.Context(), key("tenants"), tenant).Err(); err != nil {
		t.Fatal(err)
	}
	listed := func() bool {
		all, err := s.Tenants(deadline(t, 10*time.Second), []int{bucket})
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(all[0], tenant)
	}
	sync1(t, s, "", q) // a command that only looks changes nothing
	if listed() {
		t.Error("listed again by nobody")
	}
	sync1(t, s, "i", q)
	if !listed() {
		t.Error("not listed again")
	}
	if r := sync1(t, s, "other", q); !slices.Contains(r.Changed, tenant) {
		t.Errorf("the log does not say so: %+v", r)
	}
	// A set of another type is in nobody's way here.
	for _, command := range [][]any{{"DEL", key("tenants")}, {"SET", key("tenants"), "x"}} {
		if err := server.Do(t.Context(), command...); err != nil {
			t.Fatal(err)
		}
	}
	sync1(t, s, "i", q)
}

// An acknowledgement from the future was made by a clock that was wrong, or by nobody: it
// vouches for nothing, and is not shown.
func TestAcknowledgementsOfTheFuture(t *testing.T) {
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

// Who may not list a ring leaves no trace of that in the log, however often it polls.
func TestListingLeavesNothingHalfDone(t *testing.T) {
	server, admin := running(t)
	set(t, admin, tenant, "f", "1")
	for _, command := range [][]any{{"SREM", key("tenants"), tenant}, append(append([]any{"ACL", "SETUSER", "keyturn", "reset", "on", ">right"}, documented...), "-sadd")} {
		if err := server.Do(t.Context(), command...); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, "redis://keyturn:right@"+server.Addr())
	length := func() int64 {
		n, err := server.Client().XLen(t.Context(), key("log")).Result()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := length()
	for range 10 {
		sync1(t, s, "i", rotation.SyncRequest{Bucket: bucket, Digests: []string{tenant}})
	}
	if after := length(); after != before {
		t.Errorf("the log had %d entries, and has %d", before, after)
	}
}

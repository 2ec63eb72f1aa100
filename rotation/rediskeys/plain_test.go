package rediskeys_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// manyOf returns the names of n tenants of the bucket of the tests.
func manyOf(n int) (tenants []string) {
	for i := 0; len(tenants) < n; i++ {
		if name := fmt.Sprint("many ", i); rotation.BucketOf(name) == bucket {
			tenants = append(tenants, name)
		}
	}
	return tenants
}

// makeOdd makes rings of all kinds for the tenants: most are small, and the first ones are not.
func makeOdd(t testing.TB, client redis.UniversalClient, tenants []string) {
	t.Helper()
	for i, name := range tenants {
		hash := map[string]any{"h": "head", "r:" + name: strings.Repeat("r", 300), "k:": ""}
		var err error
		switch ring := key("ring:" + name); i {
		case 0: // none
		case 1:
			err = client.Set(t.Context(), ring, "no hash", 0).Err()
		case 2:
			hash["large"] = strings.Repeat("l", 20_000)
		case 3:
			hash["too large"] = strings.Repeat("l", 1<<20)
		case 4:
			for n := range 2000 {
				hash[fmt.Sprint("f", n)] = ""
			}
		case 5: // a few of its fields do not tell how large it is
			for n := range 200 {
				hash[fmt.Sprint("f", n)] = ""
			}
			hash["one is too large"] = strings.Repeat("l", 1<<20)
		}
		if i > 1 && err == nil {
			err = client.HSet(t.Context(), key("ring:"+name), hash).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// executed returns how many transactions a server has run.
func executed(t testing.TB, client redis.UniversalClient) (n int) {
	t.Helper()
	_, rest, _ := strings.Cut(client.Info(t.Context(), "commandstats").Val(), "cmdstat_exec:calls=")
	fmt.Sscanf(rest, "%d", &n)
	return n
}

// wantSameAlone checks that tenants' rings are the same whether many are loaded at once, or each alone.
func wantSameAlone(t *testing.T, what string, s *rediskeys.Store, tenants []string) {
	t.Helper()
	for i, got := range s.Load(t.Context(), tenants) {
		if i > 5 && (got.Err != nil || len(got.Fields) != 3) {
			t.Errorf("%s: ring %d: %v, %d fields", what, i, got.Err, len(got.Fields))
		}
		want := s.Load(t.Context(), tenants[i:i+1])[0]
		text := func(s rotation.Snapshot) string { return fmt.Sprint(len(s.Fields), s.Digest, s.Err) }
		if !reflect.DeepEqual(got.Fields, want.Fields) || text(got) != text(want) || got.Err == nil && (got.Now.After(want.Now) || want.Now.Sub(got.Now).Seconds() > 60) {
			t.Errorf("%s: ring %d: %.200s at %v, alone %.200s at %v", what, i, text(got), got.Now, text(want), want.Now)
		}
	}
}

// TestManyRingsAreReadAsEach: what a load of many rings returns is what a load of each returns: for none, one of
// another type, large ones and those that are too large. Small ones are read by transactions, over both protocols
// and from a Cluster. The digests are those of Sync. A replica is refused.
func TestManyRingsAreReadAsEach(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	cluster := redistest.RunCluster(t, redistest.Options{})
	tenants := manyOf(150)
	old := redis.NewClient(&redis.Options{Addr: server.Addr(), Protocol: 2, ContextTimeoutEnabled: true})
	t.Cleanup(func() { old.Close() })
	for what, client := range map[string]redis.UniversalClient{
		"RESP 3": connect(t, "redis://"+server.Addr()), "RESP 2": old, "a Cluster": connect(t, "redis-cluster://"+strings.Join(cluster.Addrs(), ",")),
	} {
		makeOdd(t, client, tenants)
		s, admin := storeOf(t, client, rediskeys.Config{}), client
		if c, ok := client.(*redis.ClusterClient); ok {
			owner, err := c.MasterForKey(t.Context(), key("log"))
			if err != nil {
				t.Fatal(err)
			}
			admin = owner
		}
		before := executed(t, admin)
		wantSameAlone(t, what, s, tenants)
		if n := executed(t, admin) - before; n != 2 {
			t.Errorf("%s: %d transactions read 150 rings, want 2", what, n)
		}
		wantSameAlone(t, what+", few", s, tenants[:31])
		if n := executed(t, admin) - before; n != 2 {
			t.Errorf("%s: a transaction reads few rings", what)
		}
		small := tenants[6:]
		reply := sync1(t, s, "", rotation.SyncRequest{Bucket: bucket, Digests: small})
		for i, got := range s.Load(t.Context(), small) {
			if got.Digest != reply.Digests[i] {
				t.Fatalf("%s: the digest of %q is %s, and of the sync %s", what, small[i], got.Digest, reply.Digests[i])
			}
		}
	}
	replica := redistest.Run(t, redistest.Options{})
	do(t, replica, "REPLICAOF", strings.Split(server.Addr(), ":")[0], strings.Split(server.Addr(), ":")[1])
	for _, got := range open(t, "redis://"+replica.Addr()).Load(t.Context(), tenants) {
		wantErr(t, "a replica", got.Err, rediskeys.ErrReplica)
	}
}

// A meddler changes a ring of a store before each transaction.
type meddler struct {
	change func()
	n      atomic.Int64
}

func (m *meddler) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (m *meddler) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (m *meddler) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return c.Name() == "multi" }) {
			m.n.Add(1)
			m.change()
		}
		return next(ctx, cmds)
	}
}

// TestRingThatChangesWhileManyAreRead: a ring is made large after it was weighed. No transaction returns it: a
// script refuses it, and reads the others.
func TestRingThatChangesWhileManyAreRead(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	tenants, client := manyOf(40), connect(t, "redis://"+server.Addr())
	makeOdd(t, client, tenants)
	m := &meddler{change: func() {
		do(t, server, "HSET", key("ring:"+tenants[20]), "grown", strings.Repeat("l", 2<<20))
		do(t, server, "HSET", key("ring:"+tenants[21]), "f", "new")
	}}
	meddled := connect(t, "redis://"+server.Addr())
	meddled.AddHook(m)
	got := storeOf(t, meddled, rediskeys.Config{}).Load(t.Context(), tenants)
	wantErr(t, "the ring that has grown", got[20].Err, rediskeys.ErrTooLarge)
	if string(got[21].Fields["f"]) != "new" || got[22].Err != nil || len(got[22].Fields) != 3 || m.n.Load() != 1 {
		t.Errorf("%d transactions; %+v, %+v", m.n.Load(), got[21], got[22])
	}
}

// TestManyRingsWithoutTheRights: a user who may not watch keys, or do something else that only transactions need,
// reads many rings by scripts. Redis notes the denials of one attempt for each such store.
func TestManyRingsWithoutTheRights(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	tenants := manyOf(40)
	makeOdd(t, server.Client(), tenants)
	for _, command := range []string{"watch", "multi", "exec", "memory|usage"} {
		setUser(t, server, without(documented, command))
		do(t, server, "ACL", "LOG", "RESET")
		s := open(t, "redis://keyturn:right@"+server.Addr())
		for range 3 {
			wantSameAlone(t, "without "+command, s, tenants)
		}
		noted, err := server.Client().ACLLog(t.Context(), 100).Result()
		if err != nil || len(noted) != 1 || noted[0].Count > int64(len(tenants)) {
			t.Errorf("without %s Redis noted %+v, %v", command, noted, err)
		}
	}
}

// A watched client counts the WATCHes that it sends.
type watched struct{ n atomic.Int64 }

func (w *watched) DialHook(next redis.DialHook) redis.DialHook { return next }
func (w *watched) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "watch" {
			w.n.Add(1)
		}
		return next(ctx, cmd)
	}
}
func (w *watched) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestManyRingsOfAServerWithoutTransactions: a server or a proxy that does not know a command of transactions is
// asked once. Scripts read the rings.
func TestManyRingsOfAServerWithoutTransactions(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	tenants := manyOf(40)
	for _, command := range []string{"WATCH", "MULTI", "EXEC", "MEMORY"} {
		server, _ := running(t, "--rename-command", command, "")
		makeOdd(t, server.Client(), tenants)
		client, w := connect(t, "redis://"+server.Addr()), new(watched)
		client.AddHook(w)
		s := storeOf(t, client, rediskeys.Config{})
		for range 3 {
			wantSameAlone(t, "without "+command, s, tenants)
		}
		if n := w.n.Load(); n != 1 {
			t.Errorf("without %s it tried %d times, want once", command, n)
		}
	}
}

// A newer client says that its server has another version.
type newer struct{ watched }

func (n *newer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if cmd, ok := cmds[0].(*redis.Cmd); ok {
			if reply, ok := cmd.Val().([]any); ok && len(reply) == 2 {
				if version, ok := reply[1].(string); ok && strings.Count(version, ".") == 2 {
					cmd.SetVal([]any{reply[0], "8.10.0"})
				}
			}
		}
		return err
	}
}

// TestManyRingsOfAnotherServer: on a server of which it is not known how it weighs rings, scripts read many. It is
// asked once.
func TestManyRingsOfAnotherServer(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	tenants := manyOf(40)
	makeOdd(t, server.Client(), tenants)
	client, n := connect(t, "redis://"+server.Addr()), new(newer)
	client.AddHook(n)
	s := storeOf(t, client, rediskeys.Config{})
	s.Load(t.Context(), tenants) // the server may not know the script, which is then no part of a pipeline
	before, tried := executed(t, server.Client()), n.n.Load()
	for range 3 {
		wantSameAlone(t, "another server", s, tenants)
	}
	if n.n.Load() > tried+1 || executed(t, server.Client()) != before {
		t.Errorf("it tried %d times, and read %d times in a transaction", n.n.Load()-tried, executed(t, server.Client())-before)
	}
}

package rediskeys_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// everything returns all that a bucket's keys hold.
func everything(t *testing.T, client *redis.Client) string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	log, err1 := client.XRange(ctx, key("log"), "-", "+").Result()
	ring, err2 := client.HGetAll(ctx, key("ring:"+tenant)).Result()
	tenants, err3 := client.SMembers(ctx, key("tenants")).Result()
	acks, err4 := client.HGetAll(ctx, key("ack")).Result()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(log, ring, tenants, acks)
}

// edits returns changes that need each of the commands of write.lua: one that changes a ring, one
// that removes it, and one that makes the ring of another tenant.
func edits(digest string) []rotation.Change {
	return []rotation.Change{
		{Tenant: tenant, If: digest, Nonce: "n1", Set: map[string][]byte{"g": nil}, Delete: []string{"f"}},
		{Tenant: tenant, If: digest, Nonce: "n2", Delete: []string{"f"}},
		{Tenant: other, Nonce: "n3", Set: map[string][]byte{"f": nil}},
	}
}

// wantNotMade checks that each change fails with kind, or with any error if that is nil, that the
// store knows that it was not made, and that nothing was written.
func wantNotMade(t *testing.T, what string, client *redis.Client, s *rediskeys.Store, digest string, kind error) {
	t.Helper()
	before := everything(t, client)
	for _, c := range edits(digest) {
		r, err := s.Write(deadline(t, 10*time.Second), c)
		if kind != nil {
			wantErr(t, what, err, kind)
		}
		if err == nil || r != (rotation.Result{Code: rotation.NotMade}) {
			t.Errorf("%s: %s: %+v, error %v; want NotMade and an error", what, c.Nonce, r, err)
		}
	}
	if after := everything(t, client); after != before {
		t.Errorf("%s: a change that was not made left something: %s, before %s", what, after, before)
	}
}

// What Redis refuses was not made. Each of these errors comes before the first write of the script,
// which is the log entry.
func TestRefusedChangeIsNotMade(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	client := server.Client()
	digest := set(t, s, tenant, "f", "1").Digest
	do(t, server, "CONFIG", "SET", "maxmemory", "1")
	wantNotMade(t, "OOM", client, s, digest, rediskeys.ErrFull)
	do(t, server, "CONFIG", "SET", "maxmemory", "0")

	do(t, server, "CONFIG", "SET", "min-replicas-to-write", "1")
	wantNotMade(t, "NOREPLICAS", client, s, digest, rediskeys.ErrNoReplicas)
	do(t, server, "CONFIG", "SET", "min-replicas-to-write", "0")

	cannotSave(t, server)
	wantNotMade(t, "MISCONF", client, s, digest, rediskeys.ErrNotSaved)
	do(t, server, "CONFIG", "SET", "save", "")

	for _, c := range documented {
		name, isCommand := strings.CutPrefix(c, "+")
		switch name {
		case "publish", "subscribe", "smembers", "xrange", "ping", "eval", "del", "watch", "unwatch", "multi", "exec", "memory|usage": // write.lua does not call them
			continue
		}
		if isCommand {
			forbid(t, server, "-"+name)
			wantNotMade(t, "NOPERM "+name, client, open(t, "redis://keyturn:right@"+server.Addr()), digest, rediskeys.ErrNoPermission)
		}
	}
	forbid(t, server, "resetkeys")
	wantNotMade(t, "NOPERM of the keys", client, open(t, "redis://keyturn:right@"+server.Addr()), digest, rediskeys.ErrNoPermission)

	do(t, server, "XADD", key("log"), "18446744073709551615-18446744073709551615", "nonce", "n")
	wantNotMade(t, "a log at its end", client, s, digest, nil)

	for _, c := range edits(digest)[:2] { // and all is well again without the fault
		do(t, server, "DEL", key("log"), key("ring:"+tenant))
		c.If = set(t, s, tenant, "f", "1").Digest
		write(t, s, c)
	}
}

// forbid gives the user keyturn the documented rights, but for those that change takes away.
func forbid(t *testing.T, server *redistest.Server, change string) {
	t.Helper()
	setUser(t, server, documented, []string{change})
}

// cannotSave takes the server's folder away and lets it try to save its data.
func cannotSave(t *testing.T, server *redistest.Server) {
	t.Helper()
	dir, err := server.Client().ConfigGet(t.Context(), "dir").Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir["dir"]); err != nil {
		t.Fatal(err)
	}
	do(t, server, "CONFIG", "SET", "save", "3600 1")
	do(t, server, "BGSAVE")
	for { // waits for another process
		if info := server.Client().Info(t.Context(), "persistence").Val(); strings.Contains(info, "rdb_last_bgsave_status:err") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A change that never left this process, or met a server that runs no script, was not made. One whose
// reply is lost is not known.
func TestUnsentChangeIsNotMade(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	redisServer, s := running(t)
	proxy := redistest.RunProxy(t, redisServer.Addr())
	change := rotation.Change{Tenant: tenant, Nonce: "n", Set: map[string][]byte{"f": nil}}
	code := func(what string, s *rediskeys.Store, ctx context.Context, want rotation.Code) {
		t.Helper()
		if r, err := s.Write(ctx, change); err == nil || r.Code != want {
			t.Errorf("%s: code %d, error %v; want code %d", what, r.Code, err, want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	code("the context had ended", s, ended, rotation.NotMade)
	lossy := open(t, "redis://"+proxy.Addr())
	begin(t, lossy)
	proxy.Blackhole()
	code("no answer", lossy, deadline(t, 50*time.Millisecond), 0)
	proxy.Cut()
	proxy.Heal()
	code("a password", open(t, "redis://nobody:wrong@"+redisServer.Addr()), t.Context(), rotation.NotMade)
	redisServer.Kill()
	begun := connect(t, "redis://"+redisServer.Addr())
	code("nothing listens", storeOf(t, begun, rediskeys.Config{}), deadline(t, 5*time.Second), rotation.NotMade)

	m := mini(t)
	s = open(t, "redis://"+m.Addr())
	for text, want := range map[string]rotation.Code{
		"LOADING Redis is loading the dataset in memory":                                     rotation.NotMade,
		"BUSY Redis is busy running a script":                                                rotation.NotMade,
		"MASTERDOWN Link with MASTER is down":                                                rotation.NotMade,
		"CLUSTERDOWN Hash slot not served":                                                   rotation.NotMade,
		"NOPERM this user has no permissions to run the 'evalsha' command":                   rotation.NotMade,
		"ERR unknown command `EVALSHA`, with args":                                           rotation.NotMade,
		"ERR the proxy lost its server, which was LOADING":                                   0,
		"ERR something that no one knows":                                                    0,
		"OOM command not allowed script: 1, on @user_script:9.":                              0,
		"ERR Error running script (call to f_0): @user_script:3: @user_script: 3: -READONLY": 0,
	} {
		m.SetError(text)
		code(text, s, t.Context(), want)
	}
}

// Whatever command of the script fails, the store says that the change was not made only if nothing
// was written. No server of these tests fails after the first write; a user of Redis 6 may lack the
// right to a later one.
func TestScriptThatFailsHalfWay(t *testing.T) {
	t.Parallel()
	m := mini(t)
	s := open(t, "redis://"+m.Addr())
	client := redis.NewClient(&redis.Options{Addr: m.Addr()})
	defer client.Close()
	digest := set(t, s, tenant, "f", "1").Digest
	made := everything(t, client)
	var fail atomic.Value // the command that fails
	fail.Store("")
	m.Server().SetPreHook(func(c *server.Peer, cmd string, _ ...string) bool {
		if cmd != fail.Load() {
			return false
		}
		c.WriteError("NOPERM this user has no permissions to run the '" + strings.ToLower(cmd) + "' command")
		return true
	})
	seen := map[rotation.Code]int{}
	for _, c := range edits(digest) {
		for _, command := range []string{"SISMEMBER", "XREVRANGE", "TIME", "HGETALL", "INFO", "XADD", "HSET", "HDEL", "SADD", "SREM"} {
			fail.Store(command)
			r, err := s.Write(t.Context(), c)
			fail.Store("")
			after := everything(t, client)
			switch {
			case err == nil && r.Code == rotation.Committed: // it does not need that command
			case err == nil || r.Code == rotation.NotMade && after != made || r.Code != rotation.NotMade && r.Code != 0:
				t.Errorf("%s fails: %+v, error %v, and the keys hold %s", command, r, err, after)
			default:
				wantErr(t, command, err, rediskeys.ErrNoPermission)
				seen[r.Code]++
			}
			m.FlushAll()
			set(t, s, tenant, "f", "1")
			made = everything(t, client)
		}
	}
	if seen[0] == 0 || seen[rotation.NotMade] < 3*6 {
		t.Errorf("codes %v, want both NotMade and 0", seen)
	}
}

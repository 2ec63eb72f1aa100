package rediskeys_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// denials returns what a server noted of users that may not do what they tried.
func denials(t testing.TB, server *redistest.Server) []string {
	t.Helper()
	entries, err := server.Client().ACLLog(t.Context(), 100).Result()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Reason+" "+e.Object)
	}
	return all
}

// loadMany loads so many rings of a bucket that transactions read them, and so many large ones that a transaction
// would have nothing to do. other makes them.
func loadMany(ctx context.Context, s, other *rediskeys.Store) (errs []error) {
	tenants := manyOf(64)
	for i, name := range tenants {
		value := make([]byte, 1+i/32*20_000)
		_, err := other.Write(ctx, rotation.Change{Tenant: name, Nonce: rand.Text(), Set: map[string][]byte{"f": value}})
		errs = append(errs, err)
	}
	for _, some := range [][]string{tenants[:32], tenants[32:]} {
		for _, ring := range s.Load(ctx, some) {
			errs = append(errs, ring.Err)
		}
	}
	return errs
}

func without(rules []string, command string) []string {
	return slices.DeleteFunc(slices.Clone(rules), func(rule string) bool { return rule == "+"+command })
}

// tryAll uses everything of a store whose Redis is empty, and returns what did not work. other may do
// everything, and changes rings where s is of a reader.
func tryAll(t *testing.T, s, other *rediskeys.Store, role rediskeys.Role) error {
	t.Helper()
	ctx := deadline(t, 20*time.Second)
	var errs []error
	at := s.Sync(ctx, "me", []rotation.SyncRequest{{Bucket: bucket}})[0]
	errs = append(errs, at.Err)
	listening, cancel := context.WithCancel(ctx)
	heard, ended := make(chan int, 10), make(chan error, 1)
	go func() { ended <- s.Listen(listening, func(b int) { heard <- b }) }()
	writer := s
	if role == rediskeys.RoleReader {
		writer = other
	}
	change := rotation.Change{Tenant: tenant, Nonce: rand.Text(), Set: map[string][]byte{"f": nil, "g": nil}}
	for first := true; ; time.Sleep(5 * time.Millisecond) { // waits for another process
		r, err := writer.Write(ctx, change)
		if err == nil && r.Code != rotation.Committed {
			err = fmt.Errorf("the code is %d", r.Code)
		}
		if first || err != nil {
			errs, first = append(errs, err), false
		}
		change.If, change.Nonce, change.Set = r.Digest, rand.Text(), map[string][]byte{"g": []byte(rand.Text())}
		if len(heard) > 0 || len(ended) > 0 || err != nil || ctx.Err() != nil {
			break
		}
	}
	if len(heard) == 0 {
		errs = append(errs, errors.New("nothing was heard"))
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		errs = append(errs, err)
	}
	errs = append(errs, s.Sync(ctx, "me", []rotation.SyncRequest{{Bucket: bucket, Place: at.Place, Ack: ack("me", 0), Acks: true, Digests: []string{tenant}}})[0].Err)
	for _, call := range []string{"Load", "Tenants", "Acks", "Log", "Forget"} {
		errs = append(errs, calls(ctx, s, at.Place)[call]())
	}
	errs = append(errs, loadMany(ctx, s, other)...)
	_, err := writer.Write(ctx, rotation.Change{Tenant: tenant, Nonce: rand.Text(), If: change.If, Delete: []string{"f", "g"}})
	return errors.Join(append(errs, err)...)
}

// Each role works with the rights that ACL returns, and Redis notes no denial. Without any one of
// the commands something does not work, or Redis notes a denial.
func TestACLIsSufficientAndMinimal(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	for _, role := range []rediskeys.Role{rediskeys.RoleWriter, rediskeys.RoleReader} {
		rules := aclOf("redis://h", role).Server
		server, admin := running(t)
		try := func(command string) error {
			for _, clean := range []string{"FLUSHALL", "SCRIPT FLUSH", "ACL LOG RESET"} {
				var args []any
				for word := range strings.FieldsSeq(clean) {
					args = append(args, word)
				}
				do(t, server, args...)
			}
			setUser(t, server, without(rules, command))
			s := open(t, "redis://keyturn:right@"+server.Addr())
			err := tryAll(t, s, admin, role)
			if noted := denials(t, server); len(noted) > 0 {
				err = errors.Join(err, fmt.Errorf("the server noted %q", noted))
			}
			return err
		}
		if err := try(""); err != nil {
			t.Fatalf("%s: %v", role, err)
		}
		for _, rule := range rules {
			command, ok := strings.CutPrefix(rule, "+")
			if ok && command != "ping" && try(command) == nil {
				t.Errorf("a %s needs no %s", role, command)
			}
		}
	}
}

// A listener that hears nothing for 10 s asks whether the connection lives. That is the use of PING.
func TestACLNeedsPing(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	setUser(t, server, without(documented, "ping"))
	err := open(t, "redis://keyturn:right@"+server.Addr()).Listen(deadline(t, 40*time.Second), func(int) {})
	wantErr(t, "Listen", err, rediskeys.ErrNoPermission)
}

// A reader's user makes no change at all, and the error says why.
func TestACLReaderChangesNothing(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, admin := running(t)
	ring := set(t, admin, tenant, "f", "1")
	setUser(t, server, aclOf("redis://h", rediskeys.RoleReader).Server)
	s := open(t, "redis://keyturn:right@"+server.Addr())
	r, err := s.Write(t.Context(), rotation.Change{Tenant: tenant, Nonce: rand.Text(), If: ring.Digest, Set: map[string][]byte{"g": nil}})
	wantErr(t, "Write", err, rediskeys.ErrNoPermission)
	if got := admin.Load(t.Context(), []string{tenant})[0]; r.Code != rotation.NotMade || got.Digest != ring.Digest {
		t.Errorf("code %d, and the ring is %+v", r.Code, got)
	}
	if noted := denials(t, server); len(noted) > 0 {
		t.Errorf("the server noted %q", noted)
	}
}

// A database other than 0 needs one command more.
func TestACLOfAnotherDatabase(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	url := "redis://keyturn:right@" + server.Addr() + "/3"
	setUser(t, server, aclOf(url, rediskeys.RoleWriter).Server)
	begin(t, open(t, url))
	setUser(t, server, documented)
	wantErr(t, "Load", open(t, url).Load(t.Context(), []string{tenant})[0].Err, rediskeys.ErrNoPermission)
}

// In a Cluster the client asks who has the slots, and says ASKING where a slot is on its way.
func TestACLInCluster(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	c := redistest.RunCluster(t, redistest.Options{})
	url := "redis-cluster://keyturn:right@" + strings.Join(c.Addrs(), ",")
	rules := aclOf(url, rediskeys.RoleWriter).Server
	allow := func(rules []string) {
		for _, s := range c.Servers {
			setUser(t, s, rules)
		}
	}
	allow(rules)
	rotationtest.TestStore(t, func(t *testing.T) rotation.Store {
		flush(t, c.Servers...)
		return open(t, url)
	})
	flush(t, c.Servers...)
	admin := open(t, "redis-cluster://"+strings.Join(c.Addrs(), ","))
	at := begin(t, admin)
	set(t, admin, tenant, "f", "1")
	sync1(t, admin, "me", rotation.SyncRequest{Bucket: bucket, Place: at, Ack: ack("me", 0)})
	moveKeys(t, c)
	if err := open(t, url).Load(deadline(t, 20*time.Second), []string{tenant})[0].Err; err != nil {
		t.Errorf("while a slot is on its way: %v", err)
	}
	for _, s := range c.Servers {
		if noted := denials(t, s); len(noted) > 0 {
			t.Errorf("a server noted %q", noted)
		}
	}
	for _, command := range []string{"asking", "cluster|slots"} {
		allow(without(rules, command))
		if err := open(t, url).Load(deadline(t, 20*time.Second), []string{tenant})[0].Err; err == nil {
			t.Errorf("the client needs no %s", command)
		}
	}
}

// moveKeys moves the keys of the bucket to another server, and leaves the slot on its way.
func moveKeys(t *testing.T, c *redistest.Cluster) {
	t.Helper()
	from, err := c.Owner(t.Context(), logKey(bucket))
	if err != nil {
		t.Fatal(err)
	}
	to := (from + 1) % len(c.Servers)
	slot := c.Servers[0].Client().ClusterKeySlot(t.Context(), logKey(bucket)).Val()
	for i, state := range map[int]string{to: "IMPORTING", from: "MIGRATING"} {
		do(t, c.Servers[i], "CLUSTER", "SETSLOT", slot, state, c.Servers[from+to-i].Client().Do(t.Context(), "CLUSTER", "MYID").Val())
	}
	host, port, _ := net.SplitHostPort(c.Servers[to].Addr())
	do(t, c.Servers[from], "MIGRATE", host, port, "", 0, 5000, "KEYS", key("log"), key("ack"), key("tenants"), key("ring:"+tenant))
}

// The users of Sentinels have a list of their own. The one of the servers works through a failover.
func TestACLOfSentinel(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	three := redistest.RunSentinel(t, redistest.Options{})
	url := "redis-sentinel://keyturn:right@" + strings.Join(three.Addrs(), ",") + "/" + three.Name + "?sentinel_username=keyturn&sentinel_password=right"
	acl := aclOf(url, rediskeys.RoleWriter)
	all := append([]*redistest.Server{three.Primary, three.Replica}, three.Sentinels...)
	noted := func() (all_ []string) {
		for _, s := range all {
			if s != three.Primary {
				all_ = append(all_, denials(t, s)...)
			}
		}
		return all_
	}
	setUser(t, three.Primary, acl.Server)
	setUser(t, three.Replica, acl.Server)
	for _, rule := range append([]string{""}, acl.Sentinel...) {
		command, ok := strings.CutPrefix(rule, "+")
		if !ok && rule != "" {
			continue
		}
		for _, s := range three.Sentinels {
			setUser(t, s, without(acl.Sentinel, command))
			do(t, s, "ACL", "LOG", "RESET")
		}
		s := open(t, url)
		err := s.Load(deadline(t, 20*time.Second), []string{tenant})[0].Err
		if command != "" {
			eventually(t, "something to fail without "+command, func() bool { return err != nil || len(noted()) > 0 })
			continue
		}
		set(t, s, tenant, "f", "1")
		if err := three.Settled(t.Context()); err != nil {
			t.Fatal(err)
		}
		three.Primary.Kill()
		if err := three.Failover(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the new primary", func() bool { return s.Load(deadline(t, 5*time.Second), []string{tenant})[0].Err == nil })
		set(t, s, tenant, "f", "2")
		if noted := noted(); err != nil || len(noted) > 0 {
			t.Errorf("%v; the servers noted %q", err, noted)
		}
	}
}

// The client sends HELLO and the commands of the list, and nothing of its own: CLIENT SETINFO
// (redis/jedis#3438) and INFO (redis/ioredis#1211) are refused by tight ACLs. MONITOR shows what a
// server receives; what scripts call comes from the address "lua".
func TestClientSendsNothingOfItsOwn(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, admin := running(t)
	conn, err := net.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		t.Fatal(err)
	}
	monitor := bufio.NewScanner(conn)
	monitor.Buffer(nil, 1<<20)
	monitor.Scan() // +OK
	setUser(t, server, documented)
	if err := tryAll(t, open(t, "redis://keyturn:right@"+server.Addr()), admin, rediskeys.RoleWriter); err != nil {
		t.Fatal(err)
	}
	do(t, server, "ECHO", "the end")
	var lines []string
	for monitor.Scan() && !strings.Contains(monitor.Text(), "the end") {
		lines = append(lines, monitor.Text())
	}
	sent, called := make(map[string]bool), make(map[string]bool)
	for _, line := range lines {
		_, rest, _ := strings.Cut(line, " [")
		from, rest, _ := strings.Cut(rest, "] ")
		command, _ := strconv.Unquote(strings.SplitN(rest, " ", 2)[0])
		if strings.EqualFold(command, "memory") {
			command = "memory|usage"
		}
		switch name := strings.ToLower(command); {
		case strings.HasSuffix(from, "lua"):
			called[name] = true
		case name != "acl" && name != "echo":
			sent[name] = true
		}
	}
	for name := range sent {
		if !slices.Contains([]string{"hello", "eval", "evalsha", "subscribe", "watch", "unwatch", "multi", "exec", "memory|usage", "hgetall"}, name) {
			t.Errorf("the client sends %s", name)
		}
	}
	for _, rule := range documented {
		if name, ok := strings.CutPrefix(rule, "+"); ok && name != "ping" && !sent[name] && !called[name] {
			t.Errorf("nothing sends %s", name)
		}
	}
	for name := range called {
		if !slices.Contains(documented, "+"+name) {
			t.Errorf("a script calls %s", name)
		}
	}
}

func TestACLRefuses(t *testing.T) {
	for _, tt := range []struct {
		url  string
		role rediskeys.Role
	}{{"redis://h", ""}, {"redis://h", "admin"}, {"http://u:s3cr3t@h", rediskeys.RoleReader}} {
		if _, err := (rediskeys.Config{}).ACL(tt.url, tt.role); err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s, %q: %v", tt.url, tt.role, err)
		}
	}
	acl, err := rediskeys.Config{Prefix: "mine"}.ACL("redis://h", rediskeys.RoleReader)
	if err != nil || !slices.Contains(acl.Server, "~mine:*") || slices.Contains(acl.Server, "+sadd") || acl.Sentinel != nil {
		t.Errorf("%+v, %v", acl, err)
	}
}

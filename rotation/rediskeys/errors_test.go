package rediskeys_test

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"

	"github.com/keyturn/keyturn/internal/freeport"
	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// A store whose address is that of a replica gets an error from every method, even from a replica that
// accepts writes. Such a replica once passed for the primary: with 318 false 401, and 91 tokens of
// revoked keys accepted.
func TestReplicaIsRefused(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	p := redistest.RunPair(t, redistest.Options{})
	primary, replica := open(t, "redis://"+p.Primary.Addr()), open(t, "redis://"+p.Replica.Addr())
	at := begin(t, primary)
	ring := set(t, primary, tenant, "f", "1")
	for _, readOnly := range []string{"yes", "no"} {
		do(t, p.Replica, "CONFIG", "SET", "replica-read-only", readOnly)
		if err := p.Settled(t.Context()); err != nil {
			t.Fatal(err)
		}
		for name, call := range calls(t.Context(), replica, at) {
			wantErr(t, "replica-read-only "+readOnly+": "+name, call(), rediskeys.ErrReplica)
		}
		for _, digest := range []string{"", ring.Digest} {
			r, err := replica.Write(t.Context(), rotation.Change{Tenant: tenant, If: digest, Nonce: "n", Set: map[string][]byte{"f": []byte("2")}})
			if wantErr(t, "Write", err, rediskeys.ErrReplica); r.Code != rotation.NotMade {
				t.Errorf("Write: code %d, want NotMade", r.Code)
			}
		}
		rotationtest.TestReplica(t, replica)
		if n := p.Replica.Client().XLen(t.Context(), key("log")).Val(); n != 2 {
			t.Errorf("the replica's log has %d entries, want 2", n)
		}
	}
}

// A role that INFO names decides, whatever else the server does. Where INFO is not known, or says
// nothing about a role, the server is taken for what it does.
func TestRoleOfInfo(t *testing.T) {
	const unknownCommand = "-ERR unknown command 'INFO'"
	for info, kind := range map[string]error{
		"# Replication\r\nrole:master\r\nconnected_slaves:0\r\n":                               nil,
		"# Replication\r\nrole:slave\r\nmaster_host:127.0.0.1\r\n":                             rediskeys.ErrReplica,
		"# Replication\r\nrole:active-replica\r\nmaster_host:127.0.0.1\r\n":                    rediskeys.ErrReplica,
		"# Replication\r\nrole:master\r\nconnected_slaves:1\r\nmin_slaves_good_slaves:1\r\n":   nil,
		"# Replication\r\nrole:master\r\nconnected_slaves:10\r\nmin_slaves_good_slaves:10\r\n": nil,
		"# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmin_slaves_good_slaves:0\r\n":   rediskeys.ErrNoReplicas,
		"":             nil,
		unknownCommand: nil,
		"-ERR section (replication) is not supported":                         nil,
		"-NOPERM this user has no permissions to run the 'info' command":      rediskeys.ErrNoPermission,
		"-The user executing the script can't run this command or subcommand": rediskeys.ErrNoPermission,
	} {
		m := mini(t)
		s := open(t, "redis://"+m.Addr())
		at := begin(t, s)
		m.Server().SetPreHook(func(c *server.Peer, cmd string, _ ...string) bool {
			if text, failed := strings.CutPrefix(info, "-"); failed && cmd == "INFO" {
				c.WriteError(text)
			} else if cmd == "INFO" {
				c.WriteBulk(info)
			}
			return cmd == "INFO"
		})
		for name, call := range calls(t.Context(), s, at) {
			writes := name == "Sync" || name == "Write" || name == "Forget"
			switch err := call(); {
			case kind == nil || kind == rediskeys.ErrNoReplicas && !writes:
				if err != nil {
					t.Errorf("%q: %s: %v", info, name, err)
				}
			default:
				wantErr(t, info+": "+name, err, kind)
			}
		}
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
	for { // waits for another process: the primary has to notice
		if info := p.Primary.Client().Info(t.Context(), "replication").Val(); strings.Contains(info, "connected_slaves:0") {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	refused := calls(t.Context(), s, at)
	delete(refused, "Write")
	refused["Write"] = func() error {
		_, err := s.Write(t.Context(), rotation.Change{Tenant: tenant, Nonce: rand.Text(), If: ring.Digest, Set: map[string][]byte{"f": nil}, Delete: []string{"g"}})
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
	all := []string{"Sync without an instance", "Load", "Tenants", "Write", "Acks", "Forget", "Sync"} // the last one mends: see TestMend
	for k, want := range map[string][]string{
		"ring:" + tenant: {"Load", "Write"},
		"log":            {"Sync without an instance", "Load", "Write", "Acks"},
		"tenants":        {"Tenants", "Write"},
		"ack":            {"Acks", "Forget"},
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

// A ring that cannot be read does not stop the store from reading the others.
func TestWrongTypeAffectsOneTenant(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	digest := set(t, s, other, "f", "1").Digest
	do(t, server, "SET", key("ring:"+tenant), "text")
	got := s.Load(t.Context(), []string{other, tenant, "elsewhere"})
	wantErr(t, "Load", got[1].Err, rediskeys.ErrWrongType)
	if got[0].Err != nil || got[0].Digest != digest || got[2].Err != nil {
		t.Errorf("Load: %+v", got)
	}
	r := sync1(t, s, "me", rotation.SyncRequest{Bucket: bucket, Digests: []string{other, tenant}})
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
	_, err := s.Write(t.Context(), rotation.Change{Tenant: tenant, Nonce: rand.Text(), If: ring.Digest, Set: map[string][]byte{"f": nil}, Delete: []string{"g"}})
	wantErr(t, "Write", err, rediskeys.ErrFull)
	wantErr(t, "Sync", s.Sync(t.Context(), "me", []rotation.SyncRequest{{Bucket: bucket, Place: at, Ack: ack("me", 0)}})[0].Err, rediskeys.ErrFull)
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
	for server.Client().Ping(t.Context()).Err() == nil { // waits for another process
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

// Errors that the servers of these tests do not return on demand come from miniredis.
func TestServerErrors(t *testing.T) {
	t.Parallel()
	m := mini(t)
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

// Every method keeps its context's deadline while Redis hangs.
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
		if took := time.Since(start); took > 2500*time.Millisecond { // the client alone waits for three seconds
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
	for name, call := range calls(deadline(t, time.Minute), s, rotation.Place{}) { // for all of them
		wantErr(t, "killed: "+name, call(), rediskeys.ErrUnreachable)
	}
	proxy.Cut()
	for name, call := range calls(deadline(t, time.Minute), cut, rotation.Place{}) {
		wantErr(t, "cut: "+name, call(), rediskeys.ErrUnreachable)
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	// After as many failures as it has connections, go-redis tries to connect once a second.
	eventually(t, "the restarted server to be reached", func() bool { return s.Load(deadline(t, 5*time.Second), []string{tenant})[0].Err == nil })
	begin(t, s)
}

// Neither Open nor New fails if the address does not answer; the first call does.
func TestOpenAndNewDoNotConnect(t *testing.T) {
	addr, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, "redis://"+addr)
	wantErr(t, "Load", s.Load(deadline(t, 5*time.Second), []string{tenant})[0].Err, rediskeys.ErrUnreachable)
}

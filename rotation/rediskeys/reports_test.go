package rediskeys_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
)

// The tests of this file are named after the reports of other projects that they come from.

// named returns the addresses with localhost in place of the IP address.
func named(addrs []string) string {
	return strings.ReplaceAll(strings.Join(addrs, ","), "127.0.0.1", "localhost")
}

// Sentinels hand out IP addresses, and certificates have names (redis/redis#7928). The error says what
// to set; a server name does, and so do Sentinels that announce names, also after a failover.
func TestReport_redis_redis_7928_SentinelsHandOutAddresses(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	ca := authority(t)
	config := redistest.TLS{Authority: ca, Certificate: redistest.Certificate{Names: []string{"localhost"}}}
	three := redistest.RunSentinel(t, redistest.Options{TLS: &config})
	url := "rediss-sentinel://" + named(three.Addrs()) + "/" + three.Name
	s := openWith(t, url, rediskeys.Options{TLS: &tls.Config{RootCAs: ca.Pool()}})
	err := s.Load(deadline(t, 20*time.Second), []string{tenant})[0].Err
	wantErr(t, "Load", err, rediskeys.ErrServerName)
	if err != nil && !strings.Contains(err.Error(), "announce host names") {
		t.Error(err)
	}
	begin(t, openWith(t, url, rediskeys.Options{TLS: &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}}))

	config.Hostnames = true
	three = redistest.RunSentinel(t, redistest.Options{TLS: &config})
	s = openWith(t, "rediss-sentinel://"+named(three.Addrs())+"/"+three.Name, rediskeys.Options{TLS: &tls.Config{RootCAs: ca.Pool()}})
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
}

// A Cluster redirects to IP addresses too, unless its preferred endpoint type is hostname.
func TestReport_ClusterRedirectsToAddresses(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	ca := authority(t)
	config := redistest.TLS{Authority: ca, Certificate: redistest.Certificate{Names: []string{"localhost"}}}
	trust := rediskeys.Options{TLS: &tls.Config{RootCAs: ca.Pool()}}
	c := redistest.RunCluster(t, redistest.Options{TLS: &config})
	// The client takes the addresses of all servers but the one that it has asked from the reply.
	failed := openWith(t, "rediss-cluster://"+named(c.Addrs()), trust).Sync(deadline(t, 20*time.Second), "", allBuckets())
	if !slices.ContainsFunc(failed, func(r rotation.SyncReply) bool { return errors.Is(r.Err, rediskeys.ErrServerName) }) {
		t.Error("no call failed for the name")
	}
	config.Hostnames = true
	c = redistest.RunCluster(t, redistest.Options{TLS: &config})
	replica, err := c.AddReplica(0)
	if err != nil {
		t.Fatal(err)
	}
	s := openWith(t, "rediss-cluster://"+named(c.Addrs()), trust)
	requests := allBuckets()
	place(t, requests, s.Sync(deadline(t, 20*time.Second), "me", requests))
	c.Servers[0].Kill()
	eventually(t, "the replica to take over", func() bool {
		info, err := replica.Client().Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "role:master")
	})
	var lost error
	defer func() {
		if t.Failed() {
			t.Log(lost)
		}
	}()
	eventually(t, "all buckets to be back", func() bool {
		lost = nil
		for _, r := range s.Sync(deadline(t, 5*time.Second), "me", requests) {
			lost = cmp.Or(lost, r.Err)
		}
		return lost == nil
	})
}

// One configuration of TLS serves Sentinels and servers (redis/go-redis#2758). Ours names no server, so
// each is verified by the name that it is connected to by; and the caller's is not changed.
func TestReport_redis_go_redis_2758_OneConfigurationForBoth(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	ca := authority(t)
	three := redistest.RunSentinel(t, redistest.Options{TLS: &redistest.TLS{Authority: ca}})
	var mu sync.Mutex // guards seen
	seen := make(map[string]bool)
	config := &tls.Config{RootCAs: ca.Pool(), VerifyConnection: func(c tls.ConnectionState) error {
		mu.Lock()
		defer mu.Unlock()
		seen[c.ServerName] = true
		return nil
	}}
	begin(t, openWith(t, "rediss-sentinel://"+named(three.Addrs())+"/"+three.Name, rediskeys.Options{TLS: config}))
	mu.Lock()
	defer mu.Unlock()
	// The name of a client's hello must not be an address (RFC 6066, section 3), so of those it is empty.
	if !seen["localhost"] || config.ServerName != "" || config.MinVersion != 0 {
		t.Errorf("verified %v; the configuration is %q, %x now", seen, config.ServerName, config.MinVersion)
	}
}

// turningPolicy forgives what a busy machine does.
var turningPolicy = ring.Policy{
	Algorithm: keystore.HS256, Every: 10 * time.Minute, Propagation: 15 * time.Second, MaxTokenTTL: time.Minute, Leeway: 2 * time.Second,
	ClockSkew: 500 * time.Millisecond, Freshness: 4 * time.Second, Dwell: time.Second, SignFor: 5 * time.Second,
}

// turning returns a member on a server that it logs in to with what get returns.
func turning(t *testing.T, server *redistest.Server, get rediskeys.CredentialsFunc) *member {
	t.Helper()
	patient := func(c *rotation.Config) { c.Poll, c.Deadline = 100*time.Millisecond, time.Second }
	m := memberOn(t, openWith(t, "redis://keyturn@"+server.Addr(), rediskeys.Options{Credentials: get}), "turning", patient, func(c *rotation.Config) { c.TrustFirstRead = true })
	eventually(t, "a ring", func() bool {
		_, err := m.rotator.Create(t.Context(), nemesisTenant, turningPolicy)
		if err != nil && errors.As(err, new(*rotation.PolicyError)) {
			t.Fatal(err)
		}
		return err == nil || errors.Is(err, rotation.ErrRefused)
	})
	eventually(t, "to be in sync", func() bool { return m.keys.Status().Fresh })
	return m
}

func hangUp(t *testing.T, server *redistest.Server) {
	t.Helper()
	do(t, server, "CLIENT", "KILL", "USER", "keyturn", "SKIPME", "yes")
}

// A password is asked for at each connection, so it can be turned while the process runs
// (redisson/redisson#6429, envoyproxy/ratelimit#1224): first two passwords, then the new one alone. No
// verification fails.
func TestReport_redisson_6429_envoyproxy_ratelimit_1224_PasswordTurns(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	setUser(t, server, documented)
	var password atomic.Value
	password.Store("right")
	m := turning(t, server, func(context.Context) (string, string, error) { return "", password.Load().(string), nil })
	_, token := m.signing(t)
	loading, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		for loading.Err() == nil {
			if _, err := m.verifier.Verify(context.Background(), token); err != nil {
				failed <- err
				return
			}
			time.Sleep(time.Millisecond)
		}
		failed <- nil
	}()
	for range 3 {
		next := rand.Text()
		do(t, server, "ACL", "SETUSER", "keyturn", ">"+next)
		hangUp(t, server)
		password.Store(next)
		do(t, server, "ACL", "SETUSER", "keyturn", "resetpass", ">"+next)
		hangUp(t, server)
		since := m.keys.Status().Counts
		eventually(t, "to be in sync with the new password", func() bool {
			s := m.keys.Status()
			return s.Fresh && s.Err == nil && s.Counts.Syncs > since.Syncs+3
		})
	}
	if _, fresh := m.signing(t); fresh == "" {
		t.Error("it does not sign")
	}
	cancel()
	if err := <-failed; err != nil {
		t.Errorf("Verify = %v", err)
	}
}

// A token that was kept may have expired (aws-samples/elasticache-iam-auth-demo-app#19). Each connection
// asks for a new one; here the server takes no other than the newest.
func TestReport_aws_samples_elasticache_iam_auth_demo_app_19_TokenIsNotKept(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	setUser(t, server, documented)
	var tokens atomic.Int32
	var mu sync.Mutex // held while a token is made: the server has one at a time
	s := openWith(t, "redis://"+server.Addr(), rediskeys.Options{Credentials: func(ctx context.Context) (string, string, error) {
		mu.Lock()
		defer mu.Unlock()
		tokens.Add(1)
		token := rand.Text()
		return "keyturn", token, server.Do(ctx, "ACL", "SETUSER", "keyturn", "resetpass", ">"+token)
	}})
	for range 5 {
		begin(t, s)
		hangUp(t, server)
	}
	begin(t, s)
	if n := tokens.Load(); n < 6 {
		t.Errorf("%d tokens for 6 connections", n)
	}
}

// AWS ends a connection after 12 h (redis/jedis#3224). Those with credentials from a function are
// replaced before, and not all at once. Others stay.
func TestReport_redis_jedis_3224_ConnectionsAreReplaced(t *testing.T) {
	get := func(context.Context) (string, string, error) { return "", "p", nil }
	for _, url := range []string{"rediss://h", "rediss-cluster://a,b", "rediss-sentinel://a/m", "unix:///s"} {
		for _, o := range []rediskeys.Options{{}, {Credentials: get}} {
			var lifetime, jitter time.Duration
			switch c := clientWith(t, url, o).(type) {
			case *redis.Client:
				lifetime, jitter = c.Options().ConnMaxLifetime, c.Options().ConnMaxLifetimeJitter
			case *redis.ClusterClient:
				lifetime, jitter = c.Options().ConnMaxLifetime, c.Options().ConnMaxLifetimeJitter
			}
			ok := lifetime+jitter < 12*time.Hour && lifetime-jitter > 9*time.Hour && jitter > time.Minute
			if (o.Credentials != nil) != ok {
				t.Errorf("%s: replaced after %v, with a jitter of %v", url, lifetime, jitter)
			}
		}
	}
}

// The password of the Sentinels is asked for at each connection to one, and goes to no server.
func TestSentinelCredentials(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	three := redistest.RunSentinel(t, redistest.Options{})
	setUser(t, three.Primary, documented)
	do(t, three.Primary, "ACL", "LOG", "RESET")
	for _, s := range three.Sentinels {
		do(t, s, "ACL", "SETUSER", "watcher", "on", ">first", "+@all", "&*")
	}
	var password atomic.Value
	password.Store("wrong")
	s := openWith(t, "redis-sentinel://keyturn@"+strings.Join(three.Addrs(), ",")+"/"+three.Name, rediskeys.Options{
		Credentials:         func(context.Context) (string, string, error) { return "", "right", nil },
		SentinelCredentials: func(context.Context) (string, string, error) { return "watcher", password.Load().(string), nil },
	})
	wantErr(t, "with a wrong password", s.Load(deadline(t, 20*time.Second), []string{tenant})[0].Err, rediskeys.ErrNoAuth)
	for _, next := range []string{"first", "second"} {
		password.Store(next)
		for _, one := range three.Sentinels {
			do(t, one, "ACL", "SETUSER", "watcher", "resetpass", ">"+next)
			do(t, one, "CLIENT", "KILL", "USER", "watcher")
		}
		hangUp(t, three.Primary)
		eventually(t, "the store with the "+next+" password", func() bool { return s.Load(deadline(t, 5*time.Second), []string{tenant})[0].Err == nil })
	}
	// The user may be in the URL, where only a password is a secret: for example the user of "keys acl".
	for _, one := range three.Sentinels {
		do(t, one, "ACL", "SETUSER", "default", "resetpass", ">another")
	}
	s = openWith(t, "redis-sentinel://keyturn@"+strings.Join(three.Addrs(), ",")+"/"+three.Name+"?sentinel_username=watcher", rediskeys.Options{
		Credentials:         func(context.Context) (string, string, error) { return "", "right", nil },
		SentinelCredentials: func(context.Context) (string, string, error) { return "", password.Load().(string), nil },
	})
	if err := s.Load(deadline(t, 20*time.Second), []string{tenant})[0].Err; err != nil {
		t.Errorf("with the user of the URL: %v", err)
	}
	if noted := denials(t, three.Primary); len(noted) > 0 {
		t.Errorf("the server noted %q", noted)
	}
}

// Options that contradict the URL, or that are unsafe, are errors without the URL.
func TestOpenWithRefuses(t *testing.T) {
	get := func(context.Context) (string, string, error) { return "", "", nil }
	for name, tt := range map[string]struct {
		url  string
		o    rediskeys.Options
		says string
	}{
		"TLS for a URL without":        {"redis://u:hush@h", rediskeys.Options{TLS: &tls.Config{}}, "rediss"},
		"no verification":              {"rediss://u:hush@h", rediskeys.Options{TLS: &tls.Config{InsecureSkipVerify: true}}, "InsecureSkipVerify"},
		"TLS 1.1":                      {"rediss://u:hush@h", rediskeys.Options{TLS: &tls.Config{MinVersion: tls.VersionTLS11}}, "TLS 1.2"},
		"two passwords":                {"redis://u:hush@h", rediskeys.Options{Credentials: get}, "give one"},
		"Sentinels that there are not": {"redis://u@h", rediskeys.Options{SentinelCredentials: get}, "redis-sentinel://"},
		"two passwords for Sentinels":  {"redis-sentinel://h/m?sentinel_password=hush", rediskeys.Options{SentinelCredentials: get}, "give one"},
		"a socket with TLS":            {"unix:///hush", rediskeys.Options{TLS: &tls.Config{}}, "TLS"},
		"a bad URL, with both":         {"hush", rediskeys.Options{Credentials: get}, "want redis://"},
	} {
		if _, err := rediskeys.OpenWith(tt.url, tt.o); err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", name, err)
		}
	}
	server := mini(t)
	s := openWith(t, "redis://"+server.Addr(), rediskeys.Options{Credentials: get})
	wantErr(t, "an empty password", s.Load(t.Context(), []string{tenant})[0].Err, rediskeys.ErrCredentials)
}

// Dial makes every connection, and TLS runs over it.
func TestOptionsDial(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	ca := authority(t)
	server := redistest.Run(t, redistest.Options{TLS: &redistest.TLS{Authority: ca}})
	var dials atomic.Int32
	s := openWith(t, "rediss://localhost:1", rediskeys.Options{TLS: &tls.Config{RootCAs: ca.Pool()}, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dials.Add(1); addr != "localhost:1" {
			t.Errorf("dials %s", addr)
		}
		return new(net.Dialer).DialContext(ctx, network, server.Addr())
	}})
	begin(t, s)
	if dials.Load() == 0 {
		t.Error("Dial was not called")
	}
}

// A socket of this machine needs no TLS.
func TestStoreOverSocket(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	path := t.TempDir() + "/redis.sock"
	server := redistest.Run(t, redistest.Options{Args: []string{"--unixsocket", path}})
	setUser(t, server, documented, []string{"+select"})
	s := open(t, "unix://keyturn:right@"+path+"?db=3")
	set(t, s, tenant, "f", "1")
	if n := server.Client().DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("database 0 has %d keys", n)
	}
}

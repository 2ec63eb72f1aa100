// Package rediskeys keeps the rings of package rotation in Redis: one server,
// one behind Sentinel, or a Cluster.
//
// [Open] makes a client from a URL, [New] a [Store] from a client. All that a
// Store writes, it writes in scripts, each of which Redis runs alone and whole;
// docs/formats.md has every key and what is in it. No key has a time to live.
//
// # What Redis has to be
//
// Redis 6.0 or later, with maxmemory-policy noeviction: one that may evict loses
// keys. A user of its ACL needs eval, evalsha, time, hgetall, hset, hdel, sadd,
// srem, sismember, smembers, del, xadd, xrange, xrevrange, publish, subscribe,
// ping, and cluster|slots in a Cluster; the keys and channels that begin with
// [Config.Prefix] and a colon.
//
// An acknowledged write may be lost when a replica takes over. With
// min-replicas-to-write 1 a primary that was cut off refuses writes, and, as an
// acknowledgement is one, instances that see only it learn that they are stale.
//
// # Logging
//
// The client has a logger of its own, one for the whole process, which writes to
// standard error past [rotation.Config.Logger]: [redis.SetLogger] replaces it. What
// matters is in the errors of this package.
//
// # Primaries only
//
// A replica answers with what was true some time ago. Each script asks its
// server to refuse if it is one, so neither a connection to a primary that has
// been demoted nor a wrong URL can pass for the truth.
package rediskeys

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/rotation"
)

const (
	defaultPrefix    = "kt"
	defaultLogLength = 10_000
)

// A Config configures a [Store]. The zero Config is a good one.
type Config struct {
	// Prefix is what all keys begin with, before a colon, and the channel too.
	// Stores of different prefixes know nothing of each other. It holds no
	// braces, spaces or control characters, and has at most 64 bytes. The
	// default is "kt".
	Prefix string

	// LogLength is about how many changes a bucket's log keeps: an instance that
	// is further behind reads its whole bucket again. At least 100, else an
	// error; the default is 10000.
	LogLength int
}

func (c Config) prefix() string {
	if c.Prefix == "" {
		return defaultPrefix
	}
	return c.Prefix
}

func (c Config) logLength() int {
	if c.LogLength == 0 {
		return defaultLogLength
	}
	return c.LogLength
}

func (c Config) validate() error {
	switch p := c.prefix(); {
	case len(p) > 64 || strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == '{' || r == '}' || r == 0x7f }):
		return fmt.Errorf("rediskeys: Config.Prefix is %q, want at most 64 bytes without braces, spaces and control characters", p)
	case c.logLength() < 100:
		return fmt.Errorf("rediskeys: Config.LogLength is %d, want at least 100", c.LogLength)
	}
	return nil
}

// A Store is a [rotation.Store] in Redis. It is safe for concurrent use, starts
// no goroutine that outlives a call, and needs no closing: the client is its
// owner's to close.
//
// A call keeps to the deadline of its context. If a context without a deadline
// is canceled while a server hangs, the call ends with the client's own timeout
// (with [Open], after 3 s).
//
// Its errors wrap what the client said and, where it is known what is wrong, one
// of this package's errors.
type Store struct {
	client    redis.UniversalClient
	scripts   scripts
	channel   string
	logLength string
	buckets   [rotation.Buckets]keys
}

var _ rotation.Store = (*Store)(nil)

// keys are the names of a bucket's keys. The braces make them one slot of a
// Cluster, whatever the tenant's name holds.
type keys struct{ log, ack, tenants, ring string }

func (k keys) ofRing(tenant string) string { return k.ring + tenant }

// New returns a Store. It does not connect yet.
//
// It is an error if the client cannot be used: one that ignores the deadlines of
// contexts (ContextTimeoutEnabled is off), that may read from replicas
// (ReadOnly, RouteByLatency, RouteRandomly), or a [redis.Ring], which moves keys
// to another server when one is away.
func New(client redis.UniversalClient, c Config) (*Store, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if err := usable(client); err != nil {
		return nil, err
	}
	s := &Store{
		client:    client,
		scripts:   newScripts(),
		channel:   c.prefix() + ":changed",
		logLength: strconv.Itoa(c.logLength()),
	}
	for i := range s.buckets {
		bucket := c.prefix() + ":{" + strconv.Itoa(i) + "}:"
		s.buckets[i] = keys{log: bucket + "log", ack: bucket + "ack", tenants: bucket + "tenants", ring: bucket + "ring:"}
	}
	return s, nil
}

func usable(client redis.UniversalClient) error {
	obeys, replicas := true, false
	switch c := client.(type) {
	case nil:
		return errors.New("rediskeys: there is no client")
	case *redis.Client:
		obeys = c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		o := c.Options()
		obeys, replicas = o.ContextTimeoutEnabled, o.ReadOnly || o.RouteByLatency || o.RouteRandomly
	case *redis.Ring:
		return errors.New("rediskeys: a redis.Ring moves keys to another server when one is away: use one server, Sentinel or a Cluster")
	}
	switch {
	case !obeys:
		return errors.New("rediskeys: the client ignores the deadlines of contexts: set ContextTimeoutEnabled in its options")
	case replicas:
		return errors.New("rediskeys: the client may read from replicas: turn off ReadOnly, RouteByLatency and RouteRandomly in its options")
	}
	return nil
}

// newNonce returns 128 random bits. Unlike a place's ID, no two lives of a store
// have one in common.
func newNonce() string { return rand.Text() }

package rediskeys

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/rotation"
)

const (
	defaultPrefix    = "kt"
	defaultLogLength = 10_000
)

// A Config configures a [Store]. The zero Config is ready to use.
type Config struct {
	// Prefix begins the names of all keys and of the channel; a colon follows it.
	// Stores with different prefixes are independent of each other. At most 64
	// bytes, without braces, spaces and control characters. The default is "kt".
	Prefix string

	// LogLength is the approximate number of changes that the log of a bucket
	// keeps. An instance that is further behind reads the whole bucket again. At
	// least 100, else an error; 0 means the default, 10000.
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

// A Store is a [rotation.Store] in Redis. It is safe for concurrent use and starts
// no goroutine that outlives a call. It needs no closing; the caller that made the
// client closes the client.
//
// A call ends by the deadline of its context. If its context has no deadline and is
// canceled while a server hangs, the call ends with the client's own timeout: 3 s
// for a client that [Open] made.
//
// If Redis or the client fails, the error is an [*Error]. It wraps the client's error
// and, if the cause is known, one of this package's errors.
type Store struct {
	client    redis.UniversalClient
	scripts   scripts
	channel   string
	logLength string
	buckets   [rotation.Buckets]bucketKeys
	noPlain   atomic.Bool // the server or its user cannot do what loadPlain needs

	exhausted [rotation.Buckets]atomic.Bool // the bucket's log refused an entry, since it has had the last possible ID
}

var _ rotation.Digester = (*Store)(nil)

// bucketKeys are the names of a bucket's keys in Redis. A Cluster hashes only what
// the first braces hold, so all of them are in one slot, even if a tenant's name
// has braces too.
type bucketKeys struct{ log, ack, tenants, ringPrefix string }

func (k bucketKeys) ring(tenant string) string { return k.ringPrefix + tenant }

// New returns a Store that uses client. It does not connect yet.
//
// New refuses a client that would be unsafe: one that ignores the deadlines of
// contexts (ContextTimeoutEnabled is off), one that may read from replicas
// (ReadOnly, RouteByLatency, RouteRandomly), and a [redis.Ring], which moves keys
// to another server when one is unreachable.
func New(client redis.UniversalClient, c Config) (*Store, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if err := checkClient(client); err != nil {
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
		s.buckets[i] = bucketKeys{log: bucket + "log", ack: bucket + "ack", tenants: bucket + "tenants", ringPrefix: bucket + "ring:"}
	}
	return s, nil
}

// Name returns the prefix of the keys. A snapshot of a keyring is used with the same prefix only.
func (s *Store) Name() string { return strings.TrimSuffix(s.channel, ":changed") }

func checkClient(client redis.UniversalClient) error {
	keepsDeadlines, readsReplicas := true, false
	switch c := client.(type) {
	case nil:
		return errors.New("rediskeys: there is no client")
	case *redis.Client:
		keepsDeadlines = c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		o := c.Options()
		keepsDeadlines, readsReplicas = o.ContextTimeoutEnabled, o.ReadOnly || o.RouteByLatency || o.RouteRandomly
	case *redis.Ring:
		return errors.New("rediskeys: a redis.Ring moves keys to another server when one is away: use one server, Sentinel or a Cluster")
	}
	switch {
	case !keepsDeadlines:
		return errors.New("rediskeys: the client ignores the deadlines of contexts: set ContextTimeoutEnabled in its options")
	case readsReplicas:
		return errors.New("rediskeys: the client may read from replicas: turn off ReadOnly, RouteByLatency and RouteRandomly in its options")
	}
	return nil
}

// newNonce returns 128 random bits as text. A store that lost data may give the ID
// of a lost log entry to another entry. Their nonces differ.
func newNonce() string { return rand.Text() }

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
)

const (
	envKEK           = "KEYTURN_KEK"
	envRedisPassword = "KEYTURN_REDIS_PASSWORD"
)

// ringForm is what the help says of the KEK and the URL.
const ringForm = `The keys in Redis are sealed with a key-encryption key (KEK), 32 bytes in base64,
from the file of --kek-file or KEYTURN_KEK_FILE, or from KEYTURN_KEK. All instances of
a service share it. Make one with: (umask 077; openssl rand -base64 32 > kek)

--redis, or without it KEYTURN_REDIS, takes redis://USER@HOST:PORT/DB,
redis-sentinel://HOST,HOST/NAME or redis-cluster://HOST,HOST, and rediss for TLS, or
unix:///PATH?db=DB. The password of Redis comes from --redis-password-file or
KEYTURN_REDIS_PASSWORD, and the user from the URL or KEYTURN_REDIS_USER; a password in
the URL of --redis can be read by other users of the machine.

--realm names the environment of the service, if its instances have a name for it
(rings.realm in the file of serve). What was sealed in one realm does not open in
another, even with the same KEK. --other-realm names a realm that is opened too, while
keyturn keys rekey --from-realm moves rings from one to the other; '' is none.`

// ringTime is how long a command works on a ring at most. If Redis answers, it takes a moment; if Redis
// hangs, each call times out sooner.
const ringTime = 10 * time.Second

// ringFlags say where the rings are, and which KEK opens them.
type ringFlags struct {
	redis, kekFile, realm *option[string]
	otherRealms           *list[string]
	link                  linkFlags
}

func newRingFlags() ringFlags {
	return ringFlags{
		redis:   &option[string]{kind: "URL", parse: parseText},
		kekFile: newPath(),
		realm:   &option[string]{kind: "NAME", parse: parseRealm},

		otherRealms: &list[string]{kind: "NAME", parse: parseOtherRealm},
		link:        newLinkFlags(),
	}
}

// parseOtherRealm is parseRealm, also of the realm "", in which rings are that were given none.
func parseOtherRealm(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	return parseRealm(s)
}

// checkRealms refuses the name of a realm that is given twice. flag names the one that says so.
func checkRealms(flag, realm string, others []string) error {
	for i, other := range others {
		if other == realm || slices.Contains(others[:i], other) {
			return usagef("%s: the realm %s is given twice: want the other one", flag, quoteShort(other))
		}
	}
	return nil
}

// parseRealm reads the name of a realm, which has at most the bytes that [rotation.Config] allows.
func parseRealm(s string) (string, error) {
	const most = 64
	s, err := parseText(s)
	if err == nil && len(s) > most {
		err = fmt.Errorf("has %d bytes: want at most %d", len(s), most)
	}
	return s, err
}

// needRedis refuses flags that say how to open a ring, without --redis.
func (r *ringFlags) needRedis() error {
	for _, f := range []struct {
		name  string
		given bool
	}{{"kek-file", r.kekFile.given}, {"realm", r.realm.given}, {"other-realm", len(r.otherRealms.values) > 0}} {
		if f.given && !r.redis.given {
			return usagef("--%s goes with --redis, which says where the ring is", f.name)
		}
	}
	if names := r.link.given(); len(names) > 0 && !r.redis.given {
		return usagef("--%s goes with --redis, which says where the ring is", names[0])
	}
	return nil
}

func (r *ringFlags) register(cmd *cobra.Command, redisUsage string) {
	f := cmd.Flags()
	f.Var(r.redis, "redis", redisUsage+" (default: "+envRedis+")")
	r.link.register(cmd)
	f.Var(r.kekFile, "kek-file", "the file that holds the KEK of the ring (default: "+envKEKFile+")")
	f.Var(r.realm, "realm", "the realm that the keys are sealed in, such as production (default: none)")
	f.Var(r.otherRealms, "other-realm", "a realm that keys may also be sealed in, while they move; repeatable")
}

// newRingTenant returns a flag for the tenant of a ring.
func newRingTenant() *option[string] {
	o := newTenant()
	o.parse = parseTenant
	return o
}

func parseTenant(s string) (string, error) {
	s, err := parseText(s)
	if err == nil && len(s) > ring.MaxTenantBytes {
		err = fmt.Errorf("has %d bytes: want at most %d", len(s), ring.MaxTenantBytes)
	}
	return s, err
}

// keks reads the KEK from a file or, if path is empty, from what the environment names. Errors hold
// nothing of the KEK.
func (a *app) keks(path string) (*rotation.KEKs, error) {
	keks, _, err := a.readKEKs("--kek-file", path)
	return keks, err
}

// withLogin puts a user and a password into a URL that has none. Either may be empty: then it is left as
// it is.
func withLogin(rawURL, user, password string) (string, error) {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok {
		return rawURL, nil // refused by rediskeys.Open
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	login, hosts := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		login, hosts = authority[:i], authority[i+1:]
	}
	name, own, hasOwn := strings.Cut(login, ":")
	escape := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	switch {
	case hasOwn && password != "":
		return "", usagef("the password of Redis is in --redis and in %s: give one", envRedisPassword)
	case name != "" && user != "" && name != escape(user):
		return "", usagef("the user of Redis is in --redis and in %s: give one", envRedisUser)
	case user != "":
		name = escape(user)
	}
	if password != "" {
		own, hasOwn = escape(password), true
	}
	if hasOwn {
		name += ":" + own
	}
	return scheme + "://" + name + "@" + hosts + path, nil
}

// A store is a store of rings and its connections.
type store struct {
	rotation.Store
	client redis.UniversalClient // of the same Redis, for what no store does
	close  func() error
	nudge  func(ctx context.Context, bucket int) (instances int, err error) // wakes those that listen, and counts them
	log    func(context.Context, []rediskeys.LogRead) []rediskeys.LogPage
}

// Tenants returns the names that tenants can have. Anyone who can write to Redis chooses the names, and
// one that no keyring takes would keep a command from the other tenants of its bucket.
func (s *store) Tenants(ctx context.Context, buckets []int) ([][]string, error) {
	all, err := s.Store.Tenants(ctx, buckets)
	for i := range all {
		all[i] = slices.DeleteFunc(all[i], func(name string) bool { _, err := parseTenant(name); return err != nil })
	}
	return all, err
}

// openStore returns the store that a URL names. It does not connect yet.
func openStore(rawURL string, o rediskeys.Options) (*store, error) {
	logging.Disable() // the Redis client would write to stderr; what matters comes as an error
	client, err := rediskeys.OpenWith(rawURL, o)
	if err != nil {
		return nil, storeError(err)
	}
	s, err := rediskeys.New(client, rediskeys.Config{})
	if err != nil {
		client.Close()
		return nil, storeError(err)
	}
	nudge := func(ctx context.Context, bucket int) (int, error) {
		// As after a change: docs/formats.md, "In Redis".
		n, err := client.Publish(ctx, "kt:changed", bucket).Result()
		return int(n), err
	}
	return &store{Store: s, client: client, close: client.Close, nudge: nudge, log: s.Log}, nil
}

// A ringSession is what the flags for rings name: a store, and how to open the rings in it.
type ringSession struct {
	*app
	store *store
	url   string // of store, with its password
	link  rediskeys.Options
	keks  *rotation.KEKs
	realm string

	otherRealms []string
}

// connect returns the session of flags. It does not connect yet. The caller closes its store.
func (a *app) connect(flags *ringFlags) (*ringSession, error) {
	return a.connectWith(flags, func() (*rotation.KEKs, error) { return a.keks(flags.kekFile.value) })
}

// connectWith is connect with the KEKs that keksOf returns. Without any, the session opens no ring.
func (a *app) connectWith(flags *ringFlags, keksOf func() (*rotation.KEKs, error)) (*ringSession, error) {
	if err := flags.fromEnv(a, false); err != nil {
		return nil, err
	}
	if !flags.redis.given {
		return nil, usagef("--redis is missing: give the URL of the Redis that has the ring, such as --redis redis://localhost:6379, or set %s", envRedis)
	}
	if err := checkRealms("--other-realm", flags.realm.value, flags.otherRealms.values); err != nil {
		return nil, err
	}
	keks, err := keksOf()
	if err != nil {
		return nil, err
	}
	rawURL, link, err := a.redisAt(flags.redis.value, flags.link.link())
	if err != nil {
		return nil, err
	}
	s, err := openStore(rawURL, link)
	if err != nil {
		return nil, err
	}
	return &ringSession{app: a, store: s, url: rawURL, link: link, keks: keks, realm: flags.realm.value, otherRealms: flags.otherRealms.values}, nil
}

// open returns a keyring that holds the tenants' rings as the store has them now.
func (s *ringSession) open(ctx context.Context, tenants ...string) (*rotation.Keyring, error) {
	k, err := s.openRings(ctx, tenants...)
	if err != nil {
		return nil, openingError(err)
	}
	return k, nil
}

// openRings is open, with the error as package rotation has it. A Redis that is busy may answer a read too late, so
// it is asked again for half of ringTime.
func (s *ringSession) openRings(ctx context.Context, tenants ...string) (*rotation.Keyring, error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	patience, stop := context.WithTimeout(ctx, ringTime/2)
	defer stop()
	for {
		k, err := rotation.Open(ctx, s.store, rotation.Config{KEKs: s.keks, Tenants: tenants, OneShot: true, Realm: s.realm, OtherRealms: s.otherRealms, Now: s.now})
		if !errors.Is(err, rediskeys.ErrTimeout) || patience.Err() != nil {
			return k, err
		}
	}
}

// withRing calls use with a keyring that holds the tenant's ring as the store has it now. Afterwards
// nothing stays open.
func (a *app) withRing(ctx context.Context, flags *ringFlags, tenant string, use func(context.Context, *rotation.Keyring) error) error {
	return a.withRingSession(ctx, flags, tenant, func(ctx context.Context, _ *ringSession, k *rotation.Keyring) error { return use(ctx, k) })
}

// withRingSession is withRing for a command that asks the Redis of the ring for more.
func (a *app) withRingSession(ctx context.Context, flags *ringFlags, tenant string, use func(context.Context, *ringSession, *rotation.Keyring) error) error {
	s, err := a.connect(flags)
	if err != nil {
		return err
	}
	defer s.store.close()
	k, err := s.open(ctx, tenant)
	if err != nil {
		return err
	}
	defer k.Close(context.WithoutCancel(ctx))
	return use(ctx, s, k)
}

// noRing returns an error for a tenant that is known to have no ring.
func noRing(tenant string) error {
	return exitf(exitNo, `tenant %s has no ring in this Redis: is the name right? If it had one, instances that run still put it back, and so does a backup (keyturn keys restore); for a new tenant, "keyturn keys create" makes one`, quoteShort(tenant))
}

// ringOf returns the state of the tenant's ring.
func ringOf(k *rotation.Keyring, tenant string) (rotation.TenantStatus, error) {
	status, err := k.Tenant(tenant)
	switch {
	case err != nil:
		return status, ringError(err)
	case len(status.Ring.Keys)+len(status.Accepted) > 0:
		return status, nil
	case status.Ring.Dead:
		return status, destroyedRing(tenant, status.Ring.DeadAt)
	case server.IsSealError(status.Err) || errors.Is(status.Err, keystore.ErrUnavailable):
		return status, ringError(status.Err)
	}
	return status, noRing(tenant)
}

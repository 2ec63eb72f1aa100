package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// A pace is how fast keys rotate and instances poll.
type pace struct {
	rotation.Policy // of the HS* rings
	poll, deadline  time.Duration
}

// fast is the pace of a run: a key signs for six seconds. It keeps every inequality of
// [rotation.Policy.Validate]. docs/faults.md states its durations.
var fast = pace{
	Policy: rotation.Policy{
		Algorithm: keystore.HS256, Every: 6 * time.Second, Propagation: 4500 * time.Millisecond, MaxTokenTTL: 3 * time.Second, Leeway: time.Second,
		ClockSkew: 250 * time.Millisecond, Freshness: 2250 * time.Millisecond, Dwell: time.Second, SignFor: 3 * time.Second,
	},
	poll: 250 * time.Millisecond, deadline: 450 * time.Millisecond,
}

// slower returns p with every duration n times as long, for a busy machine.
func (p pace) slower(n time.Duration) pace {
	for _, d := range []*time.Duration{&p.Every, &p.Propagation, &p.MaxTokenTTL, &p.Leeway, &p.ClockSkew, &p.Freshness, &p.Dwell, &p.SignFor, &p.poll, &p.deadline} {
		*d *= n
	}
	return p
}

// onePoll returns how long after a change every instance that reaches the store has read it.
func (p pace) onePoll() time.Duration { return p.poll + p.poll/5 + p.deadline }

// glance returns how often the state of all instances is looked at.
func (p pace) glance() time.Duration {
	slower := p.poll / fast.poll
	return 20 * time.Millisecond * slower * slower
}

// offsets are how far the instances' clocks are ahead of true time. All are within ClockSkew.
var offsets = []time.Duration{-200 * time.Millisecond, -120 * time.Millisecond, -40 * time.Millisecond, 40 * time.Millisecond, 120 * time.Millisecond, 200 * time.Millisecond}

// A tenant is a tenant of the fleet, with the algorithm of its ring.
type tenant struct {
	name string
	alg  keystore.Algorithm
}

// tenants are chosen so that their buckets lie on all three servers of a Cluster.
var tenants = []tenant{{"globex", keystore.HS256}, {"acme", keystore.HS256}, {"initech", keystore.HS256}, {"umbrella", keystore.HS256}, {"hooli", keystore.ES256}}

func tenantNames() []string {
	var names []string
	for _, t := range tenants {
		names = append(names, t.name)
	}
	return names
}

func (p pace) policy(t tenant) rotation.Policy {
	policy := p.Policy
	if policy.Algorithm = t.alg; !t.alg.Symmetric() {
		policy.ReaderStaleness = p.Propagation - p.Freshness - p.Dwell - p.ClockSkew
	}
	return policy
}

// firstKEK is the KEK with which every fleet begins.
const firstKEK = "0123456789abcdef0123456789ABCDEF"

func newKEKs() *rotation.KEKs { return keksOf([]byte(firstKEK)) }

func keksOf(kek []byte) *rotation.KEKs {
	keks, err := rotation.NewKEKs(kek)
	if err != nil {
		panic(err) // impossible: the KEK has 32 bytes
	}
	return keks
}

// A fleet is six instances on one Redis, with the tally of what they do.
type fleet struct {
	servers servers
	tally   *tally
	judge   *judge   // of revocations; nil: none
	logouts *logouts // of users; nil without users
	rate    int      // tokens a second
	pace    pace
	log     *slog.Logger
	kek     []byte // of the instances that start; only strike changes it
	dir     string // of the instances' snapshots, or ""

	mu       sync.Mutex
	rng      *rand.Rand
	members  []*instance
	departed rotation.Counts // of the instances that have left
	joined   int
	arrived  int      // guests
	guests   []*guest // that have a ring, or had one

	pending sync.WaitGroup // the verifications to come
}

// An instance stands for one process of a service: it has a clock, a network and a keyring of its
// own.
type instance struct {
	name      string
	pace      pace
	offset    time.Duration
	link      *link
	nudgeLink *link // the connection on which it hears of changes
	clients   []redis.UniversalClient
	keys      *rotation.Keyring
	rotator   *rotation.Rotator
	signer    *rotation.Signer
	verifiers [2]*verifier.Verifier // without a cache, and with one
	list      *revocations.List     // nil: there are no users
	guards    [2]*verifier.Verifier // of the users' tokens: without a cache, and with one
	snapshot  string                // its file, or ""
	away      atomic.Bool           // it has read nothing since its start, because the store is away
	stop      context.CancelFunc
	stopped   chan struct{}
}

// now is the instance's clock.
func (m *instance) now() time.Time { return time.Now().Add(m.offset) }

func (m *instance) fresh(tenant string) bool {
	fresh, _ := m.inSync(tenant)
	return fresh
}

// inSync reports whether the instance says that it is in sync, and when its last good sync was sent
// by its own clock.
func (m *instance) inSync(tenant string) (bool, time.Time) {
	s, err := m.keys.Tenant(tenant)
	return err == nil && s.Fresh, s.LastGood
}

// A splitStore is a store that listens on a connection of its own. That connection can be broken
// alone.
type splitStore struct {
	rotation.Store
	nudges rotation.Store
}

func (h splitStore) Listen(ctx context.Context, changed func(bucket int)) error {
	return h.nudges.Listen(ctx, changed)
}

// newFleet creates the rings and starts the instances. It returns when all instances are in sync.
func newFleet(ctx context.Context, s servers, o options, name string) (*fleet, error) {
	seed := o.seed
	for _, b := range []byte(name) {
		seed = seed*31 + uint64(b)
	}
	f := &fleet{servers: s, tally: newTally(), rate: o.rate, pace: o.pace, log: o.log, kek: []byte(firstKEK), dir: o.snapshots, rng: rand.New(rand.NewPCG(o.seed, seed))}
	if o.haveUsers(name) {
		f.logouts = newLogouts(f, o.measures)
	}
	if err := f.create(ctx); err != nil {
		return nil, err
	}
	order := f.rng.Perm(len(offsets))
	members := make([]*instance, len(offsets))
	err := atOnce(len(offsets), func(i int) (err error) {
		members[i], err = f.start(ctx, string(rune('a'+i)), offsets[order[i]])
		return err
	})
	f.members = slices.DeleteFunc(members, func(m *instance) bool { return m == nil })
	if err == nil {
		err = f.ready(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, f.stop())
	}
	return f, nil
}

// create creates the rings one after the other, so that they do not rotate at the same moment.
func (f *fleet) create(ctx context.Context) error {
	return f.command(ctx, func(r *rotation.Rotator) error {
		for _, t := range tenants {
			if err := f.pace.makeRing(ctx, r, t); err != nil {
				return err
			}
			if err := sleep(ctx, 150*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	})
}

// command calls do as a command: a process that leaves no acknowledgement, and ends.
func (f *fleet) command(ctx context.Context, do func(*rotation.Rotator) error) error {
	l := newLink(f.servers.resolve)
	client := l.client(f.servers.address())
	defer l.stop()
	defer client.Close()
	store, err := rediskeys.New(client, rediskeys.Config{})
	if err != nil {
		return err
	}
	k, err := open(ctx, store, rotation.Config{KEKs: keksOf(f.kek), Tenants: tenantNames(), Poll: f.pace.poll, Deadline: f.pace.deadline, OneShot: true})
	if err != nil {
		return err
	}
	defer k.Close(ctx)
	r, err := rotation.NewRotator(k)
	if err != nil {
		return err
	}
	return do(r)
}

// makeRing creates a ring. It tries again while Redis does not answer in time.
func (p pace) makeRing(ctx context.Context, r *rotation.Rotator, t tenant) error {
	return await(ctx, "the ring of "+t.name, func() bool {
		_, err := r.Create(ctx, t.name, p.policy(t))
		return err == nil || errors.Is(err, rotation.ErrRefused) // the ring exists
	})
}

// open opens a keyring. It tries again while Redis does not answer in time, like a process that is
// restarted until it runs.
func open(ctx context.Context, store rotation.Store, cfg rotation.Config) (k *rotation.Keyring, err error) {
	for stop := time.Now().Add(patience); ; {
		k, err = rotation.Open(ctx, store, cfg)
		if err == nil || !errors.Is(err, keystore.ErrUnavailable) || time.Now().After(stop) || sleep(ctx, fast.deadline) != nil {
			return k, err
		}
	}
}

// start starts an instance. It does not wait until the instance is in sync.
func (f *fleet) start(ctx context.Context, name string, offset time.Duration) (*instance, error) {
	return f.startBehind(ctx, name, offset, nil)
}

// startBehind starts an instance whose network has a fault, unless that is nil.
func (f *fleet) startBehind(ctx context.Context, name string, offset time.Duration, how fault) (*instance, error) {
	m := &instance{name: name, pace: f.pace, offset: offset, link: f.newLink(), nudgeLink: f.newLink(), stopped: make(chan struct{})}
	if how != nil {
		isolate([]*instance{m}, how)
		m.away.Store(true)
	}
	if f.dir != "" {
		m.snapshot = filepath.Join(f.dir, name)
	}
	guests := f.guestList()
	names := tenantNames()
	for _, g := range guests {
		names = append(names, g.tenant.name)
	}
	store, err := m.store(f.servers.address())
	if err == nil {
		m.keys, err = open(ctx, store, rotation.Config{
			KEKs: keksOf(f.kek), Tenants: names, Instance: name, Poll: f.pace.poll, Deadline: f.pace.deadline,
			Snapshot: m.snapshot, StoreMayBeAway: how != nil,
			AllowBootstrap: mayBootstrap(name), Policy: f.pace.Policy,
			Now: m.now, Logger: f.log.With("instance", name),
		})
	}
	if err == nil {
		err = m.openUsers(guests)
	}
	if err == nil && f.logouts != nil {
		err = f.logouts.open(ctx, m)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("instance %s: %w", name, err), m.close())
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = cancel
	go func() {
		defer close(m.stopped)
		_ = m.rotator.Run(run) // returns nil
	}()
	return m, nil
}

// newLink returns the network of an instance to the servers.
func (f *fleet) newLink() *link {
	l := newLink(f.servers.resolve)
	if split, ok := f.servers.(*splitPair); ok { // an instance reaches the primary of its side
		l.resolve = func(string) string { return split.resolveFor(l) }
	}
	return l
}

func (m *instance) store(at address) (rotation.Store, error) {
	var stores []rotation.Store
	for _, l := range []*link{m.link, m.nudgeLink} {
		client := l.client(at)
		m.clients = append(m.clients, client)
		s, err := rediskeys.New(client, rediskeys.Config{})
		if err != nil {
			return nil, err
		}
		stores = append(stores, s)
	}
	return splitStore{Store: stores[0], nudges: stores[1]}, nil
}

// mayBootstrap reports whether an instance may make rings: those that join later may. They must
// never find the store empty for long enough. An instance that may make rings syncs all buckets, so
// a whole fleet of them would be too much for one machine.
func mayBootstrap(name string) bool { return strings.HasPrefix(name, "joiner") }

func issuer(tenant string) string { return "https://" + tenant + ".example" }

func (m *instance) openUsers(guests []*guest) (err error) {
	if m.rotator, err = rotation.NewRotator(m.keys); err != nil {
		return err
	}
	if m.signer, err = rotation.NewSigner(m.keys, rotation.SignerConfig{Issuer: issuer}); err != nil {
		return err
	}
	for i, ttl := range []time.Duration{-1, 0} {
		cfg := verifier.Config{CacheTTL: ttl, Now: m.now}
		for _, t := range tenants {
			cfg.Tenants = append(cfg.Tenants, verifier.Tenant{ID: t.name, Keys: m.keys, Algorithms: []keystore.Algorithm{t.alg},
				Issuer: issuer(t.name), AnyAudience: true, Leeway: m.pace.Leeway})
		}
		for _, g := range guests {
			cfg.Tenants = append(cfg.Tenants, g.rules(m))
		}
		if m.verifiers[i], err = verifier.New(cfg); err != nil {
			return err
		}
	}
	for _, g := range guests {
		g.change(m)
	}
	return nil
}

// close ends an instance. It leaves the faults of its network as they are.
func (m *instance) close() error {
	var errs []error
	if m.stop != nil {
		m.stop()
		<-m.stopped
	}
	if m.list != nil {
		_ = m.list.Close(context.Background()) // it waits for its deadline at most; the store may be unreachable
	}
	if m.keys != nil {
		_ = m.keys.Close(context.Background()) // the error does not matter: the store may be unreachable
	}
	for _, c := range m.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, m.link.stop(), m.nudgeLink.stop())...)
}

// join adds an instance.
func (f *fleet) join(ctx context.Context) (*instance, error) {
	f.mu.Lock()
	f.joined++
	name := fmt.Sprintf("joiner-%d", f.joined)
	offset := offsets[f.rng.IntN(len(offsets))]
	f.mu.Unlock()
	m, err := f.start(ctx, name, offset)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = append(slices.Clone(f.members), m)
	return m, nil
}

// leave ends an instance and removes it from the fleet.
func (f *fleet) leave(m *instance) error {
	f.mu.Lock()
	f.members = slices.DeleteFunc(slices.Clone(f.members), func(other *instance) bool { return other == m })
	f.departed = sum(f.departed, m.keys.Status().Counts)
	f.mu.Unlock()
	return m.close()
}

func sum(a, b rotation.Counts) rotation.Counts {
	return rotation.Counts{Syncs: a.Syncs + b.Syncs, Failures: a.Failures + b.Failures, Repairs: a.Repairs + b.Repairs,
		Resyncs: a.Resyncs + b.Resyncs, Refreshes: a.Refreshes + b.Refreshes,
		Undone: a.Undone + b.Undone, Older: a.Older + b.Older, Forged: a.Forged + b.Forged}
}

// instances returns the current members. The caller must not change the slice.
func (f *fleet) instances() []*instance {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.members
}

func (f *fleet) counts() rotation.Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.departed
	for _, m := range f.members {
		c = sum(c, m.keys.Status().Counts)
	}
	return c
}

func (f *fleet) intN(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rng.IntN(n)
}

// between returns a random duration from least to most, in milliseconds.
func (f *fleet) between(least, most time.Duration) time.Duration {
	return least + time.Duration(f.intN(max(1, int((most-least)/time.Millisecond))))*time.Millisecond
}

// random returns n random members.
func (f *fleet) random(n int) []*instance {
	all := slices.Clone(f.instances())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(n, len(all))]
}

// ready waits until every instance is in sync.
func (f *fleet) ready(ctx context.Context) error {
	var late string
	err := await(ctx, "the fleet to be fresh", func() bool {
		if f.logouts != nil {
			if err := f.logouts.ready(); err != nil {
				late = err.Error()
				return false
			}
		}
		names := append(tenantNames(), f.guestNames()...)
		for _, m := range f.instances() {
			for _, name := range names {
				if s, err := m.keys.Tenant(name); m.keys.Serves(name) && !s.Fresh {
					late = fmt.Sprintf("%s is not: %v", m.name, errors.Join(err, s.Err))
					return false
				}
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, late)
	}
	return nil
}

// agree waits until all instances have the same pending and signing keys.
func (f *fleet) agree(ctx context.Context) error {
	return await(ctx, "the fleet to agree", func() bool {
		all := f.instances()
		for _, t := range tenants {
			for _, m := range all[1:] {
				if keysOf(m, t.name) != keysOf(all[0], t.name) {
					return false
				}
			}
		}
		return true
	})
}

// keysOf returns the kids of a ring's pending and signing keys, in order.
func keysOf(m *instance, tenant string) string {
	s, err := m.keys.Tenant(tenant)
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, k := range s.Ring.Keys {
		if k.State == ring.Pending || k.State == ring.Signing {
			names = append(names, k.KID)
		}
	}
	return fmt.Sprint(names)
}

// stop ends all instances.
func (f *fleet) stop() error {
	all := f.instances()
	return atOnce(len(all), func(i int) error { return all[i].close() })
}

// nextSwitch returns when the next pending key of any tenant takes effect.
func (f *fleet) nextSwitch() time.Time {
	var next time.Time
	for _, t := range tenants {
		s, err := f.instances()[0].keys.Tenant(t.name)
		if err != nil {
			continue
		}
		for _, k := range s.Ring.Keys {
			if k.State == ring.Pending && (next.IsZero() || k.ActivatesAt.Before(next)) {
				next = k.ActivatesAt
			}
		}
	}
	return cmp.Or(next, time.Now())
}

// atOnce calls f with 0 to n-1 at the same time and waits for all calls.
func atOnce(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

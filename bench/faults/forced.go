package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// A forcedResult says what forced rotations cost. A run is one ring in which one to three keys are
// forced to sign in a row, around a failover.
type forcedResult struct {
	Runs, Failovers, Forced int
	Late                    int // runs that do not count: the failover lost more than Dwell of writes, or no key was forced in time
	Signed, Verified        int
	Silent                  int // refusals to sign at an instance in sync
	Rejected                int // live tokens that were rejected (401), at any instance
	Unavailable             int // live tokens that an instance in sync could not decide (503)
	Notes                   []string
}

func (r *forcedResult) broken() error {
	if r.Silent+r.Rejected > 0 {
		return fmt.Errorf("forced rotations: %d refusals to sign at fresh instances, %d live tokens rejected: %q", r.Silent, r.Rejected, r.Notes)
	}
	return nil
}

// add adds the result of another bench.
func (r *forcedResult) add(o *forcedResult) {
	r.Runs, r.Failovers, r.Forced, r.Late = r.Runs+o.Runs, r.Failovers+o.Failovers, r.Forced+o.Forced, r.Late+o.Late
	r.Signed, r.Verified, r.Silent = r.Signed+o.Signed, r.Verified+o.Verified, r.Silent+o.Silent
	r.Rejected, r.Unavailable, r.Notes = r.Rejected+o.Rejected, r.Unavailable+o.Unavailable, append(r.Notes, o.Notes...)
}

// forcedRings is how many rings share the servers of a bench: so few that their keys are forced to
// sign well within Dwell.
const forcedRings = 16

// forcedPace is [fast] with keys that rotate by force alone, and with a SignFor of no less than
// Freshness + Dwell + ClockSkew: an instance in sync can then always sign.
func forcedPace() pace {
	p := fast
	p.SignFor, p.Propagation, p.Every = 4*time.Second, 5500*time.Millisecond, time.Hour
	return p
}

// A forcedBench is three instances on a primary and its replica.
type forcedBench struct {
	pace    pace
	servers *pair
	rng     *rand.Rand // of the goroutine that forces; the others draw nothing
	names   []string
	members []*forcedMember
	command *racer // a process that ends, and holds nothing
	ends    []func()
	pending sync.WaitGroup // verifications to come

	mu sync.Mutex
	r  forcedResult
}

// A forcedMember is an instance with its clock and its network.
type forcedMember struct {
	*racer
	name     string
	offset   time.Duration
	link     *link
	signer   *rotation.Signer
	verifier *verifier.Verifier
}

func (m *forcedMember) now() time.Time { return time.Now().Add(m.offset) }

func (m *forcedMember) fresh(tenant string) bool {
	s, err := m.keys.Tenant(tenant)
	return err == nil && s.Fresh
}

// forcedRotations makes at least that many runs, with several benches at once. tell is called after
// each failover with the result of its bench so far.
func forcedRotations(ctx context.Context, runs, benches int, p pace, seed uint64, tell func(bench int, r forcedResult)) (all forcedResult, err error) {
	results := make([]forcedResult, benches)
	err = atOnce(benches, func(i int) (err error) {
		results[i], err = forceOn(ctx, (runs+benches-1)/benches, p, seed+uint64(i), func(r forcedResult) { tell(i, r) })
		return err
	})
	for i := range results {
		all.add(&results[i])
	}
	return all, err
}

func forceOn(ctx context.Context, runs int, p pace, seed uint64, tell func(forcedResult)) (r forcedResult, err error) {
	b := &forcedBench{pace: p, rng: rand.New(rand.NewPCG(seed, 7))}
	for i := range forcedRings {
		b.names = append(b.names, fmt.Sprint("tenant-", i))
	}
	s, err := startPair(options{})
	if err != nil {
		return r, err
	}
	b.servers = s.(*pair)
	defer func() { err = errors.Join(err, b.stop()) }()
	if err := b.start(ctx); err != nil {
		return r, err
	}
	running, stop := context.WithCancel(ctx)
	var traffic sync.WaitGroup
	for _, m := range b.members {
		traffic.Go(func() { b.traffic(running, m) })
	}
	for b.r.Runs < runs && err == nil {
		if err = b.round(ctx); b.r.Late > 2*runs+5*forcedRings {
			err = errors.Join(err, fmt.Errorf("the machine is too slow: in %d runs of %d no key was forced within Dwell", b.r.Late, b.r.Late+b.r.Runs))
		}
		b.count(func(r *forcedResult) { tell(*r) }, "")
	}
	stop()
	traffic.Wait()
	b.pending.Wait()
	return b.r, err
}

func (b *forcedBench) stop() error {
	for i := len(b.ends) - 1; i >= 0; i-- {
		b.ends[i]()
	}
	return b.servers.Stop()
}

// start makes the rings and starts the instances.
func (b *forcedBench) start(ctx context.Context) (err error) {
	if b.command, err = b.open(ctx, newLink(b.servers.resolve), rotation.Config{OneShot: true}); err != nil {
		return err
	}
	for _, name := range b.names {
		if err := b.pace.makeRing(ctx, b.command.Rotator, tenantOf(name)); err != nil {
			return err
		}
	}
	for i, offset := range []time.Duration{-100 * time.Millisecond, 0, 100 * time.Millisecond} {
		m := &forcedMember{name: string(rune('a' + i)), offset: offset, link: newLink(b.servers.resolve)}
		if m.racer, err = b.open(ctx, m.link, rotation.Config{Instance: m.name, Now: m.now}); err != nil {
			return err
		}
		if m.signer, err = rotation.NewSigner(m.keys, rotation.SignerConfig{Issuer: issuer}); err != nil {
			return err
		}
		cfg := verifier.Config{CacheTTL: -1, Now: m.now}
		for _, name := range b.names {
			cfg.Tenants = append(cfg.Tenants, verifier.Tenant{ID: name, Keys: m.keys, Algorithms: []keystore.Algorithm{keystore.HS256},
				Issuer: issuer(name), AnyAudience: true, Leeway: b.pace.Leeway})
		}
		if m.verifier, err = verifier.New(cfg); err != nil {
			return err
		}
		b.members = append(b.members, m)
	}
	return b.ready(ctx)
}

// open starts a process. All of them end with the bench.
func (b *forcedBench) open(ctx context.Context, l *link, cfg rotation.Config) (*racer, error) {
	cfg.KEKs, cfg.Tenants, cfg.Poll, cfg.Deadline = newKEKs(), b.names, b.pace.poll, b.pace.deadline
	m, end, err := startMember(ctx, l.client(address{addrs: []string{primary}}), cfg)
	b.ends = append(b.ends, func() { _ = l.stop() }) // the servers end anyway
	if err == nil {
		b.ends = append(b.ends, end)
	}
	return m, err
}

// ready waits until all instances are in sync.
func (b *forcedBench) ready(ctx context.Context) error {
	return await(ctx, "three instances to be in sync", func() bool {
		for _, m := range b.members {
			if !m.keys.Status().Fresh {
				return false
			}
		}
		return true
	})
}

// traffic lets an instance sign for each tenant ten times a second, and all of them verify that at once
// and one of them just before its end.
func (b *forcedBench) traffic(ctx context.Context, m *forcedMember) {
	for n := 0; sleep(ctx, 100*time.Millisecond) == nil; n++ {
		for i, name := range b.names {
			before := m.fresh(name)
			raw, err := m.signer.Sign(context.Background(), name, nil)
			if err != nil {
				if before && m.fresh(name) {
					b.count(func(r *forcedResult) { r.Silent++ }, "%s is in sync, and does not sign for %s: %v", m.name, name, err)
				}
				continue
			}
			t, err := b.pace.readToken(raw, tenantOf(name))
			if b.count(func(r *forcedResult) { r.Signed++ }, ""); err != nil {
				b.count(func(r *forcedResult) { r.Rejected++ }, "a malformed token: %v", err)
				continue
			}
			for _, other := range b.members {
				b.after(0, other, t)
			}
			last := b.members[(n+i)%len(b.members)]
			b.after(t.end().Sub(last.now())-time.Duration(20+10*(n%10))*time.Millisecond, last, t)
		}
	}
}

// after verifies a token after a while.
func (b *forcedBench) after(d time.Duration, m *forcedMember, t token) {
	b.pending.Add(1)
	time.AfterFunc(d, func() {
		defer b.pending.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		before := m.fresh(t.tenant.name)
		_, err := m.verifier.VerifyTenant(ctx, t.tenant.name, t.raw)
		fresh := before && m.fresh(t.tenant.name)
		if !m.now().Before(t.end()) {
			return // it may, or must, be rejected
		}
		b.count(func(r *forcedResult) { r.Verified++ }, "")
		switch {
		case errors.Is(err, verifier.ErrInvalid):
			b.count(func(r *forcedResult) { r.Rejected++ }, "%s, fresh %v, rejects a token of %s, key %s, signed %v ago: %v", m.name, fresh, t.tenant.name, t.kid, time.Since(t.signed), err)
		case err != nil && fresh:
			b.count(func(r *forcedResult) { r.Unavailable++ }, "")
		}
	})
}

// count changes the counts, and notes what it is about, unless that is "".
func (b *forcedBench) count(change func(*forcedResult), format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.r)
	if format != "" && len(b.r.Notes) < 5 {
		b.r.Notes = append(b.r.Notes, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// round forces one to three keys in each ring to sign, and then kills the primary. The replica that
// becomes the primary has none of them. One instance or more are cut off before that, between, after,
// or not at all. The process that forces is one of them, or ends.
func (b *forcedBench) round(ctx context.Context) error {
	pause := time.Duration(b.rng.Int64N(int64(b.pace.HeardWithin() + b.pace.Dwell))) // so that keys of any age are forced
	if err := errors.Join(b.ready(ctx), sleep(ctx, pause)); err != nil {
		return err
	}
	rotator, cut := b.command.Rotator, b.rng.IntN(5) // before step 0, 1, 2, after all, or not
	away := b.rng.Perm(len(b.members))[:1+b.rng.IntN(2)]
	if b.rng.IntN(2) == 0 && (cut > 2 || !slices.Contains(away, 0)) { // an instance that is cut off forces nothing
		rotator = b.members[0].Rotator
	}
	times := make([]int, len(b.names))
	for i := range times {
		times[i] = 1 + b.rng.IntN(3)
	}
	b.servers.between.Blackhole()
	began, done := time.Now(), make([]atomic.Int64, len(b.names))
	for step := range 4 {
		if step == cut {
			b.isolate(away, (*redistest.Proxy).Blackhole)
		}
		b.force(ctx, rotator, times, step, done)
	}
	lag := time.Since(began)
	b.servers.primary.Kill()
	b.note(done, lag)
	if err := errors.Join(sleep(ctx, time.Duration(b.rng.Int64N(int64(b.pace.Dwell)))), b.servers.promote(ctx), b.servers.follow(ctx)); err != nil {
		return err
	}
	err := sleep(ctx, time.Duration(b.rng.Int64N(int64(b.pace.SignFor+b.pace.Dwell))))
	b.isolate(away, (*redistest.Proxy).Heal)
	return err
}

func (b *forcedBench) isolate(who []int, how fault) {
	for _, i := range who {
		b.members[i].link.set(how)
	}
}

// note counts a round in which so many keys of each ring were forced to sign, so long before the
// failover. A busy machine may not answer in time, and a ring without a forced key is no run.
func (b *forcedBench) note(forced []atomic.Int64, lag time.Duration) {
	b.count(func(r *forcedResult) {
		r.Failovers++
		for i := range forced {
			n := int(forced[i].Load())
			switch {
			case n > 0 && lag <= b.pace.Dwell*9/10:
				r.Runs, r.Forced = r.Runs+1, r.Forced+n
			default:
				r.Late++
			}
		}
	}, "")
}

// force makes the next key of each ring sign that has one left to force, and counts them in done.
func (b *forcedBench) force(ctx context.Context, rotator *rotation.Rotator, times []int, step int, done []atomic.Int64) {
	var all sync.WaitGroup
	for i, name := range b.names {
		if times[i] <= step {
			continue
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, b.pace.deadline)
			defer cancel()
			if _, err := rotator.Rotate(ctx, name, rotation.Force); err == nil {
				done[i].Add(1)
			}
		})
	}
	all.Wait()
}

func (r *forcedResult) write(w io.Writer) {
	fmt.Fprintf(w, "## Forced rotations\n\nIn each of **%d** runs, one to three keys of a ring are forced to sign in a row (`keys rotate --force`),\n"+
		"each as soon as it is minted, %d in all. Then the primary is killed, and a replica that has none of\n"+
		"them takes its place: %d failovers. Instances are cut off before, between or after the rotations.\n"+
		"Three instances signed %d tokens and made %d verifications. Instances in sync refused\n"+
		"to sign **%d** times, and **%d** live tokens were rejected. %d verifications of fresh\ninstances could not be decided (503).\n\n",
		r.Runs, r.Forced, r.Failovers, r.Signed, r.Verified, r.Silent, r.Rejected, r.Unavailable)
}

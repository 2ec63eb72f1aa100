package main

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A splitPair is a primary that writes only while its replica has told it of late that it follows
// (min-replicas-to-write, min-replicas-max-lag). Instances on the losing side of a split reach the
// old primary, all others the new one.
type splitPair struct {
	lag     time.Duration // min-replicas-max-lag
	between *redistest.Proxy

	mu     sync.Mutex
	old    *redistest.Server // the primary before the split, and when there is none
	new    *redistest.Server // its replica, which the split makes a primary
	losing map[*link]bool    // the networks of the losing side; nil when there is no split
}

func startSplit(lag time.Duration) (*splitPair, error) {
	p := &splitPair{lag: lag}
	var err error
	if p.old, err = redistest.Start(redistest.Options{}); err != nil {
		return nil, err
	}
	if err := p.replicate(context.Background()); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// replicate starts a replica of the primary, and makes the primary depend on it.
func (p *splitPair) replicate(ctx context.Context) (err error) {
	if p.between, err = redistest.StartProxy(p.old.Addr()); err != nil {
		return err
	}
	if p.new, err = redistest.Start(redistest.Options{ReplicaOf: p.between.Addr()}); err != nil {
		return err
	}
	return errors.Join(p.old.Do(ctx, "CONFIG", "SET", "min-replicas-max-lag", strconv.Itoa(int(p.lag/time.Second))),
		p.old.Do(ctx, "CONFIG", "SET", "min-replicas-to-write", "1"))
}

func (*splitPair) address() address { return address{addrs: []string{primary}} }

func (p *splitPair) resolve(string) string { return p.resolveFor(nil) }

// resolveFor returns the server that a network reaches.
func (p *splitPair) resolveFor(l *link) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.losing == nil || p.losing[l] {
		return p.old.Addr()
	}
	return p.new.Addr()
}

// split cuts the replica off, and makes it the primary of all instances but those of the losing
// side.
func (p *splitPair) split(ctx context.Context, losing, winning []*instance) error {
	p.between.Blackhole()
	if err := p.new.Promote(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	p.losing = make(map[*link]bool)
	for _, m := range losing {
		p.losing[m.link], p.losing[m.nudgeLink] = true, true
	}
	p.mu.Unlock()
	isolate(winning, (*redistest.Proxy).Cut) // they dial again
	isolate(winning, (*redistest.Proxy).Heal)
	return nil
}

// heal ends the old primary, and gives the new one a replica.
func (p *splitPair) heal(ctx context.Context, losing []*instance) error {
	p.mu.Lock()
	old, between := p.old, p.between
	p.old, p.new, p.losing = p.new, nil, nil
	p.mu.Unlock()
	isolate(losing, (*redistest.Proxy).Cut)
	isolate(losing, (*redistest.Proxy).Heal)
	return errors.Join(between.Stop(), old.Stop(), p.replicate(ctx))
}

func (p *splitPair) Stop() error {
	var errs []error
	for _, s := range []*redistest.Server{p.old, p.new} {
		if s != nil {
			errs = append(errs, s.Stop())
		}
	}
	if p.between != nil {
		errs = append(errs, p.between.Stop())
	}
	return errors.Join(errs...)
}

// splitPace is a pace for a store that may lose a write for as long as a primary without its
// replica goes on writing: Dwell is longer than that.
func splitPace(lag time.Duration) pace {
	p := fast
	p.Dwell = lag + 2500*time.Millisecond // Redis counts lag in whole seconds, and a replica tells once a second
	p.Propagation = p.SignFor + p.Dwell + p.ClockSkew
	p.Every = 3 * p.Propagation // so that most of the time the next key could be promoted
	p.MaxTokenTTL = (p.Freshness + p.Dwell + p.ClockSkew).Truncate(time.Second)
	return p
}

// strikeSplit splits the servers as soon as all pending keys may be promoted. The winning side
// promotes them at once, and goes on rotating as often as it may, until the last token of the losing
// side has nearly expired.
func strikeSplit(ctx context.Context, f *fleet, o options) error {
	p := f.servers.(*splitPair)
	all := f.random(len(f.instances()))
	losing, winning := all[:2], all[2:]
	if err := await(ctx, "pending keys to be known", func() bool { return f.promotable(winning[0]) }); err != nil {
		return err
	}
	if err := p.split(ctx, losing, winning); err != nil {
		return err
	}
	f.tally.newLife()
	rotating, stop := context.WithTimeout(ctx, p.lag+time.Second+f.pace.SignFor+f.pace.MaxTokenTTL/2)
	defer stop()
	for sleep(rotating, 100*time.Millisecond) == nil {
		by := winning[f.intN(len(winning))]
		for _, t := range tenants {
			_, err := by.rotator.Rotate(rotating, t.name)
			f.tally.rotated(err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.heal(ctx, losing)
}

// promotable reports whether the pending key of each tenant was published long enough ago, and does
// not take effect by itself soon.
func (f *fleet) promotable(m *instance) bool {
	for _, t := range tenants {
		s, err := m.keys.Tenant(t.name)
		if err != nil || !s.Fresh {
			return false
		}
		next, policy := newestOf(s.Ring), f.pace.policy(t)
		known := policy.Freshness + policy.Dwell + policy.ClockSkew + policy.ReaderStaleness
		if next.State != ring.Pending || time.Since(s.Published[next.KID]) < known || time.Until(next.ActivatesAt) < policy.SignFor {
			return false
		}
	}
	return true
}

// splitLag is min-replicas-max-lag: in a whole run the default of Redis.
func splitLag(o options) time.Duration {
	if o.short {
		return 2 * time.Second
	}
	return 10 * time.Second
}

func splitPaceOf(o options) pace { return splitPace(splitLag(o)) }

func startSplitOf(o options) (servers, error) { return startSplit(splitLag(o)) }

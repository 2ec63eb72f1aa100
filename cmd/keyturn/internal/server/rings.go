package server

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier"
)

// rings are the rings that a server reads, rotates and publishes.
type rings struct {
	tenants atomic.Pointer[[]string] // with a ring; a reload replaces them
	client  redis.UniversalClient
	keyring *rotation.Keyring
	rotator *rotation.Rotator
	hint    string // advice while a ring is missing
	log     *slog.Logger
}

// ringTime is how long the rings are waited for, at the start and at the end.
const ringTime = 10 * time.Second

// openRings reads the rings of the tenants that have one.
func openRings(ctx context.Context, cfg *Config) (_ *rings, err error) {
	r := &rings{hint: cfg.Rings.Hint, log: cfg.Logger}
	ids := ringIDs(cfg.Tenants)
	r.tenants.Store(&ids)
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	logging.Disable() // the Redis client would write to stderr; what matters comes as an error
	if r.client, err = rediskeys.OpenWith(cfg.Rings.URL, cfg.Rings.Link); err != nil {
		return nil, &Error{Part: PartStore, Err: err}
	}
	store, err := rediskeys.New(r.client, rediskeys.Config{})
	if err != nil {
		return nil, &Error{Part: PartStore, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	if r.keyring, err = rotation.Open(ctx, store, r.config(cfg)); err != nil {
		return nil, &Error{Part: PartRings, Err: err}
	}
	if err := refusal(r.keyring.Status().Err); err != nil {
		return nil, &Error{Part: PartRings, Err: err}
	}
	if r.rotator, err = rotation.NewRotator(r.keyring); err != nil {
		return nil, &Error{Part: PartRings, Err: err}
	}
	return r, nil
}

// ringIDs returns the tenants that have a ring.
func ringIDs(all []Tenant) (ids []string) {
	for i := range all {
		if all[i].Ring {
			ids = append(ids, all[i].Rules.ID)
		}
	}
	return ids
}

// refusal returns err if Redis has answered, and waiting would not help.
func refusal(err error) error {
	for _, refused := range []error{rediskeys.ErrNoAuth, rediskeys.ErrNoPermission, rediskeys.ErrUnsupported} {
		if errors.Is(err, refused) {
			return err
		}
	}
	return nil
}

func (r *rings) config(cfg *Config) rotation.Config {
	c := rotation.Config{
		Tenants: *r.tenants.Load(), KEKs: cfg.Rings.KEKs, Realm: cfg.Rings.Realm, OtherRealms: cfg.Rings.OtherRealms, Poll: cfg.Rings.Poll, Deadline: cfg.Rings.Deadline,
		TrustFirstRead: cfg.Demo != nil, // its Redis is new, and nothing else uses it
		StoreMayBeAway: cfg.Rings.MayBeAway, Snapshot: cfg.Rings.Snapshot,
		Verifies: verifies(cfg.Tenants),
		Logger:   cfg.Logger, Now: cfg.Now,
	}
	if cfg.Rings.Bootstrap != nil {
		c.AllowBootstrap, c.Policy = true, *cfg.Rings.Bootstrap
	}
	return c
}

// verifies returns the algorithms that all rules of tenants with a ring list, or nil if each takes
// every algorithm. The instance tells others so, and they make no key of another one. Rules that have
// none in common give [ring.NoAlgorithm].
func verifies(tenants []Tenant) (listed []keystore.Algorithm) {
	narrowed := false
	for _, t := range tenants {
		switch algs := t.Rules.Algorithms; {
		case !t.Ring || len(algs) == 0:
		case !narrowed:
			listed, narrowed = slices.Clone(algs), true
		default:
			listed = slices.DeleteFunc(listed, func(alg keystore.Algorithm) bool { return !slices.ContainsFunc(algs, alg.Same) })
		}
	}
	if narrowed && len(listed) == 0 {
		listed = []keystore.Algorithm{ring.NoAlgorithm}
	}
	return listed
}

// setKEKs replaces the KEKs by those of a KEK file.
func (r *rings) setKEKs(text []byte) error {
	keks, err := rotation.ParseKEKs(text)
	if err != nil {
		return err
	}
	return r.keyring.SetKEKs(keks)
}

// close ends what openRings has opened, the last first.
func (r *rings) close() {
	if r.keyring != nil {
		ctx, cancel := context.WithTimeout(context.Background(), ringTime)
		defer cancel()
		r.logUnclosed(r.keyring.Close(ctx))
	}
	if r.client != nil {
		r.logUnclosed(r.client.Close())
	}
}

func (r *rings) logUnclosed(err error) {
	if err != nil {
		r.log.Warn("not everything was put away", "err", err)
	}
}

// leeway is what verifiers forgive if the ring does.
const leeway = 30 * time.Second

// complete adds to a tenant's rules what its ring says.
func (r *rings) complete(t *verifier.Tenant) {
	t.Keys = r.keyring
	if t.Leeway == 0 {
		t.Leeway = leeway
	}
	if t.Leeway = min(t.Leeway, r.keyring.MaxLeeway(t.ID)); t.Leeway == 0 {
		t.Leeway = -1 // none: 0 stands for the default
	}
	if len(t.Algorithms) == 0 {
		// A key of a ring verifies one algorithm and no other, and a ring may move to another
		// algorithm while the server runs.
		t.Algorithms, t.MixedFamilies = keystore.Algorithms(), true
	}
}

// rotate rotates the keys until ctx ends.
func (r *rings) rotate(ctx context.Context) {
	if err := r.rotator.Run(ctx); err != nil {
		r.log.Error("the keys are no longer rotated", "err", err)
	}
}

// watchEvery is how often the rings are compared with what they were.
const watchEvery = time.Second

// watch logs when a ring is not ready for a reason of its own, and when it is ready again. That the
// store is away, and that another key signs, the keyring logs.
func (r *rings) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	seen := make(map[string]string)
	for {
		for _, tenant := range *r.tenants.Load() {
			status, err := r.keyring.Tenant(tenant)
			if err != nil {
				continue
			}
			r.logState(tenant, seen, &status)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// logState logs that a ring became unready, or is ready again. seen has the reason by tenant, "" for
// none.
func (r *rings) logState(tenant string, seen map[string]string, status *rotation.TenantStatus) {
	state, reason := ringState(status, forVerify)
	if reason == reasonAway || reason == reasonInDoubt {
		return
	}
	before, looked := seen[tenant]
	seen[tenant] = reason
	switch {
	case !looked || reason == before:
	case reason == "":
		r.log.Info("in step again", "tenant", tenant)
	default:
		r.log.Warn(state, "tenant", tenant, "reason", reason, "err", status.Err)
	}
}

// progressEvery is how often the log says that a ring is still waited for.
const progressEvery = 5 * time.Second

// awaitReady waits until all rings are ready, and logs which are not meanwhile. It reports
// whether they are: if not, ctx has ended.
func (r *rings) awaitReady(ctx context.Context) bool {
	said := make(map[string]string)
	for ctx.Err() == nil {
		waiting, cancel := context.WithTimeout(ctx, progressEvery)
		err := r.keyring.WaitReady(waiting)
		cancel()
		if err == nil {
			return true
		}
		if ctx.Err() == nil {
			r.logWaiting(said)
		}
	}
	return false
}

// awaitFresh waits until all rings are in sync, and reports whether they are: if not, ctx has ended.
func (r *rings) awaitFresh(ctx context.Context) bool {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for !r.keyring.Status().Fresh {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// logWaiting logs which rings are not ready, and why, unless it has said so.
func (r *rings) logWaiting(said map[string]string) {
	for _, tenant := range *r.tenants.Load() {
		status, err := r.keyring.Tenant(tenant)
		if err != nil {
			status = rotation.TenantStatus{Err: err}
		}
		state, reason := ringState(&status, forVerify)
		if state != stateNotReady || said[tenant] == reason {
			continue
		}
		said[tenant] = reason
		attrs := []any{"tenant", tenant, "reason", reason}
		if err == nil && !status.InDoubt && len(status.Ring.Keys) == 0 && status.Err != nil {
			attrs = append(attrs, "hint", r.hint)
		}
		r.log.Warn("waiting for a ring", attrs...)
	}
}

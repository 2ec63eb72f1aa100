package synced

import (
	"context"
	"errors"
	"hash/maphash"

	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/store"
)

// Open returns Rings after the first complete read of the store: see rotation.Open. ctx bounds Open
// alone.
func Open(ctx context.Context, keks *seal.KEKs, cfg Config) (*Rings, error) {
	k, left, err := begin(ctx, keks, cfg)
	if err != nil {
		return nil, err
	}
	k.start(ctx, left)
	return k, nil
}

// begin is Open without the loop. It returns what the loop has to do first, or nil.
func begin(ctx context.Context, keks *seal.KEKs, cfg Config) (*Rings, *opening, error) {
	k := &Rings{store: cfg.Store, cfg: cfg, rings: make(map[string]*Ring), opened: cfg.Now(), done: make(chan struct{}), seed: maphash.MakeSeed(), saver: saver{wake: make(chan struct{}, 1)}}
	k.KEKs.Store(keks)
	k.unknown.init()
	k.loop.init(k)
	k.setTimes(defaultFreshness)
	for _, tenant := range cfg.Tenants {
		k.addTenant(tenant)
	}
	if len(cfg.Tenants) == 0 || cfg.AllowBootstrap { // a ring is made only where the whole store stands still
		for i := range store.Buckets {
			k.addBucket(i)
		}
	}
	refused := k.loadSnapshot()
	if refused != nil {
		cfg.Logger.Warn("the snapshot is not used", "error", refused)
	}
	// The first sync runs here, so that its error is the caller's. The loop starts afterwards, so
	// the two never run at once. It ends the first sync if there are many rings.
	left := (&syncRun{k: k, ctx: ctx, buckets: k.buckets}).first()
	if err := k.checkFirstRead(ctx); err != nil {
		if refused != nil {
			err = errors.Join(err, refused)
		}
		return nil, nil, err
	}
	return k, left, nil
}

// start starts the loop. It outlives ctx, and ends with Close, which waits for done.
func (k *Rings) start(ctx context.Context, left *opening) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k.cancel = cancel
	if left == nil {
		k.warnOfWeak()
	} else {
		left.run.ctx = own
	}
	go func() {
		defer close(k.done)
		k.loop.run(own, left)
	}()
}

// checkFirstRead returns why the first read is not enough to open the keyring, or nil.
func (k *Rings) checkFirstRead(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &ring.Error{Text: "the keyring was not opened", Err: Unavailable(err)}
	}
	// A long-lived process waits until the clocks are set right, so that is no reason not to start.
	failed, why := 0, error(nil)
	for _, b := range k.buckets {
		if b.err != nil && (k.cfg.OneShot || !errors.Is(b.err, ring.ErrClock)) {
			failed, why = failed+1, b.err
		}
	}
	if failed > 0 && (k.cfg.OneShot || failed == len(k.buckets) && !k.cfg.StoreMayBeAway && !k.saver.loaded) {
		return &ring.Error{Text: "the keyring cannot be opened", Err: why}
	}
	if err := k.checkAnyOpened(); err != nil {
		return &ring.Error{Text: "the keyring cannot be opened", Err: err}
	}
	if err := k.CheckTimes(k.Times.Load().Fresh); err != nil {
		return err
	}
	return k.checkOwnTimes()
}

// checkOwnTimes returns nil if Config's Poll and Deadline suit the policy of at least one ring, or
// if no ring is known. Otherwise it returns the error of one of them.
func (k *Rings) checkOwnTimes() (err error) {
	for _, r := range k.rings {
		if p, ok := r.policy(); ok {
			if err = k.CheckTimes(p.Freshness); err == nil {
				return nil
			}
		}
	}
	return err
}

// checkAnyOpened returns nil if at least one ring was read, even in part, or if the store has no
// rings. Otherwise every ring failed, and it returns one of the reasons: the KEK is wrong, or the
// store does not let this process read rings. One unreadable ring among many does not stop the
// others from being served.
func (k *Rings) checkAnyOpened() error {
	var why error
	for _, r := range k.rings {
		status := r.syncStatus()
		parts := (*ring.UnreadableError)(nil)
		_, known := r.policy()
		if !status.Bad || errors.As(status.Err, &parts) && !errors.Is(status.Err, seal.ErrWrongKEK) || known {
			return nil
		}
		why = status.Err
	}
	return why
}

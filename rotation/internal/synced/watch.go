package synced

import (
	"errors"
	"time"

	"github.com/keyturn/keyturn/rotation/internal/held"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/ring"
)

// This file has what the log says of the rings: one line when something begins, and one when it ends.

// A standing is what logAttempt compares, over all buckets.
type standing struct {
	unreached  int // buckets
	jumped     int // buckets whose server's clock was set
	skewed     int // buckets whose server's clock differs from this one, and nothing shows which is wrong
	recovering int // rings in buckets that recover
}

// stand returns how the buckets stand.
func (k *Rings) stand() (s standing) {
	for _, b := range k.buckets {
		if b.unreached {
			s.unreached++
		}
		switch {
		case b.jumped:
			s.jumped++
		case errors.Is(b.err, ring.ErrClock):
			s.skewed++
		}
		if b.state.Recovering {
			s.recovering += len(b.rings)
		}
	}
	return s
}

// logAttempt logs what changed with this attempt, once for all buckets: that the store was lost or
// came back, and that recovering began or ended. err is the error of one bucket, or nil. An attempt
// that was cancelled says nothing about the store.
func (run *syncRun) logAttempt(err error, before standing) {
	if run.ctx.Err() != nil {
		return
	}
	if err != nil {
		run.k.Counts.Failures.Add(1)
	}
	log, now := run.k.cfg.Logger, run.k.stand()
	run.k.down.Store(now.unreached > 0)
	began := now.recovering > before.recovering
	switch {
	case now.unreached > 0 && before.unreached == 0:
		run.k.awaySince = run.k.cfg.Now()
		log.Warn("the store cannot be reached: verifying goes on, and signing for SignFor", "buckets", now.unreached, "error", err)
	case now.unreached == 0 && before.unreached > 0:
		log.Info("the store is reached again", "after", protocol.Age(run.k.cfg.Now(), run.k.awaySince).Round(time.Millisecond), "recovering", now.recovering)
		began = false
	}
	switch {
	case began:
		log.Info("in doubt about the store: others get the time to put back what it may have lost", "rings", now.recovering)
	case now.recovering == 0 && before.recovering > 0:
		log.Info("in sync with the store")
	}
	switch {
	case now.jumped > 0 && before.jumped == 0:
		log.Error("the store's clock was set, and this instance's was not: verifying goes on, and nothing is decided; set it right", "buckets", now.jumped)
	case now.jumped == 0 && before.jumped > 0:
		log.Info("the store's clock is right again")
	}
	run.logSkew(now)
}

// logSkew logs once that the clocks differ, and once that they agree again. While the store is away, or
// an acknowledgement shows that its clock was set, neither is known.
func (run *syncRun) logSkew(now standing) {
	k := run.k
	switch {
	case now.skewed > 0 && !k.skewed:
		k.skewed = true
		k.cfg.Logger.Error("this clock and the store's differ by more than ClockSkew: nothing is decided, and this instance is not ready; set right the one that is wrong", "buckets", now.skewed)
	case now.skewed == 0 && now.jumped == 0 && now.unreached == 0 && k.skewed:
		k.skewed = false
		k.cfg.Logger.Info("this clock and the store's agree again")
	}
}

// watch logs what the time alone brings, after each poll: that another key signs, and that this
// instance must not sign any longer, or may again. It looks at the rings that are due.
func (k *Rings) watch() {
	if k.cfg.OneShot {
		return
	}
	now := k.cfg.Now()
	due := make(map[*Bucket][]*Ring)
	for _, r := range k.watching.due(now) {
		c := r.copy()
		k.logSigner(r, c, now)
		k.look(r, c, now)
		due[r.bucket] = append(due[r.bucket], r)
	}
	for b, rings := range due {
		b.turn(rings)
	}
	if !k.Signs.Load() {
		return // it has no signer
	}
	fenced, since := k.countFenced(now)
	switch {
	case fenced > k.fenced:
		k.cfg.Logger.Error("this instance does not sign: its last sync with the store is too old", "since", since.UTC().Format(time.RFC3339), "tenants", fenced)
	case fenced == 0 && k.fenced > 0:
		k.cfg.Logger.Info("this instance may sign again")
	}
	k.fenced = fenced
}

// countFenced returns for how many rings this instance does not sign because it has lost the store, and
// since when.
func (k *Rings) countFenced(now time.Time) (fenced int, since time.Time) {
	for _, b := range k.buckets {
		rings := b.rings
		if s := b.Status.Load(); !s.Good.IsZero() && protocol.Age(now, s.Good) <= b.sum().leastSignFor {
			rings = b.Outlook.Load().Odd // the others are as far in sync as the bucket
		}
		for _, r := range rings {
			if at := r.fencedSince(k.opened, now); !at.IsZero() {
				if fenced++; since.IsZero() || at.Before(since) {
					since = at
				}
			}
		}
	}
	return fenced, since
}

// fencedSince returns since when this instance does not sign for r because it has lost the store, or
// zero. One that began with a snapshot has not signed since it was opened.
func (r *Ring) fencedSince(opened, now time.Time) time.Time {
	s := r.syncStatus()
	p, ok := r.policy()
	switch {
	case !ok:
	case s.Good.IsZero() && !s.Knew.IsZero() && s.Err != nil:
		return opened
	case !s.Good.IsZero() && protocol.Age(now, s.Good) > p.SignFor:
		return s.Good.Add(p.SignFor)
	}
	return time.Time{}
}

// logSigner logs that another key of r signs than when it looked last, or none.
func (k *Rings) logSigner(r *Ring, c *held.Ring, now time.Time) {
	if c.Newest() == nil {
		r.looked = false
		return
	}
	before, looked, signs := r.signer, r.looked, ""
	s := k.signerOf(r, c, now)
	if s != nil {
		signs = s.KID
	}
	r.signer, r.looked = signs, true
	switch {
	case !looked || signs == before:
	case s == nil:
		k.cfg.Logger.Warn("no key signs", "tenant", r.Tenant, "before", before)
	default:
		attrs := []any{"tenant", r.Tenant, "signs", signs, "before", before}
		if s.RetiresAt.After(now) {
			attrs = append(attrs, "until", s.RetiresAt.UTC().Format(time.RFC3339))
		}
		k.cfg.Logger.Info("a key rotated", attrs...)
	}
}

// signerOf returns the key of c with which the instances sign that are in sync, or nil. While a failover may
// lose the key that should sign, that is the one before it: see [protocol.Copy.Signing].
func (k *Rings) signerOf(r *Ring, c *held.Ring, now time.Time) *ring.PlannedKey {
	good, times := now, k.Times.Load()
	if s := r.syncStatus(); s.InSync(now, times.Fresh) {
		good = s.Good
	}
	s, err := c.Signing(now, good, times.Deadline)
	if err != nil {
		return nil
	}
	return s
}

// logEnds logs the revocations that c has, and the copy before it has not, and that the ring was
// destroyed. old is nil if there was none: then they are no news.
func (k *Rings) logEnds(r *Ring, old, c *held.Ring) {
	if old == nil || k.cfg.OneShot {
		return
	}
	if c.Facts.Dead > old.Facts.Dead {
		k.cfg.Logger.Info("a ring was destroyed", "tenant", r.Tenant, "at", c.Facts.DeadAt.UTC().Format(time.RFC3339))
	}
	for id, at := range c.Facts.All {
		if _, known := old.Facts.At(id.Kind, id.KID); id.Kind == ring.FactRevoked && !known {
			k.cfg.Logger.Info("a key was revoked", "tenant", r.Tenant, "kid", id.KID, "at", at.UTC().Format(time.RFC3339))
		}
	}
}

// warnOfWeak logs which weak secrets are accepted. A person can guess such a secret from a token, and
// then sign tokens of the tenant.
func (k *Rings) warnOfWeak() {
	for _, r := range k.All() {
		for _, a := range r.Accepted(k.cfg.Now()) {
			if a.Weak && a.RevokedAt.IsZero() && !k.cfg.OneShot {
				k.cfg.Logger.Warn("a weak secret is accepted: a person who guesses it can sign tokens of the tenant", "tenant", r.Tenant, "kid", a.KID, "until", a.Until)
			}
		}
	}
}

package rotation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/protocol"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A Rotator rotates keys: by itself in [Rotator.Run], and on command. Any number of them may work
// on the same store. Each decides on the ring as the store has it at that moment, by the store's
// clock, and the store makes the change only if the ring is still the same. So of several that see
// the same due ring one mints, and the others find the work done. A Rotator is safe for concurrent
// use and holds no goroutine of its own.
//
// Besides what each method says, its errors wrap [keystore.ErrUnavailable] if the store cannot be
// reached, this instance is out of sync or recovering, or a field of the ring cannot be opened.
// Then nothing was changed, unless the error says that this is not known. An error that is
// [ErrRefused] means that the change would cost tokens: see [RefusedError]. [keystore.ErrNotFound]
// means that the tenant has no ring, or the ring no such key. Each call of the store may take as
// long as [Config.Deadline].
type Rotator struct {
	k *Keyring

	mu     sync.Mutex // guards jitter; held for one draw, with no other mutex
	jitter *rand.Rand // spreads the instances that lost a race and decide again
}

// NewRotator returns a Rotator of the rings that k holds. It starts nothing: call [Rotator.Run].
func NewRotator(k *Keyring) (*Rotator, error) {
	if k == nil {
		return nil, &ring.Error{Text: "NewRotator needs a Keyring"}
	}
	return &Rotator{k: k, jitter: newJitter(k.cfg.Instance, 1)}, nil
}

// An Option changes how a Rotator makes one change. [Force] is the only one.
type Option func(*options)

// options are the sum of a call's Options.
type options struct{ force bool }

// Force makes a change that would be refused because it costs tokens. Instances that have not heard
// of the key that signs then reject its tokens, or answer that they cannot tell, until they have.
// If that key was minted less than Dwell ago, no instance signs with it before Dwell is over: see
// [Receipt]. Force does not override the limit of [ring.MaxPublished] public keys.
func Force(o *options) { o.force = true }

// optionsOf returns what opts say together.
func optionsOf(opts []Option) (o options) {
	for _, set := range opts {
		set(&o)
	}
	return o
}

// A Receipt says what a change did and what it cost. Times are by the store's clock. A field that
// does not apply is zero. The store may still lose a change for Dwell after CommittedAt, in a
// failover; each instance that has read it restores it.
type Receipt struct {
	Tenant   string // whose ring it is
	Revoked  string // the kid of the key that was revoked
	Promoted string // the kid of the key that signs from now on
	Minted   string // the kid of the new key

	RevokedAt time.Time // when Revoked was revoked; earlier than the call if it was revoked before
	SignsFrom time.Time // when Minted takes effect, unless it is promoted or revoked before

	// NoSignerUntil is the time until which no instance signs for the tenant: a forced revocation
	// left it without a key that others know, or a key was forced to sign that a failover may still
	// lose, for Dwell after it was minted. After that time an instance signs from its next poll on.
	NoSignerUntil time.Time

	// WorstCase is the time until which an instance that is cut off from the store accepts tokens
	// of the revoked key: SignFor + MaxTokenTTL + Leeway after the change.
	WorstCase time.Time

	// ReadersUntil is the time until which readers of the JWK Set accept tokens of the revoked key,
	// because they may keep the set for ReaderStaleness.
	ReadersUntil time.Time

	CommittedAt time.Time // when the store made the change; zero if there was nothing to change
	Place       Place     // of the change in its bucket's log, for [Rotator.Acks]
}

// maxAttempts bounds how often a change is decided again because other rotators changed the ring
// first. The pauses in between grow, so a fleet that acts at one moment does not fail on each
// other's changes.
const maxAttempts = 12

// A decision decides about a change on a ring as the store has it. A nil proposal means that there
// is nothing to do. It may be called several times, on newer bases.
type decision func(*base) (*protocol.Proposal, error)

// apply reads the ring, lets decide decide, and writes the change, until the store has made it or
// there is nothing to do; then the proposal is nil. create means that no ring should exist yet.
func (r *Rotator) apply(ctx context.Context, tenant string, create bool, decide decision) (*protocol.Proposal, Result, error) {
	r.catchUp(ctx, tenant)
	minted := new(mintMaterial)
	for attempt := range maxAttempts {
		if attempt > 0 {
			if err := r.pause(ctx, attempt); err != nil {
				return nil, Result{}, err
			}
		}
		b, err := r.base(ctx, tenant, create)
		if err != nil {
			return nil, Result{}, err
		}
		minted.again()
		b.minted, b.MakeKey = minted, minted.mint
		p, err := decide(b)
		if err != nil || p == nil {
			return nil, Result{}, err
		}
		result, err := r.write(ctx, b, p)
		if err != nil {
			return nil, Result{}, err
		}
		if result.Code == Committed {
			r.remember(ctx, tenant, p)
			return p, result, nil
		}
	}
	return nil, Result{}, &ring.Error{Text: fmt.Sprintf("the ring of tenant %q changes all the time", tenant), Err: keystore.ErrUnavailable}
}

// catchUp syncs a ring that is out of sync, so that a command does not have to be repeated after a
// poll. If that fails, [Rotator.base] refuses to decide.
func (r *Rotator) catchUp(ctx context.Context, tenant string) {
	tr := r.k.ring(tenant)
	if tr == nil || tr.status.Load().fresh(r.k.cfg.Now(), r.k.times.Load().fresh) {
		return
	}
	if err := r.k.sync(ctx, tenant, ring.Facts{}); err != nil {
		r.k.cfg.Logger.Warn("a ring that is to be changed is out of sync", "tenant", tenant, "error", err)
	}
}

// pause waits before a change is decided again: for a random time that grows with the attempts, at
// most 256ms.
func (r *Rotator) pause(ctx context.Context, attempt int) error {
	r.mu.Lock()
	d := 1 + r.jitter.IntN(4<<min(attempt, 6))
	r.mu.Unlock()
	select {
	case <-ctx.Done():
		return &ring.Error{Err: unavailable(ctx.Err())}
	case <-time.After(time.Duration(d) * time.Millisecond):
		return nil
	}
}

// A base is a ring as the store had it at one moment, with its sealed bytes: the optimistic lock of
// a change. The change carries the digest, and the store makes it only if that is still the ring's.
type base struct {
	protocol.Base
	have     *ringCopy     // Base.Copy with its bytes
	digest   string        // "" if there is no ring
	minted   *mintMaterial // that Base.Mint makes
	read     time.Time     // Now, with all its digits
	sent     time.Time     // before Now, by this instance's clock
	received time.Time     // after Now, by this instance's clock
}

// base reads the ring as the store has it. It returns an error if nothing may be decided on it:
// this instance is out of sync, the ring cannot be opened or lacks something that this instance
// holds, or the clocks differ (invariant I10). create means that no ring should exist yet. Then
// being out of sync is no obstacle, and only a ring that this instance holds is.
func (r *Rotator) base(ctx context.Context, tenant string, create bool) (*base, error) {
	tr := r.k.ring(tenant)
	if tr == nil && !(create && r.k.holdsAll()) {
		return nil, r.k.missingRing(tenant)
	}
	status, held := new(syncStatus), (*ringCopy)(nil)
	if tr != nil {
		status, held = tr.status.Load(), tr.state.Load() // the status first: see ringCopy
	}
	if err := r.notInSync(tr, create); err != nil {
		return nil, err
	}
	b, err := r.load(ctx, tenant, held)
	if err != nil {
		return nil, err
	}
	if r.lacks(b, held, status.Good) {
		return nil, inTenant(tenant, &ring.Error{Kind: keystore.ErrUnavailable, Text: "the store lacks what this instance holds; it is being put back"})
	}
	if err := checkClock(b.read, b.sent, b.received, b.have.ClockSkew()); err != nil {
		return nil, inTenant(tenant, err)
	}
	return b, r.notInSync(tr, create) // a sync may have found something meanwhile
}

// load reads and opens the ring. Its error means that nothing is known of it: a field that cannot be
// opened may be a key or a revocation, so nothing is decided without it.
func (r *Rotator) load(ctx context.Context, tenant string, held *ringCopy) (*base, error) {
	deadline := r.k.times.Load().deadline
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	sent := r.k.cfg.Now()
	snap := r.k.store.Load(ctx, []string{tenant})[0]
	received := r.k.cfg.Now()
	if snap.Err != nil {
		return nil, inTenant(tenant, unavailable(snap.Err))
	}
	opened, err := seal.OpenRing(r.k.cfg.KEKs.sealing(), tenant, snap.Fields)
	if err != nil {
		return nil, unavailable(err)
	}
	have := openCopy(held, snap.Fields, opened)
	return &base{
		Base: protocol.Base{Tenant: tenant, Now: snap.Now.UTC().Truncate(time.Millisecond), Deadline: deadline, Copy: have.Copy},
		have: have, digest: snap.Digest, read: snap.Now, sent: sent, received: received,
	}, nil
}

// lacks reports whether the store lacks something that this instance holds. It was lost, and a change
// decided without it could undo it.
func (r *Rotator) lacks(b *base, held *ringCopy, good time.Time) bool {
	if held == nil {
		return false
	}
	in := protocol.MergeInput{Held: held.Copy, Stored: b.Copy, Now: b.Now, Good: good, LocalNow: r.k.cfg.Now(), Deadline: b.Deadline}
	return protocol.Merge(in).Change != nil
}

// notInSync returns why this instance may not decide about tr, or nil. create is the caller's word
// that there is no ring, so there is nothing to be in sync with.
func (r *Rotator) notInSync(tr *tenantRing, create bool) error {
	now := r.k.cfg.Now()
	if create || tr.status.Load().fresh(now, r.k.times.Load().fresh) {
		return nil
	}
	s := r.k.status(tr, now)
	return inTenant(tr.tenant, unavailable(s.Err))
}

// write seals p and asks the store to make the change.
func (r *Rotator) write(ctx context.Context, b *base, p *protocol.Proposal) (Result, error) {
	s := &sealer{keks: r.k.cfg.KEKs.sealing(), tenant: b.Tenant, digest: b.digest, have: b.have, actor: r.k.cfg.Instance}
	c, err := s.change(p, b.minted)
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.Deadline)
	defer cancel()
	result, err := r.k.store.Write(ctx, c)
	if err != nil {
		return Result{}, &ring.Error{Text: fmt.Sprintf("tenant %q: it is not known whether the change was made", b.Tenant), Err: unavailable(err)}
	}
	return result, nil
}

// remember adds the facts of a change to the copy that this instance holds, and reads the ring
// again. The change is made whether or not that succeeds now: even if the store loses it at once,
// this instance knows it, and restores it.
func (r *Rotator) remember(ctx context.Context, tenant string, p *protocol.Proposal) {
	var learned ring.Facts
	for _, f := range p.Facts {
		learned.Add(f.Kind, f.KID, f.At)
	}
	if err := r.k.sync(ctx, tenant, learned); err != nil {
		r.k.cfg.Logger.Warn("a ring was changed, but could not be read again yet", "tenant", tenant, "op", string(p.Op), "error", err)
	}
}

// Create makes the first ring of a tenant: one key that signs now, and one that is pending. Zero
// fields of policy take their defaults. Call it once for each tenant, from one place, such as a
// command or the code that adds a customer.
//
// It is refused ([ErrRefused]) if the store or this instance has a ring of the tenant. It does not
// wait until the instance stops recovering: the caller says that there is no ring to be restored.
// The error is a [*PolicyError] if the policy does not hold.
func (r *Rotator) Create(ctx context.Context, tenant string, policy ring.Policy) error {
	if !isTenant(tenant) {
		return &ring.Error{Text: fmt.Sprintf("a tenant of %d bytes: want 1 to %d, in UTF-8", len(tenant), ring.MaxTenantBytes)}
	}
	policy, err := r.policy(policy)
	if err != nil {
		return err
	}
	_, _, err = r.apply(ctx, tenant, true, func(b *base) (*protocol.Proposal, error) {
		if err := checkClock(b.Now, b.sent, b.received, policy.ClockSkew); err != nil {
			return nil, inTenant(tenant, err) // base knew of no policy, so it did not compare the clocks
		}
		return b.Create(policy)
	})
	return err
}

// policy returns p with its defaults. The error says which inequality does not hold, or that this
// instance polls too seldom for its Freshness.
func (r *Rotator) policy(p ring.Policy) (ring.Policy, error) {
	if err := p.Validate(); err != nil {
		return p, err
	}
	p = p.WithDefaults()
	return p, r.k.checkTimes(p.Freshness)
}

// SetPolicy mints the next key of a tenant under another policy. The policy takes effect with that
// key, after the keys that are pending already; existing keys keep theirs. Zero fields take their
// defaults, not the values of the old policy. The error is a [*PolicyError] if the policy does not
// hold. It is refused within Freshness + ClockSkew of the last mint, and beyond [ring.MaxPublished]
// public keys.
func (r *Rotator) SetPolicy(ctx context.Context, tenant string, policy ring.Policy) error {
	policy, err := r.policy(policy)
	if err != nil {
		return err
	}
	_, _, err = r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) { return b.SetPolicy(policy) })
	return err
}

// Rotate makes the next pending key sign now, and mints another if no other is pending. No token is
// rejected: the previous key verifies until its tokens have expired.
//
// It is refused until every instance and reader can know the pending key: Freshness + ClockSkew
// after it was published, plus ReaderStaleness if others read the JWK Set, and at least Dwell.
// [Force] overrides that. If no key is pending, one is minted, and the error is a [*RefusedError]
// whose From says when it may sign; the Receipt is valid then.
func (r *Rotator) Rotate(ctx context.Context, tenant string, opts ...Option) (Receipt, error) {
	o := optionsOf(opts)
	p, result, err := r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) { return b.Rotate(o.force) })
	if err != nil {
		return Receipt{}, err
	}
	receipt := receiptOf(p, tenant, result)
	if p.Op == ring.OpMint {
		return receipt, &ring.RefusedError{Tenant: tenant, KID: receipt.Minted, Reason: "no key was pending; this one was minted and has to become known first",
			From: result.Now.Add(p.VisibleAfter)}
	}
	return receipt, nil
}

// Promote makes a pending key sign now, under the same conditions as [Rotator.Rotate], and mints
// nothing. Without [Force] it must be the next one.
func (r *Rotator) Promote(ctx context.Context, tenant, kid string, opts ...Option) (Receipt, error) {
	o := optionsOf(opts)
	p, result, err := r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) { return b.Promote(kid, o.force) })
	if err != nil {
		return Receipt{}, err
	}
	return receiptOf(p, tenant, result), nil
}

// Revoke ends a key: every instance rejects its tokens, live ones too, from its next nudge or poll
// on. Readers of the JWK Set do with their next refresh. [Rotator.Acks] says which instances have
// heard.
//
// If the key signs, the next pending key takes over in the same change. If no key is ready for
// that, Revoke is refused. With [Force] a new key is minted instead, and no instance signs until
// that one is known everywhere: see [Receipt].NoSignerUntil. Revoking a key again changes nothing
// and returns when it was revoked.
func (r *Rotator) Revoke(ctx context.Context, tenant, kid string, opts ...Option) (Receipt, error) {
	o := optionsOf(opts)
	var before Receipt
	p, result, err := r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) {
		p, err := b.Revoke(kid, o.force)
		if err == nil && p == nil {
			at, _ := b.Copy.Facts.At(ring.FactRevoked, kid)
			before = Receipt{Tenant: tenant, Revoked: kid, RevokedAt: at}
		}
		if rec := b.Copy.Find(kid); rec != nil {
			before.WorstCase = b.Now.Add(rec.Timing.SignFor + rec.Timing.MaxTokenTTL + rec.Timing.Leeway)
			if v := rec.Timing.ReaderStaleness; v > 0 {
				before.ReadersUntil = b.Now.Add(v)
			}
		}
		return p, err
	})
	if err != nil || p == nil {
		return before, err
	}
	receipt := receiptOf(p, tenant, result)
	receipt.Revoked, receipt.WorstCase, receipt.ReadersUntil = kid, before.WorstCase, before.ReadersUntil
	if receipt.Minted != "" {
		receipt.NoSignerUntil = receipt.SignsFrom
	}
	return receipt, nil
}

// receiptOf returns the Receipt of p, which the store has made with that result.
func receiptOf(p *protocol.Proposal, tenant string, result Result) Receipt {
	receipt := Receipt{Tenant: tenant, CommittedAt: result.Now, Place: result.Place, NoSignerUntil: p.NoSignerUntil}
	for _, f := range p.Facts {
		switch f.Kind {
		case ring.FactPromoted:
			receipt.Promoted = f.KID
		case ring.FactRevoked:
			receipt.RevokedAt = f.At
		}
	}
	if len(p.Mint) > 0 {
		receipt.Minted, receipt.SignsFrom = p.Mint[0].KID, p.Mint[0].ActivateAt
	}
	return receipt
}

// Acks returns the instances that have told the store how far they have read, and for each whether
// that includes the change. An instance whose acknowledgement is old has ended without
// [Keyring.Close], or is cut off.
func (r *Rotator) Acks(ctx context.Context, receipt Receipt) ([]Ack, error) {
	ctx, cancel := context.WithTimeout(ctx, r.k.times.Load().deadline)
	defer cancel()
	acks, err := r.k.store.Acks(ctx, BucketOf(receipt.Tenant), receipt.Place)
	if err != nil {
		return nil, inTenant(receipt.Tenant, unavailable(err))
	}
	return acks, nil
}

// rotateAtOnce is how many rings Run works on at once. A mint takes a few calls of the store, and
// more would let one instance crowd out the others.
const rotateAtOnce = 4

// Run rotates keys by itself, and returns nil when ctx ends or the keyring is closed. After each
// sync it looks at every ring that is in sync, and
//
//   - mints the next key if none is pending,
//   - promotes the pending key if the signing one was revoked,
//   - removes keys whose last token expired long ago,
//   - makes missing rings if [Config.AllowBootstrap] is set.
//
// An error is logged, and the work tried again after the next sync. A scheduled switch needs no
// Run, since a pending key takes effect by the clock. But the key after it does: a ring stops
// signing after three periods without one. Run it in several instances; they do not get in each
// other's way. The caller owns the goroutine, and Run waits for those that it starts.
func (r *Rotator) Run(ctx context.Context) error {
	for {
		synced := r.k.loop.synced() // before the work, so that no sync during it is missed
		r.rotateDue(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-r.k.done:
			return nil
		case <-synced:
		}
	}
}

// rotateDue does the work that is due, for rotateAtOnce rings at once, and waits until it is done.
func (r *Rotator) rotateDue(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, rotateAtOnce)
	for _, tr := range r.k.allRings() {
		work := r.due(tr)
		if work == nil || ctx.Err() != nil {
			continue
		}
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			if err := work(ctx); err != nil && ctx.Err() == nil {
				r.k.cfg.Logger.Warn("a ring could not be rotated; it will be tried again", "tenant", tr.tenant, "error", err)
			}
		})
	}
}

// due returns the work that is due for a ring, or nil. It decides on this instance's copy and
// clock, which costs nothing. The work itself decides again, on the ring in the store. One change a
// sync is enough, so the first that applies is returned.
func (r *Rotator) due(tr *tenantRing) func(context.Context) error {
	now := r.k.cfg.Now()
	status, c, t := tr.status.Load(), tr.state.Load(), r.k.times.Load()
	if status.err != nil || !status.fresh(now, t.fresh) {
		return nil
	}
	if c.newest() == nil {
		if c == nil && r.k.cfg.AllowBootstrap && r.wasQuiet(status, now, t) {
			return func(ctx context.Context) error { return r.bootstrap(ctx, tr.tenant) }
		}
		return nil
	}
	b := protocol.Base{Tenant: tr.tenant, Now: now, Copy: c.Copy}
	switch {
	case b.TakeOver() != nil:
		return func(ctx context.Context) error { return r.takeOver(ctx, tr.tenant) }
	case b.IsMintDue():
		return func(ctx context.Context) error { return r.mint(ctx, tr.tenant) }
	case b.Collect() != nil:
		return func(ctx context.Context) error { return r.collect(ctx, tr.tenant) }
	}
	return nil
}

// wasQuiet reports whether the store has been empty and unchanged for so long that every instance
// which holds a ring that the store lost would have restored it (timeline K).
func (r *Rotator) wasQuiet(status *syncStatus, now time.Time, t *times) bool {
	p := r.k.cfg.Policy
	return protocol.Age(now, status.quietSince) >= max(2*t.maxPollGap(), p.Freshness+p.ClockSkew)
}

// bootstrap makes the ring of a tenant that has none.
func (r *Rotator) bootstrap(ctx context.Context, tenant string) error {
	err := r.Create(ctx, tenant, r.k.cfg.Policy)
	if errors.Is(err, ring.ErrRefused) {
		return nil // another instance was first
	}
	return err
}

// mint mints the next key of a ring.
func (r *Rotator) mint(ctx context.Context, tenant string) error {
	p, _, err := r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) { return b.MintDue() })
	if p != nil {
		r.k.cfg.Logger.Info("minted the next key", "tenant", tenant, "seq", p.Seq)
	}
	return err
}

// takeOver promotes the pending key if no key signs.
func (r *Rotator) takeOver(ctx context.Context, tenant string) error {
	_, _, err := r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) { return b.TakeOver(), b.Ring() })
	return err
}

// collect removes the keys that every instance in sync has dropped.
func (r *Rotator) collect(ctx context.Context, tenant string) error {
	_, _, err := r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) { return b.Collect(), b.Ring() })
	return err
}

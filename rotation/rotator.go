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

// A Rotator rotates keys: by itself, in Run, and when it is told to. Any number of
// them may work on the same store: each decides on the ring as the store has it,
// and the second one finds the work done. It is safe for concurrent use.
//
// Besides the errors that each method names, all return errors that wrap
// [keystore.ErrUnavailable] when the store cannot be reached, the instance is
// recovering, or a field cannot be opened. Then nothing was changed, unless the error
// says that this is not known. [ErrRefused] means that a change would cost tokens.
type Rotator struct {
	k *Keyring

	mu     sync.Mutex // guards jitter
	jitter *rand.Rand // spreads the instances that decide again
}

// NewRotator returns a Rotator of the rings that k holds.
func NewRotator(k *Keyring) (*Rotator, error) {
	if k == nil {
		return nil, &ring.Error{Text: "NewRotator needs a Keyring"}
	}
	return &Rotator{k: k, jitter: newJitter(k.cfg.Instance, 1)}, nil
}

// An Option changes how a Rotator does what it is told.
type Option func(*options)

type options struct{ force bool }

// Force makes a change that would be refused. Until an instance has heard of the key
// that signs then, it refuses its tokens, or cannot tell. If that key was minted less
// than Dwell ago, no instance signs with it yet: see [Receipt]. A change that would make
// the JWK Set too large for its readers is refused even so.
func Force(o *options) { o.force = true }

func optionsOf(opts []Option) (o options) {
	for _, set := range opts {
		set(&o)
	}
	return o
}

// A Receipt describes a change that was made. Times are the store's. Fields that do not
// apply are zero.
type Receipt struct {
	Tenant   string // whose ring it is
	Revoked  string // the kid that was revoked
	Promoted string // the kid that signs from now on
	Minted   string // the kid that was minted

	RevokedAt time.Time // may be earlier than this change: a revocation is never moved
	SignsFrom time.Time // when Minted is scheduled to take effect

	// NoSignerUntil is when the tenant has a key to sign with again, or zero if it has
	// one. A forced revocation may leave it without. So may a key that was forced to
	// sign although a failover may still lose it: no instance signs with it until Dwell
	// after it was minted, and then each one after its next poll.
	NoSignerUntil time.Time

	// WorstCase is until when an instance that is cut off from the store accepts
	// tokens of the revoked key: SignFor + MaxTokenTTL + Leeway later.
	WorstCase time.Time

	// ReadersUntil is until when readers of the JWK Set, which keep it for
	// ReaderStaleness, accept tokens of the revoked key; zero if it has no readers.
	ReadersUntil time.Time

	CommittedAt time.Time // zero: there was nothing to change
	Place       Place     // in the log of the tenant's bucket; see [Rotator.Acks]
}

// maxAttempts bounds how often a change is decided again because the ring has changed meanwhile.
const maxAttempts = 12

// A decision decides about a change of a ring as the store has it. A nil proposal means that there is
// nothing to do.
type decision func(*base) (*protocol.Proposal, error)

// apply makes the change that decide decides on. The proposal is nil if there was
// nothing to do.
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

// catchUp syncs a ring that is out of date, so that a decision is not based on less than other
// instances have decided.
func (r *Rotator) catchUp(ctx context.Context, tenant string) {
	tr := r.k.ring(tenant)
	if tr == nil || tr.step.Load().fresh(r.k.cfg.Now(), r.k.times.Load().fresh) {
		return
	}
	if err := r.k.sync(ctx, tenant, ring.Facts{}); err != nil {
		r.k.cfg.Logger.Warn("out of step, and to be changed", "tenant", tenant, "error", err)
	}
}

func (r *Rotator) pause(ctx context.Context, attempt int) error {
	r.mu.Lock()
	d := 1 + r.jitter.IntN(4<<min(attempt, 6))
	r.mu.Unlock()
	select {
	case <-ctx.Done():
		return &ring.Error{Err: cannotTell(ctx.Err())}
	case <-time.After(time.Duration(d) * time.Millisecond):
		return nil
	}
}

// A base is a ring as the store had it at one moment, with its sealed bytes.
type base struct {
	protocol.Base
	have     *ringCopy // Base.Copy with its bytes
	digest   string    // "" if there is no ring
	minted   *mintMaterial
	sent     time.Time // around Now, by our clock
	received time.Time
}

// base reads the ring as the store has it. It returns an error if nothing may be decided on that ring:
// a field cannot be opened, the store lacks something that this instance holds, or the instance is not
// in sync. create means that no ring should exist yet; then it only fails if this instance holds one.
func (r *Rotator) base(ctx context.Context, tenant string, create bool) (*base, error) {
	tr := r.k.ring(tenant)
	if tr == nil && !(create && r.k.holdsAll()) {
		return nil, r.k.missingRing(tenant)
	}
	var mine *ringCopy
	var step *syncStatus
	if tr != nil {
		step, mine = tr.step.Load(), tr.state.Load()
	}
	t := r.k.times.Load()
	if err := r.outOfStep(tr, create); err != nil {
		return nil, err
	}
	callCtx, cancel := context.WithTimeout(ctx, t.deadline)
	defer cancel()
	sent := r.k.cfg.Now()
	snap := r.k.store.Load(callCtx, []string{tenant})[0]
	received := r.k.cfg.Now()
	if snap.Err != nil {
		return nil, inTenant(tenant, cannotTell(snap.Err))
	}
	opened, err := seal.OpenRing(r.k.cfg.KEKs.sealing(), tenant, snap.Fields)
	if err != nil {
		return nil, cannotTell(err)
	}
	have := openCopy(mine, snap.Fields, opened)
	b := &base{
		Base: protocol.Base{Tenant: tenant, Now: snap.Now.UTC().Truncate(time.Millisecond), Deadline: t.deadline, Copy: have.Copy},
		have: have, digest: snap.Digest, sent: sent, received: received,
	}
	if mine != nil {
		in := protocol.MergeInput{Held: mine.Copy, Stored: have.Copy, Now: b.Now, Good: step.Good, LocalNow: r.k.cfg.Now(), Deadline: t.deadline}
		if protocol.Merge(in).Change != nil {
			return nil, inTenant(tenant, &ring.Error{Kind: keystore.ErrUnavailable, Text: "the store lacks what this instance holds; it is being put back"})
		}
	}
	if err := checkClock(snap.Now, sent, received, have.ClockSkew()); err != nil {
		return nil, inTenant(tenant, err)
	}
	return b, r.outOfStep(tr, create) // a sync may have found something meanwhile
}

// outOfStep returns why this instance may not decide about a ring, or nil.
func (r *Rotator) outOfStep(tr *tenantRing, create bool) error {
	now := r.k.cfg.Now()
	if create || tr.step.Load().fresh(now, r.k.times.Load().fresh) {
		return nil
	}
	s := r.k.status(tr, now)
	return inTenant(tr.tenant, cannotTell(s.Err))
}

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
		return Result{}, &ring.Error{Text: fmt.Sprintf("tenant %q: it is not known whether the change was made", b.Tenant), Err: cannotTell(err)}
	}
	return result, nil
}

// remember makes this process know the change that it has written. The change is made, whether or not
// that succeeds now.
func (r *Rotator) remember(ctx context.Context, tenant string, p *protocol.Proposal) {
	var learned ring.Facts
	for _, f := range p.Facts {
		learned.Add(f.Kind, f.KID, f.At)
	}
	if err := r.k.sync(ctx, tenant, learned); err != nil {
		r.k.cfg.Logger.Warn("changed, and not read again yet", "tenant", tenant, "op", string(p.Op), "error", err)
	}
}

// Create makes the first ring of a tenant: one key that signs now, and one that is
// pending. It refuses if there is a ring. It does not wait until the instance has
// recovered: the caller states that the tenant has no ring.
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
			return nil, inTenant(tenant, err) // the tenant has no policy yet that would be checked
		}
		return b.Create(policy)
	})
	return err
}

// policy returns p with its defaults, if it is valid, and this instance polls often enough for it.
func (r *Rotator) policy(p ring.Policy) (ring.Policy, error) {
	if err := p.Validate(); err != nil {
		return p, err
	}
	p = p.WithDefaults()
	return p, r.k.checkTimes(p.Freshness)
}

// SetPolicy mints the next key of a tenant under another policy. The policy takes effect
// with that key, after all keys that are pending already.
func (r *Rotator) SetPolicy(ctx context.Context, tenant string, policy ring.Policy) error {
	policy, err := r.policy(policy)
	if err != nil {
		return err
	}
	_, _, err = r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) { return b.SetPolicy(policy) })
	return err
}

// Rotate makes the pending key sign now, and mints the next. It is refused before
// the pending key has been published for Freshness and ClockSkew, and
// ReaderStaleness if others read it. If no key is pending one is minted, and the
// refusal says from when on it may sign.
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

// Promote makes a pending key sign now, under the same conditions as Rotate. Forced,
// it need not be the next.
func (r *Rotator) Promote(ctx context.Context, tenant, kid string, opts ...Option) (Receipt, error) {
	o := optionsOf(opts)
	p, result, err := r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) { return b.Promote(kid, o.force) })
	if err != nil {
		return Receipt{}, err
	}
	return receiptOf(p, tenant, result), nil
}

// Revoke ends a key: every instance rejects its tokens once it is nudged or polls. If the
// key signs, the pending key takes over in the same step. If none can, Revoke is refused.
// If it is forced even so, a key is minted, and no key signs until that one is known: see
// [Receipt]. To revoke a key again changes nothing.
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

// receiptOf returns the receipt of a proposal that was committed.
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

// Acks returns which instances have acknowledged the change to the store, and which have
// not. An instance whose last acknowledgement is old has ended, or is cut off.
func (r *Rotator) Acks(ctx context.Context, receipt Receipt) ([]Ack, error) {
	ctx, cancel := context.WithTimeout(ctx, r.k.times.Load().deadline)
	defer cancel()
	acks, err := r.k.store.Acks(ctx, BucketOf(receipt.Tenant), receipt.Place)
	if err != nil {
		return nil, inTenant(receipt.Tenant, cannotTell(err))
	}
	return acks, nil
}

// rotateAtOnce is how many rings Run works on at once.
const rotateAtOnce = 4

// Run mints, for every tenant, the next key whenever none is pending, removes the records
// of dropped keys, and makes the first rings if [Config.AllowBootstrap] is set. It does so
// only for rings that are in sync. A failure is logged, and retried. It returns nil when
// ctx ends or the keyring is closed.
//
// Let it run in several instances: they do not disturb each other.
func (r *Rotator) Run(ctx context.Context) error {
	for {
		moved := r.k.loop.moved()
		r.sweep(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-r.k.done:
			return nil
		case <-moved:
		}
	}
}

// sweep does the work that is due for any ring.
func (r *Rotator) sweep(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, rotateAtOnce)
	for _, tr := range r.k.all() {
		work := r.due(tr)
		if work == nil || ctx.Err() != nil {
			continue
		}
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			if err := work(ctx); err != nil && ctx.Err() == nil {
				r.k.cfg.Logger.Warn("a ring could not be turned; it will be tried again", "tenant", tr.tenant, "error", err)
			}
		})
	}
}

// due returns the work that is due for a ring, or nil.
func (r *Rotator) due(tr *tenantRing) func(context.Context) error {
	now := r.k.cfg.Now()
	step, h, t := tr.step.Load(), tr.state.Load(), r.k.times.Load()
	if step.err != nil || !step.fresh(now, t.fresh) {
		return nil
	}
	if h.newest() == nil {
		if h == nil && r.k.cfg.AllowBootstrap && r.wasQuiet(step, now, t) {
			return func(ctx context.Context) error { return r.bootstrap(ctx, tr.tenant) }
		}
		return nil
	}
	b := protocol.Base{Tenant: tr.tenant, Now: now, Copy: h.Copy}
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

// wasQuiet reports whether the store has been unchanged for so long that an instance that holds
// something the store has lost would have restored it.
func (r *Rotator) wasQuiet(step *syncStatus, now time.Time, t *times) bool {
	p := r.k.cfg.Policy
	return protocol.Age(now, step.quietSince) >= max(2*t.w(), p.Freshness+p.ClockSkew)
}

func (r *Rotator) bootstrap(ctx context.Context, tenant string) error {
	err := r.Create(ctx, tenant, r.k.cfg.Policy)
	if errors.Is(err, ring.ErrRefused) {
		return nil // another instance was first
	}
	return err
}

func (r *Rotator) mint(ctx context.Context, tenant string) error {
	p, _, err := r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) { return b.MintDue() })
	if p != nil {
		r.k.cfg.Logger.Info("minted the next key", "tenant", tenant, "seq", p.Seq)
	}
	return err
}

func (r *Rotator) takeOver(ctx context.Context, tenant string) error {
	_, _, err := r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) { return b.TakeOver(), b.Ring() })
	return err
}

func (r *Rotator) collect(ctx context.Context, tenant string) error {
	_, _, err := r.apply(ctx, tenant, false, func(b *base) (*protocol.Proposal, error) { return b.Collect(), b.Ring() })
	return err
}
